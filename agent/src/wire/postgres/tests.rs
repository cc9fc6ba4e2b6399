//! The machine as a whole, on streams written by hand.
