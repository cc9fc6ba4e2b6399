//! How a question to the outside world ended.

use serde::Serialize;

/// Outcome of probing a kernel feature, a server or a login, with the reason where there is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", content = "reason", rename_all = "snake_case")]
pub enum Verdict {
    /// It works.
    Ok,
    /// This kernel, machine or server does not have it.
    Unsupported(String),
    /// It exists, but this process may not use it.
    Denied(String),
    /// It should work but failed.
    Broken(String),
    /// The question makes no sense here.
    NotApplicable(String),
}

impl Verdict {
    /// Whether it works.
    pub fn is_ok(&self) -> bool {
        matches!(self, Verdict::Ok)
    }

    /// The reason, empty for [`Verdict::Ok`].
    pub fn reason(&self) -> &str {
        match self {
            Verdict::Ok => "",
            Verdict::Unsupported(why) | Verdict::Denied(why) | Verdict::Broken(why) | Verdict::NotApplicable(why) => {
                why
            }
        }
    }

    /// One word for tables.
    pub fn word(&self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Unsupported(_) => "unsupported",
            Verdict::Denied(_) => "denied",
            Verdict::Broken(_) => "broken",
            Verdict::NotApplicable(_) => "not applicable",
        }
    }
}
