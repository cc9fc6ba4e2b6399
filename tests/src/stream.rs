//! Recorded wire streams: a text format, its parser, and a runner that feeds them to a protocol machine.
//!
//! A stream is one connection, a line an event, in the order in which the server saw them:
//!
//! ```text
//! # comment
//! > NANOS HEX          bytes from client to server; HEX may end in `+N`: N more bytes were sent but not captured
//! < NANOS HEX          bytes from server to client
//! ! gap                an unknown number of bytes was lost
//! ! close              the connection ended
//! ---
//! what the machine must say, one line an event, as `render` writes it
//! ```
//!
//! Times are nanoseconds since the first byte. A gap or close happens at the time of the line before it.

use std::{fmt::Write as _, ops::Range};

use anyhow::{Context, Result, bail};
use querylens::{
    model::{Engine, SessionInfo, SessionState, Statement, Text, Timestamp},
    wire::{Direction, Event, Machine, machine},
};

/// One thing that happens on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Bytes went over the wire.
    Data {
        /// Which way.
        direction: Direction,
        /// When.
        at: Timestamp,
        /// What was captured.
        bytes: Vec<u8>,
        /// Bytes that followed but were not captured.
        missing: usize,
    },
    /// An unknown number of bytes was lost.
    Gap,
    /// The connection ended.
    Close,
}

/// A recorded stream and what it must decode to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixture {
    /// Comment lines at the top, without `#`.
    pub comments: Vec<String>,
    /// What happens.
    pub inputs: Vec<Input>,
    /// Expected lines.
    pub expected: Vec<String>,
}

impl Fixture {
    /// Parses the text of a `.stream` file.
    pub fn parse(text: &str) -> Result<Fixture> {
        let mut fixture = Fixture { comments: Vec::new(), inputs: Vec::new(), expected: Vec::new() };
        let mut lines = text.lines().enumerate();
        for (number, line) in lines.by_ref() {
            let line = line.trim_end();
            if line == "---" {
                break;
            } else if let Some(comment) = line.strip_prefix('#') {
                fixture.comments.push(comment.trim().to_owned());
            } else if !line.is_empty() {
                fixture.inputs.push(parse_input(line).with_context(|| format!("line {}", number + 1))?);
            }
        }
        fixture.expected = lines.map(|(_, line)| line.to_owned()).collect();
        Ok(fixture)
    }

    /// Writes the text of a `.stream` file; [`Fixture::parse`] reads it back.
    pub fn format(&self) -> String {
        let mut text = String::new();
        for comment in &self.comments {
            let _ = writeln!(text, "# {comment}");
        }
        for input in &self.inputs {
            match input {
                Input::Gap => text.push_str("! gap\n"),
                Input::Close => text.push_str("! close\n"),
                Input::Data { direction, at, bytes, missing } => {
                    let mark = match direction {
                        Direction::Request => '>',
                        Direction::Response => '<',
                    };
                    let _ = write!(text, "{mark} {} ", at.0);
                    bytes.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap_or(()));
                    if *missing > 0 {
                        let _ = write!(text, "+{missing}");
                    }
                    text.push('\n');
                }
            }
        }
        text.push_str("---\n");
        for line in &self.expected {
            let _ = writeln!(text, "{line}");
        }
        text
    }
}

fn parse_input(line: &str) -> Result<Input> {
    let mut fields = line.split_ascii_whitespace();
    let direction = match fields.next() {
        Some(">") => Direction::Request,
        Some("<") => Direction::Response,
        Some("!") => {
            return match fields.next() {
                Some("gap") => Ok(Input::Gap),
                Some("close") => Ok(Input::Close),
                other => bail!("after `!` comes `gap` or `close`, not {other:?}"),
            };
        }
        other => bail!("a line begins with `#`, `>`, `<` or `!`, not {other:?}"),
    };
    let at = fields.next().context("no time")?.parse().context("the time is no number")?;
    let (hex, missing) = match fields.next() {
        None => ("", 0),
        Some(field) => match field.split_once('+') {
            None => (field, 0),
            Some((hex, missing)) => (hex, missing.parse().context("the number after `+` is no number")?),
        },
    };
    Ok(Input::Data { direction, at: Timestamp(at), bytes: parse_hex(hex)?, missing })
}

fn parse_hex(hex: &str) -> Result<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).context("not a hexadecimal digit");
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        bail!("an odd number of hexadecimal digits");
    }
    pairs.iter().map(|[high, low]| Ok((digit(*high)? << 4 | digit(*low)?) as u8)).collect()
}

/// What a machine said about a stream.
pub struct Outcome {
    /// Its events, in order.
    pub events: Vec<Event>,
    /// Whose session it was, before it closed.
    pub info: SessionInfo,
    /// What the session did before it closed.
    pub state: SessionState,
}

impl Outcome {
    /// The statements alone.
    pub fn statements(&self) -> impl Iterator<Item = &Statement> {
        self.events.iter().filter_map(|event| match event {
            Event::Statement(statement) => Some(statement),
            Event::Anomaly(_) | Event::Transaction(_) => None,
        })
    }

    /// One line an event, then one for the session.
    pub fn render(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.events.iter().map(render_event).collect();
        lines.push(render_session(&self.info, self.state));
        lines
    }
}

/// Feeds `inputs` to a new machine for `engine`.
pub fn run(engine: Engine, inputs: &[Input]) -> Outcome {
    feed(machine(engine).as_mut(), inputs)
}

/// Feeds `inputs` to `machine`.
pub fn feed(machine: &mut dyn Machine, inputs: &[Input]) -> Outcome {
    let mut events = Vec::new();
    let mut now = Timestamp(0);
    let mut before_close = None;
    for input in inputs {
        match input {
            Input::Gap => machine.gap(now, &mut events),
            Input::Close => {
                before_close = Some((machine.info().clone(), machine.state()));
                machine.close(now, &mut events);
            }
            Input::Data { direction, at, bytes, missing } => {
                now = *at;
                machine.data(*direction, now, bytes, bytes.len().saturating_add(*missing), &mut events);
            }
        }
    }
    let (info, state) = before_close.unwrap_or_else(|| (machine.info().clone(), machine.state()));
    Outcome { events, info, state }
}

/// Stretches of request bytes without a hole: a text that a machine reports must lie within one of them.
pub fn request_stretches(inputs: &[Input]) -> Vec<Vec<u8>> {
    let mut stretches = vec![Vec::new()];
    for input in inputs {
        match input {
            Input::Data { direction: Direction::Request, bytes, missing, .. } => {
                if let Some(last) = stretches.last_mut() {
                    last.extend_from_slice(bytes);
                }
                if *missing > 0 {
                    stretches.push(Vec::new());
                }
            }
            Input::Gap => stretches.push(Vec::new()),
            Input::Data { .. } | Input::Close => {}
        }
    }
    stretches
}

/// Cuts each chunk of `inputs` at the given places, counted in bytes over the whole stream; the parts keep the chunk's time.
pub fn split(inputs: &[Input], cuts: &[usize]) -> Vec<Input> {
    let mut cuts: Vec<usize> = cuts.to_vec();
    cuts.sort_unstable();
    cuts.dedup();
    let mut parts = Vec::new();
    let mut offset = 0;
    for input in inputs {
        let Input::Data { direction, at, bytes, missing } = input else {
            parts.push(input.clone());
            continue;
        };
        let inside: Range<usize> = offset + 1..offset + bytes.len();
        let mut from = 0;
        for cut in cuts.iter().filter(|cut| inside.contains(cut)) {
            let to = cut - offset;
            parts.push(Input::Data { direction: *direction, at: *at, bytes: bytes[from..to].to_vec(), missing: 0 });
            from = to;
        }
        parts.push(Input::Data { direction: *direction, at: *at, bytes: bytes[from..].to_vec(), missing: *missing });
        offset += bytes.len();
    }
    parts
}

/// One line for an event. Stable: fixtures hold it.
pub fn render_event(event: &Event) -> String {
    match event {
        Event::Anomaly(anomaly) => format!("anomaly {}", anomaly.name()),
        Event::Transaction(transaction) => format!(
            "transaction {} start={} end={} idle={} statements={}",
            format!("{:?}", transaction.outcome).to_lowercase(),
            transaction.start.0,
            transaction.end.0,
            transaction.idle.as_nanos(),
            transaction.statements,
        ),
        Event::Statement(statement) => render_statement(statement),
    }
}

fn render_statement(statement: &Statement) -> String {
    let number = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
    let mut line = format!(
        "statement {} {} start={} first={} end={} sent={} affected={} in={} out={}",
        format!("{:?}", statement.kind).to_lowercase(),
        format!("{:?}", statement.status).to_lowercase(),
        statement.start.0,
        number(statement.first_byte.map(|at| at.0)),
        statement.end.0,
        number(statement.rows_sent),
        number(statement.rows_affected),
        statement.bytes_in,
        statement.bytes_out,
    );
    if let Some(code) = statement.code {
        let _ = write!(line, " code={code}");
    }
    if statement.estimated {
        line.push_str(" estimated");
    }
    match &statement.text {
        Text::None => line.push_str(" none"),
        Text::Unknown => line.push_str(" unknown"),
        Text::Known(text) => {
            if text.truncated() {
                line.push_str(" truncated");
            }
            let raw = text.raw();
            let shown = &raw[..raw.len().min(SHOWN_TEXT)];
            let _ = write!(line, " \"{}\"", shown.escape_ascii());
            if shown.len() < raw.len() {
                let _ = write!(line, "...{}", raw.len());
            }
        }
    }
    line
}

/// Most bytes of a text that a rendered line shows.
const SHOWN_TEXT: usize = 200;

fn render_session(info: &SessionInfo, state: SessionState) -> String {
    let name = |value: &Option<std::sync::Arc<str>>| match value {
        None => "-".to_owned(),
        Some(value) => format!("{value:?}"),
    };
    format!(
        "session {state:?} user={} database={} application={} version={} encrypted={}",
        name(&info.user),
        name(&info.database),
        name(&info.application),
        name(&info.server_version),
        info.encrypted,
    )
}
