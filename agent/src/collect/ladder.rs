//! Every question has rungs, best first, and stands on the first one whose needs are met. Below the last one lies the wire, which costs the database nothing.

use std::collections::BTreeMap;

use super::facts::{Facts, Grant};
use crate::model::{Engine, Question, Standing, Verdict};

/// Name of the lowest rung of every ladder.
pub(super) const WIRE_ONLY: &str = "wire only";

/// What a rung stands on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Need {
    /// A server of this version at least, as in [`Facts::version`], and how people write that version.
    Version(u32, &'static str),
    /// An extension of this version at least, as in [`super::facts::Extension::version`].
    Extension(&'static str, u32),
    /// A library that was loaded at the server's start.
    Preloaded(&'static str),
    /// A setting that is one of these.
    Setting(&'static str, &'static [&'static str]),
    /// A privilege.
    Grant(Grant),
    /// The server's software.
    Engine(Engine),
}

impl Need {
    /// Whether it is met; why not, and what to do, if not.
    fn check(&self, facts: &Facts) -> Verdict {
        let name = facts.engine.name();
        let met = match *self {
            Need::Version(least, _) => facts.version >= least,
            Need::Extension(extension, least) => {
                facts.extensions.get(extension).is_some_and(|own| own.version >= least)
            }
            Need::Preloaded(library) => {
                // Where the setting may not be read, trying is the only way to know.
                let libraries = facts.settings.get("shared_preload_libraries");
                libraries.is_none_or(|list| list.split(',').any(|own| own.trim().trim_matches('"') == library))
            }
            Need::Setting(setting, values) => facts.is_set(setting, values),
            Need::Grant(grant) => facts.grants(grant),
            Need::Engine(engine) => facts.engine == engine,
        };
        if met {
            return Verdict::Ok;
        }
        match *self {
            Need::Version(_, least) => Verdict::Unsupported(format!("needs {name} {least} or later")),
            Need::Engine(engine) => Verdict::NotApplicable(format!("is for {engine}")),
            Need::Extension(extension, least) => Verdict::Unsupported(match facts.extensions.get(extension) {
                None => format!("database {} lacks the extension: CREATE EXTENSION {extension} there", facts.database),
                Some(own) => format!(
                    "needs version {}.{} of the extension, which has {}.{}: ALTER EXTENSION {extension} UPDATE",
                    least / 100,
                    least % 100,
                    own.version / 100,
                    own.version % 100
                ),
            }),
            Need::Preloaded(library) => {
                Verdict::Unsupported(format!("shared_preload_libraries lacks {library}: add it and restart the server"))
            }
            Need::Setting(setting, values) => {
                let own = facts.settings.get(setting).map_or("absent", String::as_str);
                Verdict::Unsupported(format!("needs {setting} = {}, which is {own}", values.join(" or ")))
            }
            Need::Grant(grant) => Verdict::Denied(format!("the account {} lacks the {}", facts.account, grant.name())),
        }
    }
}

/// One way of asking a question.
#[derive(Debug)]
pub(super) struct Rung {
    pub(super) name: &'static str,
    pub(super) needs: &'static [Need],
}

/// Rungs that failed though their needs are met, until the facts are read again.
#[derive(Clone, Debug, Default)]
pub(super) struct Fallen(BTreeMap<(Question, &'static str), Verdict>);

impl Fallen {
    /// Notes that a rung does not hold.
    pub(super) fn add(&mut self, question: Question, rung: &'static str, why: Verdict) {
        self.0.insert((question, rung), why);
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// The highest rung that holds, and why not those above it.
pub(super) fn climb(question: Question, rungs: &[Rung], facts: &Facts, fallen: &Fallen) -> Standing {
    let mut above = Vec::new();
    for rung in rungs {
        let unmet = rung.needs.iter().map(|need| need.check(facts)).find(|verdict| !verdict.is_ok());
        match unmet.or_else(|| fallen.0.get(&(question, rung.name)).cloned()) {
            None => return Standing { question, rung: rung.name, above },
            Some(verdict) => above.push((rung.name, verdict)),
        }
    }
    Standing { question, rung: WIRE_ONLY, above }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::facts::{Extension, sample};

    const RUNGS: &[Rung] = &[
        Rung { name: "best", needs: &[Need::Extension("pg_x", 111), Need::Preloaded("pg_x")] },
        Rung { name: "good", needs: &[Need::Version(140_000, "14"), Need::Grant(Grant::AllStats)] },
    ];

    fn stands_on(facts: &Facts, fallen: &Fallen) -> Standing {
        climb(Question::Statements, RUNGS, facts, fallen)
    }

    #[test]
    fn the_first_rung_whose_needs_are_met_is_taken() {
        let mut facts = sample(Engine::Postgresql);
        let standing = stands_on(&facts, &Fallen::default());
        assert_eq!(standing.rung, "good");
        assert!(standing.above[0].1.reason().contains("CREATE EXTENSION pg_x"), "{standing:?}");
        facts.extensions.insert("pg_x".into(), Extension { version: 109, schema: "public".into() });
        assert!(stands_on(&facts, &Fallen::default()).above[0].1.reason().contains("needs version 1.11"));
        facts.extensions.insert("pg_x".into(), Extension { version: 112, schema: "public".into() });
        assert_eq!(stands_on(&facts, &Fallen::default()).rung, "best");
        facts.settings.insert("shared_preload_libraries".into(), "auto_explain, \"pg_x\"".into());
        assert_eq!(stands_on(&facts, &Fallen::default()).rung, "best");
        facts.settings.insert("shared_preload_libraries".into(), "auto_explain".into());
        assert_eq!(stands_on(&facts, &Fallen::default()).rung, "good");
    }

    #[test]
    fn what_is_not_allowed_ends_at_the_wire_and_says_so() {
        let facts = Facts { superuser: false, ..sample(Engine::Postgresql) };
        let standing = stands_on(&facts, &Fallen::default());
        assert_eq!((standing.rung, standing.above.len()), (WIRE_ONLY, 2));
        assert!(matches!(&standing.above[1].1, Verdict::Denied(why) if why.contains("pg_read_all_stats")));
    }

    #[test]
    fn a_rung_that_fell_is_not_stepped_on_until_the_facts_are_new() {
        let facts = sample(Engine::Postgresql);
        let mut fallen = Fallen::default();
        fallen.add(Question::Statements, "good", Verdict::Broken("it fell".into()));
        assert_eq!(stands_on(&facts, &fallen).rung, WIRE_ONLY);
        fallen.clear();
        assert_eq!(stands_on(&facts, &fallen).rung, "good");
    }
}
