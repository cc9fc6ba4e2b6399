//! The `querylens` program. Arguments and exit codes live in [`querylens::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    querylens::cli::main()
}
