//! `querylens admin`: asks the running agent over its admin socket.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};

use super::{Common, FINE};

/// Time for an answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// Ask the running agent, or tell it what to do, over its admin socket
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// The socket; without it that of the configuration
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Command {
    /// Everything that the agent knows, as JSON
    Status,
    /// The circuits of all servers and their questions
    Breakers,
    /// Leave a server alone until `close`, or one question to it
    Open(Circuit),
    /// Ask a server again, or one question to it
    Close(Circuit),
    /// The processors' numbers: what came in, what was kept, at which rate
    Processors,
    /// The configuration in effect, with where each setting came from
    Config,
    /// Load the configuration anew
    Reload,
}

#[derive(Clone, Debug, clap::Args)]
struct Circuit {
    /// service.instance.id of the server
    instance: uuid::Uuid,
    /// One question; without it the server as a whole
    question: Option<String>,
}

impl Circuit {
    fn query(&self) -> anyhow::Result<String> {
        let Some(question) = &self.question else { return Ok(format!("instance={}", self.instance)) };
        if !question.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte)) {
            bail!("a question is a name of letters, digits, `_`, `-` and `.`; `querylens admin breakers` lists them");
        }
        Ok(format!("instance={}&question={question}", self.instance))
    }
}

pub(super) fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let socket = match &args.socket {
        Some(socket) => socket.clone(),
        None => args
            .common
            .load()?
            .health
            .admin_socket
            .context("the configuration has no admin socket (key `health.admin_socket`)")?,
    };
    let request = match &args.command {
        Command::Status => "GET /status".to_owned(),
        Command::Breakers => "GET /breakers".to_owned(),
        Command::Open(circuit) => format!("POST /breakers/open?{}", circuit.query()?),
        Command::Close(circuit) => format!("POST /breakers/close?{}", circuit.query()?),
        Command::Processors => "GET /processors".to_owned(),
        Command::Config => "GET /config".to_owned(),
        Command::Reload => "POST /reload".to_owned(),
    };
    let mut stream = UnixStream::connect(&socket).with_context(|| {
        format!("cannot ask the agent at {}: does it run, and is this its user or root?", socket.display())
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // HTTP/1.0: the body ends with the connection and comes in one piece (RFC 1945 §7.2.2).
    write!(stream, "{request} HTTP/1.0\r\nHost: querylens\r\nContent-Length: 0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("the agent did not answer")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the agent's answer is no HTTP")?;
    if !head.split(' ').nth(1).is_some_and(|code| code.starts_with('2')) {
        bail!("the agent refused: {}", body.trim());
    }
    out.write_all(body.as_bytes())?;
    Ok(ExitCode::from(FINE))
}
