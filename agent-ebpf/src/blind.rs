//! A hash of a statement's text that does not see literals, cheap enough for the kernel.
//!
//! A table-driven automaton classifies each byte; strings, numbers and comments are left out, everything else goes into the hash: eight bytes at a
//! time where none of them can begin or end a literal, else byte by byte. Which bytes go together hangs on what lies outside of literals alone.
//! The hash is *finer* than a fingerprint, never coarser: two texts with the same hash have the same fingerprint, while one fingerprint may have
//! many hashes (spelling, lists of different lengths). Wherever the end of a literal is in doubt the text is refused, and its execution is left to
//! userspace: backslashes in PostgreSQL strings (their meaning hangs on a setting), dollar quotes, nested and executable comments, several
//! statements in one text, texts that end within a literal.
//!
//! Lexical rules: PostgreSQL manual §4.1, MySQL manual §11 ("Literal Values", "Comments"); the agent's `sql` module has the full ones.

/// Where a hash begins: the offset basis of FNV-1a, 64 bits (draft-eastlake-fnv); any number but 0 would do.
pub const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
/// An odd multiplier whose bits are evenly spread: 2^64 divided by the golden ratio (Knuth, The Art of Computer Programming, volume 3, §6.4).
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Stands for a literal in the hash, with the class of its first byte added: no byte has such a value.
const MARK_VALUE: u64 = 0x100;

/// The longest text that is hashed, in bytes. What is longer is left to userspace.
pub const MAX_TEXT: u64 = 8192;

/// Whose lexical rules.
pub mod dialect {
    /// PostgreSQL.
    pub const POSTGRESQL: usize = 0;
    /// MySQL and MariaDB.
    pub const MYSQL: usize = 1;
}

/// Classes of bytes.
mod class {
    pub(super) const BLANK: u8 = 0;
    pub(super) const NEWLINE: u8 = 1;
    pub(super) const DIGIT: u8 = 2;
    pub(super) const WORD: u8 = 3;
    pub(super) const QUOTE: u8 = 4;
    pub(super) const DOUBLE_QUOTE: u8 = 5;
    pub(super) const BACKTICK: u8 = 6;
    pub(super) const DOLLAR: u8 = 7;
    pub(super) const DASH: u8 = 8;
    pub(super) const SLASH: u8 = 9;
    pub(super) const STAR: u8 = 10;
    pub(super) const BACKSLASH: u8 = 11;
    pub(super) const SEMICOLON: u8 = 12;
    pub(super) const DOT: u8 = 13;
    pub(super) const HASH: u8 = 14;
    pub(super) const OTHER: u8 = 15;
    pub(super) const COUNT: usize = 16;
}

/// In the table of classes: the byte is special.
const SPECIAL_CLASS: u8 = 0x10;

/// States of the automaton.
mod state {
    /// Between tokens.
    pub(super) const NORMAL: u8 = 0;
    /// Within a word.
    pub(super) const WORD: u8 = 1;
    /// Within a number.
    pub(super) const NUMBER: u8 = 2;
    /// Behind a dot: a digit may belong to a number or, in MySQL, to a name.
    pub(super) const DOT: u8 = 3;
    /// Within '...'.
    pub(super) const STRING: u8 = 4;
    /// Behind a backslash within '...'.
    pub(super) const STRING_ESCAPE: u8 = 5;
    /// Within "..." of MySQL.
    pub(super) const DOUBLE: u8 = 6;
    /// Behind a backslash within "...".
    pub(super) const DOUBLE_ESCAPE: u8 = 7;
    /// Within "..." of PostgreSQL: a name.
    pub(super) const QUOTED_NAME: u8 = 8;
    /// Within `...` of MySQL: a name.
    pub(super) const BACKTICK_NAME: u8 = 9;
    /// Behind `-`.
    pub(super) const DASH: u8 = 10;
    /// Behind `--` of MySQL, which begins a comment only before a blank.
    pub(super) const DASH_DASH: u8 = 11;
    /// Within a comment up to the end of the line.
    pub(super) const LINE: u8 = 12;
    /// Behind `/`.
    pub(super) const SLASH: u8 = 13;
    /// Behind `/*`.
    pub(super) const BLOCK_OPENED: u8 = 14;
    /// Within /*...*/.
    pub(super) const BLOCK: u8 = 15;
    /// Behind `*` within /*...*/.
    pub(super) const BLOCK_STAR: u8 = 16;
    /// Behind `/` within /*...*/ of PostgreSQL, where comments nest.
    pub(super) const BLOCK_SLASH: u8 = 17;
    /// Behind `/*` and one letter: `/*M!` is executed by MariaDB.
    pub(super) const BLOCK_LETTER: u8 = 18;
    /// Behind `$` of PostgreSQL.
    pub(super) const DOLLAR: u8 = 19;
    /// Within `$1`.
    pub(super) const PARAMETER: u8 = 20;
    /// Behind a semicolon.
    pub(super) const SEMICOLON: u8 = 21;
    /// Behind the dot of a number.
    pub(super) const FRACTION: u8 = 22;
    /// Nothing certain can be said.
    pub(super) const DOUBT: u8 = 23;
    /// Behind the closing quote of a name: a dollar sign does not belong to it, as to a word, but begins a string.
    pub(super) const NAME_END: u8 = 24;
    pub(super) const COUNT: usize = 32;
}

/// The byte goes into the hash.
const RETAIN: u8 = 0x20;
/// A mark goes into the hash in place of the literal that begins here.
const MARK: u8 = 0x40;
const STATE: u8 = 0x1f;
/// In the state under way: bytes are taken one by one up to the next special one.
const BYTEWISE: u64 = 0x100;

/// Bytes that are special, as ranges: all that begin or end a literal, a comment or a quoted name, and a few of their neighbours.
const SPECIAL: [(u8, u8); 4] = [(b'!', b'\''), (b'-', b';'), (b'\\', b'\\'), (b'`', b'`')];

/// The highest bit of each byte of `word` that is special, by arithmetic on all eight bytes at once (Warren, Hacker's Delight, §6-1).
#[inline(always)]
const fn special(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * ONES;
    let low = word & !HIGH;
    let mut found = 0;
    let mut at = 0;
    while at < SPECIAL.len() {
        let (first, last) = (SPECIAL[at].0 as u64, SPECIAL[at].1 as u64);
        found |= (low + (0x80 - first) * ONES) & !(low + (0x7f - last) * ONES);
        at += 1;
    }
    found & !word & HIGH
}

const CLASSES: usize = 256;
const TRANSITIONS: usize = state::COUNT * class::COUNT;

/// Class of each byte, by dialect.
static CLASS: [u8; 2 * CLASSES] = classes();
/// What each class does in each state, by dialect: the next state, [`RETAIN`], [`MARK`].
static TRANSITION: [u8; 2 * TRANSITIONS] = transitions();

const fn classes() -> [u8; 2 * CLASSES] {
    let mut table = [class::OTHER; 2 * CLASSES];
    let mut at = 0;
    while at < 2 * CLASSES {
        let mysql = at >= CLASSES;
        table[at] = match (at % CLASSES) as u8 {
            b' ' | b'\t' | 0x0b | 0x0c => class::BLANK,
            b'\r' if mysql => class::BLANK,
            b'\n' | b'\r' => class::NEWLINE,
            b'0'..=b'9' => class::DIGIT,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80..=0xff => class::WORD,
            b'$' => class::DOLLAR,
            b'\'' => class::QUOTE,
            b'"' => class::DOUBLE_QUOTE,
            b'`' if mysql => class::BACKTICK,
            b'-' => class::DASH,
            b'/' => class::SLASH,
            b'*' => class::STAR,
            b'\\' => class::BACKSLASH,
            b';' => class::SEMICOLON,
            b'.' => class::DOT,
            b'#' if mysql => class::HASH,
            _ => class::OTHER,
        };
        if special((at % CLASSES) as u64) != 0 {
            table[at] |= SPECIAL_CLASS;
        }
        at += 1;
    }
    table
}

const fn transitions() -> [u8; 2 * TRANSITIONS] {
    let mut table = [0; 2 * TRANSITIONS];
    let mut dialect = 0;
    while dialect < 2 {
        let mut from = 0;
        while from < state::COUNT {
            let mut class = 0;
            while class < class::COUNT {
                let at = dialect * TRANSITIONS + from * class::COUNT + class;
                table[at] = transition(dialect == dialect::MYSQL, from as u8, class as u8);
                class += 1;
            }
            from += 1;
        }
        dialect += 1;
    }
    table
}

const fn transition(mysql: bool, from: u8, class: u8) -> u8 {
    match from {
        state::WORD => match class {
            class::WORD | class::DIGIT | class::DOLLAR => state::WORD | RETAIN,
            _ => between_tokens(mysql, class),
        },
        state::NUMBER => match class {
            class::DIGIT => state::NUMBER,
            class::DOT => state::FRACTION,
            // An exponent, another base, or a name of MySQL.
            class::WORD => state::DOUBT,
            _ => between_tokens(mysql, class),
        },
        state::FRACTION => match class {
            class::DIGIT => state::FRACTION,
            class::WORD | class::DOT => state::DOUBT,
            _ => between_tokens(mysql, class),
        },
        state::DOT => match class {
            class::DIGIT => state::DOUBT,
            _ => between_tokens(mysql, class),
        },
        state::STRING => match class {
            class::QUOTE => state::NORMAL,
            class::BACKSLASH if mysql => state::STRING_ESCAPE,
            class::BACKSLASH => state::DOUBT,
            _ => state::STRING,
        },
        state::STRING_ESCAPE => state::STRING,
        state::DOUBLE => match class {
            class::DOUBLE_QUOTE => state::NORMAL,
            class::BACKSLASH => state::DOUBLE_ESCAPE,
            _ => state::DOUBLE,
        },
        state::DOUBLE_ESCAPE => state::DOUBLE,
        state::QUOTED_NAME => match class {
            class::DOUBLE_QUOTE => state::NAME_END | RETAIN,
            _ => state::QUOTED_NAME | RETAIN,
        },
        state::BACKTICK_NAME => match class {
            class::BACKTICK => state::NAME_END | RETAIN,
            _ => state::BACKTICK_NAME | RETAIN,
        },
        state::NAME_END => match class {
            class::WORD | class::DIGIT => state::WORD | RETAIN,
            class::DOLLAR => state::DOUBT,
            _ => between_tokens(mysql, class),
        },
        state::DASH => match class {
            class::DASH if mysql => state::DASH_DASH | RETAIN,
            class::DASH => state::LINE,
            _ => between_tokens(mysql, class),
        },
        state::DASH_DASH => match class {
            class::NEWLINE => state::NORMAL | RETAIN,
            class::BLANK => state::LINE,
            // A control character begins a comment too: `OTHER` holds them.
            class::OTHER => state::DOUBT,
            class::DASH => state::DASH_DASH | RETAIN,
            _ => between_tokens(mysql, class),
        },
        state::LINE => match class {
            class::NEWLINE => state::NORMAL | RETAIN,
            _ => state::LINE,
        },
        state::SLASH => match class {
            class::STAR => state::BLOCK_OPENED,
            _ => between_tokens(mysql, class),
        },
        state::BLOCK_OPENED => match class {
            class::STAR => state::BLOCK_STAR,
            class::SLASH if !mysql => state::BLOCK_SLASH,
            // Version comments and hints of MySQL are not comments.
            class::OTHER if mysql => state::DOUBT,
            class::WORD if mysql => state::BLOCK_LETTER,
            _ => state::BLOCK,
        },
        state::BLOCK_LETTER => match class {
            class::OTHER => state::DOUBT,
            class::STAR => state::BLOCK_STAR,
            _ => state::BLOCK,
        },
        state::BLOCK => match class {
            class::STAR => state::BLOCK_STAR,
            class::SLASH if !mysql => state::BLOCK_SLASH,
            _ => state::BLOCK,
        },
        state::BLOCK_STAR => match class {
            class::STAR => state::BLOCK_STAR,
            class::SLASH => state::NORMAL | RETAIN,
            _ => state::BLOCK,
        },
        state::BLOCK_SLASH => match class {
            class::STAR => state::DOUBT,
            class::SLASH => state::BLOCK_SLASH,
            _ => state::BLOCK,
        },
        state::DOLLAR => match class {
            class::DIGIT => state::PARAMETER | RETAIN,
            _ => state::DOUBT,
        },
        state::PARAMETER => match class {
            class::DIGIT => state::PARAMETER | RETAIN,
            class::WORD | class::DOLLAR => state::DOUBT,
            _ => between_tokens(mysql, class),
        },
        state::SEMICOLON => match class {
            class::BLANK | class::NEWLINE | class::SEMICOLON => state::SEMICOLON | RETAIN,
            _ => state::DOUBT,
        },
        state::DOUBT => state::DOUBT,
        _ => between_tokens(mysql, class),
    }
}

const fn between_tokens(mysql: bool, class: u8) -> u8 {
    match class {
        class::DIGIT => state::NUMBER | MARK,
        class::WORD => state::WORD | RETAIN,
        class::QUOTE => state::STRING | MARK,
        class::DOUBLE_QUOTE if mysql => state::DOUBLE | MARK,
        class::DOUBLE_QUOTE => state::QUOTED_NAME | RETAIN,
        class::BACKTICK => state::BACKTICK_NAME | RETAIN,
        // MySQL quotes bodies of routines like that since version 9.
        class::DOLLAR if mysql => state::DOUBT,
        class::DOLLAR => state::DOLLAR | RETAIN,
        class::DASH => state::DASH | RETAIN,
        class::SLASH => state::SLASH | RETAIN,
        class::BACKSLASH => state::DOUBT,
        class::SEMICOLON => state::SEMICOLON | RETAIN,
        class::DOT => state::DOT | RETAIN,
        class::HASH => state::LINE | RETAIN,
        _ => state::NORMAL | RETAIN,
    }
}

/// A hash under way. Words, so that the verifier has one kind of value to follow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Blind {
    hash: u64,
    state: u64,
}

impl Default for Blind {
    fn default() -> Blind {
        Blind::new()
    }
}

impl Blind {
    /// Nothing read yet.
    #[inline(always)]
    pub const fn new() -> Blind {
        Blind { hash: BASIS, state: state::NORMAL as u64 }
    }

    /// The same hash with its words passed through `forget`, the identity, so that the verifier knows nothing of them.
    #[inline(always)]
    pub fn map(self, forget: impl Fn(u64) -> u64) -> Blind {
        Blind { hash: forget(self.hash), state: forget(self.state) }
    }

    /// Takes eight bytes, the first one lowest, if they can go into the hash together; whether they could.
    #[inline(always)]
    pub fn word(&mut self, dialect: usize, word: u64) -> bool {
        if self.state > state::WORD as u64 {
            return false;
        }
        if special(word) != 0 {
            self.state |= BYTEWISE;
            return false;
        }
        self.hash = mix(self.hash, word);
        let class = CLASS[((dialect & 1) << 8) | (word >> 56) as usize];
        self.state = if class == class::WORD { state::WORD } else { state::NORMAL } as u64;
        true
    }

    /// Takes one byte.
    #[inline(always)]
    pub fn byte(&mut self, dialect: usize, byte: u8) {
        let class = CLASS[((dialect & 1) << 8) | byte as usize] as usize;
        let at = ((dialect & 1) * TRANSITIONS) | ((self.state as usize & STATE as usize) << 4) | (class & 15);
        let step = TRANSITION[at & (2 * TRANSITIONS - 1)];
        self.state = u64::from(step & STATE) | self.state & ((class as u64 & SPECIAL_CLASS as u64) << 4 ^ BYTEWISE);
        if step & (RETAIN | MARK) != 0 {
            let value = if step & RETAIN != 0 { u64::from(byte) } else { MARK_VALUE + (class & 15) as u64 };
            self.hash = mix(self.hash, value);
        }
    }

    /// The hash, or `None` if the text is one that only userspace can tell.
    #[inline(always)]
    pub fn finish(self) -> Option<u64> {
        match self.state as u8 & STATE {
            state::STRING..=state::BACKTICK_NAME
            | state::BLOCK_OPENED..=state::BLOCK_LETTER
            | state::DOLLAR
            | state::DOUBT => None,
            _ => Some(scatter(self.hash)),
        }
    }
}

/// One step of a hash: a multiplication spreads upward, a shift downward.
#[inline(always)]
pub fn mix(hash: u64, value: u64) -> u64 {
    let product = (hash ^ value).wrapping_mul(MULTIPLIER);
    product ^ product >> 32
}

/// Spreads a hash over all its bits (the finaliser of MurmurHash3, Appleby) and keeps clear of the reserved ones.
#[inline(always)]
pub fn scatter(hash: u64) -> u64 {
    let mut hash = hash;
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33) | crate::row::NOT_RESERVED
}

/// The hash of a whole text, as the kernel computes it.
pub fn hash(dialect: usize, text: &[u8]) -> Option<u64> {
    if text.len() as u64 > MAX_TEXT {
        return None;
    }
    let mut blind = Blind::new();
    let mut rest = text;
    while let [first, behind @ ..] = rest {
        rest = match rest.split_first_chunk() {
            Some((eight, behind)) if blind.word(dialect, u64::from_le_bytes(*eight)) => behind,
            _ => {
                blind.byte(dialect, *first);
                behind
            }
        };
    }
    blind.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(dialect: usize, a: &str, b: &str) {
        let (a, b) = (hash(dialect, a.as_bytes()), hash(dialect, b.as_bytes()));
        assert!(a.is_some() && a == b);
    }

    #[test]
    fn literals_and_comments_are_not_seen() {
        for dialect in [dialect::POSTGRESQL, dialect::MYSQL] {
            same(dialect, "SELECT a FROM t1 WHERE b = 1", "SELECT a FROM t1 WHERE b = 22.5");
            same(dialect, "SELECT 'a'", "SELECT 'bcd -- /* \" '");
            same(dialect, "SELECT 1 /* a */", "SELECT 2 /* '; */");
            same(dialect, "SELECT 1 -- it's", "SELECT 1 -- that");
        }
        same(dialect::MYSQL, "SELECT \"a\\\"b\"", "SELECT \"\"");
        same(dialect::MYSQL, "SELECT 1 # it's", "SELECT 2 #");
    }

    #[test]
    fn the_length_of_a_literal_does_not_tell_which_bytes_go_together() {
        for dialect in [dialect::POSTGRESQL, dialect::MYSQL] {
            for (a, b) in (0..40).flat_map(|a| (0..40).map(move |b| (a, b))) {
                let text = |number: usize, string: usize| {
                    let (number, string) = ("7".repeat(1 + number), "x; y".repeat(string));
                    format!(
                        "{string}SELECT columns FROM tables WHERE a={number} AND bcdefghijk = '{string}' -- {string}\n AND c <{number}"
                    )
                };
                same(dialect, &text(a, b)[4 * b..], &text(0, 0));
            }
        }
    }

    #[test]
    fn special_bytes_are_those_of_the_ranges_and_all_that_matter() {
        for byte in 0..=255u8 {
            let within = SPECIAL.iter().any(|(first, last)| (*first..=*last).contains(&byte));
            for at in 0..8 {
                assert_eq!(special(u64::from(byte) << (8 * at)), if within { 0x80 << (8 * at) } else { 0 }, "{byte}");
            }
            for mysql in [false, true] {
                let class = CLASS[CLASSES * usize::from(mysql) + usize::from(byte)] & 15;
                let next = [state::NORMAL, state::WORD].map(|from| transition(mysql, from, class));
                let plain = if class == class::WORD { state::WORD | RETAIN } else { state::NORMAL | RETAIN };
                assert!(within || next == [plain, plain], "{byte}");
            }
        }
    }

    #[test]
    fn everything_else_is() {
        for (a, b) in [("t1", "t2"), ("a = 1", "a < 1"), ("\"a1\"", "\"a2\""), ("$1", "$2"), ("1 + 1", "1 - 1")] {
            assert_ne!(hash(dialect::POSTGRESQL, a.as_bytes()), hash(dialect::POSTGRESQL, b.as_bytes()), "{a} {b}");
        }
        assert_ne!(hash(dialect::MYSQL, b"`a1`"), hash(dialect::MYSQL, b"`a2`"));
    }

    #[test]
    fn what_is_in_doubt_is_refused() {
        for text in [
            "SELECT 'a\\'",
            "SELECT $$a$$",
            "SELECT 1; SELECT 2",
            "SELECT 'a",
            "/* /* */ */ SELECT 1",
            "a.5",
            "\"b\"$$--$$",
        ] {
            assert_eq!(hash(dialect::POSTGRESQL, text.as_bytes()), None, "{text}");
        }
        for text in ["`b`$$--$$", "/*! SELECT 1 */", "SELECT /*+ X */ 1", "/*M! x */", "SELECT `a", "\\N"] {
            assert_eq!(hash(dialect::MYSQL, text.as_bytes()), None, "{text}");
        }
        assert_eq!(hash(dialect::MYSQL, &[b' '; MAX_TEXT as usize + 1]), None);
        assert!(hash(dialect::MYSQL, b"SELECT 1; ").is_some());
    }
}
