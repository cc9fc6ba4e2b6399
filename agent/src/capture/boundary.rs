//! Where to place uprobes in a server's executable.
//!
//! A uprobe on an instruction that the kernel emulates costs about 0.6 µs a hit, on one that it must single-step 10-12 µs
//! (measured on 6.18; arch/x86/kernel/uprobes.c emulates push, call, jmp, jcc and nop). Compilers with control-flow protection
//! begin each function with `endbr64`, which is single-stepped, so the prologue is decoded and the probe placed further on.

use std::{fs::File, io, path::Path};

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, OpAccess, Register};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, ReadCache, ReadRef as _};

use crate::model::Engine;

/// How far into a function a cheaper instruction is looked for, in bytes.
const PROLOGUE: u64 = 64;

/// Functions with the shape `f(connection, buffer, size)`, by the names that they have in the dynamic symbol table.
struct Functions {
    reads: &'static [&'static str],
    writes: &'static [&'static str],
}

/// PostgreSQL exports everything (`-Wl,--export-dynamic`); src/backend/libpq/be-secure.c.
const POSTGRESQL: Functions = Functions { reads: &["secure_read"], writes: &["secure_write"] };
/// MySQL compiles vio as C++, MariaDB as C; vio/viosocket.c(c), vio/viossl.c(c). The TLS functions do not call the plain ones.
const VIO: Functions = Functions {
    reads: &["vio_read", "vio_ssl_read", "_Z8vio_readP3VioPhm", "_Z12vio_ssl_readP3VioPhm"],
    writes: &["vio_write", "vio_ssl_write", "_Z9vio_writeP3VioPKhm", "_Z13vio_ssl_writeP3VioPKhm"],
};

/// Where one probe goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Point {
    /// Symbol.
    pub(super) symbol: &'static str,
    /// Offset in the file for a probe on entry.
    pub(super) entry: u64,
    /// Offset in the file for a probe on return: the stack must still be as at the call.
    pub(super) on_return: u64,
    /// Whether both lie on instructions that the kernel emulates.
    pub(super) emulated: bool,
}

/// All probes of one executable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Points {
    pub(super) reads: Vec<Point>,
    pub(super) writes: Vec<Point>,
}

impl Points {
    /// What a person should know about the cost, if not all is as cheap as it can be.
    pub(super) fn caveat(&self) -> Option<String> {
        let slow: Vec<&str> =
            self.reads.iter().chain(&self.writes).filter(|point| !point.emulated).map(|point| point.symbol).collect();
        (!slow.is_empty()).then(|| {
            format!("{} single-stepped (no instruction that the kernel emulates in the prologue): 10-12 µs a call instead of 0.6", slow.join(", "))
        })
    }
}

/// Why an executable has no boundary to probe.
#[derive(Debug, thiserror::Error)]
pub(super) enum PointsError {
    #[error("reading the executable: {0}")]
    Read(#[from] io::Error),
    #[error("the executable is no ELF file that can be read: {0}")]
    Elf(#[from] object::Error),
    #[error(
        "the executable exports none of {0}; poolers have no such functions, so what their encrypted sessions say is not visible"
    )]
    NoSymbols(String),
}

/// Finds the I/O functions in the executable at `path`.
pub(super) fn points(path: &Path, engine: Engine) -> Result<Points, PointsError> {
    let functions = match engine {
        Engine::Postgresql => &POSTGRESQL,
        Engine::Mysql | Engine::Mariadb => &VIO,
    };
    let cache = ReadCache::new(File::open(path)?);
    let elf = object::File::parse(&cache)?;
    let mut points = Points::default();
    for symbol in elf.dynamic_symbols() {
        let Ok(name) = symbol.name() else { continue };
        for (wanted, found) in [(functions.reads, &mut points.reads), (functions.writes, &mut points.writes)] {
            let Some(wanted) = wanted.iter().find(|wanted| **wanted == name) else { continue };
            if symbol.is_definition()
                && let Some(offset) = file_offset(&elf, symbol.address())
            {
                let code = (&cache).read_bytes_at(offset, PROLOGUE).unwrap_or_default();
                found.push(point(wanted, offset, code, elf.architecture()));
            }
        }
    }
    if points.reads.is_empty() || points.writes.is_empty() {
        let names: Vec<&str> = functions.reads.iter().chain(functions.writes).copied().collect();
        return Err(PointsError::NoSymbols(names.join(", ")));
    }
    Ok(points)
}

fn file_offset<'a>(elf: &object::File<'a, &'a ReadCache<File>>, address: u64) -> Option<u64> {
    elf.sections().find_map(|section| {
        let (offset, size) = section.file_range()?;
        let within = address.checked_sub(section.address())?;
        (within < size).then_some(offset + within)
    })
}

fn point(symbol: &'static str, offset: u64, code: &[u8], architecture: object::Architecture) -> Point {
    if architecture != object::Architecture::X86_64 {
        // On arm64 the kernel simulates or single-steps at much smaller cost; nothing to choose.
        return Point { symbol, entry: offset, on_return: offset, emulated: true };
    }
    let placed = place(code);
    Point {
        symbol,
        entry: offset + placed.entry.unwrap_or(0),
        on_return: offset + placed.on_return.unwrap_or(0),
        emulated: placed.entry.is_some() && placed.on_return.is_some(),
    }
}

/// Offsets into a function, where there is a cheap instruction.
#[derive(Debug, Default, PartialEq, Eq)]
struct Placed {
    entry: Option<u64>,
    on_return: Option<u64>,
}

/// Looks for the first instruction that the kernel emulates. For an entry probe the argument registers must be untouched so far;
/// for a return probe the stack pointer too, since the kernel replaces the return address it points to.
fn place(code: &[u8]) -> Placed {
    const ARGUMENTS: [Register; 3] = [Register::RDI, Register::RSI, Register::RDX];
    let mut placed = Placed::default();
    let mut stack_untouched = true;
    let mut factory = InstructionInfoFactory::new();
    for instruction in Decoder::with_ip(64, code, 0, DecoderOptions::NONE) {
        if instruction.is_invalid() {
            break;
        }
        if emulated(&instruction) {
            placed.entry.get_or_insert(instruction.ip());
            if stack_untouched {
                placed.on_return.get_or_insert(instruction.ip());
            }
        }
        if placed.entry.is_some() && (placed.on_return.is_some() || !stack_untouched) {
            break;
        }
        // Beyond a branch it is no longer sure that the instruction runs once in each call.
        if instruction.flow_control() != FlowControl::Next {
            break;
        }
        let writes = |register: Register| -> bool {
            // The closure borrows the factory anew for each question; prologues are short.
            let mut factory = InstructionInfoFactory::new();
            factory.info(&instruction).used_registers().iter().any(|used| {
                used.register().full_register() == register
                    && matches!(
                        used.access(),
                        OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
                    )
            })
        };
        if ARGUMENTS.into_iter().any(writes) {
            break;
        }
        stack_untouched &= !factory
            .info(&instruction)
            .used_registers()
            .iter()
            .any(|used| used.register().full_register() == Register::RSP && used.access() != OpAccess::Read);
    }
    placed
}

/// Whether arch/x86/kernel/uprobes.c emulates it: `push` of a general register (since 4.17), `nop`.
fn emulated(instruction: &Instruction) -> bool {
    matches!(instruction.code(), Code::Push_r64 | Code::Nopw | Code::Nopd | Code::Nopq)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(code: &[u8], entry: Option<u64>, on_return: Option<u64>) {
        assert_eq!(place(code), Placed { entry, on_return });
    }

    #[test]
    fn push_first() {
        // push rbp; mov rbp, rsp
        check(&[0x55, 0x48, 0x89, 0xe5], Some(0), Some(0));
    }

    #[test]
    fn push_behind_endbr64() {
        // endbr64; push r15
        check(&[0xf3, 0x0f, 0x1e, 0xfa, 0x41, 0x57], Some(4), Some(4));
    }

    #[test]
    fn push_behind_harmless_moves() {
        // endbr64; mov rax, [rdi+8]; push rbx
        check(&[0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x8b, 0x47, 0x08, 0x53], Some(8), Some(8));
    }

    #[test]
    fn stack_moved_before_the_push() {
        // sub rsp, 8; push rbx: fine for an entry, wrong for a return
        check(&[0x48, 0x83, 0xec, 0x08, 0x53], Some(4), None);
    }

    #[test]
    fn argument_overwritten_before_the_push() {
        // mov rdi, [rdi]; push rbx
        check(&[0x48, 0x8b, 0x3f, 0x53], None, None);
    }

    #[test]
    fn branch_before_the_push() {
        // test rdx, rdx; je +1; push rbx
        check(&[0x48, 0x85, 0xd2, 0x74, 0x01, 0x53], None, None);
    }

    #[test]
    fn nothing_but_garbage() {
        check(&[0x06, 0x06], None, None);
        check(&[], None, None);
    }
}
