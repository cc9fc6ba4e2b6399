//! Statement text in, digest out. Literals end here.
//!
//! The normalised text is the identity of a statement, and the fingerprint is its hash. It is made by these rules:
//!
//! - Literals of every form, bind placeholders, TRUE, FALSE and NULL as values, and a sign before any of them become `?`. What is no value stays: NOT NULL,
//!   IS TRUE, and the operators of jsonb that contain `?`.
//! - In IN (...), in ARRAY[...] and in the rows of VALUES, an element or row equal to the one before it is dropped, as is a cast of a lone `?`. In MySQL and
//!   MariaDB `?, ?` is `?` and `(?), (?)` is `(?)` everywhere, because the server's own digest merges them everywhere.
//! - Comments and hints vanish. The content of a MySQL version comment stays, because the server executes it.
//! - Words are in lower case in PostgreSQL; in MySQL and MariaDB keywords are, and other words stay as they are. Quotes of identifiers go where the name reads the
//!   same without them. Keywords of MySQL that are the same token to its lexer become the same word (`INTEGER`, `INT`).
//! - In MySQL and MariaDB `"..."` is a string: whether ANSI_QUOTES makes it an identifier is not known here. The name of a user variable
//!   or the host of an account after `@` becomes `?`, as in the server's digest. The character set that introduces a string vanishes.
//! - Blanks are one or none by a rule that knows only the tokens on both sides; semicolons at the end go.
//!
//! So a statement has one text whether it was sent with literals or with placeholders, and whether it is read from the wire, from pg_stat_statements or from
//! performance_schema.
//!
//! The lexer is our own and not sqlparser's, for two reasons that the tests keep true: sqlparser shows or refuses some literals that the servers accept
//! (`tests/sql/lexical.tsv`), and it allocates for every token, so that its tokens alone take three times as long as a digest (`benches/sql.rs`). It also wants valid UTF-8, which
//! a statement need not be, and its list of keywords changes with its version, which fingerprints must not.
//!
//! Two settings of a session that change where strings end are not known here: `standard_conforming_strings = off` of PostgreSQL and NO_BACKSLASH_ESCAPES of
//! MySQL. A string that ends in a backslash then shifts all later quotes, which nearly always ends in `<unparsable>`: outside strings a backslash is no SQL,
//! and the last string has no end.

mod comment;
mod fingerprint;
mod keywords;
mod normalise;
mod summary;
mod tokens;

use std::{fmt, sync::Arc};

pub use comment::traceparent;

use crate::model::{Digest, Engine};

/// The text and summary of what is no SQL of its engine.
const UNPARSABLE: &str = "<unparsable>";

/// Normalises statements; holds buffers, so that one is kept per thread.
#[derive(Default)]
pub struct Normaliser {
    writer: normalise::Writer,
    summary: summary::Summary,
}

impl fmt::Debug for Normaliser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Normaliser").finish_non_exhaustive()
    }
}

impl Normaliser {
    /// The digest of `text`, the first bytes of a statement sent to `engine`; `truncated` says that its end is missing.
    ///
    /// A truncated text is cut at its last whole token and ends in ` ...`, as does one whose normalised text would be longer than 8 KiB. A text that is no SQL
    /// of the engine has the text and summary `<unparsable>`, and its fingerprint is that of what comes before its first quote.
    pub fn digest(&mut self, engine: Engine, text: &[u8], truncated: bool) -> Digest {
        let parsed = self.writer.run(engine, text, truncated);
        if parsed.is_err() {
            let mut shape = UNPARSABLE.as_bytes().to_vec();
            shape.extend_from_slice(&self.writer.text);
            return Digest {
                fingerprint: fingerprint::fingerprint(&shape),
                text: UNPARSABLE.into(),
                summary: UNPARSABLE.into(),
                operation: None,
                collection: None,
            };
        }
        if std::str::from_utf8(&self.writer.text).is_err() {
            // Names in a foreign character set. The ranges of the tokens are wrong now; a normalised text normalises to itself.
            let readable = String::from_utf8_lossy(&self.writer.text).into_owned();
            let _ = self.writer.run(engine, readable.as_bytes(), false);
        }
        let normalised = std::str::from_utf8(&self.writer.text).unwrap_or(UNPARSABLE);
        self.summary.run(normalised, &self.writer.tokens);
        Digest {
            fingerprint: fingerprint::fingerprint(normalised.as_bytes()),
            text: Arc::from(normalised),
            summary: Arc::from(self.summary.text.as_str()),
            operation: self.summary.operation().map(Arc::from),
            collection: self.summary.collection().map(Arc::from),
        }
    }
}
