//! `querylens doctor`: what works on this host, what does not, and what to do about it.

use std::{fs, io::Write, process::ExitCode};

use serde::Serialize;

use super::{Common, DEGRADED, FINE, UNUSABLE, table};
use crate::{
    model::{Verdict, WireState, printable},
    runtime::survey::survey,
};

/// Tell what works on this host, what is missing and what to do about it
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    version: &'static str,
    kernel: String,
    architecture: &'static str,
    privileges: Privileges,
    features: Vec<Feature>,
    servers: Vec<Server>,
    verdict: &'static str,
}

#[derive(Serialize)]
struct Privileges {
    uid: u32,
    /// Effective capabilities by name, those that the agent uses.
    capabilities: Vec<Capability>,
}

#[derive(Serialize)]
struct Capability {
    name: &'static str,
    purpose: &'static str,
    effective: bool,
}

#[derive(Serialize)]
struct Feature {
    name: &'static str,
    #[serde(flatten)]
    verdict: Verdict,
}

#[derive(Serialize)]
struct Server {
    label: String,
    pid: u32,
    wire: WireState,
}

/// Capabilities that the agent uses: number (include/uapi/linux/capability.h), name, what for.
const CAPABILITIES: [(u32, &str, &str); 5] = [
    (39, "CAP_BPF", "load eBPF programs and maps"),
    (38, "CAP_PERFMON", "attach them to tracepoints and uprobes, read kernel memory"),
    (19, "CAP_SYS_PTRACE", "look at the executables and sockets of other users' processes"),
    (2, "CAP_DAC_READ_SEARCH", "reach executables and data directories in containers"),
    (21, "CAP_SYS_ADMIN", "instead of the first two on kernels before 5.8"),
];

/// Exit code 0 if everything works, 1 if servers can be captured but something is missing, 2 if nothing can be captured.
pub(super) fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let survey = survey(&args.common.load()?);
    let strategies = [&survey.features.socket, &survey.features.boundary, &survey.features.syscall];
    let usable = survey.features.process.is_ok() && strategies.iter().any(|verdict| verdict.is_ok());
    let all = survey.features.rows().iter().all(|(_, verdict)| verdict.is_ok())
        && survey.servers.iter().all(|(_, wire)| wire.state == "visible")
        && survey.unseen.is_empty();
    let (verdict, code) = match (usable, all) {
        (false, _) => ("unusable", UNUSABLE),
        (true, false) => ("degraded", DEGRADED),
        (true, true) => ("fine", FINE),
    };
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
            .map_or_else(|_| "?".to_owned(), |text| text.trim().to_owned()),
        architecture: std::env::consts::ARCH,
        privileges: privileges(),
        features: survey.features.rows().map(|(name, verdict)| Feature { name, verdict: verdict.clone() }).into(),
        servers: survey
            .servers
            .iter()
            .map(|(instance, wire)| Server { label: instance.label(), pid: instance.key.pid, wire: wire.clone() })
            .collect(),
        verdict,
    };
    match args.json {
        true => {
            serde_json::to_writer_pretty(&mut *out, &report)?;
            writeln!(out)?;
        }
        false => text(&report, out)?,
    }
    Ok(ExitCode::from(code))
}

fn text(report: &Report, out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(
        out,
        "querylens {} on Linux {} ({}), user id {}",
        report.version, report.kernel, report.architecture, report.privileges.uid
    )?;
    writeln!(out)?;
    let capabilities = report.privileges.capabilities.iter();
    let rows: Vec<[String; 3]> = capabilities
        .map(|capability| {
            let held = if capability.effective { "held" } else { "missing" };
            [capability.name.to_owned(), held.to_owned(), capability.purpose.to_owned()]
        })
        .collect();
    table::write(out, ["CAPABILITY", "STATE", "NEEDED TO"], &rows)?;
    writeln!(out)?;
    let rows: Vec<[String; 3]> = report
        .features
        .iter()
        .map(|feature| {
            [feature.name.to_owned(), feature.verdict.word().to_owned(), feature.verdict.reason().to_owned()]
        })
        .collect();
    table::write(out, ["FEATURE", "VERDICT", "REASON"], &rows)?;
    writeln!(out)?;
    match report.servers.is_empty() {
        true => writeln!(out, "no server accepts connections on this host")?,
        false => {
            let rows: Vec<[String; 4]> = report
                .servers
                .iter()
                .map(|server| {
                    let WireState { strategy, reason, .. } = &server.wire;
                    [
                        server.label.clone(),
                        server.pid.to_string(),
                        (*strategy).to_owned(),
                        printable(reason).to_string(),
                    ]
                })
                .collect();
            table::write(out, ["SERVER", "PID", "STRATEGY", "REASON"], &rows)?;
        }
    }
    writeln!(out, "\nverdict: {}", report.verdict)?;
    Ok(())
}

fn privileges() -> Privileges {
    let effective = fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        })
        .unwrap_or(0);
    Privileges {
        uid: procfs::process::Process::myself().and_then(|process| process.uid()).unwrap_or(u32::MAX),
        capabilities: CAPABILITIES
            .map(|(number, name, purpose)| Capability { name, purpose, effective: effective >> number & 1 == 1 })
            .into(),
    }
}
