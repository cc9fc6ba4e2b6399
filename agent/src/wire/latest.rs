//! The text that a connection sent last.

use std::sync::Arc;

use crate::model::{StatementText, Text};

/// Longest text that is remembered: what an idle connection holds for it.
const MAX_REMEMBERED: usize = 512;

/// Remembers a connection's latest text. Drivers send the same one again and again; it is then kept, and normalised, once.
#[derive(Debug, Default)]
pub(super) struct LatestText(Option<Arc<StatementText>>);

impl LatestText {
    /// The text of which `captured` was captured of `true_len` bytes.
    pub(super) fn text(&mut self, captured: &[u8], true_len: usize) -> Text {
        if let Some(latest) = &self.0
            && latest.is(captured, true_len)
        {
            return Text::Known(latest.clone());
        }
        let text = Arc::new(StatementText::new(captured, true_len));
        self.0 = (captured.len() <= MAX_REMEMBERED).then(|| text.clone());
        Text::Known(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(first: &Text, second: &Text) -> bool {
        matches!((first, second), (Text::Known(first), Text::Known(second)) if Arc::ptr_eq(first, second))
    }

    #[test]
    fn only_the_very_same_text_is_shared() {
        let mut latest = LatestText::default();
        let first = latest.text(b"SELECT 1", 8);
        assert!(same(&first, &latest.text(b"SELECT 1", 8)));
        let cut = latest.text(b"SELECT 1", 9);
        assert!(!same(&first, &cut) && matches!(&cut, Text::Known(text) if text.truncated()));
        assert!(!same(&first, &latest.text(b"SELECT 2", 8)));
        let long = vec![b'x'; MAX_REMEMBERED + 1];
        let first = latest.text(&long, long.len());
        assert!(!same(&first, &latest.text(&long, long.len())), "a long one is not remembered");
    }
}
