//! `cargo xtask tidy`: what no compiler checks. Also runs as a test.

use std::{fmt, fs, path::Path};

use anyhow::{Context, Result, bail};

use crate::{
    command::{command, output},
    layout,
};

/// A folder of agent/src and the folders of agent/src it may name (docs/ARCHITECTURE.md); its own is always allowed.
const IMPORTS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("wire", &["model"]),
    ("sql", &["model"]),
    ("aggregate", &["model", "sql", "wire"]),
    ("replay", &["model", "sql", "wire"]),
    ("processors", &["model", "sql"]),
    ("discovery", &["model", "sql"]),
    ("capture", &["model", "sql"]),
    ("collect", &["model", "sql"]),
    ("enrich", &["model", "sql"]),
    ("export", &["model", "sql"]),
    ("health", &["model"]),
    ("store", &["model"]),
    (
        "config",
        &[
            "model",
            "wire",
            "sql",
            "aggregate",
            "processors",
            "discovery",
            "capture",
            "collect",
            "enrich",
            "export",
            "health",
            "store",
        ],
    ),
    (
        "runtime",
        &[
            "model",
            "wire",
            "sql",
            "aggregate",
            "processors",
            "discovery",
            "capture",
            "collect",
            "enrich",
            "export",
            "health",
            "store",
            "config",
        ],
    ),
    // What commands show is the model's data; `top` into a pipe is the console exporter.
    ("cli", &["model", "export", "config", "health", "replay", "runtime"]),
];

/// A crate, as it is written in paths, and the only folders of agent/src that may name it.
const CRATES: &[(&str, &[&str])] = &[
    ("aya", &["capture"]),
    ("aya_log", &["capture"]),
    ("etherparse", &["replay"]),
    ("pcap_parser", &["replay"]),
    ("tokio_postgres", &["collect"]),
    ("mysql_async", &["collect"]),
    ("opentelemetry", &["export"]),
    ("opentelemetry_proto", &["export"]),
    ("opentelemetry_sdk", &["export"]),
];

/// Folders that compute and nothing else, and what would break that.
const PURE: &[&str] = &["wire", "sql", "processors"];
const IMPURE: &[&str] = &["tokio", "std::fs", "std::net", "std::process", "std::env", "now()"];

/// Everything that may lie at the top. A new entry belongs into the map of README.md as well.
const TOP_LEVEL: &[&str] = &[
    ".cargo",
    ".ci",
    ".config",
    ".github",
    ".gitattributes",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "NOTICE",
    "README.md",
    "SECURITY.md",
    "_typos.toml",
    "agent",
    "agent-ebpf",
    "clippy.toml",
    "config",
    "deny.toml",
    "docs",
    "packaging",
    "pg_querylens",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "tests",
    "xtask",
];

/// Beginnings of paths that exist only where somebody developed, in parts so that this file passes its own check.
const MACHINE_PATHS: &[&str] = &[concat!("/wo", "rk/"), concat!("/tmp", "/wt"), concat!("/ro", "ot/")];

/// A defect and where it is.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    file: String,
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// The verb.
pub(crate) fn run() -> Result<()> {
    let (files, findings) = check(layout::checkout())?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings in {files} files", findings.len());
    }
    eprintln!("tidy: {files} files");
    Ok(())
}

/// Number of files looked at, and what is wrong with them. Untracked files count unless ignored: they are about to be committed.
fn check(checkout: &Path) -> Result<(usize, Vec<Finding>)> {
    let arguments = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let list =
        output(command("git").current_dir(checkout).args(arguments)).context("the list of files comes from git")?;
    let mut findings = Vec::new();
    let mut files = 0;
    for file in list.split('\0').filter(|file| !file.is_empty()) {
        // A removed file stays in the list until its removal is staged.
        let Ok(bytes) = fs::read(checkout.join(file)) else { continue };
        files += 1;
        findings.extend(top_level(file));
        let Ok(text) = String::from_utf8(bytes) else { continue };
        for (at, line) in text.lines().enumerate() {
            let whats = machine_path(line).into_iter().chain(secret(line));
            findings.extend(whats.map(|what| Finding { file: file.to_owned(), line: at + 1, what }));
        }
        if let Some(path) = file.strip_prefix("agent/src/").and_then(|path| path.strip_suffix(".rs")) {
            let whats = imports(path, &text).into_iter();
            findings.extend(whats.map(|(line, what)| Finding { file: file.to_owned(), line, what }));
        }
    }
    Ok((files, findings))
}

fn top_level(file: &str) -> Option<Finding> {
    let entry = file.split('/').next().unwrap_or(file);
    (!TOP_LEVEL.contains(&entry)).then(|| Finding {
        file: file.to_owned(),
        line: 1,
        what: format!(
            "`{entry}` is no known top-level entry; put it into a folder, or into TOP_LEVEL of xtask/src/tidy.rs"
        ),
    })
}

/// A path of one developer's machine; only where a path begins, so that /proc/PID/root is none.
fn machine_path(line: &str) -> Option<String> {
    MACHINE_PATHS.iter().find_map(|path| {
        let begins = |at: usize| {
            let before = line[..at].chars().next_back();
            before.is_none_or(|c| !(c.is_alphanumeric() || "_-.})>*$~".contains(c)))
        };
        let found = line.match_indices(path).any(|(at, _)| begins(at));
        found.then(|| format!("`{path}` exists only on one machine; use a relative path or an option"))
    })
}

/// Something shaped like a credential.
fn secret(line: &str) -> Option<String> {
    let hex = |word: &str, count: usize| word.len() == count && word.bytes().all(|b| b.is_ascii_hexdigit());
    let upper = |word: &str, count: usize| {
        word.len() == count && word.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
    };
    let what = line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).find_map(|word| {
        let ingest = word.strip_suffix("NRAL").is_some_and(|rest| rest.len() == 36 && rest.is_ascii());
        let regional = word.strip_prefix("eu01xx").is_some_and(|rest| hex(rest, 34));
        let user = word.strip_prefix("NRAK-").is_some_and(|rest| upper(rest, 27));
        let cloud = word.strip_prefix("AKIA").is_some_and(|rest| upper(rest, 16));
        match (ingest || regional, user, cloud) {
            (true, _, _) => Some("a New Relic licence key"),
            (_, true, _) => Some("a New Relic user key"),
            (_, _, true) => Some("an AWS access key"),
            _ => None,
        }
    });
    let key = line.contains(concat!("-----", "BEGIN")) && line.contains("PRIVATE KEY-----");
    let what = what.or(key.then_some("a private key"))?;
    Some(format!("looks like {what}; credentials do not belong into the repository, not even invented ones"))
}

/// What a file of agent/src names and may not; `path` is relative to agent/src, without `.rs`.
fn imports(path: &str, text: &str) -> Vec<(usize, String)> {
    let mut module: Vec<&str> = path.split('/').collect();
    let is_test = |part: &&str| *part == "tests" || part.ends_with("_tests");
    // lib.rs and main.rs are the roots: they name everything.
    if matches!(module[..], ["lib" | "main"]) || module.iter().any(is_test) {
        return Vec::new();
    }
    if module.last() == Some(&"mod") {
        module.pop();
    }
    let own = module[0];
    let Some((_, allowed)) = IMPORTS.iter().find(|(folder, _)| *folder == own) else {
        return vec![(
            1,
            format!("`{own}` is no known part of the agent; give it a row in IMPORTS of xtask/src/tidy.rs"),
        )];
    };
    let mut findings = Vec::new();
    for used in rust_paths::outside_tests(text) {
        let mut names: Vec<&str> = used.names.iter().map(String::as_str).collect();
        let supers = names.iter().take_while(|name| **name == "super").count();
        // As many `super` as there are modules lead to the crate's root.
        if supers > 0 && supers == module.len() + used.depth {
            names.splice(..supers, ["crate"]);
        }
        let mut report = |what: String| findings.push((used.line, what));
        match names[..] {
            ["crate", part, ..] if part != own && !allowed.contains(&part) => {
                let known = IMPORTS.iter().any(|(folder, _)| *folder == part);
                if known {
                    report(format!("`{own}` must not import `{part}`; it may import: {}", allowed.join(", ")));
                }
            }
            // The histogram is the one thing that both sides compute.
            ["agent_ebpf", "histogram", ..] if own == "model" => {}
            ["agent_ebpf", ..] if own != "capture" => report(format!("only `capture` sees agent_ebpf, not `{own}`")),
            [first, ..] => {
                let rule = CRATES.iter().find(|(name, folders)| *name == first && !folders.contains(&own));
                if let Some((name, folders)) = rule {
                    report(format!("only `{}` sees {name}, not `{own}`", folders.join("`, `")));
                }
            }
            [] => {}
        }
        if PURE.contains(&own) {
            let whole = names.join("::");
            let impure = IMPURE.iter().find(|bad| whole == **bad || whole.starts_with(&format!("{bad}::")));
            if let Some(bad) = impure {
                report(format!("`{own}` computes and nothing else: no {bad}"));
            } else if used.called && names.len() > 1 && names.last() == Some(&"now") {
                report(format!("`{own}` gets the time as an argument: no now()"));
            }
        }
    }
    findings.sort();
    findings.dedup();
    findings
}

/// The paths that a Rust file names, found by a scanner that knows comments, literals and use trees.
mod rust_paths {
    /// A path in the text, use trees written out.
    pub(super) struct Path {
        pub(super) line: usize,
        pub(super) names: Vec<String>,
        /// Number of inline modules around it.
        pub(super) depth: usize,
        /// An opening parenthesis follows.
        pub(super) called: bool,
    }

    #[derive(Clone, Debug, PartialEq)]
    enum Token {
        Name(String),
        /// `::`
        Separator,
        Sign(char),
    }

    /// All paths, without those of modules under `#[cfg(test)]`.
    pub(super) fn outside_tests(text: &str) -> Vec<Path> {
        let tokens = tokens(text);
        let mut paths = Vec::new();
        // One entry per open brace: whether it belongs to an inline module.
        let mut braces: Vec<bool> = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            if is_test_module(&tokens[at..]) {
                at = end_of_item(&tokens, at);
                continue;
            }
            match &tokens[at].1 {
                Token::Sign('{') => {
                    braces.push(at > 1 && tokens[at - 2].1 == Token::Name("mod".into()));
                    at += 1;
                }
                Token::Sign('}') => {
                    braces.pop();
                    at += 1;
                }
                Token::Name(_) => {
                    let depth = braces.iter().filter(|module| **module).count();
                    at = tree(&tokens, at, &mut Vec::new(), depth, &mut paths);
                }
                _ => at += 1,
            }
        }
        paths
    }

    /// `#[cfg(test)]`, perhaps more attributes, `mod`.
    fn is_test_module(tokens: &[(usize, Token)]) -> bool {
        let name = |at: usize, text: &str| tokens.get(at).is_some_and(|(_, token)| *token == Token::Name(text.into()));
        let sign = |at: usize, sign: char| tokens.get(at).is_some_and(|(_, token)| *token == Token::Sign(sign));
        if !(sign(0, '#') && sign(1, '[') && name(2, "cfg") && sign(3, '(') && name(4, "test") && sign(5, ')')) {
            return false;
        }
        let mut at = 7;
        while sign(at, '#') && sign(at + 1, '[') {
            while at < tokens.len() && !sign(at, ']') {
                at += 1;
            }
            at += 1;
        }
        name(at, "mod") || (name(at, "pub") && name(at + 1, "mod"))
    }

    /// Behind the item at `at`: behind its `;` or its closing brace.
    fn end_of_item(tokens: &[(usize, Token)], mut at: usize) -> usize {
        let mut open = 0;
        while at < tokens.len() {
            match tokens[at].1 {
                Token::Sign('{') => open += 1,
                Token::Sign('}') if open == 1 => return at + 1,
                Token::Sign('}') => open -= 1,
                Token::Sign(';') if open == 0 => return at + 1,
                _ => {}
            }
            at += 1;
        }
        at
    }

    /// Reads the path or use tree at `at`, whose beginning is `prefix`; returns what is behind it.
    fn tree(
        tokens: &[(usize, Token)],
        mut at: usize,
        prefix: &mut Vec<String>,
        depth: usize,
        paths: &mut Vec<Path>,
    ) -> usize {
        let inherited = prefix.len();
        while let Some((line, Token::Name(name))) = tokens.get(at) {
            prefix.push(name.clone());
            at += 1;
            if tokens.get(at).map(|(_, token)| token) != Some(&Token::Separator) {
                let called = tokens.get(at).is_some_and(|(_, token)| *token == Token::Sign('('));
                paths.push(Path { line: *line, names: prefix.clone(), depth, called });
                prefix.truncate(inherited);
                return at;
            }
            at += 1;
        }
        match tokens.get(at) {
            Some((_, Token::Sign('{'))) => {
                at += 1;
                while let Some((_, token)) = tokens.get(at) {
                    match token {
                        Token::Sign('}') => {
                            at += 1;
                            break;
                        }
                        Token::Name(_) | Token::Sign('{') => at = tree(tokens, at, prefix, depth, paths),
                        _ => at += 1,
                    }
                }
            }
            // `path::*`, `path::<T>`, `path::$name`: the path ends here.
            _ => {
                let line = tokens.get(at.saturating_sub(1)).map_or(1, |(line, _)| *line);
                paths.push(Path { line, names: prefix.clone(), depth, called: false });
            }
        }
        prefix.truncate(inherited);
        at
    }

    fn tokens(text: &str) -> Vec<(usize, Token)> {
        let bytes = text.as_bytes();
        let mut tokens = Vec::new();
        let (mut at, mut line) = (0, 1);
        while at < bytes.len() {
            let start = at;
            match bytes[at] {
                b'/' if bytes.get(at + 1) == Some(&b'/') => at += text[at..].find('\n').unwrap_or(text.len() - at),
                b'/' if bytes.get(at + 1) == Some(&b'*') => at = block_comment(bytes, at),
                b'"' => at = string(bytes, at),
                b'\'' => at = quote(text, at),
                b':' if bytes.get(at + 1) == Some(&b':') => {
                    tokens.push((line, Token::Separator));
                    at += 2;
                }
                byte if byte.is_ascii_alphabetic() || byte == b'_' => {
                    while at < bytes.len() && (bytes[at].is_ascii_alphanumeric() || bytes[at] == b'_') {
                        at += 1;
                    }
                    let name = &text[start..at];
                    match raw_string(bytes, at).filter(|_| matches!(name, "r" | "br" | "cr")) {
                        Some(end) => at = end,
                        None => tokens.push((line, Token::Name(name.to_owned()))),
                    }
                }
                byte => {
                    if byte.is_ascii_punctuation() {
                        tokens.push((line, Token::Sign(char::from(byte))));
                    }
                    at += 1;
                }
            }
            line += bytes[start..at.min(bytes.len())].iter().filter(|byte| **byte == b'\n').count();
        }
        tokens
    }

    fn block_comment(bytes: &[u8], mut at: usize) -> usize {
        let mut open = 0;
        while at < bytes.len() {
            match &bytes[at..bytes.len().min(at + 2)] {
                b"/*" => (open, at) = (open + 1, at + 2),
                b"*/" if open == 1 => return at + 2,
                b"*/" => (open, at) = (open - 1, at + 2),
                _ => at += 1,
            }
        }
        at
    }

    fn string(bytes: &[u8], mut at: usize) -> usize {
        at += 1;
        while at < bytes.len() && bytes[at] != b'"' {
            at += if bytes[at] == b'\\' { 2 } else { 1 };
        }
        at + 1
    }

    /// The end of a raw string whose `#` or quote is at `at`.
    fn raw_string(bytes: &[u8], at: usize) -> Option<usize> {
        let hashes = bytes[at..].iter().take_while(|byte| **byte == b'#').count();
        if bytes.get(at + hashes) != Some(&b'"') {
            return None;
        }
        let end: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
        let body = at + hashes + 1;
        let length = bytes[body..].windows(end.len()).position(|window| window == end)?;
        Some(body + length + end.len())
    }

    /// Behind a character literal; behind only the quote of a lifetime.
    fn quote(text: &str, at: usize) -> usize {
        let mut rest = text[at + 1..].char_indices();
        match (rest.next(), rest.next()) {
            (Some((_, '\\')), Some(_)) => {
                let end = rest.find(|(_, c)| *c == '\'').map_or(text.len() - at - 1, |(end, _)| end);
                at + 1 + end + 1
            }
            (Some(_), Some((end, '\''))) => at + 1 + end + 1,
            _ => at + 1,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_checkout_is_tidy() {
        let (files, findings) = check(layout::checkout()).unwrap();
        assert!(files > 20, "only {files} files seen");
        let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
        assert!(lines.is_empty(), "\n{}", lines.join("\n"));
    }

    #[track_caller]
    fn finds(path: &str, text: &str, expected: &[(usize, &str)]) {
        let found = imports(path, text);
        let matches = found.len() == expected.len()
            && found.iter().zip(expected).all(|((line, what), (at, part))| line == at && what.contains(part));
        assert!(matches, "{path}: {found:?}, expected {expected:?}");
    }

    #[test]
    fn imports_outside_the_matrix_are_found_in_every_spelling() {
        finds("wire/mod", "use crate::model::Engine;", &[]);
        finds("wire/mod", "\nuse crate::sql::Normaliser;", &[(2, "must not import `sql`")]);
        finds("wire/a/b", "use crate::{\n    model::{Engine, Code},\n    export::otlp,\n};", &[(3, "`export`")]);
        finds("wire/a/b", "fn f() { super::super::super::sql::g() }", &[(1, "`sql`")]);
        finds("wire/a/b", "mod c { use super::super::super::super::sql::g; }", &[(1, "`sql`")]);
        finds("wire/a/b", "use super::super::sql;", &[]);
        finds("aggregate/mod", "use crate::{model, sql, wire};", &[]);
        finds("capture/ring", "use aya::maps::RingBuf; use agent_ebpf::decode;", &[]);
        finds("export/otlp", "use {aya::Ebpf};", &[(1, "only `capture` sees aya")]);
        finds("model/histogram", "use agent_ebpf::histogram::bucket;", &[]);
        finds("model/record", "use agent_ebpf::{decode, histogram};", &[(1, "only `capture` sees agent_ebpf")]);
        finds("collect/login", "use opentelemetry_proto::tonic;", &[(1, "only `export`")]);
        finds("novelty/mod", "", &[(1, "no known part")]);
    }

    #[test]
    fn pure_folders_hold_no_clock_file_or_task() {
        finds("sql/mod", "let t = Instant::now();", &[(1, "no now()")]);
        finds("sql/mod", "fn process(now: Timestamp) { now.since(x) }", &[]);
        finds("processors/a", "use std::{fmt, fs::File};", &[(1, "no std::fs")]);
        finds("wire/mod", "async fn f() { tokio::spawn(x) }", &[(1, "no tokio")]);
        finds("collect/mod", "use tokio::time; let t = Instant::now();", &[]);
    }

    #[test]
    fn comments_literals_and_tests_are_no_imports() {
        finds("wire/mod", "// use crate::sql;\n/* crate::sql /* x */ crate::sql */", &[]);
        finds(
            "wire/mod",
            r####"let s = "crate::sql \" crate::sql"; let r = r#"crate::sql"x"#; let c = '"'; use crate::sql;"####,
            &[(1, "`sql`")],
        );
        finds("wire/mod", "fn f<'a>(x: &'a str) -> &'a str { x } use crate::sql;", &[(1, "`sql`")]);
        finds(
            "wire/mod",
            "#[cfg(test)]\nmod tests { use crate::sql; fn f() { std::fs::read(x) } }\nuse crate::export;",
            &[(3, "`export`")],
        );
    }

    #[test]
    fn machine_paths_are_found_where_a_path_begins() {
        let home = MACHINE_PATHS[2];
        assert!(machine_path(&format!("see {home}notes")).is_some());
        assert!(machine_path(&format!("\"{home}x\"")).is_some());
        assert_eq!(machine_path(&format!("/proc/{{pid}}{home}run")), None);
        assert_eq!(machine_path(&format!("/proc/PID{home}run")), None);
        assert_eq!(machine_path("target/servers/mysql"), None);
    }

    #[test]
    fn credentials_are_found_by_their_shape() {
        let licence = format!("key: {}NRAL", "0123456789abcdef0123456789abcdef0123");
        assert!(secret(&licence).is_some());
        assert!(secret(&format!("NRAK-{}", "A1".repeat(13) + "B")).is_some());
        assert!(secret(&format!("id = AKIA{}", "Z".repeat(16))).is_some());
        assert!(secret(concat!("-----", "BEGIN RSA PRIVATE KEY-----")).is_some());
        assert_eq!(secret("commit 0123456789abcdef0123456789abcdef01234567"), None);
    }
}
