//! The lexical rules of PostgreSQL and of MySQL and MariaDB: bytes in, tokens out. No token owns memory and no escape is decoded, because
//! nothing reads what is inside a literal.
//!
//! Sources: PostgreSQL manual §4.1 "Lexical Structure" and its `scan.l`; MySQL manual §11.1 "Literal Values", §11.2 "Schema Object Names",
//! §11.7 "Comments"; MariaDB manual "Comment Syntax".

use memchr::{memchr, memchr2, memmem};

use crate::model::Engine;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An identifier or keyword without quotes.
    Word,
    /// An identifier in quotes, which belong to its range.
    Quoted,
    /// A string, number or bit string.
    Literal,
    /// A bind placeholder that can be nothing else: `$1`.
    Parameter,
    /// `?`: a placeholder, a folded literal, or an operator of PostgreSQL.
    Question,
    /// `...`
    Ellipsis,
    Operator,
    /// `:`
    Colon,
    /// `::` of PostgreSQL.
    Cast,
    /// `@` of MySQL.
    At,
    Dot,
    Comma,
    Semicolon,
    OpenParen,
    CloseParen,
    OpenBracket,
    CloseBracket,
}

/// A range of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lexeme {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Why there is no next token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// A string, comment or quoted identifier has no end.
    Unterminated,
    /// The bytes are no SQL of this engine, or ambiguous in a way that could show a literal.
    Illegal,
}

/// Cuts a text into tokens.
#[derive(Clone, Debug)]
pub(super) struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    engine: Engine,
    /// End of the last token, if that was a name: `a.5` is a column of MySQL, `a .5` is not.
    name_end: Option<usize>,
    /// The last token was a dot between names.
    after_name_dot: bool,
    /// Inside a version comment of MySQL, whose content is executed.
    version_comment: bool,
}

const BLANK: u8 = 1;
const WORD: u8 = 1 << 1;
const DIGIT: u8 = 1 << 2;
/// Part of an operator of PostgreSQL.
const OPERATOR: u8 = 1 << 3;

static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => BLANK,
            b'0'..=b'9' => WORD | DIGIT,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$' | 0x80..=0xff => WORD,
            b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'+' | b'-' | b'*' | b'/' | b'%' | b'<'
            | b'>' | b'=' => OPERATOR,
            _ => 0,
        };
        byte += 1;
    }
    classes
};

fn is(byte: Option<&u8>, class: u8) -> bool {
    byte.is_some_and(|byte| CLASSES[*byte as usize] & class != 0)
}

impl<'a> Lexer<'a> {
    pub(super) fn new(engine: Engine, text: &'a [u8]) -> Lexer<'a> {
        Lexer { text, at: 0, engine, name_end: None, after_name_dot: false, version_comment: false }
    }

    fn postgres(&self) -> bool {
        self.engine == Engine::Postgresql
    }

    fn peek(&self, ahead: usize) -> Option<&u8> {
        self.text.get(self.at + ahead)
    }

    fn sees(&self, bytes: &[u8]) -> bool {
        self.text[self.at..].starts_with(bytes)
    }

    /// The next token, or `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Lexeme>, Stop> {
        self.skip_blanks_and_comments()?;
        let start = self.at;
        let Some(first) = self.text.get(start).copied() else {
            return if self.version_comment { Err(Stop::Unterminated) } else { Ok(None) };
        };
        let kind = match first {
            _ if std::mem::take(&mut self.after_name_dot) && self.name_end == Some(start) && is(Some(&first), WORD) => {
                self.word()
            }
            b'0'..=b'9' => self.number(),
            b'$' => self.dollar()?,
            _ if CLASSES[first as usize] & WORD != 0 => self.word_or_prefixed_literal(first)?,
            b'\'' => self.string(b'\'', !self.postgres())?,
            b'"' if self.postgres() => self.quoted_identifier(b'"')?,
            b'"' => self.string(b'"', true)?,
            b'`' if !self.postgres() => self.quoted_identifier(b'`')?,
            b'.' if self.sees(b"...") => self.punctuation(3, Kind::Ellipsis),
            b'.' if self.peek(1) == Some(&b'.') => return Err(Stop::Illegal),
            b'.' if !self.postgres() && self.name_end == Some(start) && is(self.peek(1), WORD) => {
                self.after_name_dot = true;
                self.punctuation(1, Kind::Dot)
            }
            b'.' if is(self.peek(1), DIGIT) => self.number(),
            b'.' => self.punctuation(1, Kind::Dot),
            b',' => self.punctuation(1, Kind::Comma),
            b';' => self.punctuation(1, Kind::Semicolon),
            b'(' => self.punctuation(1, Kind::OpenParen),
            b')' => self.punctuation(1, Kind::CloseParen),
            b'[' => self.punctuation(1, Kind::OpenBracket),
            b']' => self.punctuation(1, Kind::CloseBracket),
            b':' if self.sees(b"::") && self.postgres() => self.punctuation(2, Kind::Cast),
            b':' if self.sees(b"::") => self.punctuation(2, Kind::Operator),
            b':' if self.sees(b":=") => self.punctuation(2, Kind::Operator),
            b':' => self.punctuation(1, Kind::Colon),
            b'{' | b'}' => self.punctuation(1, Kind::Operator),
            b'@' if !self.postgres() => self.punctuation(1, Kind::At),
            b'?' if !self.postgres() => self.punctuation(1, Kind::Question),
            // NULL of MySQL.
            b'\\' if !self.postgres() && self.peek(1) == Some(&b'N') => self.punctuation(2, Kind::Literal),
            _ if CLASSES[first as usize] & OPERATOR != 0 => self.operator(),
            _ => return Err(Stop::Illegal),
        };
        self.name_end = (matches!(kind, Kind::Word | Kind::Quoted) || self.after_name_dot).then_some(self.at);
        Ok(Some(Lexeme { kind, start, end: self.at }))
    }

    fn punctuation(&mut self, length: usize, kind: Kind) -> Kind {
        self.at += length;
        kind
    }

    fn skip_blanks_and_comments(&mut self) -> Result<(), Stop> {
        loop {
            while is(self.peek(0), BLANK) {
                self.at += 1;
            }
            match self.peek(0) {
                Some(b'-') if self.peek(1) == Some(&b'-') => {
                    // MySQL takes `--` for a comment only before a blank or a control character, or at the end.
                    if !self.postgres() && self.peek(2).is_some_and(|byte| *byte > b' ') {
                        return Ok(());
                    }
                    self.skip_line();
                }
                Some(b'#') if !self.postgres() => self.skip_line(),
                Some(b'/') if self.peek(1) == Some(&b'*') => self.skip_block()?,
                Some(b'*') if self.version_comment && self.peek(1) == Some(&b'/') => {
                    self.version_comment = false;
                    self.at += 2;
                }
                _ => return Ok(()),
            }
        }
    }

    fn skip_line(&mut self) {
        let rest = &self.text[self.at..];
        let end = if self.postgres() { memchr2(b'\n', b'\r', rest) } else { memchr(b'\n', rest) };
        self.at = end.map_or(self.text.len(), |end| self.at + end);
    }

    /// Skips `/* ... */`, nested in PostgreSQL. Of a version comment of MySQL only its opening is skipped where the server executes the content.
    fn skip_block(&mut self) -> Result<(), Stop> {
        if !self.postgres() && self.opens_version_comment() {
            return Ok(());
        }
        let mut depth = 1;
        self.at += 2;
        while depth > 0 {
            let Some(next) = memchr2(b'*', b'/', &self.text[self.at..]) else {
                self.at = self.text.len();
                return Err(Stop::Unterminated);
            };
            self.at += next;
            if self.sees(b"*/") {
                depth -= 1;
                self.at += 2;
            } else if self.postgres() && self.sees(b"/*") {
                depth += 1;
                self.at += 2;
            } else {
                self.at += 1;
            }
        }
        Ok(())
    }

    /// `/*!50110 content */` is executed by servers of version 5.1.10 and later, `/*M!100100 content */` by MariaDB 10.1 and later. Which version
    /// reads this text is not known here, so all content counts as executed that a current server would execute. MariaDB passes over
    /// what is meant for MySQL 5.7 to 9: versions 50700 to 99999.
    fn opens_version_comment(&mut self) -> bool {
        let mariadb = self.engine == Engine::Mariadb;
        let opening = match () {
            () if self.sees(b"/*!") => 3,
            () if mariadb && self.sees(b"/*M!") => 4,
            () => return false,
        };
        let digits = self.text[self.at + opening..].iter().take(6).take_while(|byte| byte.is_ascii_digit()).count();
        // A version has five or six digits, anything less is content.
        let digits = if digits < 5 { 0 } else { digits };
        let version = self.text[self.at + opening..][..digits]
            .iter()
            .fold(0u32, |version, digit| version * 10 + u32::from(digit - b'0'));
        if mariadb && opening == 3 && (50_700..=99_999).contains(&version) {
            return false;
        }
        self.version_comment = true;
        self.at += opening + digits;
        true
    }

    fn word(&mut self) -> Kind {
        while is(self.peek(0), WORD) {
            self.at += 1;
        }
        Kind::Word
    }

    fn word_or_prefixed_literal(&mut self, first: u8) -> Result<Kind, Stop> {
        let postgres = self.postgres();
        match (first | 0x20, self.peek(1)) {
            // Bit and hexadecimal strings have no escapes; national strings have those of their dialect.
            (b'b' | b'x', Some(b'\'')) => {
                self.at += 1;
                self.string(b'\'', false)
            }
            (b'n', Some(b'\'')) => {
                self.at += 1;
                self.string(b'\'', !postgres)
            }
            (b'e', Some(b'\'')) if postgres => {
                self.at += 1;
                self.string(b'\'', true)
            }
            (b'u', Some(b'&')) if postgres && self.peek(2) == Some(&b'\'') => {
                self.at += 2;
                self.string(b'\'', false)
            }
            (b'u', Some(b'&')) if postgres && self.peek(2) == Some(&b'"') => {
                self.at += 2;
                self.quoted_identifier(b'"')
            }
            _ => Ok(self.word()),
        }
    }

    /// A string from its opening quote. In PostgreSQL a string goes on after a line break (§4.1.2.1), with the escapes of its first part.
    fn string(&mut self, quote: u8, backslash: bool) -> Result<Kind, Stop> {
        loop {
            self.skip_quoted(quote, backslash)?;
            if !self.postgres() || !self.skip_to_continuation() {
                return Ok(Kind::Literal);
            }
        }
    }

    /// Skips from an opening quote past the closing one; a doubled quote does not close.
    fn skip_quoted(&mut self, quote: u8, backslash: bool) -> Result<(), Stop> {
        self.at += 1;
        loop {
            let rest = &self.text[self.at..];
            let found = if backslash { memchr2(quote, b'\\', rest) } else { memchr(quote, rest) };
            let Some(found) = found else {
                self.at = self.text.len();
                return Err(Stop::Unterminated);
            };
            self.at += found;
            if self.text[self.at] == b'\\' && backslash {
                if self.peek(1) == Some(&quote) && self.after_foreign_byte() {
                    return Err(Stop::Illegal);
                }
                if self.at + 2 > self.text.len() {
                    self.at = self.text.len();
                    return Err(Stop::Unterminated);
                }
                self.at += 2;
            } else if self.peek(1) == Some(&quote) {
                self.at += 2;
            } else {
                self.at += 1;
                return Ok(());
            }
        }
    }

    /// Whether the byte here may be the second half of a character of GBK, Big5 or Shift-JIS, which hold `\` and `` ` `` there. Whoever reads the text in
    /// another character set then sees other strings, and what is a literal to the server might be code here.
    fn after_foreign_byte(&self) -> bool {
        self.at > 0
            && self.text[self.at - 1] >= 0x80
            && std::str::from_utf8(self.text).is_err_and(|error| error.error_len().is_some())
    }

    /// After a string of PostgreSQL: whether blanks with a line break and another quote follow; then it stops at the quote.
    fn skip_to_continuation(&mut self) -> bool {
        let mut at = self.at;
        let mut line_break = false;
        loop {
            match self.text.get(at) {
                Some(b'\n' | b'\r') => line_break = true,
                Some(byte) if is(Some(byte), BLANK) => {}
                Some(b'-') if self.text.get(at + 1) == Some(&b'-') => {
                    match memchr2(b'\n', b'\r', &self.text[at..]) {
                        Some(end) => at += end,
                        None => return false,
                    }
                    continue;
                }
                Some(b'\'') if line_break => {
                    self.at = at;
                    return true;
                }
                _ => return false,
            }
            at += 1;
        }
    }

    fn quoted_identifier(&mut self, quote: u8) -> Result<Kind, Stop> {
        if quote == b'`' && self.after_foreign_byte() {
            return Err(Stop::Illegal);
        }
        self.skip_quoted(quote, false)?;
        if quote == b'`' {
            self.at -= 1;
            let foreign = self.after_foreign_byte();
            self.at += 1;
            if foreign {
                return Err(Stop::Illegal);
            }
        }
        Ok(Kind::Quoted)
    }

    /// `$1`, `$$...$$`, `$tag$...$tag$`. MySQL 9 has dollar quotes for the bodies of routines (§15.1.21), and like MariaDB it has names that begin
    /// with a dollar sign.
    fn dollar(&mut self) -> Result<Kind, Stop> {
        if self.postgres() && is(self.peek(1), DIGIT) {
            // "Trailing junk" such as `$1a` is an error of PostgreSQL: it belongs to what is folded.
            self.at += 1;
            self.word();
            return Ok(Kind::Parameter);
        }
        if self.engine == Engine::Mariadb {
            return Ok(self.word());
        }
        let mut tag_end = self.at + 1;
        if !is(self.text.get(tag_end), DIGIT) {
            while is(self.text.get(tag_end), WORD) && self.text[tag_end] != b'$' {
                tag_end += 1;
            }
        }
        if self.text.get(tag_end) == Some(&b'$') {
            let delimiter = &self.text[self.at..=tag_end];
            match memmem::find(&self.text[tag_end + 1..], delimiter) {
                Some(found) => {
                    self.at = tag_end + 1 + found + delimiter.len();
                    return Ok(Kind::Literal);
                }
                None => {
                    self.at = self.text.len();
                    return Err(Stop::Unterminated);
                }
            }
        }
        match self.engine {
            Engine::Postgresql if tag_end == self.text.len() => {
                self.at = tag_end;
                Err(Stop::Unterminated)
            }
            Engine::Postgresql => Err(Stop::Illegal),
            Engine::Mysql | Engine::Mariadb => Ok(self.word()),
        }
    }

    fn number(&mut self) -> Kind {
        let start = self.at;
        if self.peek(0) == Some(&b'0') && self.peek(1).is_some_and(|byte| matches!(byte | 0x20, b'x' | b'o' | b'b')) {
            self.word();
            return Kind::Literal;
        }
        let mut name = !self.postgres();
        self.digits();
        if self.peek(0) == Some(&b'.') && self.peek(1) != Some(&b'.') {
            name = false;
            self.at += 1;
            self.digits();
        }
        if self.peek(0).is_some_and(|byte| byte | 0x20 == b'e') {
            let sign = usize::from(matches!(self.peek(1), Some(b'+' | b'-')));
            if is(self.peek(1 + sign), DIGIT) {
                name = false;
                self.at += 1 + sign;
                self.digits();
            }
        }
        // `1a` is a name to MySQL and an error to PostgreSQL, where it belongs to what is folded.
        if is(self.peek(0), WORD) {
            self.word();
            let digits = |byte: &u8| byte.is_ascii_digit() || *byte == b'_';
            let after_digits = self.text[start..self.at].iter().position(|byte| !digits(byte));
            // An `e` alone is the beginning of an exponent.
            if name && after_digits.is_some_and(|at| !self.text[start + at..self.at].eq_ignore_ascii_case(b"e")) {
                return Kind::Word;
            }
        }
        Kind::Literal
    }

    fn digits(&mut self) {
        while self.peek(0).is_some_and(|byte| byte.is_ascii_digit() || *byte == b'_') {
            self.at += 1;
        }
    }

    fn operator(&mut self) -> Kind {
        if !self.postgres() {
            const LONG: [&[u8]; 11] = [b"<=>", b"->>", b"<=", b">=", b"<>", b"!=", b"<<", b">>", b"||", b"&&", b"->"];
            let length = LONG.iter().find(|operator| self.sees(operator)).map_or(1, |operator| operator.len());
            return self.punctuation(length, Kind::Operator);
        }
        // §4.1.3: the longest run, ended by a comment; it ends in + or - only if it holds a character that no operator of the SQL standard has.
        let start = self.at;
        while is(self.peek(0), OPERATOR) && !self.sees(b"--") && !self.sees(b"/*") {
            self.at += 1;
        }
        let foreign = |byte: &u8| matches!(byte, b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'%');
        if !self.text[start..self.at].iter().any(foreign) {
            while self.at - start > 1 && matches!(self.text[self.at - 1], b'+' | b'-') {
                self.at -= 1;
            }
        }
        if self.text[start..self.at] == *b"?" { Kind::Question } else { Kind::Operator }
    }
}
