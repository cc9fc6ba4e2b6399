//! Literals in what should be a normalised statement.

use crate::model::Engine;

/// Whether a text has a string or a number that is not part of a name.
pub(super) fn has_any(engine: Engine, text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        let quotes_name = byte == b'`' || (byte == b'"' && engine == Engine::Postgresql);
        if quotes_name {
            // To the end of the name; doubled quotes begin another one at once.
            match bytes[at + 1..].iter().position(|other| *other == byte) {
                Some(length) => at += length + 2,
                None => return true,
            }
        } else if matches!(byte, b'\'' | b'"') || (engine == Engine::Postgresql && bytes[at..].starts_with(b"$$")) {
            return true;
        } else if starts_name(byte) {
            at += bytes[at..].iter().take_while(|byte| continues_name(**byte)).count();
        } else if byte.is_ascii_digit() {
            let length = bytes[at..].iter().take_while(|byte| continues_name(**byte) || **byte == b'.').count();
            if is_number(&bytes[at..at + length]) {
                return true;
            }
            at += length;
        } else {
            at += 1;
        }
    }
    false
}

fn starts_name(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn continues_name(byte: u8) -> bool {
    starts_name(byte) || byte.is_ascii_digit() || byte == b'$'
}

/// `12`, `1.5`, `1e5`, `0x1f`, `0b01`; `1st` is a name in MySQL.
fn is_number(word: &[u8]) -> bool {
    let decimal = |word: &[u8]| word.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'_'));
    let radix = matches!(word, [b'0', b'x' | b'X' | b'b' | b'B' | b'o' | b'O', rest @ ..] if rest.iter().all(u8::is_ascii_hexdigit));
    let exponent = word
        .iter()
        .position(|byte| matches!(byte, b'e' | b'E'))
        .is_some_and(|at| decimal(&word[..at]) && decimal(&word[at + 1..]));
    decimal(word) || radix || exponent
}
