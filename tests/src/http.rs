//! One GET request to this machine.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result};

/// Status code and body of `path`.
pub fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let patience = Duration::from_secs(5);
    let mut stream =
        TcpStream::connect_timeout(&address, patience).with_context(|| format!("cannot connect {address}"))?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    // HTTP/1.0: the body ends with the connection and comes in one piece (RFC 1945 §7.2.2).
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).with_context(|| format!("no answer to GET {path}"))?;
    parse(&String::from_utf8_lossy(&answer)).with_context(|| format!("GET {path}: not an HTTP response"))
}

fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let code = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((code, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn responses() {
        assert_eq!(parse("HTTP/1.0 200 OK\r\na: b\r\n\r\nbody"), Some((200, "body".to_owned())));
        assert_eq!(parse("HTTP/1.1 503 x\r\n\r\n"), Some((503, String::new())));
        assert_eq!(parse("junk"), None);
    }
}
