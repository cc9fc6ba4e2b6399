//! Member offsets of kernel structures from the running kernel's BTF (Documentation/bpf/btf.rst).
//!
//! aya has no access to members and the eBPF compiler no CO-RE, so the offsets are read here and handed to the programs as a constant.

use std::{collections::HashMap, fs, io};

use agent_ebpf::Offsets;

/// Where the kernel publishes its own types (since 5.4, with CONFIG_DEBUG_INFO_BTF).
pub(super) const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;

/// Why offsets could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum BtfError {
    /// The file could not be read.
    #[error("reading {VMLINUX}: {0}; the kernel must be built with CONFIG_DEBUG_INFO_BTF")]
    Read(#[from] io::Error),
    /// The file is not BTF of the known form.
    #[error("{VMLINUX} is not BTF as described in Documentation/bpf/btf.rst ({0})")]
    Format(&'static str),
    /// A member is not there.
    #[error("this kernel's {structure} has no member {member}")]
    Member {
        /// Structure.
        structure: &'static str,
        /// Member.
        member: &'static str,
    },
}

/// The offsets that the programs need, on the running kernel.
pub(super) fn offsets() -> Result<Offsets, BtfError> {
    let bytes = fs::read(VMLINUX)?;
    offsets_in(&bytes)
}

fn offsets_in(bytes: &[u8]) -> Result<Offsets, BtfError> {
    const STRUCTURES: [&str; 13] = [
        "task_struct",
        "signal_struct",
        "files_struct",
        "fdtable",
        "file",
        "inode",
        "socket",
        "sock",
        "sock_common",
        "unix_sock",
        "socket_alloc",
        "atomic_t",
        "path",
    ];
    let types = Types::parse(bytes)?;
    let structures = types.structures(&STRUCTURES);
    let at = |structure: &'static str, member: &'static str| {
        structures
            .get(structure)
            .and_then(|at| types.member(*at, member, 0))
            .ok_or(BtfError::Member { structure, member })
    };
    let common = at("sock", "__sk_common")?;
    Ok(Offsets {
        task_pid: at("task_struct", "pid")?,
        task_tgid: at("task_struct", "tgid")?,
        task_files: at("task_struct", "files")?,
        task_signal: at("task_struct", "signal")?,
        signal_live: at("signal_struct", "live")?,
        files_fdt: at("files_struct", "fdt")?,
        fdtable_fd: at("fdtable", "fd")?,
        fdtable_max_fds: at("fdtable", "max_fds")?,
        file_private_data: at("file", "private_data")?,
        file_inode: at("file", "f_inode")?,
        inode_ino: at("inode", "i_ino")?,
        inode_mode: at("inode", "i_mode")?,
        socket_sk: at("socket", "sk")?,
        sock_socket: at("sock", "sk_socket")?,
        sock_family: common + at("sock_common", "skc_family")?,
        sock_port: common + at("sock_common", "skc_num")?,
        sock_storage: at("sock", "sk_bpf_storage")?,
        unix_addr: at("unix_sock", "addr")?,
        socket_to_inode: at("socket_alloc", "vfs_inode")? - at("socket_alloc", "socket")?,
        reserved: 0,
    })
}

/// BTF as three slices and the place of each type.
struct Types<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Byte offset of type `id` in `types`, at index `id - 1`.
    places: Vec<u32>,
}

impl<'a> Types<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Types<'a>, BtfError> {
        let format = BtfError::Format;
        let magic = bytes.get(..2).map(|magic| u16::from_ne_bytes([magic[0], magic[1]]));
        if magic != Some(MAGIC) {
            return Err(format("magic number"));
        }
        let header = word(bytes, 4).ok_or(format("header"))? as usize;
        let section = |at: usize| -> Option<&'a [u8]> {
            let start = header.checked_add(word(bytes, at)? as usize)?;
            bytes.get(start..start.checked_add(word(bytes, at + 4)? as usize)?)
        };
        let types = section(8).ok_or(format("type section"))?;
        let strings = section(16).ok_or(format("string section"))?;
        let mut places = Vec::with_capacity(types.len() / 24);
        let mut at = 0usize;
        while at < types.len() {
            places.push(at as u32);
            let info = word(types, at + 4).ok_or(format("type"))?;
            let (kind, vlen) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
            // Bytes behind the 12 of struct btf_type, by kind.
            let extra = match kind {
                1 | 14 | 17 => 4,
                3 => 12,
                KIND_STRUCT | KIND_UNION | 15 | 19 => 12 * vlen,
                6 | 13 => 8 * vlen,
                2 | 7..=12 | 16 | 18 => 0,
                _ => return Err(format("unknown kind")),
            };
            at += 12 + extra;
        }
        Ok(Types { types, strings, places })
    }

    fn name(&self, offset: u32) -> &'a [u8] {
        let rest = self.strings.get(offset as usize..).unwrap_or_default();
        &rest[..memchr::memchr(0, rest).unwrap_or(rest.len())]
    }

    /// The named structures, by name: byte offset of their types.
    fn structures(&self, names: &[&'static str]) -> HashMap<&'static str, u32> {
        let mut found = HashMap::new();
        for place in &self.places {
            let at = *place as usize;
            let (Some(name), Some(info)) = (word(self.types, at), word(self.types, at + 4)) else { continue };
            if name == 0 || info >> 24 & 0x1f != KIND_STRUCT {
                continue;
            }
            let name = self.name(name);
            if let Some(wanted) = names.iter().find(|wanted| wanted.as_bytes() == name) {
                found.entry(*wanted).or_insert(*place);
            }
        }
        found
    }

    /// Byte offset of a member, looked for in anonymous structures and unions too.
    fn member(&self, structure: u32, wanted: &str, depth: u32) -> Option<u32> {
        let at = structure as usize;
        let info = word(self.types, at + 4)?;
        // With kind_flag set the upper 8 bits of a member's offset are a bit-field's width.
        let mask = if info >> 31 == 1 { 0x00ff_ffff } else { u32::MAX };
        for index in 0..(info & 0xffff) as usize {
            let member = at + 12 + 12 * index;
            let (name, kind, bits) =
                (word(self.types, member)?, word(self.types, member + 4)?, word(self.types, member + 8)? & mask);
            if name != 0 {
                if self.name(name) == wanted.as_bytes() {
                    return Some(bits / 8);
                }
                continue;
            }
            let inner = *self.places.get((kind as usize).checked_sub(1)?)?;
            let inner_kind = word(self.types, inner as usize + 4)? >> 24 & 0x1f;
            if depth < 8
                && matches!(inner_kind, KIND_STRUCT | KIND_UNION)
                && let Some(offset) = self.member(inner, wanted, depth + 1)
            {
                return Some(bits / 8 + offset);
            }
        }
        None
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offsets that the kernel's ABI or long practice fixes: a wrong reader would hardly hit them.
    #[test]
    fn the_running_kernels_offsets_are_plausible() {
        let Ok(bytes) = fs::read(VMLINUX) else {
            panic!("this test needs a kernel with BTF");
        };
        let offsets = offsets_in(&bytes).expect("offsets");
        // struct sock_common: 8 bytes of addresses, 4 of hash, 4 of ports, then the family (include/net/sock.h).
        assert_eq!(offsets.sock_family, 16);
        assert_eq!(offsets.sock_port, 14);
        // struct inode begins with umode_t i_mode (include/linux/fs.h).
        assert_eq!(offsets.inode_mode, 0);
        assert_eq!(offsets.task_tgid, offsets.task_pid + 4);
        assert!(offsets.socket_to_inode > 64 && offsets.socket_to_inode < 512, "{offsets:?}");
    }

    #[test]
    fn damaged_btf_is_an_error() {
        let bytes = fs::read(VMLINUX).expect("this test needs a kernel with BTF");
        assert!(matches!(offsets_in(b""), Err(BtfError::Format("magic number"))));
        assert!(offsets_in(&bytes[..bytes.len() / 2]).is_err());
        let mut wrong = bytes;
        wrong[24 + 4 + 3] = 0x1f;
        assert!(offsets_in(&wrong).is_err());
    }
}
