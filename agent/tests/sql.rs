//! The normaliser against tables in tests/sql/, whose forms the README there explains.

#![allow(missing_docs, clippy::unwrap_used)]

use std::{fmt::Write, fs, path::Path};

use querylens::{
    model::{Digest, Engine},
    sql::Normaliser,
};

fn digest(engine: Engine, text: &str, truncated: bool) -> Digest {
    Normaliser::default().digest(engine, text.as_bytes(), truncated)
}

/// The rows of a table: fields between tabs, with `\n`, `\t` and `\\` for what cannot stand in one; `#` begins a remark.
fn table(name: &str) -> Vec<(usize, Vec<String>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/sql").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let rows: Vec<_> = (1..)
        .zip(text.lines())
        .filter(|(_, line)| !line.is_empty() && !line.starts_with("# "))
        .map(|(number, line)| (number, line.split('\t').map(unescape).collect()))
        .collect();
    assert!(!rows.is_empty(), "{} is empty", path.display());
    rows
}

fn unescape(field: &str) -> String {
    let mut chars = field.chars();
    let mut plain = String::new();
    while let Some(char) = chars.next() {
        plain.push(match char {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('r') => '\r',
                Some('\\') => '\\',
                other => panic!("escape {other:?} in {field}"),
            },
            plain => plain,
        });
    }
    plain
}

fn engine(name: &str) -> Engine {
    *[Engine::Postgresql, Engine::Mysql, Engine::Mariadb]
        .iter()
        .find(|engine| engine.name() == name)
        .unwrap_or_else(|| panic!("engine {name}"))
}

/// Runs `check` over a table; each row's answer is `Ok` or what is wrong, and all wrong rows are shown at once.
fn check(name: &str, check: impl Fn(&[&str]) -> Result<(), String>) {
    let mut failures = String::new();
    for (number, row) in table(name) {
        let row: Vec<&str> = row.iter().map(String::as_str).collect();
        if let Err(failure) = check(&row) {
            writeln!(failures, "{name}:{number}: {}\n{failure}\n", row.join(" | ")).unwrap();
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}

fn same(engine: Engine, texts: &[&str]) -> Result<(), String> {
    let digests: Vec<Digest> = texts.iter().map(|text| digest(engine, text, false)).collect();
    let differ = digests.iter().any(|digest| *digest != digests[0]);
    if differ || digests[0].text.starts_with('<') {
        return Err(digests.iter().map(|digest| format!("  {:016x} {}\n", digest.fingerprint, digest.text)).collect());
    }
    Ok(())
}

#[test]
fn a_statement_on_the_wire_is_the_one_in_pg_stat_statements() {
    check("pg_stat_statements.tsv", |row| same(Engine::Postgresql, row));
}

#[test]
fn a_statement_on_the_wire_is_the_one_in_performance_schema() {
    check("performance_schema.tsv", |row| same(Engine::Mariadb, row));
    check("performance_schema.tsv", |row| same(Engine::Mysql, row));
}

#[test]
fn spellings_of_a_statement_are_one() {
    check("same.tsv", |row| same(engine(row[0]), &row[1..]));
}

#[test]
fn different_statements_stay_different() {
    check("different.tsv", |row| {
        let mut digests: Vec<Digest> = row[1..].iter().map(|text| digest(engine(row[0]), text, false)).collect();
        digests.sort_by_key(|digest| digest.fingerprint);
        match digests.windows(2).find(|pair| pair[0].fingerprint == pair[1].fingerprint) {
            Some(pair) => Err(format!("  two are {}", pair[0].text)),
            None => Ok(()),
        }
    });
}

fn expect(found: &str, expected: &str) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("  expected {expected}\n  found    {found}")) }
}

#[test]
fn a_statement_has_its_text() {
    check("text.tsv", |row| expect(&digest(engine(row[0]), row[1], false).text, row.get(2).unwrap_or(&"")));
}

#[test]
fn a_truncated_statement_is_cut_at_a_token() {
    check("truncated.tsv", |row| expect(&digest(engine(row[0]), row[1], true).text, row[2]));
}

#[test]
fn a_statement_has_its_summary() {
    check("summary.tsv", |row| {
        let digest = digest(engine(row[0]), row[1], false);
        let found =
            [&digest.summary, digest.operation.as_deref().unwrap_or("-"), digest.collection.as_deref().unwrap_or("-")]
                .join(" | ");
        expect(&found, &row[2..].join(" | "))
    });
}

#[test]
fn a_long_summary_ends_at_a_name() {
    let tables: Vec<String> = (0..100).map(|number| format!("table_{number}")).collect();
    let digest = digest(Engine::Postgresql, &format!("SELECT * FROM {}", tables.join(", ")), false);
    assert!(digest.summary.len() <= 255 && digest.summary.len() > 240, "{}", digest.summary.len());
    assert!(format!("SELECT {} ", tables.join(" ")).starts_with(&format!("{} ", digest.summary)));
    assert_eq!(digest.collection, None);
}

#[test]
fn a_fingerprint_never_changes() {
    check("fingerprint.tsv", |row| {
        expect(&format!("{:016x}", digest(engine(row[0]), row[1], false).fingerprint), row[2])
    });
}

#[test]
fn literals_end_where_the_server_ends_them() {
    check("lexical.tsv", |row| {
        let digest = digest(engine(row[0]), row[1], false);
        if format!("{digest:?}").contains("secret") {
            return Err(format!("  shows the secret: {}", digest.text));
        }
        expect(&digest.text, row[2])
    });
}

/// Scenario: the table of lexical hazards goes through the tokenizer of sqlparser, which parses other parts of the SQL world well.
/// Guarantees: one reason for a lexer of our own, that sqlparser shows what is a literal or a comment to the server or fails, is true of the
/// version we name; the other is in benches/sql.rs. When this fails, sqlparser has changed: see whether the lexer can go.
#[test]
fn sqlparser_reads_some_of_them_otherwise() {
    use sqlparser::{
        dialect::{Dialect, MySqlDialect, PostgreSqlDialect},
        tokenizer::{Token, Tokenizer},
    };
    check("lexical.tsv", |row| {
        let dialect: &dyn Dialect =
            if engine(row[0]) == Engine::Postgresql { &PostgreSqlDialect {} } else { &MySqlDialect {} };
        let shows = |token: &Token| match token {
            Token::Placeholder(name) => name.contains("secret"),
            Token::Word(word) => word.value == "0b101" || word.value.contains("secret"),
            _ => false,
        };
        let found = match Tokenizer::new(dialect, row[1]).tokenize() {
            Ok(tokens) if tokens.iter().any(shows) => "shows",
            Ok(_) => "hides",
            Err(_) => "fails",
        };
        expect(found, row[3])
    });
}
