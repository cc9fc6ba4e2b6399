//! Something for each error code, bounded.

use std::{collections::BTreeMap, ops::Deref};

use super::Code;

/// A value for each error code; `None` holds what has no code and what is beyond the bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ByCode<T>(BTreeMap<Option<Code>, T>);

/// Bound on distinct codes: a statement rarely fails in more ways, and a name in a label must not multiply without end.
pub const MAX_CODES: usize = 16;

impl<T: Default> ByCode<T> {
    /// The value for `code`, or for `None` if `code` is new and there is no room.
    pub fn at(&mut self, code: Option<Code>) -> &mut T {
        let full = self.0.keys().flatten().count() >= MAX_CODES;
        let code = code.filter(|_| !full || self.0.contains_key(&code));
        self.0.entry(code).or_default()
    }
}

impl<T> Deref for ByCode<T> {
    type Target = BTreeMap<Option<Code>, T>;

    fn deref(&self) -> &BTreeMap<Option<Code>, T> {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_beyond_the_bound_are_counted_together() {
        let mut counts = ByCode::<u64>::default();
        for round in 0..2 {
            for code in 0..20 {
                *counts.at(Some(Code::Mysql(code))) += 1;
            }
            assert_eq!(counts[&None], 4 * (round + 1));
        }
        assert_eq!(counts.len(), MAX_CODES + 1);
        assert_eq!(counts[&Some(Code::Mysql(7))], 2);
    }
}
