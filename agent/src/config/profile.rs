//! Shipped sets of settings, one for a purpose each: `config/profiles/`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings for a purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// A developer's machine: everything is shown, and soon.
    Development,
    /// A rehearsal: as in production, with more examples.
    Staging,
    /// Many servers and much traffic: few examples, JSON logs.
    Production,
    /// Nothing that could be personal leaves the host: no texts, no users, no applications, no end points beyond the host.
    Secure,
    /// The least that is useful: totals of few statements, no examples.
    Minimal,
    /// New Relic over OTLP, with what it would refuse mended; the key is read from NEW_RELIC_LICENSE_KEY.
    Newrelic,
    /// Scraped by Prometheus, with what it can hold.
    Prometheus,
}

impl Profile {
    /// All of them.
    pub const ALL: [Profile; 7] = [
        Profile::Development,
        Profile::Staging,
        Profile::Production,
        Profile::Secure,
        Profile::Minimal,
        Profile::Newrelic,
        Profile::Prometheus,
    ];

    /// Its name in the configuration, and that of its file.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Development => "development",
            Profile::Staging => "staging",
            Profile::Production => "production",
            Profile::Secure => "secure",
            Profile::Minimal => "minimal",
            Profile::Newrelic => "newrelic",
            Profile::Prometheus => "prometheus",
        }
    }

    /// Its settings, as YAML.
    pub fn text(self) -> &'static str {
        match self {
            Profile::Development => include_str!("../../../config/profiles/development.yaml"),
            Profile::Staging => include_str!("../../../config/profiles/staging.yaml"),
            Profile::Production => include_str!("../../../config/profiles/production.yaml"),
            Profile::Secure => include_str!("../../../config/profiles/secure.yaml"),
            Profile::Minimal => include_str!("../../../config/profiles/minimal.yaml"),
            Profile::Newrelic => include_str!("../../../config/profiles/newrelic.yaml"),
            Profile::Prometheus => include_str!("../../../config/profiles/prometheus.yaml"),
        }
    }
}
