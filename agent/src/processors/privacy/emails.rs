//! E-mail addresses.

use std::ops::Range;

/// Finds `local@domain`, also with the sign as `%40`. The domain needs a dot and a top-level name of letters, so that `user@localhost` is an account and no
/// address.
pub(super) fn find(text: &str, mut found: impl FnMut(Range<usize>)) {
    let bytes = text.as_bytes();
    for at in memchr::memchr2_iter(b'@', b'%', bytes) {
        let after = match bytes[at] {
            b'@' => at + 1,
            _ if bytes[at..].starts_with(b"%40") => at + 3,
            _ => continue,
        };
        let start = at - bytes[..at].iter().rev().take_while(|byte| is_local(**byte)).count();
        let length = bytes[after..].iter().take_while(|byte| is_domain(**byte)).count();
        let mut end = after + length;
        while end > after && matches!(bytes[end - 1], b'.' | b'-') {
            end -= 1;
        }
        let domain = &bytes[after..end];
        let top = domain.rsplit(|byte| *byte == b'.').next().unwrap_or_default();
        let named = top.len() >= 2 && top.iter().all(|byte| byte.is_ascii_alphabetic() || *byte >= 0x80);
        let dotted =
            domain.contains(&b'.') && !domain.starts_with(b".") && !domain.windows(2).any(|pair| pair == b"..");
        if start < at && named && dotted && text.is_char_boundary(start) && text.is_char_boundary(end) {
            found(start..end);
        }
    }
}

/// What may stand before the sign (RFC 5321 "atext", without what quotes or separates in SQL and URLs), and anything beyond ASCII (RFC 6531).
fn is_local(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".!#$%&*+-/^_{|}~".contains(&byte) || byte >= 0x80
}

fn is_domain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-') || byte >= 0x80
}
