//! Just enough of SQL to split several statements in one text and to see `USE`.

use std::ops::Range;

/// Index behind the comment that begins at `at`, if one does. An unfinished comment ends with the text.
fn comment(text: &[u8], at: usize) -> Option<usize> {
    let rest = &text[at..];
    let line = |from: usize| memchr::memchr(b'\n', &text[from..]).map_or(text.len(), |end| from + end + 1);
    match rest {
        [b'#', ..] => Some(line(at)),
        // "--" needs a space or control character behind it ("Comments" in the MySQL manual).
        [b'-', b'-'] => Some(text.len()),
        [b'-', b'-', next, ..] if *next <= b' ' => Some(line(at)),
        [b'/', b'*', ..] => Some(memchr::memmem::find(&rest[2..], b"*/").map_or(text.len(), |end| at + 2 + end + 2)),
        _ => None,
    }
}

/// Index behind the quoted string or name that begins at `at` with `quote`. Doubled quotes are part of it.
fn quoted(text: &[u8], at: usize, backslash: bool) -> usize {
    let quote = text[at];
    let mut at = at + 1;
    while at < text.len() {
        match text[at] {
            b'\\' if backslash && quote != b'`' => at += 1,
            byte if byte == quote => return at + 1,
            _ => {}
        }
        at += 1;
    }
    text.len()
}

/// The statements of `text`, split at semicolons outside quotes and comments, without the space around them. What is only space
/// is none. `backslash`: a backslash escapes within strings (`NO_BACKSLASH_ESCAPES` is off).
pub(super) fn split(text: &[u8], backslash: bool) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let mut push = |range: Range<usize>| {
        let part = &text[range.clone()];
        let start = range.start + (part.len() - part.trim_ascii_start().len());
        let end = start + part.trim_ascii().len();
        if start < end {
            parts.push(start..end);
        }
    };
    let (mut start, mut at) = (0, 0);
    while at < text.len() {
        match text[at] {
            b'\'' | b'"' | b'`' => at = quoted(text, at, backslash),
            b';' => {
                push(start..at);
                at += 1;
                start = at;
            }
            b'#' | b'-' | b'/' => at = comment(text, at).unwrap_or(at + 1),
            _ => at += 1,
        }
    }
    push(start..text.len());
    parts
}

/// Steps over space, comments and opening parentheses; enters version comments (`/*!40101 ... */`, MariaDB's `/*M! ... */`).
fn skip_space(text: &[u8], mut at: usize) -> usize {
    while at < text.len() {
        at = match &text[at..] {
            [b'/', b'*', b'!', ..] | [b'/', b'*', b'M', b'!', ..] => {
                let digits = at + if text[at + 2] == b'!' { 3 } else { 4 };
                digits + text[digits..].iter().take_while(|byte| byte.is_ascii_digit()).count()
            }
            [byte, ..] if byte.is_ascii_whitespace() || *byte == b'(' => at + 1,
            _ => match comment(text, at) {
                Some(end) => end,
                None => break,
            },
        };
    }
    at
}

fn word(text: &[u8], at: usize) -> Range<usize> {
    let start = skip_space(text, at);
    let length = text[start..]
        .iter()
        .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || **byte >= 0x80);
    start..start + length.count()
}

/// The first word of a statement; empty if it begins with something else.
pub(super) fn first_word(text: &[u8]) -> &[u8] {
    &text[word(text, 0)]
}

/// The first words of a statement; empty where it has fewer.
pub(super) fn first_words<const N: usize>(text: &[u8]) -> [&[u8]; N] {
    let mut at = 0;
    std::array::from_fn(|_| {
        let range = word(text, at);
        at = range.end;
        &text[range]
    })
}

/// Words that begin a compound statement, whose semicolons do not end it ("Compound Statements").
const COMPOUND: [&[u8]; 8] = [b"IF", b"CASE", b"LOOP", b"WHILE", b"REPEAT", b"FOR", b"DECLARE", b"DELIMITER"];
/// Objects that have a body of statements.
const WITH_BODY: [&[u8]; 5] = [b"PROCEDURE", b"FUNCTION", b"TRIGGER", b"EVENT", b"PACKAGE"];

/// Whether a statement may hold statements of its own, so that a split at semicolons cannot be trusted.
pub(super) fn may_be_compound(text: &[u8]) -> bool {
    let first = word(text, 0);
    let is =
        |range: &Range<usize>, words: &[&[u8]]| words.iter().any(|word| text[range.clone()].eq_ignore_ascii_case(word));
    if is(&first, &COMPOUND) {
        return true;
    }
    if is(&first, &[b"BEGIN"]) {
        // BEGIN [WORK] starts a transaction, BEGIN NOT ATOMIC (MariaDB) or a label's BEGIN a block.
        let next = word(text, first.end);
        return !next.is_empty() && !is(&next, &[b"WORK"]);
    }
    if !is(&first, &[b"CREATE", b"ALTER"]) {
        return false;
    }
    // CREATE [OR REPLACE] [AGGREGATE] [DEFINER = user@host] {PROCEDURE | ...}
    text[first.end..]
        .split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_')
        .filter(|word| !word.is_empty())
        .take(16)
        .any(|word| WITH_BODY.iter().any(|body| word.eq_ignore_ascii_case(body)))
}

/// The schema that `USE schema` chooses.
pub(super) fn use_schema(text: &[u8]) -> Option<Vec<u8>> {
    let first = word(text, 0);
    if !text[first.clone()].eq_ignore_ascii_case(b"USE") {
        return None;
    }
    let start = skip_space(text, first.end);
    match text.get(start)? {
        quote @ (b'`' | b'"') => {
            let mut name = Vec::new();
            let mut rest = text[start + 1..].iter();
            // A doubled quote stands for one within the name.
            while let Some(byte) = rest.next() {
                if byte == quote && rest.next() != Some(quote) {
                    return Some(name);
                }
                name.push(*byte);
            }
            None
        }
        _ => {
            let range = word(text, start);
            (!range.is_empty()).then(|| text[range].to_vec())
        }
    }
}
