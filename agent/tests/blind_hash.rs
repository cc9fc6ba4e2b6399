//! The kernel's hash of a text is finer than its fingerprint: texts that the kernel counts together are the same statement.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::HashMap;

use agent_ebpf::blind::{dialect, hash};
use proptest::{prelude::*, sample::select};
use querylens::{model::Engine, sql::Normaliser};

fn dialect_of(engine: Engine) -> usize {
    match engine {
        Engine::Postgresql => dialect::POSTGRESQL,
        Engine::Mysql | Engine::Mariadb => dialect::MYSQL,
    }
}

/// Pieces that meet in all orders: everything at which a literal may begin or end, and what may be taken for it.
const PIECES: &[&str] = &[
    "SELECT",
    " ",
    "\n",
    "a",
    "t1",
    "t2",
    "1",
    "23",
    "4.5",
    ".5",
    "1e5",
    "0x1F",
    "'",
    "''",
    "'a'",
    "\"",
    "\"b\"",
    "`",
    "`c`",
    "$",
    "$1",
    "$$",
    "$x$",
    "--",
    "-- ",
    "- ",
    "/*",
    "*/",
    "/*!",
    "/*+",
    "/*M!",
    "/",
    "*",
    "#",
    "\\",
    "\\'",
    ";",
    "; ",
    ".",
    ",",
    "(",
    ")",
    "[",
    "]",
    "=",
    "::",
    ":",
    "@",
    "@@",
    "?",
    "E'",
    "N'",
    "_utf8'x'",
    "U&'",
    "x'1F'",
    "\u{e9}",
    "IN (1, 2)",
    "IN (1)",
    "VALUES (1), (2)",
    "NULL",
    "-1",
    "+",
    "{",
    "}",
    "\t",
    "\r",
    "\u{1}",
    "--\u{1}",
    "a.5",
    "5a",
];

fn text() -> impl Strategy<Value = String> {
    proptest::collection::vec(select(PIECES), 1..9).prop_map(|pieces| pieces.concat())
}

/// The text with each run of digits and the inside of each plain string replaced: what the hash is blind to, in a crude way.
fn varied(text: &str, digit: char) -> String {
    text.chars().map(|character| if character.is_ascii_digit() { digit } else { character }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60_000, ..ProptestConfig::default() })]

    #[test]
    fn same_hash_means_same_fingerprint(texts in proptest::collection::vec(text(), 1..12)) {
        for engine in [Engine::Postgresql, Engine::Mysql] {
            let mut normaliser = Normaliser::default();
            let mut seen: HashMap<u64, (u64, String)> = HashMap::new();
            for text in texts.iter().flat_map(|text| [text.clone(), varied(text, '7'), varied(text, '0')]) {
                let Some(hash) = hash(dialect_of(engine), text.as_bytes()) else { continue };
                let fingerprint = normaliser.digest(engine, text.as_bytes(), false).fingerprint;
                let (other, first) = seen.entry(hash).or_insert_with(|| (fingerprint, text.clone()));
                prop_assert_eq!(*other, fingerprint, "{:?}: {:?} and {:?} have one hash", engine, first, text);
            }
        }
    }
}

/// Real statements, each with its fingerprint.
#[test]
fn recorded_statements_with_one_hash_have_one_fingerprint() {
    let table = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/sql/same.tsv")).unwrap();
    let (mut seen, mut known) = (HashMap::new(), 0);
    let mut normaliser = Normaliser::default();
    for text in table.lines().filter(|line| !line.starts_with('#')).flat_map(|line| line.split('\t')) {
        for engine in [Engine::Postgresql, Engine::Mysql] {
            let Some(hash) = hash(dialect_of(engine), text.as_bytes()) else { continue };
            known += 1;
            let fingerprint = normaliser.digest(engine, text.as_bytes(), false).fingerprint;
            assert_eq!(*seen.entry((dialect_of(engine), hash)).or_insert(fingerprint), fingerprint, "{text}");
        }
    }
    assert!(known > 50, "only {known} texts are known to the kernel");
}
