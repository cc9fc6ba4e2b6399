//! Trace context in comments, as sqlcommenter writes it: `/*key='value',traceparent='00-...-...-01'*/`.
//!
//! Sources: the sqlcommenter specification (keys and values are URL-encoded, quotes in values escaped by a backslash, pairs separated by
//! commas, at the end of the statement).

use memchr::memmem;

use crate::model::trace::{TraceParent, hex};

/// The trace context of a statement. Only a comment at the very end or beginning counts: what stands between may be inside a literal, and a
/// literal is what the application's users type.
pub fn traceparent(text: &[u8]) -> Option<TraceParent> {
    // Nearly every statement ends here.
    memmem::find(text, b"traceparent")?;
    let end = text.iter().rposition(|byte| !byte.is_ascii_whitespace() && *byte != b';')? + 1;
    let start = text.iter().position(|byte| !byte.is_ascii_whitespace())?;
    let text = &text[start..end];
    let last = text.strip_suffix(b"*/").and_then(|head| Some(&head[memmem::rfind(head, b"/*")? + 2..]));
    let first = text.strip_prefix(b"/*").and_then(|tail| Some(&tail[..memmem::find(tail, b"*/")?]));
    last.and_then(in_comment).or_else(|| first.and_then(in_comment))
}

fn in_comment(comment: &[u8]) -> Option<TraceParent> {
    comment.split(|byte| *byte == b',').find_map(|pair| {
        let equals = memchr::memchr(b'=', pair)?;
        let (key, value) = (decode(pair[..equals].trim_ascii()), &pair[equals + 1..]);
        let value = value.trim_ascii().strip_prefix(b"'")?.strip_suffix(b"'")?;
        if key == b"traceparent" { TraceParent::parse(&decode(value)) } else { None }
    })
}

/// Undoes URL encoding; what is no `%` and two hexadecimal digits stays.
fn decode(encoded: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let [first, tail @ ..] = rest {
        let byte = match tail {
            [high, low, ..] if *first == b'%' => hex::<1>(&[high.to_ascii_lowercase(), low.to_ascii_lowercase()]),
            _ => None,
        };
        decoded.push(byte.map_or(*first, |[byte]| byte));
        rest = &rest[if byte.is_some() { 3 } else { 1 }..];
    }
    decoded
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn check(text: &str, expected: Option<(&str, &str, bool)>) {
        let found = traceparent(text.as_bytes());
        let found = found.map(|parent| (parent.trace_id.to_string(), parent.span_id.to_string(), parent.sampled()));
        let expected = expected.map(|(trace, span, sampled)| (trace.to_owned(), span.to_owned(), sampled));
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn a_comment_at_either_end_gives_the_trace() {
        let header = format!("00-{TRACE}-{SPAN}-01");
        let found = Some((TRACE, SPAN, true));
        check(&format!("SELECT 1 /*traceparent='{header}'*/"), found);
        check(&format!("SELECT 1 /*action='%2Fa',traceparent='{header}',tracestate='c%3D1'*/;\n"), found);
        check(&format!("/* traceparent='{header}' */ SELECT '*/'"), found);
        check(&format!("SELECT '/*' /*traceparent='{}'*/", header.replace('-', "%2d")), found);
        check(&format!("SELECT 1 /*traceparent='cc-{TRACE}-{SPAN}-00-what-comes'*/"), Some((TRACE, SPAN, false)));
    }

    #[test]
    fn anything_else_gives_none() {
        let header = format!("00-{TRACE}-{SPAN}-01");
        check("SELECT 1", None);
        check(&format!("SELECT '/*traceparent=''{header}''*/'"), None);
        check(&format!("SELECT 1 /*traceparent='{header}'*/ FROM t"), None);
        check(&format!("SELECT 1 /*xtraceparent='{header}'*/"), None);
        check(&format!("SELECT 1 /*traceparent='{header}-more'*/"), None);
        check(&format!("SELECT 1 /*traceparent='ff-{TRACE}-{SPAN}-01'*/"), None);
        check(&format!("SELECT 1 /*traceparent='{}'*/", header.to_uppercase()), None);
        check(&format!("SELECT 1 /*traceparent='00-{}-{SPAN}-01'*/", "0".repeat(32)), None);
        check(&format!("SELECT 1 /*traceparent='00-{TRACE}-{}-01'*/", "0".repeat(16)), None);
        check(&format!("SELECT 1 /*traceparent='{}'*/", &header[..54]), None);
        check("/*traceparent=*/", None);
        check("/*/traceparent", None);
    }
}
