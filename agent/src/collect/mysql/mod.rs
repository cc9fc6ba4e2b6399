//! What MySQL 8 and later and MariaDB 10.6 and later are asked, each question beside the decoding of its answer.

pub(super) mod activity;
mod client;
pub(super) mod facts;
pub(super) mod replication;
pub(super) mod server;
pub(super) mod statements;
pub(super) mod tables;

pub(super) use client::{Client, options, preparations};

use super::ladder::Rung;
use crate::model::Question;

/// Global settings, each with its value; the answer's columns are named by the server.
pub(super) const SETTINGS: &str = "SHOW GLOBAL VARIABLES";

const SETTINGS_RUNGS: &[Rung] = &[Rung { name: "global variables", needs: &[] }];

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
