//! Just enough of SQL's lexical rules to see where a statement ends. Rules: PostgreSQL documentation, "Lexical Structure".

use std::ops::Range;

use super::frontend::{Name, name};

/// Most statements that one `Query` is split into; beyond it each carries the whole text.
pub(super) const MAX_PIECES: usize = 256;

/// Where the statements of `sql` lie, if there are at least two and at most [`MAX_PIECES`]. A stretch of blanks and comments is none.
pub(super) fn pieces(sql: &[u8]) -> Option<Box<[Range<usize>]>> {
    // Most queries hold no semicolon but the last.
    let first = memchr::memchr(b';', sql)?;
    if sql[first..].iter().all(|byte| *byte == b';' || byte.is_ascii_whitespace()) {
        return None;
    }
    let mut pieces = Vec::new();
    let mut lexer = Lexer { sql, at: 0 };
    let mut begin = 0;
    let mut empty = true;
    let mut depth = 0usize;
    loop {
        let token = lexer.next();
        match token {
            Some(Token::Semicolon) if depth > 0 => {}
            Some(Token::Semicolon) | None => {
                if !empty {
                    if pieces.len() == MAX_PIECES {
                        return None;
                    }
                    let end = if token.is_none() { sql.len() } else { lexer.at - 1 };
                    pieces.push(trim(sql, begin..end));
                }
                if token.is_none() {
                    break;
                }
                (begin, empty) = (lexer.at, true);
            }
            Some(Token::Open) => (depth, empty) = (depth + 1, false),
            Some(Token::Close) => (depth, empty) = (depth.saturating_sub(1), false),
            Some(_) => empty = false,
        }
    }
    (pieces.len() > 1).then(|| pieces.into_boxed_slice())
}

fn trim(sql: &[u8], range: Range<usize>) -> Range<usize> {
    let piece = &sql[range.clone()];
    let start = range.start + (piece.len() - piece.trim_ascii_start().len());
    start..start + piece.trim_ascii().len()
}

/// What a PREPARE or DEALLOCATE names: `None` where that cannot be told, e.g. ALL.
pub(super) fn prepared_name(sql: &[u8]) -> Option<Name> {
    let mut lexer = Lexer { sql, at: 0 };
    let Some(Token::Word(verb)) = lexer.next() else { return None };
    let mut named = lexer.next()?;
    if verb.eq_ignore_ascii_case(b"DEALLOCATE") {
        if matches!(named, Token::Word(word) if word.eq_ignore_ascii_case(b"PREPARE")) {
            named = lexer.next()?;
        }
    } else if !verb.eq_ignore_ascii_case(b"PREPARE") {
        return None;
    }
    match named {
        Token::Word(word) if word.eq_ignore_ascii_case(b"ALL") => None,
        // Other characters are folded by the server's locale or not at all.
        Token::Word(word) if word.is_ascii() => Some(name(&word.to_ascii_lowercase())),
        Token::Quoted(inner) if !inner.is_empty() && !inner.contains(&b'"') => Some(name(inner)),
        _ => None,
    }
}

/// Whether `sql` certainly leaves alone what names of prepared statements stand for.
pub(super) fn keeps_names(sql: &[u8]) -> bool {
    let holds = |word: &[u8]| sql.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word));
    !holds(b"DEALLOCATE") && !holds(b"DISCARD") && !holds(b"PREPARE")
}

enum Token<'a> {
    Semicolon,
    Open,
    Close,
    Word(&'a [u8]),
    /// A quoted identifier, without its quotes.
    Quoted(&'a [u8]),
    Other,
}

struct Lexer<'a> {
    sql: &'a [u8],
    at: usize,
}

impl<'a> Lexer<'a> {
    /// The next token; blanks and comments are none. What is not closed reaches to the end.
    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let rest = &self.sql[self.at..];
            let (first, after) = rest.split_first()?;
            let token = match first {
                blank if blank.is_ascii_whitespace() || *blank == 0x0b => {
                    self.at += 1;
                    continue;
                }
                b'-' if after.first() == Some(&b'-') => {
                    self.at += memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
                    continue;
                }
                b'/' if after.first() == Some(&b'*') => {
                    self.at += comment_len(rest);
                    continue;
                }
                b';' => self.take(1, Token::Semicolon),
                b'(' => self.take(1, Token::Open),
                b')' => self.take(1, Token::Close),
                b'\'' => self.take(quoted_len(rest, b'\'', false), Token::Other),
                b'"' => {
                    let len = quoted_len(rest, b'"', false);
                    self.take(len, Token::Quoted(rest.get(1..len - 1).unwrap_or_default()))
                }
                b'$' => self.take(dollar_len(rest), Token::Other),
                start if is_word_start(*start) => {
                    let len = rest.iter().position(|byte| !is_word(*byte)).unwrap_or(rest.len());
                    let word = &rest[..len];
                    if word.eq_ignore_ascii_case(b"e") && rest.get(len) == Some(&b'\'') {
                        self.take(len + quoted_len(&rest[len..], b'\'', true), Token::Other)
                    } else {
                        self.take(len, Token::Word(word))
                    }
                }
                _ => self.take(1, Token::Other),
            };
            return Some(token);
        }
    }

    fn take(&mut self, len: usize, token: Token<'a>) -> Token<'a> {
        self.at += len;
        token
    }
}

fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn is_word(byte: u8) -> bool {
    is_word_start(byte) || byte.is_ascii_digit() || byte == b'$'
}

/// Length of the comment at the beginning of `rest`; comments nest.
fn comment_len(rest: &[u8]) -> usize {
    let mut at = 2;
    let mut depth = 1;
    while let Some(next) = memchr::memchr2(b'/', b'*', &rest[at..]) {
        at += next;
        match (rest[at], rest.get(at + 1)) {
            (b'/', Some(b'*')) => (at, depth) = (at + 2, depth + 1),
            (b'*', Some(b'/')) => {
                (at, depth) = (at + 2, depth - 1);
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    rest.len()
}

/// Length of the string at the beginning of `rest`. A doubled quote stands for itself, and so does one after a backslash if `escapes`.
fn quoted_len(rest: &[u8], quote: u8, escapes: bool) -> usize {
    let mut at = 1;
    while at < rest.len() {
        if escapes && rest[at] == b'\\' {
            at += 2;
        } else if rest[at] == quote {
            if rest.get(at + 1) != Some(&quote) {
                return at + 1;
            }
            at += 2;
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// Length of the dollar-quoted string at the beginning of `rest`, or 1 if it is only a dollar sign (as in `$1`).
fn dollar_len(rest: &[u8]) -> usize {
    let inner = rest[1..].iter().position(|byte| *byte == b'$' || !is_word(*byte)).unwrap_or(rest.len() - 1);
    let tag_end = 1 + inner;
    if rest.get(tag_end) != Some(&b'$') || rest[1].is_ascii_digit() {
        return 1;
    }
    let tag = &rest[..=tag_end];
    match memchr::memmem::find(&rest[tag.len()..], tag) {
        Some(end) => tag.len() + end + tag.len(),
        None => rest.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(sql: &str) -> Vec<&str> {
        pieces(sql.as_bytes()).iter().flat_map(|pieces| pieces.iter().map(|range| &sql[range.clone()])).collect()
    }

    #[test]
    fn statements_end_at_top_level_semicolons() {
        for (sql, expected) in [
            ("", &[][..]),
            ("SELECT 1", &[]),
            ("SELECT 1; ;\n", &[]),
            ("SELECT 1; -- done", &[]),
            (";;", &[]),
            ("BEGIN;SELECT 1 ; COMMIT", &["BEGIN", "SELECT 1", "COMMIT"]),
            ("a; /* ; /* ; */ ; */ b;", &["a", "/* ; /* ; */ ; */ b"]),
            ("a; -- ;\n b", &["a", "-- ;\n b"]),
            ("'a;''b;';c", &["'a;''b;'", "c"]),
            (r"'a\';b", &[r"'a\'", "b"]),
            (r"E'a\';b';c", &[r"E'a\';b'", "c"]),
            (r"e'a\\';c", &[r"e'a\\'", "c"]),
            (r"fee'a\';c", &[r"fee'a\'", "c"]),
            ("\"a;\"\"b;\";c", &["\"a;\"\"b;\"", "c"]),
            ("$$a;$b$;$$;c", &["$$a;$b$;$$", "c"]),
            ("$x$a;$$;$x$;c", &["$x$a;$$;$x$", "c"]),
            ("SELECT $1;SELECT $2;$3", &["SELECT $1", "SELECT $2", "$3"]),
            ("SELECT a$b$;SELECT c$b$", &["SELECT a$b$", "SELECT c$b$"]),
            ("CREATE RULE r AS ON INSERT TO t DO (a; b);c", &["CREATE RULE r AS ON INSERT TO t DO (a; b)", "c"]),
            ("a);b", &["a)", "b"]),
            ("a;'open", &["a", "'open"]),
            ("a;$t$open", &["a", "$t$open"]),
            ("a;$", &["a", "$"]),
            ("a;/*open", &[]),
        ] {
            assert_eq!(split(sql), expected, "{sql}");
        }
    }

    #[test]
    fn too_many_statements_are_not_split() {
        assert_eq!(pieces("x;".repeat(MAX_PIECES).as_bytes()).map(|pieces| pieces.len()), Some(MAX_PIECES));
        assert_eq!(pieces("x;".repeat(MAX_PIECES + 1).as_bytes()), None);
    }

    #[test]
    fn prepared_names_are_read_as_the_server_reads_them() {
        for (sql, expected) in [
            ("DEALLOCATE s1", Some("s1")),
            ("deallocate prepare S1;", Some("s1")),
            ("/* x */ DEALLOCATE \"Case\"", Some("Case")),
            ("PREPARE p (int) AS SELECT $1", Some("p")),
            ("DEALLOCATE ALL", None),
            ("DEALLOCATE", None),
            ("DEALLOCATE \"a\"\"b\"", None),
            ("DEALLOCATE \"", None),
            ("SELECT 1", None),
            ("", None),
        ] {
            assert_eq!(prepared_name(sql.as_bytes()).as_deref(), expected.map(str::as_bytes), "{sql}");
        }
    }
}
