//! What the exits say about this host.

use std::fs;

use super::Config;

/// This host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// `host.name`.
    pub name: Option<String>,
    /// `host.id`: the machine id (semantic conventions, host.id on Linux without a cloud provider).
    pub id: Option<String>,
}

impl Host {
    /// Reads name and machine id; the configured name goes before the kernel's.
    pub fn detect(config: &Config) -> Host {
        let read = |path| {
            let text = fs::read_to_string(path).ok()?;
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        Host {
            name: config.host_name.clone().or_else(|| read("/proc/sys/kernel/hostname")),
            id: read("/etc/machine-id").or_else(|| read("/var/lib/dbus/machine-id")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configured_name_goes_first_and_the_kernel_has_one() {
        let config = Config { host_name: Some("db7".into()), ..Config::default() };
        assert_eq!(Host::detect(&config).name.as_deref(), Some("db7"));
        assert!(Host::detect(&Config::default()).name.is_some_and(|name| !name.contains('\n')));
    }
}
