//! Loads the object, attaches hooks where a server needs them, detaches them when the last one is gone.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use agent_ebpf::{Target, framing, loss, strategy};
use aya::{
    Btf, Ebpf, EbpfError, EbpfLoader,
    maps::{Array, HashMap as BpfHashMap, MapData, MapError, PerCpuArray, RingBuf},
    programs::{
        BtfTracePoint, Program, ProgramError, UProbe, tp_btf::BtfTracePointLink, uprobe::UProbeLink,
        uprobe::UProbeScope,
    },
};
use aya_log::EbpfLogger;

use super::{
    Config, Counters, Features, Ring, Shared, Strategy,
    boundary::{self, Point},
    btf, cells,
    features::verdict,
};
use crate::model::{Engine, Instance, Listen, Verdict, WireState};

/// The kernel's side, compiled by build.rs.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/agent-ebpf"));

/// Losses in the kernel, by cause (see `agent_ebpf::loss`), since the agent started.
pub type Losses = BTreeMap<&'static str, u64>;

/// Why nothing can be captured at all. One server that cannot be captured is a [`WireState`] instead.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel's side does not load.
    #[error("{0}")]
    Load(String),
    /// A map is missing or of another shape: the object was built from other sources.
    #[error("the embedded eBPF object does not fit this agent: {0}")]
    Map(#[from] MapError),
}

/// Why nothing can be captured, with the verdicts found on the way there.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub error: Error,
    /// What was tried.
    pub features: Features,
}

/// Links of a set of hooks; dropping them detaches.
enum Links {
    Tracepoints { _links: Vec<BtfTracePointLink> },
    Probes { _links: Vec<UProbeLink> },
}

/// Hooks that are attached once for all servers that use them, by what they are attached to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Place {
    Host(Strategy),
    /// Device and inode of an executable.
    Executable(u64, u64),
}

struct Attached {
    users: BTreeSet<u32>,
    _links: Links,
}

struct Watched {
    pid: u32,
    target: Target,
    place: Place,
}

/// Attaches and detaches.
pub struct Control {
    config: Config,
    ebpf: Ebpf,
    features: Features,
    targets: BpfHashMap<MapData, u32, Shared<Target>>,
    ports: Array<MapData, u64>,
    /// Words of `ports` that are not 0.
    ports_set: BTreeSet<u32>,
    losses: PerCpuArray<MapData, u64>,
    log: Option<EbpfLogger<&'static dyn log::Log>>,
    _process: Vec<BtfTracePointLink>,
    attached: HashMap<Place, Attached>,
    watched: HashMap<u32, Watched>,
}

impl Control {
    /// Loads the programs and follows process events from now on.
    pub fn open(config: &Config) -> Result<(Control, Ring, Counters), Box<Refused>> {
        let refused = |why: Verdict| {
            Box::new(Refused { error: Error::Load(why.reason().to_owned()), features: Features::all(&why) })
        };
        let offsets = match btf::offsets() {
            Ok(offsets) => offsets,
            Err(error) => return Err(refused(verdict("kernel types", &error))),
        };
        let types = Btf::from_sys_fs().map_err(|error| refused(verdict("kernel types", &error)))?;
        let processors =
            aya::util::nr_cpus().map_err(|(_, error)| refused(verdict("the number of processors", &error)))? as u32;
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&types))
            .override_global("OFFSETS", &Shared(offsets), true)
            .override_global("PROCESSORS", &processors, true)
            .map_max_entries("RECORDS", config.ring_bytes)
            .map_max_entries("ROWS", config.counted_statements)
            .map_max_entries("CELLS", cells::number(processors) * processors)
            .map_max_entries("FREE_ROWS", config.counted_statements)
            .map_max_entries("ROW_OF_KEY", config.counted_statements)
            .map_max_entries("SESSIONS", config.sessions)
            .map_max_entries("SCRATCHES", config.sessions)
            .map_max_entries("FREE_SESSIONS", config.sessions)
            .map_max_entries("SESSION_OF_INODE", config.sessions)
            .load(OBJECT)
            .map_err(|error: EbpfError| refused(verdict("loading the eBPF object", &error)))?;

        let mut load = |names: &[&str]| -> Verdict {
            for name in names {
                if let Err(error) = load_program(&mut ebpf, name, &types) {
                    return verdict(&format!("program {name}"), &error);
                }
            }
            Verdict::Ok
        };
        let mut features = Features {
            btf: Verdict::Ok,
            process: load(&["process_fork", "process_exec", "process_exit"]),
            socket: load(&["socket_send", "socket_receive"]),
            syscall: load(&["syscall_exit"]),
            boundary: load(&["boundary_read", "boundary_read_return", "boundary_write"]),
        };
        // Messages of the programs go to the agent's log; without them everything else works.
        let log = EbpfLogger::init(&mut ebpf)
            .inspect_err(|error| tracing::debug!(%error, "the programs' own messages are not shown"))
            .ok();
        // The kernel's types take tens of MiB while they are parsed; give that back before the agent's own life begins.
        drop(types);
        release_memory();
        if !features.process.is_ok() {
            let error = Error::Load(features.process.reason().to_owned());
            return Err(Box::new(Refused { error, features }));
        }
        let mut process = Vec::new();
        for name in ["process_fork", "process_exec", "process_exit"] {
            match attach_tracepoint(&mut ebpf, name) {
                Ok(link) => process.push(link),
                Err(error) => return Err(refused(verdict(&format!("attaching {name}"), &error))),
            }
        }
        if features.boundary.is_ok()
            && let Err(error) = try_uprobe(&mut ebpf)
        {
            features.boundary = verdict("attaching a uprobe", &error);
        }
        for strategy in [Strategy::Socket, Strategy::Syscall] {
            let names = programs(strategy);
            if features.strategy(strategy).is_ok()
                && let Err(error) = names.iter().try_for_each(|name| attach_tracepoint(&mut ebpf, name).map(drop))
            {
                let verdict = verdict(&format!("attaching {}", names.join(", ")), &error);
                match strategy {
                    Strategy::Socket => features.socket = verdict,
                    _ => features.syscall = verdict,
                }
            }
        }
        let maps = || -> Result<_, MapError> {
            let missing = || MapError::InvalidName { name: "RECORDS, TARGETS, PORTS or LOSSES".to_owned() };
            let records = RingBuf::try_from(ebpf.take_map("RECORDS").ok_or_else(missing)?)?;
            let targets = BpfHashMap::try_from(ebpf.take_map("TARGETS").ok_or_else(missing)?)?;
            let ports = Array::try_from(ebpf.take_map("PORTS").ok_or_else(missing)?)?;
            let losses = PerCpuArray::try_from(ebpf.take_map("LOSSES").ok_or_else(missing)?)?;
            let mut counters = Counters::open(&mut ebpf, config.counted_statements, config.sessions, processors)?;
            counters.sample(config.record_one_in)?;
            Ok((records, targets, ports, losses, counters))
        };
        let (records, targets, ports, losses, counters) = {
            let mut maps = maps;
            maps().map_err(|error| Box::new(Refused { error: Error::Map(error), features: features.clone() }))?
        };
        let control = Control {
            config: config.clone(),
            ebpf,
            features,
            targets,
            ports,
            ports_set: BTreeSet::new(),
            losses,
            log,
            _process: process,
            attached: HashMap::new(),
            watched: HashMap::new(),
        };
        Ok((control, Ring::new(records), counters))
    }

    /// What works on this kernel.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// Which strategy a server would get, and why, without attaching anything.
    pub fn plan(&self, instance: &Instance) -> WireState {
        choose(&self.config, &self.features, instance).map_or_else(|hidden| hidden, |plan| plan.state)
    }

    /// Captures a server from now on; `slot` comes back in each of its records. `children` lists its processes and is asked after the
    /// main process is watched, so that none that is born meanwhile is missed.
    pub fn watch(&mut self, slot: u32, instance: &Instance, children: impl FnOnce() -> Vec<u32>) -> WireState {
        let plan = match choose(&self.config, &self.features, instance) {
            Ok(plan) => plan,
            Err(hidden) => return hidden,
        };
        self.begin(slot, instance, children, plan)
    }

    /// Goes over to the server's own I/O boundary, where encrypted sessions are in the clear. `None` if that is not possible or not wanted.
    pub fn watch_boundary(
        &mut self,
        slot: u32,
        instance: &Instance,
        reason: &str,
        children: impl FnOnce() -> Vec<u32>,
    ) -> Option<WireState> {
        if self.config.strategy != super::Choice::Auto || !self.features.boundary.is_ok() {
            return None;
        }
        let config = Config { strategy: super::Choice::Boundary, ..self.config.clone() };
        let mut plan = choose(&config, &self.features, instance).ok()?;
        plan.state.reason = reason.to_owned();
        self.unwatch(slot);
        Some(self.begin(slot, instance, children, plan))
    }

    fn begin(&mut self, slot: u32, instance: &Instance, children: impl FnOnce() -> Vec<u32>, plan: Plan) -> WireState {
        let hidden = |reason: String| WireState { state: "hidden", strategy: "none", reason };
        let framing = match instance.engine {
            Engine::Postgresql => framing::POSTGRESQL,
            Engine::Mysql | Engine::Mariadb => framing::MYSQL,
        };
        let target = Target { slot, strategy: plan.strategy.code(), framing, reserved: 0, ports: ports(instance) };
        if let Err(error) = self.attach(slot, &plan) {
            return hidden(verdict(&format!("attaching {}", plan.strategy.name()), &error).reason().to_owned());
        }
        self.watched.insert(slot, Watched { pid: instance.key.pid, target, place: plan.place });
        self.listen();
        let pid = instance.key.pid;
        if let Err(error) = self.targets.insert(pid, Shared(target), 0) {
            self.unwatch(slot);
            return hidden(format!("the kernel's table of watched processes refused it: {error}"));
        }
        for child in children() {
            // One that has ended meanwhile is not worth a word, and a full table shows on the next fork as well.
            let _ = self.targets.insert(child, Shared(target), 0);
        }
        plan.state
    }

    /// The server listens elsewhere now.
    pub fn update(&mut self, slot: u32, instance: &Instance, children: impl FnOnce() -> Vec<u32>) {
        let Some(watched) = self.watched.get_mut(&slot) else { return };
        watched.target.ports = ports(instance);
        let (pid, target) = (watched.pid, Shared(watched.target));
        self.listen();
        let _ = self.targets.insert(pid, target, 0);
        for child in children() {
            let _ = self.targets.insert(child, target, 0);
        }
    }

    /// Forgets a server that is gone. Its hooks are detached with the last one that uses them.
    pub fn unwatch(&mut self, slot: u32) {
        if let Some(watched) = self.watched.remove(&slot) {
            // The kernel has removed it already if the process ended.
            let _ = self.targets.remove(&watched.pid);
            self.detach(slot, watched.place);
            self.listen();
        }
    }

    /// Tells the programs at the sockets on which ports watched servers listen.
    fn listen(&mut self) {
        let mut words = BTreeMap::from_iter(self.ports_set.iter().map(|word| (*word, 0u64)));
        let watched = self.watched.values().filter(|watched| watched.target.strategy == strategy::SOCKET);
        for port in watched.flat_map(|watched| watched.target.ports).filter(|port| *port != 0) {
            *words.entry(u32::from(port >> 6)).or_default() |= 1 << (port & 63);
        }
        for (word, bits) in &words {
            // Within the array's bounds; a failure would show as a server without sessions.
            let _ = self.ports.set(*word, bits, 0);
        }
        self.ports_set = words.into_iter().filter(|(_, bits)| *bits != 0).map(|(word, _)| word).collect();
    }

    fn attach(&mut self, slot: u32, plan: &Plan) -> Result<(), ProgramError> {
        if let Some(attached) = self.attached.get_mut(&plan.place) {
            attached.users.insert(slot);
            return Ok(());
        }
        let links = match &plan.points {
            None => {
                let links = programs(plan.strategy).iter().map(|name| attach_tracepoint(&mut self.ebpf, name));
                Links::Tracepoints { _links: links.collect::<Result<_, _>>()? }
            }
            Some(points) => {
                let mut links = Vec::new();
                // The return first: an entry without one would leave its arguments behind.
                for Point { entry, on_return, .. } in &points.reads {
                    links.push(attach_probe(&mut self.ebpf, "boundary_read_return", &plan.executable, *on_return)?);
                    links.push(attach_probe(&mut self.ebpf, "boundary_read", &plan.executable, *entry)?);
                }
                for Point { entry, .. } in &points.writes {
                    links.push(attach_probe(&mut self.ebpf, "boundary_write", &plan.executable, *entry)?);
                }
                Links::Probes { _links: links }
            }
        };
        self.attached.insert(plan.place, Attached { users: BTreeSet::from([slot]), _links: links });
        Ok(())
    }

    fn detach(&mut self, slot: u32, place: Place) {
        if let Some(attached) = self.attached.get_mut(&place) {
            attached.users.remove(&slot);
            if attached.users.is_empty() {
                self.attached.remove(&place);
            }
        }
    }

    /// Hands the programs' own messages to the agent's log.
    pub fn flush_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }

    /// Losses so far.
    pub fn losses(&self) -> Losses {
        (0..loss::COUNT)
            .map(|cause| {
                let sum = self.losses.get(&cause, 0).map_or(0, |values| values.iter().sum());
                (loss::NAMES[cause as usize], sum)
            })
            .collect()
    }

    /// Time spent in the programs on behalf of observed processes; `None` unless kernel.bpf_stats_enabled is 1.
    pub fn program_time(&self) -> Option<Duration> {
        let enabled = fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled").is_ok_and(|text| text.trim() == "1");
        enabled.then(|| {
            self.ebpf.programs().filter_map(|(_, program)| program.info().ok()).map(|info| info.run_time()).sum()
        })
    }
}

/// How a server will be captured.
struct Plan {
    strategy: Strategy,
    place: Place,
    executable: PathBuf,
    points: Option<boundary::Points>,
    state: WireState,
}

/// The first strategy in the wanted order that works for the server, or why none does.
fn choose(config: &Config, features: &Features, instance: &Instance) -> Result<Plan, WireState> {
    let mut reasons = Vec::new();
    for strategy in config.strategy.order() {
        let feature = features.strategy(*strategy);
        if !feature.is_ok() {
            reasons.push(format!("{}: {}: {}", strategy.name(), feature.word(), feature.reason()));
            continue;
        }
        // The magic link reaches the very file that runs, also in a container and when it was deleted or replaced.
        let executable = PathBuf::from(format!("/proc/{}/exe", instance.key.pid));
        let points = match strategy {
            Strategy::Boundary => match boundary::points(&executable, instance.engine) {
                Ok(points) => Some(points),
                Err(error) => {
                    reasons.push(format!("boundary: {error}"));
                    continue;
                }
            },
            Strategy::Socket | Strategy::Syscall => None,
        };
        let place = match &points {
            None => Place::Host(*strategy),
            Some(_) => match identity(&executable) {
                Ok(place) => place,
                Err(error) => {
                    reasons.push(format!("boundary: {}: {error}", executable.display()));
                    continue;
                }
            },
        };
        let caveat = points.as_ref().and_then(boundary::Points::caveat);
        let wanted = match config.strategy {
            super::Choice::Auto => "cheapest that works here",
            _ => "as configured",
        };
        let tried = reasons.into_iter().chain(caveat).map(|reason| format!("; {reason}")).collect::<String>();
        let state = WireState { state: "visible", strategy: strategy.name(), reason: format!("{wanted}{tried}") };
        return Ok(Plan { strategy: *strategy, place, executable, points, state });
    }
    Err(WireState { state: "hidden", strategy: "none", reason: reasons.join("; ") })
}

fn identity(executable: &Path) -> io::Result<Place> {
    fs::metadata(executable).map(|metadata| Place::Executable(metadata.dev(), metadata.ino()))
}

/// Port of MySQL's X protocol by default (mysqlx_port): another protocol on the same server.
const X_PROTOCOL_PORT: u16 = 33060;

fn ports(instance: &Instance) -> [u16; Target::PORTS] {
    let mut ports = [0; Target::PORTS];
    let listened = instance.listen.iter().filter_map(|listen| match listen {
        Listen::Tcp(address) => Some(address.port()),
        Listen::Unix(_) => None,
    });
    let mut distinct: Vec<u16> =
        listened.filter(|port| instance.engine == Engine::Postgresql || *port != X_PROTOCOL_PORT).collect();
    distinct.sort_unstable();
    distinct.dedup();
    for (place, port) in ports.iter_mut().zip(distinct) {
        *place = port;
    }
    ports
}

fn programs(strategy: Strategy) -> &'static [&'static str] {
    match strategy {
        Strategy::Socket => &["socket_send", "socket_receive"],
        Strategy::Syscall => &["syscall_exit"],
        Strategy::Boundary => &[],
    }
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, ProgramError>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    ebpf.program_mut(name).ok_or_else(|| ProgramError::InvalidName { name: name.to_owned() })?.try_into()
}

/// Tracepoints by program: what the section names in the object say.
fn tracepoint(program: &str) -> Option<&'static str> {
    Some(match program {
        "process_fork" => "sched_process_fork",
        "process_exec" => "sched_process_exec",
        "process_exit" => "sched_process_exit",
        "socket_send" => "sock_send_length",
        "socket_receive" => "sock_recv_length",
        "syscall_exit" => "sys_exit",
        _ => return None,
    })
}

fn load_program(ebpf: &mut Ebpf, name: &str, types: &Btf) -> Result<(), ProgramError> {
    match tracepoint(name) {
        Some(tracepoint) => program::<BtfTracePoint>(ebpf, name)?.load(tracepoint, types),
        None => program::<UProbe>(ebpf, name)?.load(),
    }
}

fn attach_tracepoint(ebpf: &mut Ebpf, name: &str) -> Result<BtfTracePointLink, ProgramError> {
    let program = program::<BtfTracePoint>(ebpf, name)?;
    let link = program.attach()?;
    program.take_link(link)
}

fn attach_probe(ebpf: &mut Ebpf, name: &str, executable: &Path, offset: u64) -> Result<UProbeLink, ProgramError> {
    let program = program::<UProbe>(ebpf, name)?;
    let link = program.attach(offset, executable, UProbeScope::AllProcesses)?;
    program.take_link(link)
}

/// Attaches a uprobe to the agent itself and takes it away again.
fn try_uprobe(ebpf: &mut Ebpf) -> Result<(), ProgramError> {
    let program = program::<UProbe>(ebpf, "boundary_write")?;
    let link = program.attach("main", "/proc/self/exe", UProbeScope::CallingProcess)?;
    program.take_link(link).map(drop)
}

/// Gives freed memory back to the kernel.
fn release_memory() {
    // SAFETY: malloc_trim may be called at any time (malloc_trim(3)).
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs root and eBPF; run by cargo xtask test"]
    fn every_program_loads_or_says_why() {
        let (control, _ring, _counters) =
            Control::open(&Config::default()).map_err(|refused| refused.error).expect("programs load");
        for (name, verdict) in control.features().rows() {
            assert!(!matches!(verdict, Verdict::Broken(_)), "{name}: {}", verdict.reason());
        }
        assert!(control.features().process.is_ok());
        assert_eq!(control.losses().values().sum::<u64>(), 0);
    }
}
