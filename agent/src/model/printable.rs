//! Names and texts from outside, made safe to print.

use std::borrow::Cow;

/// `text` on one line that cannot steer a terminal: runs of white space become one space, and control characters their escape, as do the
/// characters that turn the direction of writing (Unicode TR 36, "bidirectional text spoofing"), with which one statement could look
/// like another.
pub fn printable(text: &str) -> Cow<'_, str> {
    let plain = |character: char| character == ' ' || !(character.is_whitespace() || unsafe_to_print(character));
    if text.chars().all(plain) && !text.contains("  ") {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if character.is_whitespace() {
            if !safe.ends_with(' ') {
                safe.push(' ');
            }
        } else if unsafe_to_print(character) {
            safe.extend(character.escape_unicode());
        } else {
            safe.push(character);
        }
    }
    Cow::Owned(safe)
}

fn unsafe_to_print(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{061c}')
        || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        assert_eq!(printable("größe \"a\" 表"), "größe \"a\" 表");
        assert_eq!(printable("a\x1b[2Jb\u{9b}31m\u{7f}\0"), "a\\u{1b}[2Jb\\u{9b}31m\\u{7f}\\u{0}");
        assert_eq!(printable("SELECT\r\n\t1  FROM\u{2028}t"), "SELECT 1 FROM t");
        assert_eq!(printable("user\u{202e}nimda"), "user\\u{202e}nimda");
    }
}
