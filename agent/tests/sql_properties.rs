//! What holds for every text: no literal leaves, a normalised text is its own normalised text, and nothing panics or grows without bound.

#![allow(missing_docs, clippy::unwrap_used)]

use proptest::{prelude::*, sample::select};
use querylens::{
    model::{Digest, Engine},
    sql::{Normaliser, traceparent},
};

const ENGINES: [Engine; 3] = [Engine::Postgresql, Engine::Mysql, Engine::Mariadb];
const UNPARSABLE: &str = "<unparsable>";

fn digest(engine: Engine, text: &[u8], truncated: bool) -> Digest {
    Normaliser::default().digest(engine, text, truncated)
}

/// Statements with places for literals (`{}`) and for blanks that may be comments (`~`).
const TEMPLATES: &[&str] = &[
    "SELECT a FROM t WHERE b = {} AND c IN ({}, {}, {})~ORDER BY d",
    "INSERT INTO t (a, b) VALUES ({}, {}), ({}, {})~",
    "UPDATE t SET a = {}, b = b + {}~WHERE c BETWEEN {} AND {}",
    "DELETE FROM t WHERE a LIKE {}~OR b IS NOT NULL",
    "SELECT f({}, a, {}), CASE WHEN x = {} THEN {} ELSE {} END~FROM t",
    "SELECT {}",
    "SELECT {} AS x, count(*)~FROM s.t JOIN u ON t.a = u.a AND u.b > {} GROUP BY 1 LIMIT {}",
    "CALL p({}, {})",
    "SET x = {}",
    "CREATE TABLE t (a varchar(10) DEFAULT {})",
    "ALTER USER bob PASSWORD {}",
    "COPY t FROM {}",
    "WITH c AS (SELECT * FROM t WHERE a = {})~SELECT * FROM c WHERE b = {}; SELECT {}",
    "DO {}",
    "EXPLAIN SELECT * FROM t WHERE a = {}",
    "GRANT ALL ON t TO {}",
    "{}",
    "SELECT ({}) - {} + ({}, {})",
];

/// All literal secrets hold this, or its digits, or its bytes in hexadecimal.
const WORD: &str = "zqwjx";
const DIGITS: &str = "908173";
const HEX: &str = "7a71776a78";

fn shows_secret(text: &str) -> bool {
    let lower = text.to_lowercase();
    [WORD, DIGITS, HEX].iter().any(|secret| lower.contains(secret))
}

/// Characters around the secret in a string, hostile to lexers.
fn string_content() -> BoxedStrategy<String> {
    let piece = select(vec![
        "'",
        "\"",
        "\\",
        "`",
        "$",
        "$$",
        "--",
        "/*",
        "*/",
        "#",
        "\n",
        ";",
        ",",
        "(",
        ")",
        "?",
        "é",
        "表",
        " ",
        "a",
        "$t$",
        "::",
        "'; DROP TABLE x; --",
        "\\'",
        "\t",
    ]);
    (prop::collection::vec(piece.clone(), 0..4), prop::collection::vec(piece, 0..4))
        .prop_map(|(before, after)| format!("{}{WORD}{}", before.concat(), after.concat()))
        .boxed()
}

fn literal(engine: Engine) -> BoxedStrategy<String> {
    let string = string_content();
    let numbers = select(vec![
        DIGITS.to_owned(),
        format!("-{DIGITS}"),
        format!("+ {DIGITS}.25"),
        format!("0.{DIGITS}"),
        format!(".{DIGITS}"),
        format!("{DIGITS}e5"),
        format!("1.{DIGITS}E-7"),
        format!("0x{DIGITS}"),
        format!("0x{HEX}"),
        format!("x'{HEX}'"),
        format!("X'{HEX}'"),
    ]);
    let doubled = |quote: &'static str| move |content: String| content.replace(quote, &quote.repeat(2));
    let escaped = |content: String| content.replace('\\', "\\\\").replace('\'', "\\'").replace('"', "\\\"");
    match engine {
        Engine::Postgresql => prop_oneof![
            string.clone().prop_map(doubled("'")).prop_map(|content| format!("'{content}'")),
            string.clone().prop_map(doubled("'")).prop_map(|content| format!("'first'\n  '{content}'")),
            string.clone().prop_map(escaped).prop_map(|content| format!("E'{content}'")),
            string.clone().prop_map(escaped).prop_map(|content| format!("e'a\\'' -- x\n '{content}'")),
            string.clone().prop_map(doubled("'")).prop_map(|content| format!("U&'{content}'")),
            string.clone().prop_map(doubled("'")).prop_map(|content| format!("N'{content}'::text")),
            string.clone().prop_map(|content| format!("$body${content}$body$")),
            string.prop_map(|content| format!("$${}$$", content.replace('$', ""))),
            numbers,
            Just(format!("{}_{}", &DIGITS[..3], &DIGITS[3..])),
            Just(format!("{DIGITS}abc")),
        ]
        .boxed(),
        Engine::Mysql | Engine::Mariadb => prop_oneof![
            string.clone().prop_map(escaped).prop_map(|content| format!("'{content}'")),
            string.clone().prop_map(escaped).prop_map(|content| format!("\"{content}\"")),
            string.clone().prop_map(escaped).prop_map(doubled("`")).prop_map(|content| format!("N'{content}'")),
            string.clone().prop_map(escaped).prop_map(|content| format!("_utf8mb4'{content}'")),
            string.clone().prop_map(escaped).prop_map(|content| format!("_binary \"{content}\"")),
            string.clone().prop_map(escaped).prop_map(|content| format!("'a' \"b\" '{content}'")),
            string
                .prop_map(|content| content.replace('\\', "\\\\").replace('\'', "''"))
                .prop_map(|content| format!("'{content}'")),
            numbers,
        ]
        .boxed(),
    }
}

fn blank(engine: Engine) -> BoxedStrategy<String> {
    let mut blanks =
        vec![" ".to_owned(), format!(" /* '{WORD} \" */ "), format!(" -- {WORD}'\n"), format!("/**/ /*{DIGITS}*/")];
    match engine {
        Engine::Postgresql => blanks.push(format!("/* /* {WORD} */ {WORD} */")),
        Engine::Mysql | Engine::Mariadb => {
            blanks.extend([format!(" #{WORD}'\n"), format!("/*+ {WORD} */"), "/*!50000 */".into()]);
        }
    }
    select(blanks).boxed()
}

/// A template of an engine with its places filled.
fn statement() -> impl Strategy<Value = (Engine, &'static str, String)> {
    (select(&ENGINES[..]), select(TEMPLATES)).prop_flat_map(|(engine, template)| {
        let literals = prop::collection::vec(literal(engine), template.matches("{}").count());
        let blanks = prop::collection::vec(blank(engine), template.matches('~').count());
        (literals, blanks).prop_map(move |(literals, blanks)| {
            let (mut literals, mut blanks) = (literals.iter(), blanks.iter());
            let mut text = String::new();
            let mut rest = template;
            while let Some(place) = rest.find(['{', '~']) {
                text.push_str(&rest[..place]);
                let (value, length) = match rest.as_bytes()[place] {
                    b'{' => (literals.next(), 2),
                    _ => (blanks.next(), 1),
                };
                text.push_str(value.unwrap());
                rest = &rest[place + length..];
            }
            text.push_str(rest);
            (engine, template, text)
        })
    })
}

fn assert_sealed(digest: &Digest, text: &[u8]) -> Result<(), TestCaseError> {
    let shown = format!("{} {} {:?} {:?} {digest:?}", digest.text, digest.summary, digest.operation, digest.collection);
    prop_assert!(!shows_secret(&shown), "{} shows {}", String::from_utf8_lossy(text), digest.text);
    Ok(())
}

/// A normalised text is its own normalised text.
fn assert_fixed_point(engine: Engine, text: &[u8], truncated: bool) -> Result<(), TestCaseError> {
    let once = digest(engine, text, truncated);
    prop_assert!(once.text.len() <= 8 * 1024 && once.summary.len() <= 255);
    prop_assert!(once.fingerprint > 1);
    if &*once.text != UNPARSABLE {
        let twice = digest(engine, once.text.as_bytes(), false);
        prop_assert_eq!(&once, &twice, "{:?} from {:?}", engine, String::from_utf8_lossy(text));
    }
    Ok(())
}

/// Text made of what lexers trip over.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let token = select(vec![
        "select",
        "FROM",
        "t",
        "A",
        "\"b\"",
        "\"B\"",
        "\"select\"",
        "`c`",
        "`Order`",
        "`1x`",
        "values",
        "IN",
        "array",
        "row",
        "null",
        "TRUE",
        "not",
        "is",
        "as",
        "on",
        "extract",
        "year",
        "limit",
        "all",
        "nfc",
        "unknown",
        "_charset",
        "_utf8",
        "'s'",
        "\"s\"",
        "E'e'",
        "$$d$$",
        "$1",
        "?",
        "??",
        "5",
        ".5",
        "5.",
        "1e5",
        "1x",
        "0x1",
        ":",
        "::",
        ":=",
        ":n",
        "@",
        "@@",
        "@x",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ",",
        ";",
        ".",
        "...",
        " ...",
        "+",
        "-",
        "*",
        "/",
        "--",
        "-- \n",
        "/*",
        "*/",
        "/*!",
        "/*!50000",
        "#",
        "<",
        ">",
        "=",
        "!=",
        "!",
        "|",
        "||",
        "&",
        "&&",
        "->",
        "->>",
        "~",
        "^",
        "%",
        "int",
        "with",
        "interval",
        "date",
        "é",
        "$",
        "$a$",
        "\n",
        "\\",
        "\\N",
        "'",
        "update",
        "set",
        "insert",
        "into",
        "schema",
        "count",
        "Name",
        "U&\"x\"",
        "U&",
        "x'1'",
        "x",
        "e",
        "n'a'",
        "is null",
        "(?)",
        "(1, 2)",
    ]);
    let part = (token, select(vec!["", " ", " ", " "])).prop_map(|(token, blank)| format!("{token}{blank}"));
    prop::collection::vec(part, 0..24).prop_map(|parts| parts.concat().into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(512), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_literal_leaves((engine, _, text) in statement()) {
        let whole = digest(engine, text.as_bytes(), false);
        prop_assert_ne!(&*whole.text, UNPARSABLE, "{}", text);
        assert_sealed(&whole, text.as_bytes())?;
    }

    #[test]
    fn no_literal_leaves_wherever_the_text_is_cut((engine, _, text) in statement()) {
        let mut normaliser = Normaliser::default();
        for end in 0..text.len() {
            let cut = &text.as_bytes()[..end];
            // Cut by the capture, or cut by the client.
            assert_sealed(&normaliser.digest(engine, cut, true), cut)?;
            assert_sealed(&normaliser.digest(engine, cut, false), cut)?;
        }
        let debug = format!("{normaliser:?}");
        prop_assert!(!shows_secret(&debug));
    }

    #[test]
    fn literals_do_not_change_the_fingerprint((engine, template, text) in statement()) {
        // A sign is a part of the number only where an expression stands.
        prop_assume!(!template.contains("PASSWORD"));
        let plain = template.replace("{}", "'x'").replace('~', " ");
        let (expected, found) = (digest(engine, plain.as_bytes(), false), digest(engine, text.as_bytes(), false));
        // A cast belongs to the statement.
        if !text.contains("::text") || !found.text.contains("::") {
            prop_assert_eq!(expected, found, "{}", text);
        }
    }

    #[test]
    fn a_statement_is_a_fixed_point((engine, _, text) in statement(), cut in any::<prop::sample::Index>()) {
        assert_fixed_point(engine, text.as_bytes(), false)?;
        assert_fixed_point(engine, &text.as_bytes()[..cut.index(text.len())], true)?;
    }

    #[test]
    fn soup_is_a_fixed_point(engine in select(&ENGINES[..]), text in soup(), truncated in any::<bool>()) {
        assert_fixed_point(engine, &text, truncated)?;
    }

    #[test]
    fn bytes_are_a_fixed_point(engine in select(&ENGINES[..]), text in prop::collection::vec(any::<u8>(), 0..200), truncated in any::<bool>()) {
        assert_fixed_point(engine, &text, truncated)?;
        let _ = traceparent(&text);
    }

    #[test]
    fn long_soup_is_cut(engine in select(&ENGINES[..]), parts in prop::collection::vec(soup(), 100..200)) {
        assert_fixed_point(engine, &parts.concat(), false)?;
    }

    #[test]
    fn a_foreign_character_set_shows_no_literal(engine in select(&ENGINES[..]), high in 0x81u8..=0xfe, low in select(&b"\\`|}"[..])) {
        // A character of GBK, Big5 or Shift-JIS at the end of a string, before another string.
        let text = [b"SELECT '", &[high, low][..], b"', '", WORD.as_bytes(), b"', '", &[high, low], b"'"].concat();
        assert_sealed(&digest(engine, &text, false), &text)?;
    }
}

#[test]
fn a_text_longer_than_the_bound_is_cut_at_a_token() {
    let columns: Vec<String> = (0..4000).map(|number| format!("column_{number}")).collect();
    for engine in ENGINES {
        let text = format!("SELECT {} FROM t", columns.join(", "));
        let digest = digest(engine, text.as_bytes(), false);
        assert!(digest.text.len() <= 8 * 1024 && digest.text.len() > 8 * 1024 - 40, "{}", digest.text.len());
        let kept = digest.text.strip_suffix(" ...").unwrap();
        assert!(columns.iter().any(|column| kept.ends_with(&format!(", {column}"))), "{kept}");
    }
}

#[test]
fn a_long_insert_folds_whatever_its_length() {
    for engine in ENGINES {
        let row = |number| format!("({number}, 'name {number}', now(), NULL)");
        let insert = |rows| format!("INSERT INTO t VALUES {}", (0..rows).map(row).collect::<Vec<_>>().join(", "));
        let one = digest(engine, insert(1).as_bytes(), false);
        assert_eq!(one, digest(engine, insert(20_000).as_bytes(), false));
        assert_eq!(&*one.text, "insert into t values (?, now(), ?)");
    }
}
