//! What every question passes before it is asked.

use std::time::Duration;

use crate::model::{Asked, Instance, Question};

/// Why a question is not asked now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Asking again earlier than after so long is of no use.
    pub pause: Duration,
    /// The reason, for people.
    pub why: String,
}

/// Lets questions through, or not, and learns how they ended. The agent asks it for each server and question.
pub trait Gate: Send + Sync {
    /// Whether `question` may be asked of `server` now. What is let through is followed by one call of [`Gate::done`].
    fn admit(&self, server: &Instance, question: Question) -> Result<(), Held>;

    /// How it ended, and how long the answer took.
    fn done(&self, server: &Instance, question: Question, asked: Asked, took: Duration);
}

/// Lets everything through: for tests, and for a single look at a server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Open;

impl Gate for Open {
    fn admit(&self, _: &Instance, _: Question) -> Result<(), Held> {
        Ok(())
    }

    fn done(&self, _: &Instance, _: Question, _: Asked, _: Duration) {}
}
