//! Keys, tokens and passwords.

use std::ops::Range;

use super::is_word;

/// Beginnings that their issuers gave to their keys so that they are found, with the least number of characters that follow.
const PREFIXES: [(&str, usize); 22] = [
    ("AKIA", 16),
    ("ASIA", 16),
    ("NRAK-", 20),
    ("NRII-", 20),
    ("ghp_", 20),
    ("gho_", 20),
    ("ghu_", 20),
    ("ghs_", 20),
    ("ghr_", 20),
    ("github_pat_", 20),
    ("glpat-", 16),
    ("sk_live_", 10),
    ("sk_test_", 10),
    ("rk_live_", 10),
    ("pk_live_", 10),
    ("sk-", 20),
    ("xoxb-", 10),
    ("xoxp-", 10),
    ("xoxa-", 10),
    ("AIza", 30),
    ("npm_", 30),
    ("eyJ", 20),
];
/// Names whose value is a secret, in lower case.
const NAMES: [&str; 12] = [
    "password",
    "passwd",
    "pwd",
    "secret",
    "token",
    "api_key",
    "apikey",
    "api-key",
    "access_key",
    "private_key",
    "auth",
    "credential",
];
/// Words before a token in HTTP.
const SCHEMES: [&str; 2] = ["bearer ", "basic "];
/// Digests and keys in hexadecimal digits.
const HEX: usize = 32;
/// Keys in base64 that have no beginning of their own.
const BASE64: usize = 40;

/// Finds them.
pub(super) fn find(text: &str, mut found: impl FnMut(Range<usize>)) {
    let bytes = text.as_bytes();
    if let Some(start) = text.find("-----BEGIN ").filter(|start| text[*start..].contains("PRIVATE KEY")) {
        found(start..text.len());
    }
    let mut at = 0;
    while at < bytes.len() {
        if !is_token(bytes[at]) {
            at += 1;
            continue;
        }
        let length = bytes[at..].iter().take_while(|byte| is_token(**byte)).count();
        let range = at..at + length;
        at = range.end;
        let word = &text[range.clone()];
        if is_key(word) || (length >= 8 && follows_scheme(text, range.start)) {
            found(range);
        }
    }
    values(text, &mut found);
}

/// Characters of tokens: those of base64 in both alphabets without what fills up its end, and the dots between the parts of a JWT.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-+/.".contains(&byte)
}

fn is_key(word: &str) -> bool {
    let prefixed = |(prefix, least): &(&str, usize), word: &str| {
        word.strip_prefix(prefix).is_some_and(|rest| rest.len() >= *least && varied(rest))
    };
    let hex = |word: &str| {
        let digits = word.bytes().filter(u8::is_ascii_digit).count();
        word.len() >= HEX && (1..word.len()).contains(&digits) && word.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    // New Relic's licence keys end in what they are.
    let licence = |word: &str| word.len() == 40 && word.ends_with("NRAL");
    // Each may also be a part of a path.
    let parts = || std::iter::once(word).chain(word.split(['/', '.', '+']));
    if parts().any(|part| PREFIXES.iter().any(|prefix| prefixed(prefix, part)) || hex(part) || licence(part)) {
        return true;
    }
    let upper = word.bytes().any(|byte| byte.is_ascii_uppercase());
    let lower = word.bytes().any(|byte| byte.is_ascii_lowercase());
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    let separators = word.bytes().filter(|byte| b"._-".contains(byte)).count();
    word.len() >= BASE64 && upper && lower && digits >= 3 && separators <= 1
}

/// Whether it has letters and digits, or both cases: what people write as an example has not.
fn varied(text: &str) -> bool {
    let has = |test: fn(&u8) -> bool| text.bytes().any(|byte| test(&byte));
    let kinds = [has(u8::is_ascii_uppercase), has(u8::is_ascii_lowercase), has(u8::is_ascii_digit)];
    kinds.iter().filter(|kind| **kind).count() >= 2
}

fn follows_scheme(text: &str, start: usize) -> bool {
    SCHEMES.iter().any(|scheme| {
        let head = start.checked_sub(scheme.len()).and_then(|from| text.get(from..start));
        head.is_some_and(|head| head.eq_ignore_ascii_case(scheme))
    })
}

/// `name=value` and `name: value` where the name says that the value is a secret, also in URLs and in JSON.
fn values(text: &str, found: &mut impl FnMut(Range<usize>)) {
    let bytes = text.as_bytes();
    let has_url = text.contains("://");
    for at in memchr::memchr2_iter(b'=', b':', bytes) {
        // `://user:password@host`
        if has_url && bytes[at] == b':' && !bytes[at..].starts_with(b"://") && in_authority(text, at) {
            let length = bytes[at + 1..].iter().take_while(|byte| **byte != b'@').count();
            if !is_placeholder(&bytes[at + 1..at + 1 + length]) {
                found(at + 1..at + 1 + length);
            }
            continue;
        }
        let name_end = at - bytes[..at].iter().rev().take_while(|byte| b" \"'".contains(byte)).count();
        let name_start =
            name_end - bytes[..name_end].iter().rev().take_while(|byte| is_word(**byte) || **byte == b'-').count();
        let Some(name) = text.get(name_start..name_end).map(str::to_ascii_lowercase) else { continue };
        if !NAMES.iter().any(|secret| name.ends_with(secret)) {
            continue;
        }
        let skipped = bytes[at + 1..].iter().take_while(|byte| b" \"'".contains(byte)).count();
        let start = at + 1 + skipped;
        let length = bytes[start..].iter().take_while(|byte| !b" \"'&,;)}]\t\n".contains(byte)).count();
        let value = &bytes[start..start + length];
        // A placeholder, a cast, a comparison or a reference to a column is no value.
        let none = length < 4
            || value.starts_with(b"?")
            || value.starts_with(b"$")
            || value.starts_with(b":")
            || is_placeholder(value);
        let whole = text.is_char_boundary(start) && text.is_char_boundary(start + length);
        if !none && whole {
            found(start..start + length);
        }
    }
}

/// Whether it is what the gate puts in the place of private text: `[EMAIL]`, `[EMAIL#3]`, `[EMAIL:9f86d081884c7d65]`.
fn is_placeholder(value: &[u8]) -> bool {
    let inner = value.strip_prefix(b"[").map(|rest| rest.strip_suffix(b"]").unwrap_or(rest));
    inner.is_some_and(|inner| {
        let name = inner.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'_').count();
        let rest = &inner[name..];
        let digits = |digits: &[u8]| digits.iter().all(u8::is_ascii_hexdigit);
        name >= 2 && (rest.is_empty() || matches!(rest, [b'#' | b':', tail @ ..] if digits(tail)))
    })
}

/// Whether the colon at `at` stands between user and password of a URL.
fn in_authority(text: &str, at: usize) -> bool {
    let Some(scheme) = text[..at].rfind("://") else { return false };
    let authority = |part: &str| !part.is_empty() && !part.contains(['/', ' ', '?', '#', '@', '"', '\'']);
    let after = &text[at + 1..];
    authority(&text[scheme + 3..at]) && after.find('@').is_some_and(|end| authority(&after[..end]))
}
