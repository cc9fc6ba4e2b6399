//! SQL sessions of the harness itself, blocking, with every value as text.

use std::path::Path;

use anyhow::{Context, Result};
use mysql_async::prelude::Queryable;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// Rows of values, `None` for NULL.
pub type Rows = Vec<Vec<Option<String>>>;

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

fn single(rows: Rows, sql: &str) -> Result<String> {
    let value = rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten();
    value.with_context(|| format!("no value: {sql}"))
}

/// A session of PostgreSQL's superuser.
pub struct PostgresClient {
    // Before the runtime, which drives its connection.
    client: tokio_postgres::Client,
    runtime: Runtime,
}

impl PostgresClient {
    /// Connects through the Unix socket in `dir`.
    pub fn connect(dir: &Path, port: u16, database: &str) -> Result<PostgresClient> {
        let runtime = runtime()?;
        let mut config = tokio_postgres::Config::new();
        config.host_path(dir).port(port).user("postgres").dbname(database).application_name("querylens-tests");
        let (client, connection) = runtime.block_on(config.connect(NoTls))?;
        runtime.spawn(connection);
        Ok(PostgresClient { client, runtime })
    }

    /// Runs statements in the simple protocol.
    pub fn query(&mut self, sql: &str) -> Result<Rows> {
        let messages = self.runtime.block_on(self.client.simple_query(sql)).with_context(|| sql.to_owned())?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()),
            _ => None,
        });
        Ok(rows.collect())
    }

    /// First value of the first row.
    pub fn value(&mut self, sql: &str) -> Result<String> {
        single(self.query(sql)?, sql)
    }
}

/// A session of MariaDB or MySQL.
pub struct MysqlClient {
    connection: mysql_async::Conn,
    runtime: Runtime,
}

impl MysqlClient {
    /// Connects through a Unix socket, without a password.
    pub fn connect(socket: &Path, user: &str, database: &str) -> Result<MysqlClient> {
        let runtime = runtime()?;
        let options = mysql_async::OptsBuilder::default().socket(Some(socket.display().to_string()));
        let options = options.prefer_socket(false).user(Some(user)).db_name(Some(database));
        let connection = runtime.block_on(mysql_async::Conn::new(options))?;
        Ok(MysqlClient { connection, runtime })
    }

    /// Runs one statement in the text protocol.
    pub fn query(&mut self, sql: &str) -> Result<Rows> {
        let rows: Vec<mysql_async::Row> =
            self.runtime.block_on(self.connection.query(sql)).with_context(|| sql.to_owned())?;
        Ok(rows.into_iter().map(|row| row.unwrap().into_iter().map(text).collect()).collect())
    }

    /// First value of the first row.
    pub fn value(&mut self, sql: &str) -> Result<String> {
        single(self.query(sql)?, sql)
    }
}

/// The text protocol sends everything as bytes.
fn text(value: mysql_async::Value) -> Option<String> {
    match value {
        mysql_async::Value::NULL => None,
        mysql_async::Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        other => Some(other.as_sql(true)),
    }
}
