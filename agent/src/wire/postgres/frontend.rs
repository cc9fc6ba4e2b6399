//! What a client sends. Formats: PostgreSQL documentation, "Message Formats"; limits: `SocketBackend` in backend/tcop/postgres.c.

use smallvec::SmallVec;

use super::framing::{Frame, LARGE, Rule, SMALL, take_string};
use crate::{model::Text, wire::latest::LatestText};

/// Most bytes of a statement's text that are kept.
pub(super) const MAX_TEXT: usize = 16 * 1024;

/// Bytes of a body that hold its names; the server tells names apart by their first 63 bytes, so longer ones are exotic.
const NAMES: u32 = 1024;

/// A name is what the server's own tables distinguish: its first `NAMEDATALEN - 1` bytes (pg_config_manual.h).
const NAME_LEN: usize = 63;

/// Name of a prepared statement or portal; empty for the unnamed one.
pub(super) type Name = SmallVec<[u8; 16]>;

/// The rule for each message of a client after start-up.
#[inline]
pub(super) fn rules(kind: u8) -> Option<Rule> {
    let text = MAX_TEXT as u32 + 1;
    let (body, want) = match kind {
        b'Q' => ((1, LARGE), text),
        b'P' => ((4, LARGE), text + NAMES),
        b'B' => ((8, LARGE), NAMES),
        b'F' => ((10, LARGE), 0),
        b'd' => ((0, LARGE), 0),
        b'C' | b'D' => ((2, SMALL), NAMES),
        b'E' => ((5, SMALL), NAMES),
        b'f' => ((1, SMALL), 0),
        b'H' | b'S' | b'X' | b'c' => ((0, 0), 0),
        // Passwords and tokens: nothing of them is ever looked at. `PG_MAX_AUTH_TOKEN_LENGTH` (libpq/auth.h).
        b'p' => ((0, 65_535), 0),
        _ => return None,
    };
    Some(Rule { body, want })
}

/// What a prepared statement or portal message names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A prepared statement.
    Statement,
    /// A portal.
    Portal,
}

/// The name that the server makes of `bytes`.
#[inline]
pub(super) fn name(bytes: &[u8]) -> Name {
    Name::from_slice(&bytes[..bytes.len().min(NAME_LEN)])
}

/// The name at the beginning of `body`; `None` if its end was not captured.
#[inline]
fn take_name(body: &mut &[u8]) -> Option<Name> {
    take_string(body).map(name)
}

/// The text at the beginning of `captured`, whose true length is at most `longest`.
fn text(captured: &[u8], longest: usize, latest: &mut LatestText) -> Text {
    let (captured, true_len) = match memchr::memchr(0, captured) {
        Some(end) => (&captured[..end], end),
        None => (captured, longest.max(captured.len())),
    };
    let kept = &captured[..captured.len().min(MAX_TEXT)];
    latest.text(kept, true_len)
}

/// Text of `Query`.
pub(super) fn query(frame: &Frame<'_>, latest: &mut LatestText) -> Text {
    text(&frame.body, frame.length as usize - 1, latest)
}

/// Name and text of `Parse`. `None` if not even the name was captured.
pub(super) fn parse(frame: &Frame<'_>, latest: &mut LatestText) -> Option<(Name, Text)> {
    let mut body = &*frame.body;
    let name = take_name(&mut body)?;
    // After the text come its NUL and at least a count of parameter types.
    let longest = (frame.length as usize).saturating_sub(frame.body.len() - body.len() + 3);
    Some((name, text(body, longest, latest)))
}

/// Portal and statement of `Bind`.
#[inline]
pub(super) fn bind(frame: &Frame<'_>) -> Option<(Name, Name)> {
    let mut body = &*frame.body;
    Some((take_name(&mut body)?, take_name(&mut body)?))
}

/// Portal of `Execute`.
#[inline]
pub(super) fn execute(frame: &Frame<'_>) -> Option<Name> {
    take_name(&mut &*frame.body)
}

/// What `Describe` and `Close` name.
pub(super) fn target(frame: &Frame<'_>) -> Option<(Target, Name)> {
    let (kind, mut name) = frame.body.split_first()?;
    let target = match kind {
        b'S' => Target::Statement,
        b'P' => Target::Portal,
        _ => return None,
    };
    Some((target, take_name(&mut name)?))
}
