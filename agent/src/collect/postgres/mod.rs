//! What PostgreSQL 13 and later are asked, each question beside the decoding of its answer.

pub(super) mod activity;
mod client;
pub(super) mod facts;
pub(super) mod replication;
pub(super) mod server;
pub(super) mod statements;
pub(super) mod tables;

pub(super) use client::{Client, config};

use super::ladder::Rung;
use crate::model::Question;

/// Settings that are not the agent's own session's.
pub(super) const SETTINGS: &str =
    "SELECT name, setting AS value FROM pg_catalog.pg_settings WHERE source NOT IN ('client', 'session')";

const SETTINGS_RUNGS: &[Rung] = &[Rung { name: "pg_settings", needs: &[] }];

/// The ladder of a question.
pub(super) fn rungs(question: Question) -> &'static [Rung] {
    match question {
        Question::Facts => &[],
        Question::Activity => activity::RUNGS,
        Question::Statements => statements::RUNGS,
        Question::Server => server::RUNGS,
        Question::Tables => tables::RUNGS,
        Question::Replication => replication::RUNGS,
        Question::Settings => SETTINGS_RUNGS,
    }
}
