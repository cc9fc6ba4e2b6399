//! What is compared: what a server may load to know its own statements.

use anyhow::Result;
use querylens_tests::extension::Extended;

use crate::workload::{DATABASE, with_base};

/// What the server loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Variant {
    /// Nothing.
    Nothing,
    /// The same once more: what chance does.
    NothingAgain,
    /// pg_querylens as it is when loaded.
    Querylens,
    /// pg_querylens without its samples of nodes.
    QuerylensUnsampled,
    /// pg_stat_statements as it is when loaded.
    PgStatStatements,
    /// auto_explain with log_analyze, writing plans of statements over 100 ms.
    AutoExplain,
}

impl Variant {
    /// All of them.
    pub(super) const ALL: [Variant; 6] = [
        Variant::Nothing,
        Variant::NothingAgain,
        Variant::Querylens,
        Variant::QuerylensUnsampled,
        Variant::PgStatStatements,
        Variant::AutoExplain,
    ];

    /// In results.
    pub(super) fn name(self) -> &'static str {
        match self {
            Variant::Nothing => "nothing",
            Variant::NothingAgain => "nothing_again",
            Variant::Querylens => "querylens",
            Variant::QuerylensUnsampled => "querylens_unsampled",
            Variant::PgStatStatements => "pg_stat_statements",
            Variant::AutoExplain => "auto_explain",
        }
    }

    fn libraries(self) -> &'static str {
        match self {
            Variant::Nothing | Variant::NothingAgain => "''",
            Variant::Querylens | Variant::QuerylensUnsampled => "'pg_querylens'",
            Variant::PgStatStatements => "'pg_stat_statements'",
            Variant::AutoExplain => "'auto_explain'",
        }
    }

    fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Variant::QuerylensUnsampled => &[("pg_querylens.sample_rate", "0")],
            Variant::AutoExplain => &[("auto_explain.log_analyze", "on"), ("auto_explain.log_min_duration", "'100ms'")],
            _ => &[],
        }
    }

    /// Makes the server run with it, with all tables in memory. Also where nothing changes: all variants have the same files, and none keeps the luck
    /// of one placement in memory through all rounds.
    pub(super) fn begin(self, server: &mut Extended, clients: u32) -> Result<()> {
        let own = self.settings().iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let settings = with_base(clients, own.collect());
        let settings: Vec<(&str, &str)> =
            settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        server.restart(self.libraries(), &settings)?;
        let mut client = server.server.client(DATABASE)?;
        client.query("CREATE EXTENSION IF NOT EXISTS pg_prewarm")?;
        let tables = "relname ~ '^(pgbench_|wide)' AND relkind IN ('r', 'i') AND pg_relation_size(oid) > 0";
        client.query(&format!("SELECT sum(pg_prewarm(oid)) FROM pg_class WHERE {tables}")).map(drop)
    }
}
