//! A connection to MySQL or MariaDB.

use mysql_async::{Conn, OptsBuilder, Value, prelude::Queryable};

use crate::collect::{
    failure::Failure,
    row::Rows,
    session::{APPLICATION, STATEMENT_LIMIT},
};
use crate::model::Engine;

/// Largest answer. One is some kilobytes; digests of 10,000 statements are some megabytes.
const MAX_ANSWER: usize = 64 << 20;
/// Seconds after which the server may end a connection that asks nothing; the agent asks each second.
const IDLE_LIMIT: usize = 60;

/// A connection; its end ends the session on the server.
#[derive(Debug)]
pub(in crate::collect) struct Client {
    connection: Conn,
}

/// Options of every connection. Packet size and idle time are given, so that the client does not ask the server for them.
pub(in crate::collect) fn options(user: &str) -> OptsBuilder {
    OptsBuilder::default()
        .user(Some(user))
        .prefer_socket(false)
        .stmt_cache_size(0)
        .max_allowed_packet(Some(MAX_ANSWER))
        .wait_timeout(Some(IDLE_LIMIT))
        .connect_attribute("program_name", APPLICATION)
}

/// Everything that a new session asks before the first question, in order: it leaves performance_schema, and gets its limits. MySQL waits for locks in
/// whole seconds.
pub(in crate::collect) fn preparations(engine: Engine) -> [String; 4] {
    let limit = match engine {
        Engine::Mariadb => format!("SET SESSION max_statement_time = {}", STATEMENT_LIMIT.as_secs()),
        _ => format!("SET SESSION max_execution_time = {}", STATEMENT_LIMIT.as_millis()),
    };
    [
        UNINSTRUMENTED.to_owned(),
        limit,
        format!("SET SESSION lock_wait_timeout = 1, innodb_lock_wait_timeout = 1, wait_timeout = {IDLE_LIMIT}"),
        "SET SESSION TRANSACTION READ ONLY".to_owned(),
    ]
}

/// Keeps a session out of performance_schema; needs UPDATE on that table.
const UNINSTRUMENTED: &str =
    "UPDATE performance_schema.threads SET INSTRUMENTED = 'NO', HISTORY = 'NO' WHERE PROCESSLIST_ID = CONNECTION_ID()";

impl Client {
    /// Takes over a connection that is logged in, and limits what it may do.
    pub(in crate::collect) async fn start(connection: Conn, engine: Engine) -> Result<Client, Failure> {
        let mut client = Client { connection };
        for statement in preparations(engine) {
            match client.ask(&statement).await {
                // Where it is refused, own statements are recognised by their fingerprints.
                Err(failure) if !failure.fatal && statement == UNINSTRUMENTED => {}
                asked => drop(asked?),
            }
        }
        Ok(client)
    }

    /// Asks in the text protocol.
    pub(in crate::collect) async fn ask(&mut self, sql: &str) -> Result<Rows, Failure> {
        let answer: Vec<mysql_async::Row> = self.connection.query(sql).await?;
        let Some(first) = answer.first() else { return Ok(Rows::default()) };
        let columns = first.columns();
        let names: Vec<_> = columns.iter().map(|column| column.name_str().into_owned()).collect();
        let mut rows = Rows::new(names.iter().map(String::as_str));
        for row in answer {
            rows.push(row.unwrap_raw().into_iter().map(|value| value.and_then(text)).collect());
        }
        Ok(rows)
    }
}

/// The text protocol sends everything as bytes.
fn text(value: Value) -> Option<String> {
    match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(
            String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
        ),
        other => Some(other.as_sql(true)),
    }
}
