//! The connections of a capture: where each begins and ends, what it speaks, and the machine that follows it.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc};

use hashbrown::HashMap;

use super::{
    Execution, Sink,
    coverage::Coverage,
    packet::Segment,
    reassembly::{Output, Reassembly, Side},
    recognise::{Choice, Foreign, Opening, Verdict, engine_of, recognise},
};
use crate::{
    model::{Digest, Engine, Kind, Statement, Status, Text, Timestamp},
    sql::Normaliser,
    wire::{self, Direction, Event, Machine},
};

/// Bound on connections that are open at once; beyond it those that were silent longest are given up.
const MAX_CONNECTIONS: usize = 65_536;
/// Ended connections that are remembered, so that a late segment begins no new one.
const MAX_ENDED: usize = 4096;
/// Bound on bytes that wait for others, over all connections.
const MAX_HELD: usize = 64 << 20;
/// Bounds on what is kept of a connection until it is recognised.
const MAX_OPENING: usize = 64 << 10;
const MAX_OPENING_CHUNKS: usize = 64;
/// Bound on servers whose engine is remembered.
const MAX_SERVERS: usize = 4096;

/// The two ends in a fixed order: an end's index is its [`Side`].
type Ends = [SocketAddr; 2];

struct Connection {
    /// In order of appearance.
    number: u64,
    opener: Option<Side>,
    /// Sequence number and time of the first SYN.
    syn: Option<(u32, Timestamp)>,
    /// The other end has said something.
    answered: bool,
    streams: Reassembly,
    state: State,
    seen: Timestamp,
}

enum State {
    Opening(Held),
    Followed(Session),
    Left,
    Ended,
}

/// What came before a connection is recognised.
#[derive(Default)]
struct Held {
    heads: [Vec<u8>; 2],
    /// Sender, time, captured and true length of each part of `heads`.
    chunks: Vec<(Side, Timestamp, usize, usize)>,
    /// Something before or between is missing.
    incomplete: bool,
}

struct Session {
    engine: Engine,
    client: SocketAddr,
    server: SocketAddr,
    server_side: Side,
    machine: Box<dyn Machine>,
}

/// All connections of a capture.
pub(super) struct Connections<'s> {
    table: HashMap<Ends, Connection>,
    ended: VecDeque<Ends>,
    opened: u64,
    held: usize,
    context: Context<'s>,
}

/// What the connections share.
struct Context<'s> {
    choice: &'s Choice,
    servers: HashMap<SocketAddr, Engine>,
    coverage: Coverage,
    normaliser: Normaliser,
    command: Arc<Digest>,
    unknown: Arc<Digest>,
    events: Vec<Event>,
    sink: &'s mut Sink<'s>,
    failed: Option<std::io::Error>,
}

impl<'s> Connections<'s> {
    pub(super) fn new(choice: &'s Choice, sink: &'s mut Sink<'s>) -> Connections<'s> {
        let context = Context {
            choice,
            servers: HashMap::new(),
            coverage: Coverage::default(),
            normaliser: Normaliser::default(),
            command: Arc::new(Digest::command()),
            unknown: Arc::new(Digest::unknown()),
            events: Vec::new(),
            sink,
            failed: None,
        };
        Connections { table: HashMap::new(), ended: VecDeque::new(), opened: 0, held: 0, context }
    }

    pub(super) fn coverage(&mut self) -> &mut Coverage {
        &mut self.context.coverage
    }

    /// Takes up a segment. Fails if the sink does.
    pub(super) fn segment(&mut self, at: Timestamp, segment: &Segment<'_>) -> std::io::Result<()> {
        let ends = [segment.from.min(segment.to), segment.from.max(segment.to)];
        let side = usize::from(segment.from != ends[0]);
        self.admit(&ends, side, at, segment);
        let Some(connection) = self.table.get_mut(&ends) else { return Ok(()) };
        connection.seen = connection.seen.max(at);
        connection.answered |= connection.opener.is_some_and(|opener| opener != side) && !segment.rst;
        if let State::Opening(_) | State::Followed(_) = connection.state {
            let before = connection.streams.held();
            let (state, opener, context) = (&mut connection.state, connection.opener, &mut self.context);
            let mut tally = context.coverage.tally;
            let mut take = |output: Output<'_>| context.take(&ends, opener, state, output);
            connection.streams.segment(side, at, segment, &mut tally, &mut take);
            if self.held > MAX_HELD {
                connection.streams.finish(&mut take);
            }
            self.context.coverage.tally = tally;
            self.held = self.held + connection.streams.held() - before;
        }
        if segment.rst || connection.streams.is_finished() {
            let refused = segment.rst && !connection.answered;
            self.end(&ends, at, refused);
        }
        self.context.failed.take().map_or(Ok(()), Err)
    }

    /// Sees to it that there is a connection for `segment`, if it belongs to one.
    fn admit(&mut self, ends: &Ends, side: Side, at: Timestamp, segment: &Segment<'_>) {
        let asks = segment.syn && segment.acknowledged.is_none();
        if let Some(connection) = self.table.get(ends) {
            let ended = matches!(connection.state, State::Ended);
            // The same ends again, or the same attempt?
            let again = asks && connection.syn.is_none_or(|(sequence, _)| sequence != segment.sequence);
            if !(again || ended && segment.syn) {
                return;
            }
            self.end(ends, at, false);
            self.table.remove(ends);
        } else if !segment.syn && segment.true_len == 0 {
            return;
        }
        self.make_room();
        let opener = segment.syn.then(|| if asks { side } else { 1 - side });
        let connection = Connection {
            number: self.opened,
            opener,
            syn: segment.syn.then_some((segment.sequence, at)).filter(|_| asks),
            answered: !asks,
            streams: Reassembly::default(),
            state: State::Opening(Held { incomplete: !segment.syn, ..Held::default() }),
            seen: at,
        };
        self.opened += 1;
        self.table.insert(*ends, connection);
    }

    fn make_room(&mut self) {
        while self.ended.len() > MAX_ENDED {
            let Some(ends) = self.ended.pop_front() else { break };
            if self.table.get(&ends).is_some_and(|connection| matches!(connection.state, State::Ended)) {
                self.table.remove(&ends);
            }
        }
        if self.table.len() < MAX_CONNECTIONS + MAX_ENDED {
            return;
        }
        // An eighth at once, so that it costs little each time.
        let mut silent: Vec<(Timestamp, u64, Ends)> =
            self.table.iter().map(|(ends, connection)| (connection.seen, connection.number, *ends)).collect();
        silent.sort_unstable();
        for (seen, _, ends) in silent.drain(..MAX_CONNECTIONS / 8) {
            let open = self.table.get(&ends).is_some_and(|connection| !matches!(connection.state, State::Ended));
            self.context.coverage.evicted += u64::from(open);
            self.end(&ends, seen, false);
            self.table.remove(&ends);
        }
    }

    /// Ends a connection: nothing more comes.
    fn end(&mut self, ends: &Ends, at: Timestamp, refused: bool) {
        let Some(connection) = self.table.get_mut(ends) else { return };
        // The clock of a capture may run backwards.
        let at = at.max(connection.seen);
        let (state, opener, context) = (&mut connection.state, connection.opener, &mut self.context);
        self.held -= connection.streams.held();
        if let State::Opening(_) | State::Followed(_) = state {
            connection.streams.finish(&mut |output| context.take(ends, opener, state, output));
        }
        match std::mem::replace(state, State::Ended) {
            State::Ended => return,
            State::Left => {}
            State::Followed(mut session) => {
                let sides = [0, 1].map(|side| connection.streams.saw(side));
                context.coverage.one_sided += u64::from(sides != [true, true]);
                session.machine.close(at, &mut context.events);
                context.absorb(&session);
            }
            State::Opening(_) => match (connection.syn, opener) {
                (Some((_, started)), Some(opener)) if !connection.answered => {
                    let end = if refused { at } else { connection.seen };
                    context.attempt(ends[opener], ends[1 - opener], started, end, refused);
                }
                _ if connection.streams.saw(0) || connection.streams.saw(1) => context.coverage.leave(Foreign::Other),
                _ => context.coverage.silent += 1,
            },
        }
        connection.streams = Reassembly::default();
        self.ended.push_back(*ends);
    }

    /// The capture is over, at `at`.
    pub(super) fn finish(mut self, at: Timestamp) -> std::io::Result<Coverage> {
        let mut open: Vec<(u64, Ends)> =
            self.table.iter().map(|(ends, connection)| (connection.number, *ends)).collect();
        open.sort_unstable();
        for (_, ends) in open {
            self.end(&ends, at, false);
        }
        self.context.failed.take().map_or(Ok(self.context.coverage), Err)
    }
}

impl Context<'_> {
    /// Takes up the next bytes of a connection.
    fn take(&mut self, ends: &Ends, opener: Option<Side>, state: &mut State, output: Output<'_>) {
        match (&mut *state, output) {
            (State::Followed(session), Output::Data { side, at, bytes, true_len }) => {
                self.feed(session, side, at, bytes, true_len);
            }
            (State::Followed(session), Output::Gap { at, length }) => {
                self.coverage.gaps += 1;
                self.coverage.missing_bytes += length;
                session.machine.gap(at, &mut self.events);
                self.absorb(session);
            }
            // What was there does not tell what comes now.
            (State::Opening(held), Output::Gap { .. }) => *held = Held { incomplete: true, ..Held::default() },
            (State::Opening(held), Output::Data { side, at, bytes, true_len }) => {
                held.incomplete |= bytes.len() < true_len;
                held.heads[side].extend_from_slice(bytes);
                held.chunks.push((side, at, bytes.len(), true_len));
                let opening = Opening {
                    ends: *ends,
                    opener,
                    from_start: !held.incomplete,
                    heads: [&held.heads[0], &held.heads[1]],
                    latest: (bytes.len() == true_len).then_some((side, bytes)),
                };
                match recognise(&opening, self.choice, |address| self.servers.get(address).copied()) {
                    Verdict::Follow { engine, server } => {
                        let held = std::mem::take(held);
                        *state = State::Followed(self.follow(ends, engine, server, held));
                    }
                    Verdict::Leave(foreign) => {
                        self.coverage.leave(foreign);
                        *state = State::Left;
                    }
                    Verdict::Open => {
                        let bytes = held.heads.iter().map(Vec::len).sum::<usize>();
                        if bytes > MAX_OPENING || held.chunks.len() > MAX_OPENING_CHUNKS {
                            self.coverage.leave(Foreign::Other);
                            *state = State::Left;
                        }
                    }
                }
            }
            (State::Left | State::Ended, _) => {}
        }
    }

    fn follow(&mut self, ends: &Ends, engine: Engine, server_side: Side, held: Held) -> Session {
        let server = ends[server_side];
        if self.servers.len() < MAX_SERVERS {
            self.servers.insert(server, engine);
        }
        self.coverage.connections += 1;
        self.coverage.joined_late += u64::from(held.incomplete);
        let machine = wire::machine(engine);
        let mut session = Session { engine, client: ends[1 - server_side], server, server_side, machine };
        let mut heads = held.heads.each_ref().map(Vec::as_slice);
        for (side, at, captured, true_len) in held.chunks {
            let (bytes, rest) = heads[side].split_at(captured);
            heads[side] = rest;
            self.feed(&mut session, side, at, bytes, true_len);
        }
        session
    }

    fn feed(&mut self, session: &mut Session, side: Side, at: Timestamp, bytes: &[u8], true_len: usize) {
        let direction = if side == session.server_side { Direction::Response } else { Direction::Request };
        session.machine.data(direction, at, bytes, true_len, &mut self.events);
        self.absorb(session);
    }

    /// Hands on what a machine had to say.
    fn absorb(&mut self, session: &Session) {
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            match event {
                Event::Statement(statement) => {
                    let info = session.machine.info();
                    let (database, user) = (info.database.as_deref(), info.user.as_deref());
                    self.execution(&statement, session.engine, [session.client, session.server], database, user);
                }
                Event::Transaction(_) => {}
                Event::Anomaly(anomaly) => *self.coverage.anomalies.entry(anomaly).or_default() += 1,
            }
        }
        self.events = events;
    }

    fn execution(
        &mut self,
        statement: &Statement,
        engine: Engine,
        [client, server]: [SocketAddr; 2],
        database: Option<&str>,
        user: Option<&str>,
    ) {
        if statement.kind == Kind::Connect {
            match statement.status {
                Status::Ok => self.coverage.accepted += 1,
                Status::Error | Status::Incomplete => *self.coverage.failed.at(statement.code) += 1,
            }
        }
        let normaliser = &mut self.normaliser;
        let digest = match &statement.text {
            Text::Known(text) => text.digest(|text| Arc::new(normaliser.digest(engine, text.raw(), text.truncated()))),
            Text::Unknown => &self.unknown,
            Text::None => &self.command,
        };
        let execution = Execution { statement, engine, client, server, database, user, digest };
        if self.failed.is_none() {
            self.failed = (self.sink)(&execution).err();
        }
    }

    /// An attempt to connect that the server's machine reset, or did not answer.
    fn attempt(&mut self, client: SocketAddr, server: SocketAddr, start: Timestamp, end: Timestamp, refused: bool) {
        let Some(engine) = engine_of(&server, self.choice, self.servers.get(&server).copied()) else {
            return self.coverage.leave(Foreign::Other);
        };
        let (count, status) = match refused {
            true => (&mut self.coverage.refused, Status::Error),
            false => (&mut self.coverage.unanswered, Status::Incomplete),
        };
        *count += 1;
        let statement = Statement {
            kind: Kind::Connect,
            text: Text::None,
            start,
            first_byte: None,
            end,
            rows_sent: None,
            rows_affected: None,
            bytes_in: 0,
            bytes_out: 0,
            status,
            code: None,
            estimated: false,
        };
        self.execution(&statement, engine, [client, server], None, None);
    }
}
