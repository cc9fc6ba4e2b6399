//! IP addresses.

use core::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use super::{follows_word, stands_alone};

/// Words after which four numbers with dots are a version.
const VERSION_WORDS: [&str; 3] = ["version", "ver.", "release"];

/// Finds addresses that name a host. The loopback and unspecified ones name none.
pub(super) fn find(text: &str, mut found: impl FnMut(Range<usize>)) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if !is_part(bytes[at]) {
            at += 1;
            continue;
        }
        let length = bytes[at..].iter().take_while(|byte| is_part(**byte)).count();
        let mut range = at..at + length;
        at = range.end;
        if range.len() < MIN_LENGTH {
            continue;
        }
        // A colon or dot at an end belongs to the sentence, or leads to a port.
        let mark =
            |byte: u8, other: Option<&u8>| matches!(byte, b':' | b'.') && !(byte == b':' && other == Some(&b':'));
        while range.len() > 1 && mark(bytes[range.end - 1], bytes.get(range.end - 2)) {
            range.end -= 1;
        }
        while range.len() > 1 && mark(bytes[range.start], bytes.get(range.start + 1)) {
            range.start += 1;
        }
        if let Some(range) = version6(text, &range).or_else(|| version4(text, &range)) {
            found(range);
        }
    }
}

/// `::2` is the shortest address that names a host.
const MIN_LENGTH: usize = 3;

fn is_part(byte: u8) -> bool {
    byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':')
}

fn version6(text: &str, range: &Range<usize>) -> Option<Range<usize>> {
    let part = &text[range.clone()];
    let colons = part.bytes().filter(|byte| *byte == b':').count();
    if colons < 2 {
        return None;
    }
    let address: Ipv6Addr = part.parse().ok()?;
    // `column::date` is a cast: an address of two groups needs a first one of full length.
    let first = part.split(':').next().unwrap_or_default();
    let likely = colons >= 3 || first.len() == 4 || part.starts_with("::");
    let names = !address.is_loopback() && !address.is_unspecified() && part.bytes().any(|byte| byte.is_ascii_digit());
    (likely && names && stands_alone(text, range)).then(|| range.clone())
}

/// The first of the parts between colons that is an address: before it may be a name, after it a port.
fn version4(text: &str, range: &Range<usize>) -> Option<Range<usize>> {
    let mut start = range.start;
    for part in text[range.clone()].split(':') {
        let own = start..start + part.len();
        start = own.end + 1;
        let Ok(address) = part.parse::<Ipv4Addr>() else { continue };
        let names = !address.is_loopback() && !address.is_unspecified();
        if names && stands_alone(text, &own) && !follows_word(text, own.start, &VERSION_WORDS) {
            return Some(own);
        }
    }
    None
}
