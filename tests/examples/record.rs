//! Records one connection at a time as a `.stream` file: a TCP proxy between a client and a server.
//!
//! `cargo run -p querylens-tests --example record -- SERVER_HOST:PORT FOLDER NAME` listens on an ephemeral port of 127.0.0.1, writes that
//! port into FOLDER/NAME.port, and records each connection into FOLDER/NAME-N.stream until its standard input ends.
//!
//! A proxy sees the reads of a socket, not those of the server: replies of two writes may come as one chunk. Times are the proxy's
//! own. It copies one direction at a time, so neither side may send much while the other does not read. All this is good enough for what a fixture proves (pairing, counting, order), not for latencies.

use std::{
    env, fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use querylens::{model::Timestamp, wire::Direction};
use querylens_tests::stream::{Fixture, Input};

/// Chunk size: the server's own receive and send buffer (`PQ_RECV_BUFFER_SIZE`, backend/libpq/pqcomm.c).
const CHUNK: usize = 8192;

type Recording = Arc<Mutex<Vec<Input>>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [server, folder, name] = arguments.as_slice() else { bail!("usage: record SERVER_HOST:PORT FOLDER NAME") };
    let folder = PathBuf::from(folder);
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on 127.0.0.1")?;
    let port = listener.local_addr()?.port();
    fs::write(folder.join(format!("{name}.port")), port.to_string()).context("cannot write the port file")?;
    let (server, name) = (server.clone(), name.clone());
    thread::spawn(move || {
        for (number, client) in listener.incoming().flatten().enumerate() {
            let (server, path) = (server.clone(), folder.join(format!("{name}-{number}.stream")));
            thread::spawn(move || record(client, &server, path));
        }
    });
    // Ends with the standard input, so that a driving script needs no signal.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn record(client: TcpStream, server: &str, path: PathBuf) -> Result<()> {
    let server = TcpStream::connect(server).context("cannot reach the server")?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let recording = Recording::default();
    let start = Instant::now();
    let requests = {
        let (from, to, recording) = (client.try_clone()?, server.try_clone()?, recording.clone());
        thread::spawn(move || pump(from, to, Direction::Request, start, &recording))
    };
    pump(server, client, Direction::Response, start, &recording);
    let _ = requests.join();
    let mut inputs = std::mem::take(&mut *recording.lock().unwrap_or_else(PoisonError::into_inner));
    inputs.push(Input::Close);
    let fixture = Fixture { comments: Vec::new(), inputs, expected: Vec::new() };
    fs::write(path, fixture.format()).context("cannot write the recording")
}

/// Copies until the end. The lock is held from before the write, so that no answer is recorded before its question.
fn pump(mut from: TcpStream, mut to: TcpStream, direction: Direction, start: Instant, recording: &Recording) {
    let mut buffer = [0; CHUNK];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let bytes = &buffer[..read];
        let mut inputs = recording.lock().unwrap_or_else(PoisonError::into_inner);
        let at = Timestamp(start.elapsed().as_nanos() as u64);
        inputs.push(Input::Data { direction, at, bytes: bytes.to_vec(), missing: 0 });
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}
