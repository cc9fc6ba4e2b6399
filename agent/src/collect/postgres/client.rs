//! A connection to PostgreSQL.

use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::AbortHandle,
};
use tokio_postgres::{Config, Connection, SimpleQueryMessage, tls::TlsStream};

use crate::collect::{
    failure::Failure,
    row::Rows,
    session::{APPLICATION, LOCK_LIMIT, LOGIN_LIMIT, STATEMENT_LIMIT},
};

/// A connection; its end ends the session on the server.
#[derive(Debug)]
pub(in crate::collect) struct Client {
    client: tokio_postgres::Client,
    driver: AbortHandle,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A configuration whose sessions read only, and keep the limits, from their first moment.
pub(in crate::collect) fn config(user: &str, database: &str) -> Config {
    let mut config = Config::new();
    config.user(user).dbname(database).application_name(APPLICATION).connect_timeout(LOGIN_LIMIT).options(format!(
        "-c statement_timeout={} -c lock_timeout={} -c idle_in_transaction_session_timeout={} -c default_transaction_read_only=on -c jit=off",
        STATEMENT_LIMIT.as_millis(),
        LOCK_LIMIT.as_millis(),
        STATEMENT_LIMIT.as_millis(),
    ));
    config
}

impl Client {
    /// Takes over a connection that is logged in.
    pub(in crate::collect) fn start<S, T>(client: tokio_postgres::Client, connection: Connection<S, T>) -> Client
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: TlsStream + AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // What goes wrong there, the next question learns.
        let driver = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        Client { client, driver }
    }

    /// Asks in the simple protocol: one round trip, and nothing prepared on the server.
    pub(in crate::collect) async fn ask(&mut self, sql: &str) -> Result<Rows, Failure> {
        let messages = self.client.simple_query(sql).await?;
        let mut rows = Rows::default();
        for message in messages {
            match message {
                SimpleQueryMessage::RowDescription(columns) => {
                    rows = Rows::new(columns.iter().map(|column| column.name()));
                }
                SimpleQueryMessage::Row(row) => {
                    let value = |at| row.try_get(at).map(|value| value.map(str::to_owned));
                    rows.push((0..row.len()).map(value).collect::<Result<_, _>>()?);
                }
                _ => {}
            }
        }
        Ok(rows)
    }
}
