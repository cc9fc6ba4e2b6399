//! Builds the kernel's side and leaves the object in `OUT_DIR`, from where `capture::loader` embeds it.
//!
//! It needs `bpf-linker` and a compiler that can build `core` for the bpf target: a rustup nightly with rust-src where there is one, else
//! the toolchain linked as `bpf` (Debian's rustc-web and rust-web-src). `cargo xtask setup` installs what is missing.

use std::{env, process::Command};

use anyhow::{Context as _, bail};
use aya_build::{Package, Toolchain, build_ebpf};

fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../agent-ebpf");
    let package = Package { name: "agent-ebpf", root_dir: root, no_default_features: false, features: &["kernel"] };
    let toolchain = toolchain()?;
    // SAFETY: a build script has one thread here. -Z build-std wants a nightly or this permission.
    unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };
    build_ebpf([package], Toolchain::Custom(&toolchain)).with_context(|| {
        format!("compiling agent-ebpf with toolchain '{toolchain}' failed; `cargo xtask setup --check` tells what is missing")
    })
}

/// A toolchain that has the sources of `core`.
fn toolchain() -> anyhow::Result<String> {
    let candidates = ["nightly", "bpf"];
    for name in candidates {
        let Ok(output) = Command::new("rustup").args(["run", name, "rustc", "--print", "sysroot"]).output() else {
            continue;
        };
        let sysroot = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let sources = format!("{sysroot}/lib/rustlib/src/rust/library/core/src/lib.rs");
        if output.status.success() && std::path::Path::new(&sources).exists() {
            return Ok(name.to_owned());
        }
    }
    bail!(
        "no toolchain with the sources of core found (tried {candidates:?}): run `cargo xtask setup`, \
         or `rustup toolchain install nightly --component rust-src`"
    )
}
