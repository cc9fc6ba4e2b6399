//! eBPF as the kernel shows it to everybody: what a process holds and what it costs; and the smallest program there is, to measure what a
//! hook costs by itself.
//!
//! All of it by bpf(2) and /proc/PID/fdinfo, nothing through the library that the agent uses.

use std::{
    collections::BTreeMap,
    ffi::{CStr, CString},
    fs, io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};

/// Fields of the fdinfo of every descriptor of a process.
fn descriptors(pid: u32) -> Vec<BTreeMap<String, String>> {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return Vec::new() };
    let fields = |text: String| {
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect()
    };
    files.flatten().filter_map(|file| fs::read_to_string(file.path()).ok()).map(fields).collect()
}

/// Number of eBPF programs and links that a process holds, by `prog_type` and `link_type` of its fdinfo.
pub fn objects(pid: u32) -> usize {
    let is_object = |fields: &BTreeMap<_, _>| ["prog_type", "link_type"].iter().any(|mark| fields.contains_key(*mark));
    descriptors(pid).iter().filter(|fields| is_object(fields)).count()
}

/// Kernel memory of the eBPF maps that a process holds, in bytes (`memlock`; before Linux 6.4 it was an estimate).
pub fn map_bytes(pid: u32) -> u64 {
    let maps: BTreeMap<String, u64> = descriptors(pid)
        .into_iter()
        .filter_map(|fields| Some((fields.get("map_id")?.clone(), fields.get("memlock")?.parse().ok()?)))
        .collect();
    maps.values().sum()
}

/// An eBPF program and what it has cost so far; counted only while somebody holds [`RunStatistics`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Number in the kernel.
    pub id: u32,
    /// Its name, of which the kernel keeps 15 bytes.
    pub name: String,
    /// `BPF_PROG_TYPE_KPROBE`: a probe in a function, here of a user's program.
    pub is_probe: bool,
    /// Runs.
    pub runs: u64,
    /// Time in all runs.
    pub time: Duration,
}

/// `BPF_PROG_TYPE_KPROBE`, include/uapi/linux/bpf.h.
const KPROBE: u32 = 2;
/// `BPF_PROG_TYPE_RAW_TRACEPOINT`.
const RAW_TRACEPOINT: u32 = 17;

/// The programs that a process holds.
pub fn programs(pid: u32) -> Result<Vec<Program>> {
    let mut programs = BTreeMap::new();
    for fields in descriptors(pid) {
        let number = |name: &str| fields.get(name).and_then(|value| value.parse::<u64>().ok());
        // Links name their program too, but have no type of program.
        let (Some(kind), Some(id)) = (number("prog_type"), number("prog_id")) else { continue };
        let id = u32::try_from(id)?;
        let time = Duration::from_nanos(number("run_time_ns").unwrap_or(0));
        let is_probe = kind == u64::from(KPROBE);
        let program = Program { id, name: name(id)?, is_probe, runs: number("run_cnt").unwrap_or(0), time };
        programs.insert(id, program);
    }
    Ok(programs.into_values().collect())
}

/// Makes the kernel count every program's runs and time; ends when dropped, or with this process whatever ends it (`BPF_ENABLE_STATS`, Linux 5.8).
#[derive(Debug)]
pub struct RunStatistics(#[allow(dead_code, reason = "open is all that it has to be")] OwnedFd);

impl RunStatistics {
    /// From now on.
    pub fn enable() -> Result<RunStatistics> {
        // `type` is BPF_STATS_RUN_TIME.
        let fd = descriptor(command::ENABLE_STATS, &mut [0]).context("cannot switch on the kernel's run statistics")?;
        Ok(RunStatistics(fd))
    }
}

/// A program that does nothing, attached to a hook; detached on drop.
#[derive(Debug)]
pub struct Empty {
    program: OwnedFd,
    _attached: OwnedFd,
}

impl Empty {
    /// At a tracepoint of the kernel, e.g. `sys_exit`.
    pub fn at_tracepoint(name: &CStr) -> Result<Empty> {
        let program = load_empty(RAW_TRACEPOINT)?;
        // `name`, `prog_fd`.
        let mut attributes = [name.as_ptr() as u64, program.as_raw_fd() as u64];
        let attached = descriptor(command::RAW_TRACEPOINT_OPEN, &mut attributes);
        let attached = attached.with_context(|| format!("cannot attach to tracepoint {name:?}"))?;
        Ok(Empty { program, _attached: attached })
    }

    /// At an offset of an executable: when it gets there, or when the function that begins there returns.
    pub fn at_function(executable: &Path, offset: u64, at_return: bool) -> Result<Empty> {
        let program = load_empty(KPROBE)?;
        let attached = uprobe(executable, offset, at_return, &program);
        let attached = attached.with_context(|| format!("cannot attach to {} at {offset}", executable.display()))?;
        Ok(Empty { program, _attached: attached })
    }

    /// Runs so far and the time in them, while somebody holds [`RunStatistics`].
    pub fn cost(&self) -> Result<(u64, Duration)> {
        let own = descriptors(std::process::id());
        let id = info(&self.program)?.id.to_string();
        let fields = own.iter().find(|fields| fields.get("prog_type").is_some() && fields.get("prog_id") == Some(&id));
        let fields = fields.context("the kernel does not show the program")?;
        let number = |name: &str| fields.get(name).and_then(|value| value.parse().ok()).unwrap_or(0);
        Ok((number("run_cnt"), Duration::from_nanos(number("run_time_ns"))))
    }
}

/// Numbers of bpf(2), `enum bpf_cmd` in include/uapi/linux/bpf.h.
mod command {
    pub(super) const PROG_LOAD: libc::c_int = 5;
    pub(super) const PROG_GET_FD_BY_ID: libc::c_int = 13;
    pub(super) const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
    pub(super) const RAW_TRACEPOINT_OPEN: libc::c_int = 17;
    pub(super) const ENABLE_STATS: libc::c_int = 32;
}

/// bpf(2) with the first words of `union bpf_attr`; what is not passed is zero to the kernel.
fn call(command: libc::c_int, attributes: &mut [u64]) -> io::Result<libc::c_long> {
    let size = size_of_val(attributes);
    // SAFETY: the attributes live until the call returns, and so does what the callers let them point to.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn descriptor(command: libc::c_int, attributes: &mut [u64]) -> io::Result<OwnedFd> {
    let fd = call(command, attributes)?;
    // SAFETY: the kernel has just given this descriptor to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

/// `mov r0, 0; exit` (Documentation/bpf/standardization/instruction-set.rst).
const NOTHING: [u64; 2] = [0xb7, 0x95];

fn load_empty(kind: u32) -> Result<OwnedFd> {
    // `prog_type` and `insn_cnt`, `insns`, `license`.
    let words = [u64::from(kind) | (NOTHING.len() as u64) << 32, NOTHING.as_ptr() as u64, c"GPL".as_ptr() as u64];
    descriptor(command::PROG_LOAD, &mut { words }).context("cannot load an empty eBPF program")
}

/// Beginning of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Info {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    lengths: [u32; 2],
    instructions: [u64; 2],
    load_time: u64,
    user: u32,
    maps: u32,
    map_ids: u64,
    name: [u8; 16],
}

fn info(program: &OwnedFd) -> io::Result<Info> {
    let mut info = Info::default();
    // `bpf_fd` and `info_len`, `info`.
    let words = [program.as_raw_fd() as u64 | (size_of::<Info>() as u64) << 32, &raw mut info as u64];
    call(command::OBJ_GET_INFO_BY_FD, &mut { words })?;
    Ok(info)
}

fn name(id: u32) -> Result<String> {
    let program = descriptor(command::PROG_GET_FD_BY_ID, &mut [u64::from(id)]);
    let info = program.and_then(|program| info(&program)).with_context(|| format!("no name of eBPF program {id}"))?;
    let end = info.name.iter().position(|byte| *byte == 0).unwrap_or(info.name.len());
    Ok(String::from_utf8_lossy(&info.name[..end]).into_owned())
}

/// Beginning of `struct perf_event_attr`, include/uapi/linux/perf_event.h, as far as uprobes need it (`PERF_ATTR_SIZE_VER1`).
#[repr(C)]
#[derive(Default)]
struct PerfEvent {
    kind: u32,
    size: u32,
    config: u64,
    unused: [u64; 4],
    wakeup: [u32; 2],
    path: u64,
    offset: u64,
}

/// `PERF_EVENT_IOC_SET_BPF` and `PERF_EVENT_IOC_ENABLE`, include/uapi/linux/perf_event.h.
const SET_BPF: libc::c_ulong = 0x4004_2408;
const ENABLE: libc::c_ulong = 0x2400;
/// `PERF_FLAG_FD_CLOEXEC`.
const CLOEXEC: libc::c_ulong = 8;

fn uprobe(executable: &Path, offset: u64, at_return: bool, program: &OwnedFd) -> Result<OwnedFd> {
    let kind = fs::read_to_string("/sys/bus/event_source/devices/uprobe/type").context("the kernel has no uprobes")?;
    let path = CString::new(executable.as_os_str().as_bytes())?;
    let event = PerfEvent {
        kind: kind.trim().parse()?,
        size: size_of::<PerfEvent>() as u32,
        // Bit 0 makes it a return probe (/sys/bus/event_source/devices/uprobe/format/retprobe).
        config: u64::from(at_return),
        path: path.as_ptr() as u64,
        offset,
        ..PerfEvent::default()
    };
    // This process alone, on any processor.
    // SAFETY: the event and its path live until the call returns.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const event, 0, -1, -1, CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: the kernel has just given this descriptor to us.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) };
    for (request, argument) in [(SET_BPF, program.as_raw_fd()), (ENABLE, 0)] {
        // SAFETY: both requests take a number.
        if unsafe { libc::ioctl(fd.as_raw_fd(), request as _, argument) } < 0 {
            return Err(io::Error::last_os_error().into());
        }
    }
    Ok(fd)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs root and eBPF; run by cargo xtask test"]
    fn an_empty_program_runs_as_often_as_its_hook_is_passed() {
        let _statistics = RunStatistics::enable().unwrap();
        let program = Empty::at_tracepoint(c"sys_exit").unwrap();
        let (before, _) = program.cost().unwrap();
        for _ in 0..1000 {
            // SAFETY: getppid has no preconditions.
            unsafe { libc::getppid() };
        }
        let (after, time) = program.cost().unwrap();
        assert!(after - before >= 1000, "{before} {after}");
        assert!(time > Duration::ZERO);
        let own = programs(std::process::id()).unwrap();
        assert!(own.iter().any(|known| !known.is_probe && known.runs >= 1000), "{own:?}");
        assert!(objects(std::process::id()) >= 2);
    }
}
