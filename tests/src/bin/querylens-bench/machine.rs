//! What the figures were measured on.

use std::fs;

use querylens_tests::{layout, process::Launch};
use serde_json::{Value, json};

/// The machine, its kernel, and the checkout.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    memory_gib: f64,
    hypervisor: bool,
    kernel: String,
    load: String,
    commit: String,
}

impl Machine {
    /// This one, now.
    pub(crate) fn read() -> Machine {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let cpu = read("/proc/cpuinfo");
        let memory: f64 = field(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0.0);
        let kernel = format!("{} {}", read("/proc/sys/kernel/osrelease"), std::env::consts::ARCH);
        let commit = Launch::new("git").args(["-C", &layout::checkout().display().to_string()]);
        let commit = commit.args(["describe", "--always", "--dirty"]).run(std::time::Duration::from_secs(10));
        Machine {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: memory / f64::from(1 << 20),
            // CPUID leaf 1, ECX bit 31: reserved for those who are not the hardware.
            hypervisor: field(&cpu, "flags").split(' ').any(|flag| flag == "hypervisor"),
            cpu: field(&cpu, "model name"),
            kernel,
            load: read("/proc/loadavg"),
            commit: commit.map(|text| text.trim().to_owned()).unwrap_or_default(),
        }
    }

    /// For people, in one sentence.
    pub(crate) fn sentence(&self) -> String {
        let Machine { cpu, cores, memory_gib, kernel, commit, .. } = self;
        let kind = if self.hypervisor { "virtual machine" } else { "machine" };
        format!(
            "{kind} with {cores} cores ({cpu}) and {memory_gib:.0} GiB, Linux {kernel}, commit {commit}, load average at the start {}",
            self.load.split(' ').next().unwrap_or_default()
        )
    }

    /// For the raw figures.
    pub(crate) fn json(&self) -> Value {
        json!({
            "cpu": self.cpu,
            "cores": self.cores,
            "memory_gib": self.memory_gib,
            "virtual": self.hypervisor,
            "kernel": self.kernel,
            "load_average": self.load,
            "commit": self.commit,
        })
    }
}

/// Value of the first line `name : value`.
fn field(text: &str, name: &str) -> String {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let mut values = lines.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned());
    values.next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_name() {
        let text = "processor\t: 0\nmodel name\t: An Example 9000: the second\nmodel name\t: other\n";
        assert_eq!(field(text, "model name"), "An Example 9000: the second");
        assert_eq!(field(text, "flags"), "");
    }

    #[test]
    fn this_machine_has_a_kernel_and_cores() {
        let machine = Machine::read();
        assert!(machine.cores > 0 && machine.memory_gib > 0.0 && machine.kernel.len() > 5, "{machine:?}");
        assert!(machine.sentence().contains(&machine.kernel));
    }
}
