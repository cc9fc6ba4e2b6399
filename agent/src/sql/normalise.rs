//! From tokens to the normalised text, in one pass.
//!
//! The text is written as tokens arrive. Lists fold as they grow, so an INSERT of ten thousand rows needs the room of one. Every decision rests
//! on tokens already written or on the kind of the next one, never on blanks, comments or quotes of the input: that makes the normalised
//! text of a normalised text the same text.

use super::{
    keywords::{Keyword, Keywords, Kw},
    tokens::{Kind, Lexeme, Lexer, Stop},
};
use crate::model::Engine;

/// What a token of the normalised text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A word, or an identifier in quotes.
    Word,
    /// `?` in place of a literal or placeholder.
    Value,
    Operator,
    /// `+` or `-` before an operand: it belongs to the number, if one follows.
    Sign,
    Cast,
    At,
    Dot,
    Comma,
    Semicolon,
    OpenParen,
    CloseParen,
    OpenBracket,
    CloseBracket,
}

/// A token of the normalised text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub(super) part: Part,
    pub(super) kw: Kw,
    pub(super) reserved: bool,
    operand_follows: bool,
    spaced: bool,
    introducer: bool,
    /// Range in the text, without the blank before it.
    pub(super) start: u32,
    pub(super) end: u32,
}

/// How the elements between two parentheses fold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fold {
    /// Not at all.
    None,
    /// An element equal to its predecessor is dropped, if a literal is in it: IN (...), ARRAY[...], rows.
    List,
    /// The rows after VALUES: likewise, but each ends with its parenthesis.
    Rows,
}

#[derive(Clone, Copy, Debug)]
struct Level {
    fold: Fold,
    /// Index of the first token of the current element.
    element: usize,
    /// Index of the first token of the element before it, if that is still next to it.
    previous: Option<usize>,
}

/// Why a text has no normalised form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unparsable;

/// Writes the normalised text. Reused from statement to statement for its buffers.
#[derive(Default)]
pub(super) struct Writer {
    pub(super) text: Vec<u8>,
    pub(super) tokens: Vec<Token>,
    levels: Vec<Level>,
    /// Number of tokens before the first quote: up to there no mistake about quoting is possible.
    before_quotes: Option<usize>,
    /// The next parenthesis lists the columns of a table: a blank stands before it.
    table_named: bool,
}

/// Bound on the normalised text in bytes, the mark included.
pub(super) const MAX_TEXT: usize = 8 * 1024;
/// Follows a text that goes on.
pub(super) const CUT: &[u8] = b" ...";
/// Buffers that grew beyond this for one statement shrink after it.
const KEEP: usize = 64 * 1024;

impl Writer {
    /// Fills `text` and `tokens`. With an error they hold what comes before the first quote.
    pub(super) fn run(&mut self, engine: Engine, input: &[u8], truncated: bool) -> Result<(), Unparsable> {
        self.text.clear();
        self.tokens.clear();
        self.text.shrink_to(KEEP);
        self.tokens.shrink_to(KEEP / size_of::<Token>());
        self.levels.clear();
        self.levels.push(Level { fold: Fold::None, element: 0, previous: None });
        self.before_quotes = None;
        self.table_named = false;
        let mut run = Run { out: self, lexer: Lexer::new(engine, input), input, engine, keywords: Keywords::get() };
        let cut = match run.all(truncated) {
            Ok(cut) => cut,
            Err(Unparsable) => {
                let keep = self.before_quotes.unwrap_or(self.tokens.len());
                self.truncate(keep.min(self.tokens.len()));
                self.drop_loose_end();
                return Err(Unparsable);
            }
        };
        self.finish(cut);
        Ok(())
    }

    fn finish(&mut self, mut cut: bool) {
        while self.last().is_some_and(|last| last.part == Part::Semicolon) {
            self.pop();
        }
        if self.text.len() > MAX_TEXT {
            cut = true;
            let fits = self.tokens.partition_point(|token| token.end as usize <= MAX_TEXT - CUT.len());
            self.truncate(fits);
        }
        if cut {
            self.drop_loose_end();
            self.text.extend_from_slice(if self.text.is_empty() { &CUT[1..] } else { CUT });
        }
    }

    /// Takes from the end of a cut text what depends on where exactly it was cut, so that literals of different lengths before the cut
    /// make few different texts.
    fn drop_loose_end(&mut self) {
        while let Some(last) = self.last() {
            match last.part {
                Part::Word if !last.introducer => return,
                Part::CloseParen => match self.tokens.as_slice() {
                    [.., before, open, value, _]
                        if open.part == Part::OpenParen
                            && value.part == Part::Value
                            && (before.part == Part::Comma || matches!(before.kw, Kw::Values | Kw::In)) =>
                    {
                        self.truncate(self.tokens.len() - 3);
                    }
                    _ => return,
                },
                Part::CloseBracket => return,
                _ => self.pop(),
            }
        }
    }

    fn last(&self) -> Option<&Token> {
        self.tokens.last()
    }

    fn pop(&mut self) {
        self.truncate(self.tokens.len().saturating_sub(1));
    }

    fn truncate(&mut self, tokens: usize) {
        self.tokens.truncate(tokens);
        self.text.truncate(self.last().map_or(0, |last| last.end as usize));
    }

    fn slice(&self, tokens: std::ops::Range<usize>) -> &[u8] {
        match (self.tokens.get(tokens.start), self.tokens.get(tokens.end.wrapping_sub(1))) {
            (Some(first), Some(last)) if tokens.start < tokens.end => {
                &self.text[first.start as usize..last.end as usize]
            }
            _ => &[],
        }
    }

    fn level(&mut self) -> &mut Level {
        if self.levels.is_empty() {
            self.levels.push(Level { fold: Fold::None, element: 0, previous: None });
        }
        let last = self.levels.len() - 1;
        &mut self.levels[last]
    }

    /// Whether a blank stands between the last token and one of `part`.
    fn blank_before(&self, part: Part) -> bool {
        let Some(last) = self.last() else { return false };
        if matches!(last.part, Part::OpenParen | Part::OpenBracket | Part::Dot | Part::Cast | Part::At) {
            return false;
        }
        let after_name = matches!(last.part, Part::Word | Part::Value | Part::CloseParen | Part::CloseBracket);
        match part {
            Part::CloseParen | Part::CloseBracket | Part::Comma | Part::Semicolon => false,
            Part::Dot | Part::Cast => !after_name,
            Part::OpenBracket => !after_name || last.operand_follows,
            Part::OpenParen => last.part != Part::Word || last.spaced || self.table_named,
            _ => true,
        }
    }

    /// Writes a token whose bytes `write` appends.
    fn push(&mut self, part: Part, keyword: Option<(&Keyword, Engine)>, write: impl FnOnce(&mut Vec<u8>)) {
        if self.blank_before(part) {
            self.text.push(b' ');
        }
        let start = self.text.len() as u32;
        write(&mut self.text);
        let (kw, reserved, operand_follows, spaced, introducer) = match keyword {
            Some((keyword, engine)) => (
                keyword.kw,
                keyword.reserved(engine),
                keyword.operand_follows(engine),
                keyword.spaced(),
                keyword.introducer(),
            ),
            None => (Kw::None, false, false, false, false),
        };
        let end = self.text.len() as u32;
        self.tokens.push(Token { part, kw, reserved, operand_follows, spaced, introducer, start, end });
    }

    fn push_bytes(&mut self, part: Part, bytes: &[u8]) {
        self.push(part, None, |text| text.extend_from_slice(bytes));
    }

    /// Whether the next token begins an operand, so that a sign or NULL there is a part of it.
    fn operand_expected(&self) -> bool {
        self.last().is_none_or(|last| match last.part {
            Part::Word => last.operand_follows,
            Part::Operator | Part::Sign | Part::Comma | Part::Semicolon | Part::OpenParen | Part::OpenBracket => true,
            Part::Value | Part::Cast | Part::At | Part::Dot | Part::CloseParen | Part::CloseBracket => false,
        })
    }

    fn last_is(&self, part: Part) -> bool {
        self.last().is_some_and(|last| last.part == part)
    }

    /// The keyword `back` tokens before the end; 0 is the last.
    fn kw(&self, back: usize) -> Kw {
        self.tokens.iter().rev().nth(back).map_or(Kw::None, |token| token.kw)
    }

    fn parts_end_with(&self, parts: &[Part]) -> bool {
        self.tokens.len() >= parts.len()
            && self.tokens[self.tokens.len() - parts.len()..].iter().map(|token| token.part).eq(parts.iter().copied())
    }

    fn open(&mut self, part: Part) {
        let at = self.tokens.len();
        let (row, previous) = (self.kw(0) == Kw::Row, self.kw(0));
        let parent = *self.level();
        let first_in_element = parent.element == at || (row && parent.element + 1 == at);
        let fold = match part {
            Part::OpenParen if previous == Kw::In => Fold::List,
            Part::OpenBracket if previous == Kw::Array => Fold::List,
            _ if parent.fold != Fold::None && first_in_element => Fold::List,
            _ => Fold::None,
        };
        self.push_bytes(part, if part == Part::OpenParen { b"(" } else { b"[" });
        self.levels.push(Level { fold, element: at + 1, previous: None });
        self.table_named = false;
    }

    fn comma(&mut self) {
        if self.level().fold == Fold::List {
            self.end_element();
        }
        self.push_bytes(Part::Comma, b",");
        let next = self.tokens.len();
        let level = self.level();
        level.previous = Some(level.element);
        level.element = next;
    }

    fn close(&mut self, engine: Engine, part: Part) {
        if self.level().fold == Fold::List {
            self.end_element();
        }
        // The base level stays: a closing parenthesis may have no opening one.
        if self.levels.len() > 1 {
            self.levels.pop();
        }
        if engine != Engine::Postgresql && part == Part::CloseParen && self.close_server_placeholder() {
            return;
        }
        self.push_bytes(part, if part == Part::CloseParen { b")" } else { b"]" });
        if engine != Engine::Postgresql {
            const ROWS: [Part; 7] = [
                Part::OpenParen,
                Part::Value,
                Part::CloseParen,
                Part::Comma,
                Part::OpenParen,
                Part::Value,
                Part::CloseParen,
            ];
            if self.parts_end_with(&ROWS) {
                self.truncate(self.tokens.len() - 4);
                self.join_previous();
            }
        }
        if self.level().fold == Fold::Rows {
            self.end_element();
        }
    }

    /// The digests of MySQL and MariaDB print a national string as `(unknown)` and the introducer of a string as `(_charset)`.
    fn close_server_placeholder(&mut self) -> bool {
        match self.tokens.as_slice() {
            [.., open, word] if open.part == Part::OpenParen && matches!(word.kw, Kw::Unknown | Kw::Charset) => {
                let unknown = word.kw == Kw::Unknown;
                self.truncate(self.tokens.len() - 2);
                if unknown {
                    self.value(Engine::Mysql);
                }
                true
            }
            _ => false,
        }
    }

    /// After the comma and the element behind it are gone: the element before it is the current one again.
    fn join_previous(&mut self) {
        let level = self.level();
        if let Some(previous) = level.previous.take() {
            level.element = previous;
        }
    }

    /// Drops the current element if it equals the one before it.
    fn end_element(&mut self) {
        let Level { element, previous, .. } = *self.level();
        self.drop_casts(element);
        let Some(previous) = previous else { return };
        let current = self.slice(element..self.tokens.len());
        if memchr::memchr(b'?', current).is_some() && self.slice(previous..element - 1) == current {
            self.truncate(element - 1);
            self.join_previous();
        }
    }

    /// `?::type` is a constant like `?`: PostgreSQL 18 squashes both.
    fn drop_casts(&mut self, element: usize) {
        if let Some([value, cast, rest @ ..]) = self.tokens.get(element..)
            && value.part == Part::Value
            && cast.part == Part::Cast
            && rest.iter().all(|token| {
                !matches!(token.part, Part::Operator | Part::Sign | Part::Comma | Part::Semicolon | Part::At)
                    && (!token.reserved || token.kw == Kw::With)
            })
        {
            self.truncate(element + 1);
        }
    }

    /// Writes `?` for a literal or placeholder.
    fn value(&mut self, engine: Engine) {
        while engine != Engine::Postgresql && self.last().is_some_and(|last| last.introducer) {
            self.pop();
        }
        while self.last_is(Part::Sign) {
            self.pop();
        }
        if engine != Engine::Postgresql {
            // Neighbouring strings are one string, and the servers' digests fold `1, 2` wherever it stands.
            if self.last_is(Part::Value) {
                return;
            }
            if self.parts_end_with(&[Part::Value, Part::Comma]) {
                self.pop();
                self.join_previous();
                return;
            }
        }
        self.push_bytes(Part::Value, b"?");
    }
}

/// One text on its way through a [`Writer`].
struct Run<'a> {
    out: &'a mut Writer,
    lexer: Lexer<'a>,
    input: &'a [u8],
    engine: Engine,
    keywords: &'static Keywords,
}

impl Run<'_> {
    /// Writes all tokens. The answer is whether the text goes on beyond its end.
    fn all(&mut self, truncated: bool) -> Result<bool, Unparsable> {
        loop {
            let lexeme = match self.lexer.next() {
                Ok(Some(lexeme)) => lexeme,
                Ok(None) => return Ok(truncated),
                Err(Stop::Unterminated) if truncated => return Ok(true),
                Err(_) => return Err(Unparsable),
            };
            // The last token of a truncated text may be a part of a longer one.
            let complete = matches!(
                lexeme.kind,
                Kind::Comma
                    | Kind::Semicolon
                    | Kind::OpenParen
                    | Kind::CloseParen
                    | Kind::OpenBracket
                    | Kind::CloseBracket
            );
            if truncated && lexeme.end == self.input.len() && !complete {
                return Ok(true);
            }
            // `?, ...` is a list in the digest of a server.
            let list = self.engine != Engine::Postgresql && self.out.parts_end_with(&[Part::Value, Part::Comma]);
            if lexeme.kind == Kind::Ellipsis && !list {
                match self.lexer.clone().next() {
                    // The mark of this normaliser, or of a server that cut its digest.
                    Ok(None) => return Ok(true),
                    _ if self.engine == Engine::Postgresql => return Err(Unparsable),
                    _ => {}
                }
            }
            self.token(lexeme)?;
        }
    }

    fn token(&mut self, lexeme: Lexeme) -> Result<(), Unparsable> {
        let bytes = &self.input[lexeme.start..lexeme.end];
        match lexeme.kind {
            // `. 1a`: without its blank it would be a number.
            Kind::Word
                if self.out.last_is(Part::Dot)
                    && bytes[0].is_ascii_digit()
                    && !(self.input[..lexeme.start].ends_with(b".") && self.after_name_dot()) =>
            {
                self.value();
            }
            Kind::Word => self.word(bytes),
            Kind::Quoted => {
                self.note_quote();
                self.quoted(bytes);
            }
            Kind::Literal => {
                if !bytes[0].is_ascii_digit() && bytes[0] != b'.' {
                    self.note_quote();
                }
                self.value();
            }
            Kind::Parameter | Kind::Question | Kind::Ellipsis => self.value(),
            Kind::Colon => {
                // `:name` is a placeholder where an operand begins; elsewhere it is the colon of an array slice.
                let mut after = self.lexer.clone();
                let name =
                    matches!(after.next(), Ok(Some(next)) if next.kind == Kind::Word && next.start == lexeme.end);
                if name && self.out.operand_expected() {
                    self.lexer = after;
                    self.value();
                } else {
                    self.out.push_bytes(Part::Operator, b":");
                }
            }
            Kind::Operator if matches!(bytes, b"+" | b"-") && self.out.operand_expected() => {
                self.out.push_bytes(Part::Sign, bytes);
            }
            // One operator in two spellings to both engines.
            Kind::Operator if bytes == b"!=" => self.out.push_bytes(Part::Operator, b"<>"),
            Kind::Operator => self.out.push_bytes(Part::Operator, bytes),
            Kind::Cast => self.out.push_bytes(Part::Cast, bytes),
            Kind::At => self.out.push_bytes(Part::At, bytes),
            Kind::Dot if self.out.last_is(Part::Dot) => return Err(Unparsable),
            Kind::Dot => self.out.push_bytes(Part::Dot, bytes),
            Kind::Comma => self.out.comma(),
            Kind::Semicolon => {
                if !self.out.tokens.is_empty() && !self.out.last_is(Part::Semicolon) {
                    self.out.push_bytes(Part::Semicolon, bytes);
                }
            }
            Kind::OpenParen => self.out.open(Part::OpenParen),
            Kind::OpenBracket => self.out.open(Part::OpenBracket),
            Kind::CloseParen => self.out.close(self.engine, Part::CloseParen),
            Kind::CloseBracket => self.out.close(self.engine, Part::CloseBracket),
        }
        Ok(())
    }

    /// Whether the last token is a dot that joins what follows to a name, to the lexer of MySQL, also when it reads the normalised text.
    fn after_name_dot(&self) -> bool {
        self.out.parts_end_with(&[Part::Word, Part::Dot]) && !self.out.text.ends_with(b"?.")
    }

    fn note_quote(&mut self) {
        let tokens = self.out.tokens.len();
        self.out.before_quotes.get_or_insert(tokens);
    }

    fn value(&mut self) {
        if self.user_variable() {
            self.out.push_bytes(Part::Word, b"?");
        } else if self.engine == Engine::Postgresql && !self.out.operand_expected() && self.operand_begins() {
            // Between two operands `?` is the operator of jsonb. A literal there is no SQL, but must read the same when it has become `?`.
            self.out.push_bytes(Part::Operator, b"?");
        } else {
            self.out.value(self.engine);
        }
    }

    /// After `@` of MySQL, but not `@@`: what follows is the name of a variable or a host. The servers' digests print `@?`.
    fn user_variable(&self) -> bool {
        self.out.last_is(Part::At) && !self.out.parts_end_with(&[Part::At, Part::At])
    }

    /// Whether the next token begins an operand.
    fn operand_begins(&self) -> bool {
        match self.lexer.clone().next() {
            Ok(Some(next)) => match next.kind {
                Kind::Literal | Kind::Parameter | Kind::Question | Kind::Quoted | Kind::OpenParen => true,
                Kind::Word => match self.keywords.find(&self.input[next.start..next.end]) {
                    Some(keyword) => {
                        !keyword.reserved(self.engine)
                            || matches!(keyword.kw, Kw::Array | Kw::Row | Kw::Null | Kw::True | Kw::False)
                    }
                    None => true,
                },
                _ => false,
            },
            _ => false,
        }
    }

    fn word(&mut self, word: &[u8]) {
        let postgres = self.engine == Engine::Postgresql;
        if self.out.last_is(Part::Dot) || self.out.last_is(Part::At) {
            if self.user_variable() {
                return self.out.push_bytes(Part::Word, b"?");
            }
            // What follows a dot is a name, whatever it is elsewhere; scopes follow `@@`.
            let scope = self.out.last_is(Part::At)
                && [&b"session"[..], b"global", b"local"].iter().any(|scope| word.eq_ignore_ascii_case(scope));
            let keyword = !postgres && self.keywords.find(word).is_some_and(Keyword::folds);
            return self.out.push(Part::Word, None, |text| append(text, word, postgres || scope || keyword));
        }
        let Some(mut keyword) = self.keywords.find(word) else {
            if postgres && self.extract_field() {
                return self.value();
            }
            return self.out.push(Part::Word, None, |text| append(text, word, postgres));
        };
        match keyword.kw {
            // Constants to PostgreSQL, and in part to the digest of MySQL, but for IS [NOT] TRUE, NOT NULL, ON NULL INPUT and names after AS.
            Kw::Null if self.out.operand_expected() && !matches!(self.out.kw(0), Kw::Not | Kw::On) => {
                return self.value();
            }
            Kw::True | Kw::False
                if self.out.operand_expected() && !(self.out.kw(0) == Kw::Not && self.out.kw(1) == Kw::Is) =>
            {
                return self.value();
            }
            // The parser of PostgreSQL makes constants of these words, and pg_stat_statements therefore prints placeholders.
            Kw::All if postgres && self.out.kw(0) == Kw::Limit => return self.value(),
            Kw::NormalForm if postgres => return self.value(),
            _ if postgres && self.extract_field() => return self.value(),
            _ => {}
        }
        // After rows, a word ends the list of them.
        if self.out.last_is(Part::CloseParen) && self.out.level().fold == Fold::Rows {
            self.out.level().fold = Fold::None;
        }
        if !postgres {
            keyword = self.keywords.canonical(keyword);
        }
        let engine = self.engine;
        let name = if postgres { None } else { Some(keyword.word.as_bytes()).filter(|_| keyword.folds()) };
        self.out.push(Part::Word, Some((keyword, engine)), |text| append(text, name.unwrap_or(word), postgres));
        match keyword.kw {
            Kw::Values => {
                let next = self.out.tokens.len();
                *self.out.level() = Level { fold: Fold::Rows, element: next, previous: None };
            }
            Kw::Into | Kw::Table => self.out.table_named = true,
            _ => {}
        }
    }

    /// Whether this is the field of PostgreSQL's `extract(field from ...)`: its parser makes a string of the word, and
    /// pg_stat_statements therefore prints a placeholder.
    fn extract_field(&self) -> bool {
        self.out.last_is(Part::OpenParen)
            && self.out.kw(1) == Kw::Extract
            && matches!(self.lexer.clone().next(), Ok(Some(next)) if next.kind == Kind::Word
                && self.input[next.start..next.end].eq_ignore_ascii_case(b"from"))
    }

    /// An identifier in quotes: they go where the name reads the same without.
    fn quoted(&mut self, quoted: &[u8]) {
        let postgres = self.engine == Engine::Postgresql;
        let name = match quoted {
            [b'"' | b'`', name @ .., _] => name,
            // U&"..." of PostgreSQL.
            _ => return self.out.push(Part::Word, None, |text| append_unicode_identifier(text, quoted)),
        };
        let whole_word = Lexeme { kind: Kind::Word, start: 0, end: name.len() };
        let simple = Lexer::new(self.engine, name).next() == Ok(Some(whole_word))
            && !(postgres && name.iter().any(u8::is_ascii_uppercase));
        let number_after_dot = self.out.last_is(Part::Dot) && name.first().is_some_and(u8::is_ascii_digit);
        if !simple || self.user_variable() || number_after_dot && !self.after_name_dot() {
            return self.out.push_bytes(Part::Word, quoted);
        }
        if self.out.last_is(Part::Dot) || self.out.last_is(Part::At) {
            return self.word(name);
        }
        match self.keywords.find(name) {
            Some(keyword) if keyword.needs_quotes(self.engine) => self.out.push_bytes(Part::Word, quoted),
            _ => self.word(name),
        }
    }
}

fn append(text: &mut Vec<u8>, word: &[u8], lower: bool) {
    let start = text.len();
    text.extend_from_slice(word);
    if lower {
        text[start..].make_ascii_lowercase();
    }
}

fn append_unicode_identifier(text: &mut Vec<u8>, quoted: &[u8]) {
    text.extend_from_slice(b"u&");
    text.extend_from_slice(&quoted[2..]);
}
