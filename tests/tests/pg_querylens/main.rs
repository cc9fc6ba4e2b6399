//! Guarantee: the extension pg_querylens knows by which plan each statement was executed, counts what pg_stat_statements counts, shows no literal,
//! changes no result, and does no harm to the server, whatever goes wrong.
//!
//! Not proven here: versions without a server on this machine; what it costs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

/// One test a major version, so that a failure says which, and a name can choose one.
macro_rules! on_each_version {
    ($($test:ident)*) => {
        $(mod $test {
            on_each_version! { @ $test pg_querylens_13 13 }
            on_each_version! { @ $test pg_querylens_14 14 }
            on_each_version! { @ $test pg_querylens_15 15 }
            on_each_version! { @ $test pg_querylens_16 16 }
            on_each_version! { @ $test pg_querylens_17 17 }
            on_each_version! { @ $test pg_querylens_18 18 }
        })*
    };
    (@ $test:ident $name:ident $major:literal) => {
        #[test]
        #[ignore = "needs root, servers and the built extension: cargo xtask test querylens"]
        fn $name() {
            super::$test($major);
        }
    };
}

mod counting;
mod identity;
mod memory;
mod random;
mod safety;
mod views;

const PATIENCE: Duration = Duration::from_secs(30);
/// Nothing but what a test asks for.
const QUIET: &[(&str, &str)] = &[("pg_querylens.track", "none"), ("autovacuum", "off"), ("jit", "off")];
