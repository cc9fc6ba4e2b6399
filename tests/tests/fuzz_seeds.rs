//! Guarantee: what a fuzz target failed on once, it does not fail on again.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a failure says on which input")]

use std::{fs, path::Path};

#[allow(unreachable_pub, dead_code, reason = "a crate of its own workspace, which exports it")]
#[path = "../fuzz/src/lib.rs"]
mod fuzz;

#[test]
fn inputs_that_failed_once_pass() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let mut count = 0;
    for folder in fs::read_dir(seeds).unwrap() {
        let folder = folder.unwrap();
        let name = folder.file_name().into_string().unwrap();
        let (_, target) = fuzz::TARGETS.iter().find(|(known, _)| *known == name).unwrap();
        for seed in fs::read_dir(folder.path()).unwrap() {
            let seed = seed.unwrap().path();
            println!("{}", seed.display());
            target(&fs::read(seed).unwrap());
            count += 1;
        }
    }
    assert!(count > 0);
}
