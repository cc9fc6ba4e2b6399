//! Connections to a server: never more than two, on each one question at a time, each with a time limit.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::timeout,
};

use super::{failure::Failure, mysql, own::OwnStatements, postgres, row::Rows};
use crate::model::Asked;

/// Time that the server may spend on a question.
pub(super) const STATEMENT_LIMIT: Duration = Duration::from_secs(3);
/// Time that a question may wait for a lock, so that it is never in anybody's way for longer.
pub(super) const LOCK_LIMIT: Duration = Duration::from_millis(100);
/// Time after which the agent gives up a question, however the server is: the server's own limit and some for the way. A server that was stopped
/// (SIGSTOP) keeps no limits of its own.
const ANSWER_LIMIT: Duration = Duration::from_secs(4);
/// Time that a connection may take to end after its last answer.
const END_LIMIT: Duration = Duration::from_secs(1);
/// Connections to one server.
pub(super) const MAX_CONNECTIONS: usize = 2;
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

/// The connections to one server. A question or a login that the agent gives up keeps its place until the server answers it or closes the connection: a
/// server whose processes were stopped does neither, and must not be given one connection after the other. All end when this is dropped.
#[derive(Debug)]
pub(super) struct Connections {
    places: Arc<Semaphore>,
    alive: watch::Sender<()>,
}

impl Connections {
    pub(super) fn new() -> Connections {
        Connections { places: Arc::new(Semaphore::new(MAX_CONNECTIONS)), alive: watch::Sender::new(()) }
    }

    /// Connections that may still be made.
    pub(super) fn free(&self) -> usize {
        self.places.available_permits()
    }

    /// Makes one.
    pub(super) async fn open(
        &self,
        login: impl Future<Output = Result<Client, Failure>> + Send + 'static,
    ) -> Result<Session, Failure> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| Failure::fatal(Asked::Failed, "the agent's connections are all in use"))?;
        let (ready, logged_in) = oneshot::channel();
        let (questions, asked) = mpsc::channel(1);
        let (end, ended) = oneshot::channel();
        let mut alive = self.alive.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                // Nothing is ever sent: it is the sender's end.
                _ = alive.changed() => {}
                () = serve(login, ready, asked) => {}
            }
            drop(place);
            drop(end);
        });
        let too_long = |_| Failure::fatal(Asked::TimedOut, format!("no login within {} s", LOGIN_LIMIT.as_secs()));
        timeout(LOGIN_LIMIT, logged_in).await.map_err(too_long)?.unwrap_or_else(|_| Err(lost()))?;
        Ok(Session { questions, ended })
    }
}

/// One question, and where its answer goes.
type Posed = (String, oneshot::Sender<Result<Rows, Failure>>);

/// Logs in and answers questions, for as long as somebody wants to know.
async fn serve(
    login: impl Future<Output = Result<Client, Failure>>,
    ready: oneshot::Sender<Result<(), Failure>>,
    mut asked: mpsc::Receiver<Posed>,
) {
    let mut client = match login.await {
        Ok(client) => client,
        Err(failure) => return drop(ready.send(Err(failure))),
    };
    if ready.send(Ok(())).is_err() {
        return;
    }
    while let Some((sql, reply)) = asked.recv().await {
        let answer = match &mut client {
            Client::Postgres(client) => client.ask(&sql).await,
            Client::Mysql(client) => client.ask(&sql).await,
        };
        if reply.send(answer).is_err() {
            return;
        }
    }
}

fn lost() -> Failure {
    Failure::fatal(Asked::Disconnected, "the connection has ended")
}

/// A connection that is logged in; dropped, it ends as soon as the server has answered what it was asked.
#[derive(Debug)]
pub(super) struct Session {
    questions: mpsc::Sender<Posed>,
    ended: oneshot::Receiver<()>,
}

impl Session {
    /// Asks one question. After a failure that is [fatal](Failure::fatal) the session must be dropped, which ends the connection.
    pub(super) async fn ask(&mut self, own: &mut OwnStatements, sql: &str) -> Result<Rows, Failure> {
        own.add(sql);
        let (reply, answer) = oneshot::channel();
        self.questions.send((sql.to_owned(), reply)).await.map_err(|_| lost())?;
        let too_long = |_| Failure::fatal(Asked::TimedOut, format!("no answer within {} s", ANSWER_LIMIT.as_secs()));
        timeout(ANSWER_LIMIT, answer).await.map_err(too_long)?.unwrap_or_else(|_| Err(lost()))
    }

    /// Ends it, so that its place is free for another one; one that is waiting for an answer keeps it.
    pub(super) async fn end(self) {
        drop(self.questions);
        let _ = timeout(END_LIMIT, self.ended).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::future;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_login_that_was_given_up_keeps_its_place_until_it_has_ended() {
        let connections = Connections::new();
        let (answer, answered) = oneshot::channel::<Failure>();
        let failure = connections.open(async { Err(answered.await.unwrap()) }).await.unwrap_err();
        assert_eq!((failure.asked, connections.free()), (Asked::TimedOut, MAX_CONNECTIONS - 1));
        connections.open(future::pending()).await.unwrap_err();
        let full = connections.open(async { Err(lost()) }).await.unwrap_err();
        assert_eq!((full.asked, connections.free()), (Asked::Failed, 0));
        answer.send(lost()).unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(connections.free(), 1);
        let places = Arc::clone(&connections.places);
        drop(connections);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(places.available_permits(), MAX_CONNECTIONS);
    }

    #[tokio::test]
    async fn a_login_that_fails_gives_its_place_back() {
        let connections = Connections::new();
        let failure = connections.open(async { Err(Failure::fatal(Asked::Denied, "no")) }).await.unwrap_err();
        assert_eq!(failure.asked, Asked::Denied);
        tokio::task::yield_now().await;
        assert_eq!(connections.free(), MAX_CONNECTIONS);
    }
}
