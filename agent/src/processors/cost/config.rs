//! Settings of the cost control.

use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{HumanDuration, Problem};

/// What a month may cost, and what is left out before it costs more. Exact totals, findings and health never are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Look after the budget. Without it, volumes are counted only.
    pub enabled: bool,
    /// In US dollars a calendar month.
    pub monthly_budget_usd: f64,
    /// In US dollars a gigabyte (10^9 bytes).
    pub price_per_gb: f64,
    /// Gigabytes a month that cost nothing.
    pub free_gb: f64,
    /// Time zone that months begin in, by its IANA name.
    pub time_zone: String,
    /// Executions of this duration or longer are kept on all rungs but the last.
    pub slow_threshold: HumanDuration,
    /// Statements of a server and database that are told apart on the last rung, the most expensive ones; the others are counted together.
    #[schemars(range(min = 1, max = MAX_STATEMENTS))]
    pub top_statements: usize,
    /// A rung is left after so long a time at the earliest.
    pub hold: HumanDuration,
}

const MAX_STATEMENTS: usize = 100_000;
const HOLDS: std::ops::RangeInclusive<HumanDuration> =
    HumanDuration::from_secs(1)..=HumanDuration::from_secs(7 * 86_400);

impl Default for Config {
    fn default() -> Config {
        Config {
            enabled: false,
            monthly_budget_usd: 1000.0,
            // New Relic's list prices: 0.30 to 0.40, with Data Plus 0.50 to 0.60, and 100 GB free.
            price_per_gb: 0.35,
            free_gb: 100.0,
            time_zone: "UTC".into(),
            slow_threshold: HumanDuration::from_secs(2),
            top_statements: 100,
            hold: HumanDuration::from_secs(3600),
        }
    }
}

impl Config {
    /// Values that cannot work.
    pub fn check(&self) -> impl Iterator<Item = Problem> {
        let zone = TimeZone::get(&self.time_zone).is_err().then(|| {
            Problem::new("time_zone", "is no name of the IANA time zone database, such as `UTC` or `Europe/Berlin`")
        });
        [
            Problem::out_of_range("monthly_budget_usd", &self.monthly_budget_usd, 0.01..=1e9),
            Problem::out_of_range("price_per_gb", &self.price_per_gb, 0.0..=1e6),
            Problem::out_of_range("free_gb", &self.free_gb, 0.0..=1e9),
            zone,
            Problem::out_of_range("top_statements", &self.top_statements, 1..=MAX_STATEMENTS),
            Problem::out_of_range("hold", &self.hold, HOLDS),
        ]
        .into_iter()
        .flatten()
    }
}
