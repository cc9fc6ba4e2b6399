//! A connection to a server: one question at a time, each with a time limit.

use std::time::Duration;

use tokio::time::timeout;

use super::{failure::Failure, mysql, own::OwnStatements, postgres, row::Rows};
use crate::model::Asked;

/// Time that the server may spend on a question.
pub(super) const STATEMENT_LIMIT: Duration = Duration::from_secs(3);
/// Time that a question may wait for a lock, so that it is never in anybody's way for longer.
pub(super) const LOCK_LIMIT: Duration = Duration::from_millis(100);
/// Time after which the agent gives up a question, however the server is: the server's own limit and some for the way. A server that was stopped
/// (SIGSTOP) keeps no limits of its own.
const ANSWER_LIMIT: Duration = Duration::from_secs(4);
/// Time that connecting and logging in may take.
pub(super) const LOGIN_LIMIT: Duration = Duration::from_secs(5);
/// The name under which the agent's connections appear on the server.
pub(super) const APPLICATION: &str = "querylens";

/// Either engine's client.
#[derive(Debug)]
pub(super) enum Client {
    Postgres(postgres::Client),
    Mysql(Box<mysql::Client>),
}

/// A connection that is logged in.
#[derive(Debug)]
pub(super) struct Session {
    client: Client,
}

impl Session {
    pub(super) fn new(client: Client) -> Session {
        Session { client }
    }

    /// Asks one question. After a failure that is [fatal](Failure::fatal) the session must be dropped, which ends the connection.
    pub(super) async fn ask(&mut self, own: &mut OwnStatements, sql: &str) -> Result<Rows, Failure> {
        own.add(sql);
        let answer = async {
            match &mut self.client {
                Client::Postgres(client) => client.ask(sql).await,
                Client::Mysql(client) => client.ask(sql).await,
            }
        };
        timeout(ANSWER_LIMIT, answer).await.unwrap_or_else(|_| {
            Err(Failure::fatal(Asked::TimedOut, format!("no answer within {} s", ANSWER_LIMIT.as_secs())))
        })
    }
}
