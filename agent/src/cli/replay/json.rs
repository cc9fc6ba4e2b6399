//! One line of JSON a statement.

use std::{
    borrow::Cow,
    io::{self, Write},
    net::SocketAddr,
    time::Duration,
};

use serde::Serialize;

use crate::{
    export::console,
    model::{Code, Kind, Statement, Status, Text},
    replay::Execution,
};

#[derive(Serialize)]
struct Line<'a> {
    /// Nanoseconds since 1970.
    start: u64,
    engine: &'static str,
    client: SocketAddr,
    server: SocketAddr,
    database: Option<&'a str>,
    user: Option<&'a str>,
    text: Cow<'a, str>,
    fingerprint: String,
    kind: &'static str,
    duration_us: f64,
    first_byte_us: Option<f64>,
    rows_sent: Option<u64>,
    rows_affected: Option<u64>,
    bytes_in: u64,
    bytes_out: u64,
    status: &'static str,
    code: Option<String>,
    truncated: bool,
    estimated: bool,
}

/// Writes one execution; its text without literals, or with `raw` as captured.
pub(super) fn line(execution: &Execution<'_>, raw: bool, out: &mut impl Write) -> io::Result<()> {
    let statement = execution.statement;
    let text = match &statement.text {
        Text::Known(text) if raw => String::from_utf8_lossy(text.raw()),
        _ => Cow::Borrowed(&*execution.digest.text),
    };
    let line = Line {
        start: statement.start.0,
        engine: execution.engine.name(),
        client: execution.client,
        server: execution.server,
        database: execution.database,
        user: execution.user,
        text,
        fingerprint: execution.digest.hex(),
        kind: kind(statement.kind),
        duration_us: micros(statement.duration()),
        first_byte_us: statement.first_byte.map(|first| micros(first.since(statement.start))),
        rows_sent: statement.rows_sent,
        rows_affected: statement.rows_affected,
        bytes_in: statement.bytes_in,
        bytes_out: statement.bytes_out,
        status: status(statement),
        code: statement.code.map(|code| code.to_string()),
        truncated: matches!(&statement.text, Text::Known(text) if text.truncated()),
        estimated: statement.estimated,
    };
    console::json_line(&line, out)
}

fn micros(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e3
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Simple => "simple",
        Kind::Prepare => "prepare",
        Kind::Execute => "execute",
        Kind::Copy => "copy",
        Kind::Utility => "utility",
        Kind::Connect => "connect",
    }
}

fn status(statement: &Statement) -> &'static str {
    match statement.status {
        Status::Ok => "ok",
        Status::Error if statement.code.is_some_and(Code::is_cancellation) => "cancelled",
        Status::Error => "error",
        Status::Incomplete => "incomplete",
    }
}
