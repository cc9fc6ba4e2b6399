//! The container of a process, by the shapes that runtimes give to cgroup paths, and by its namespaces and root directory.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::process::Process;
use crate::model::Container;

/// Prefixes of the last part of a container's cgroup path, with the runtime that writes them; the container id follows.
/// The monitors beside the containers (`crio-conmon-`, `libpod-conmon-`) have no id right after the prefix.
const PREFIXES: [(&str, &str); 6] = [
    ("docker-", "docker"),
    ("cri-containerd-", "containerd"),
    ("nerdctl-", "containerd"),
    ("crio-", "crio"),
    ("libpod-payload-", "podman"),
    ("libpod-", "podman"),
];

/// What a cgroup path tells.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cgroup {
    runtime: &'static str,
    id: Option<String>,
    pod_uid: Option<String>,
}

/// What tells the host's own processes from those in containers: the namespaces and the root directory of process 1.
#[derive(Debug)]
pub(super) struct Host {
    pid_namespace: Option<PathBuf>,
    net_namespace: Option<PathBuf>,
    root: Option<(u64, u64)>,
}

impl Host {
    /// Reads process 1, or the agent itself where process 1 may have capabilities that the agent lacks and so cannot be read. What
    /// cannot be read at all is not compared.
    pub(super) fn read(proc_root: &Path) -> Host {
        let (init, own) = (Process::new(proc_root, 1), Process::new(proc_root, std::process::id()));
        let namespace = |kind| init.namespace(kind).or_else(|_| own.namespace(kind)).ok();
        Host {
            pid_namespace: namespace("pid"),
            net_namespace: namespace("net"),
            root: root_directory(&init).or_else(|_| root_directory(&own)).ok(),
        }
    }

    /// Whether `process` lives apart from the host. A mount namespace alone does not count: hardened system services have one
    /// (systemd.exec(5), `PrivateTmp=`), yet see the host's root directory.
    fn is_apart(&self, process: &Process) -> bool {
        fn differs<T: PartialEq>(host: &Option<T>, own: io::Result<T>) -> bool {
            matches!((host, own), (Some(host), Ok(own)) if *host != own)
        }
        differs(&self.pid_namespace, process.namespace("pid"))
            || differs(&self.net_namespace, process.namespace("net"))
            || differs(&self.root, root_directory(process))
    }
}

/// Device and inode of a process's root directory.
fn root_directory(process: &Process) -> io::Result<(u64, u64)> {
    fs::metadata(process.path("root")).map(|root| (root.dev(), root.ino()))
}

/// The container that `process` runs in, if it does.
pub(super) fn container(process: &Process, host: &Host) -> Option<Container> {
    let root = process.link("root").ok().filter(|root| root != Path::new("/"));
    let cgroup = process.cgroup().ok().and_then(|text| parse(&text));
    match (cgroup, root) {
        (Some(cgroup), root) => {
            Some(Container { runtime: cgroup.runtime.to_owned(), id: cgroup.id, pod_uid: cgroup.pod_uid, root })
        }
        (None, Some(root)) => {
            Some(Container { runtime: "chroot".to_owned(), id: None, pod_uid: None, root: Some(root) })
        }
        (None, None) => host.is_apart(process).then(|| Container {
            runtime: "namespace".to_owned(),
            id: None,
            pod_uid: None,
            root: None,
        }),
    }
}

/// Parses /proc/PID/cgroup: lines `HIERARCHY:CONTROLLERS:PATH` (cgroups(7)). The first path that names a container decides.
fn parse(text: &str) -> Option<Cgroup> {
    text.lines().filter_map(|line| line.splitn(3, ':').nth(2)).find_map(parse_path)
}

/// The innermost container that a cgroup path names.
fn parse_path(path: &str) -> Option<Cgroup> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let (at, mut cgroup) = (0..parts.len()).rev().find_map(|at| Some((at, parse_part(&parts[..at], parts[at])?)))?;
    cgroup.pod_uid = parts[..=at].iter().rev().find_map(|part| pod_uid(part));
    if cgroup.pod_uid.is_some() && cgroup.runtime == "oci" {
        cgroup.runtime = "kubernetes";
    }
    Some(cgroup)
}

/// The container that `part` stands for, beneath the parts `above`.
fn parse_part(above: &[&str], part: &str) -> Option<Cgroup> {
    let found = |runtime, id: &str| Some(Cgroup { runtime, id: Some(id.to_owned()), pod_uid: None });
    let parent = above.last().copied().unwrap_or_default();

    // runc told to use the systemd driver where systemd does not run: SLICE:PREFIX:ID as one directory.
    let joined;
    let name = match part.split(':').collect::<Vec<_>>()[..] {
        [_, prefix, id] => {
            joined = format!("{prefix}-{id}");
            &joined
        }
        _ => part.strip_suffix(".scope").unwrap_or(part),
    };
    for (prefix, runtime) in PREFIXES {
        if let Some(id) = name.strip_prefix(prefix).filter(|id| is_id(id)) {
            return found(runtime, id);
        }
    }
    // The cgroupfs driver: the bare id beneath the runtime's or containerd namespace's directory.
    if is_id(part) {
        return found(
            match parent {
                "docker" | "moby" => "docker",
                "default" | "k8s.io" => "containerd",
                _ => "oci",
            },
            part,
        );
    }
    // Amazon ECS on Fargate: /ecs/TASK/TASK-NUMBER.
    if above.contains(&"ecs") && part.split_once('-').is_some_and(|(task, _)| task == parent) {
        return found("oci", part);
    }
    if let Some(name) = part.strip_prefix("lxc.payload.") {
        return found("lxc", name);
    }
    if matches!(parent, "lxc" | "lxc.payload") {
        return found("lxc", part);
    }
    if let Some(name) = part.strip_prefix("systemd-nspawn@").and_then(|rest| rest.strip_suffix(".service")) {
        return found("nspawn", &unescape(name));
    }
    // systemd-machined registers containers and virtual machines alike.
    let machine = unescape(part.strip_prefix("machine-")?.strip_suffix(".scope")?);
    if let Some(rest) = machine.strip_prefix("lxc-") {
        // libvirt: lxc-PID-NAME.
        return found("lxc", rest.split_once('-').map_or(rest, |(_, name)| name));
    }
    if machine.starts_with("qemu-") { None } else { found("nspawn", &machine) }
}

/// OCI runtimes' managers name containers by 256 random bits in hexadecimal.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The pod UID in `pod<UID>` (cgroupfs driver) or `kubepods-burstable-pod<UID>.slice` (systemd driver, which writes `_` for `-`).
/// The UID of a static pod may be 32 hexadecimal digits without dashes.
fn pod_uid(part: &str) -> Option<String> {
    let slice = part.split(':').next().unwrap_or(part);
    let slice = slice.strip_suffix(".slice").unwrap_or(slice);
    let uid = match slice.rsplit_once("-pod") {
        Some((_, uid)) => uid,
        None => slice.strip_prefix("pod")?,
    };
    let uid = uid.replace('_', "-");
    let dashes: Vec<usize> = uid.bytes().enumerate().filter(|(_, byte)| *byte == b'-').map(|(at, _)| at).collect();
    let digits = uid.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
    let shape = matches!((uid.len(), &dashes[..]), (36, [8, 13, 18, 23]) | (32, []));
    (digits && shape).then_some(uid)
}

/// Undoes systemd's escaping of unit names: `\x2d` is `-` (systemd.unit(5)).
fn unescape(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = after
            .get(..3)
            .filter(|code| *first == b'\\' && code[0] == b'x')
            .and_then(|code| u8::from_str_radix(std::str::from_utf8(&code[1..]).ok()?, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[3..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ID: &str = "4f2c0a9b7d1e8365f4a2b1c09d8e7f60514233a4b5c6d7e8f90a1b2c3d4e5f60";
    const OUTER: &str = "aaaaaaaa7d1e8365f4a2b1c09d8e7f60514233a4b5c6d7e8f90a1b2c3d4e5f60";
    const POD: &str = "0f0ab1c2-d3e4-4f56-8a9b-c0d1e2f3a4b5";
    const POD_SLICE: &str = "0f0ab1c2_d3e4_4f56_8a9b_c0d1e2f3a4b5";
    const STATIC_POD: &str = "33d4e6f2a1b2c3d4e5f60718293a4b5c";

    fn fill(pattern: &str) -> String {
        pattern
            .replace("<OUTER>", OUTER)
            .replace("<STATIC>", STATIC_POD)
            .replace("<POD_>", POD_SLICE)
            .replace("<POD>", POD)
            .replace("<ID>", ID)
    }

    #[test]
    fn cgroup_paths_name_their_containers() {
        let table: &[(&str, &str, &str, Option<&str>)] = &[
            // Docker: cgroupfs and systemd driver, rootless, own parent, in Docker, with systemd inside, ECS on EC2.
            ("/docker/<ID>", "docker", "<ID>", None),
            ("/system.slice/docker-<ID>.scope", "docker", "<ID>", None),
            ("/user.slice/user-1000.slice/user@1000.service/user.slice/docker-<ID>.scope", "docker", "<ID>", None),
            ("/databases.slice/docker-<ID>.scope", "docker", "<ID>", None),
            ("/docker/<OUTER>/docker/<ID>", "docker", "<ID>", None),
            ("/docker/<ID>/system.slice/postgresql@15-main.service", "docker", "<ID>", None),
            ("/system.slice/docker-<ID>.scope/init.scope", "docker", "<ID>", None),
            ("/actions_job/<ID>", "oci", "<ID>", None),
            ("/ecs/my-cluster/8b3b1b6dbd9c4bf0a1a8ee0c2ad5cb1f/<ID>", "oci", "<ID>", None),
            (
                "/ecs/8b3b1b6dbd9c4bf0a1a8ee0c2ad5cb1f/8b3b1b6dbd9c4bf0a1a8ee0c2ad5cb1f-2574827308",
                "oci",
                "8b3b1b6dbd9c4bf0a1a8ee0c2ad5cb1f-2574827308",
                None,
            ),
            // Kubernetes, cgroupfs driver: the runtime shows only for CRI-O.
            ("/kubepods/burstable/pod<POD>/<ID>", "kubernetes", "<ID>", Some(POD)),
            ("/kubepods/besteffort/pod<STATIC>/<ID>", "kubernetes", "<ID>", Some(STATIC_POD)),
            ("/kubepods/pod<POD>/<ID>", "kubernetes", "<ID>", Some(POD)),
            ("/kubepods/burstable/pod<POD>/crio-<ID>", "crio", "<ID>", Some(POD)),
            // Kubernetes, systemd driver.
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<POD_>.slice/cri-containerd-<ID>.scope",
                "containerd",
                "<ID>",
                Some(POD),
            ),
            ("/kubepods.slice/kubepods-pod<POD_>.slice/cri-containerd-<ID>.scope", "containerd", "<ID>", Some(POD)),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod<POD_>.slice/crio-<ID>.scope/container",
                "crio",
                "<ID>",
                Some(POD),
            ),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<POD_>.slice/docker-<ID>.scope",
                "docker",
                "<ID>",
                Some(POD),
            ),
            // containerd with the systemd driver where runc could not reach systemd.
            (
                "/system.slice/containerd.service/kubepods-burstable-pod<POD_>.slice:cri-containerd:<ID>",
                "containerd",
                "<ID>",
                Some(POD),
            ),
            // kind: Kubernetes in Docker.
            ("/docker/<OUTER>/kubelet/kubepods/burstable/pod<POD>/<ID>", "kubernetes", "<ID>", Some(POD)),
            (
                "/system.slice/docker-<OUTER>.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/\
                 kubelet-kubepods-burstable-pod<POD_>.slice/cri-containerd-<ID>.scope",
                "containerd",
                "<ID>",
                Some(POD),
            ),
            // Seen from an agent with a cgroup namespace of its own.
            ("/../cri-containerd-<ID>.scope", "containerd", "<ID>", None),
            ("/../../pod<POD>/<ID>", "kubernetes", "<ID>", Some(POD)),
            // containerd without Kubernetes.
            ("/system.slice/nerdctl-<ID>.scope", "containerd", "<ID>", None),
            ("/default/<ID>", "containerd", "<ID>", None),
            ("/k8s.io/<ID>", "containerd", "<ID>", None),
            // Podman: root, crun's inner cgroup, rootless, cgroupfs, pod, quadlet.
            ("/machine.slice/libpod-<ID>.scope", "podman", "<ID>", None),
            ("/machine.slice/libpod-<ID>.scope/container", "podman", "<ID>", None),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-<ID>.scope/container",
                "podman",
                "<ID>",
                None,
            ),
            ("/libpod_parent/libpod-<ID>", "podman", "<ID>", None),
            ("/machine.slice/machine-libpod_pod_<OUTER>.slice/libpod-<ID>.scope", "podman", "<ID>", None),
            ("/system.slice/postgres.service/libpod-payload-<ID>", "podman", "<ID>", None),
            // LXC, LXD, Proxmox, libvirt.
            ("/lxc/db1", "lxc", "db1", None),
            ("/lxc/101/ns/system.slice/postgresql@15-main.service", "lxc", "101", None),
            ("/lxc.payload.db-1/system.slice/mariadb.service", "lxc", "db-1", None),
            ("/lxc.payload/db1/init.scope", "lxc", "db1", None),
            (r"/machine.slice/machine-lxc\x2d1234\x2dmy\x2ddb.scope", "lxc", "my-db", None),
            // systemd-nspawn.
            (
                "/machine.slice/systemd-nspawn@debian.service/payload/system.slice/postgresql@15-main.service",
                "nspawn",
                "debian",
                None,
            ),
            (r"/machine.slice/machine-my\x2ddb.scope/payload", "nspawn", "my-db", None),
        ];
        for (path, runtime, id, pod_uid) in table {
            let expected = Cgroup { runtime, id: Some(fill(id)), pod_uid: pod_uid.map(ToOwned::to_owned) };
            assert_eq!(parse(&format!("0::{}\n", fill(path))), Some(expected), "{path}");
        }
    }

    #[test]
    fn other_cgroup_paths_name_none() {
        for path in [
            "/",
            "/init.scope",
            "/system.slice/postgresql@15-main.service",
            "/system.slice/system-postgresql.slice/postgresql@15-main.service",
            "/system.slice/docker.service",
            "/system.slice/containerd.service",
            "/user.slice/user-1000.slice/session-3.scope",
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-psql-4242.scope",
            "/docker",
            "/docker/buildkit",
            "/machine.slice/libpod-conmon-<ID>.scope",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<POD_>.slice/crio-conmon-<ID>.scope",
            "/lxc.monitor.db1",
            r"/machine.slice/machine-qemu\x2d1\x2dvm.scope/libvirt/emulator",
            "/databases/docker-notanid.scope",
            "/kubepods/burstable/pod<POD>",
        ] {
            assert_eq!(parse(&format!("0::{}\n", fill(path))), None, "{path}");
        }
    }

    #[test]
    fn files_of_version_1_have_many_lines() {
        let text = fill(
            "12:cpuset:/\n11:pids:/docker/<ID>\n10:name=systemd:/docker/<ID>\n1:cpu,cpuacct:/docker/<ID>\n0::/system.slice/containerd.service\n",
        );
        assert_eq!(parse(&text).unwrap().id.as_deref(), Some(ID));
        assert_eq!(parse(""), None);
        assert_eq!(parse("nonsense\n1:\n::\n"), None);
    }

    #[test]
    fn unit_names_are_unescaped() {
        assert_eq!(unescape(r"a\x2db\x2f"), "a-b/");
        assert_eq!(unescape(r"tail\x2"), r"tail\x2");
        assert_eq!(unescape(r"\xzz\"), r"\xzz\");
    }
}
