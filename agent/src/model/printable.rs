//! Names and texts from outside, made safe to print.

use std::borrow::Cow;

/// `text` with control characters written as escapes, and with characters that turn the direction of writing (Unicode TR 36, "bidirectional
/// text spoofing"), so that a name can neither steer a terminal nor look like another.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(unsafe_to_print) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if unsafe_to_print(character) {
            safe.extend(character.escape_default());
        } else {
            safe.push(character);
        }
    }
    Cow::Owned(safe)
}

fn unsafe_to_print(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}')
        || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        assert_eq!(printable("größe \"a\" 表"), "größe \"a\" 表");
        assert_eq!(printable("a\x1b[2Jb\n\t\u{9b}31m\u{7f}"), "a\\u{1b}[2Jb\\n\\t\\u{9b}31m\\u{7f}");
        assert_eq!(printable("user\u{202e}nimda"), "user\\u{202e}nimda");
    }
}
