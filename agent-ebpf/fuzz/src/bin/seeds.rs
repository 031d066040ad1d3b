//! Writes the seeds into a directory, one file each, for the fuzzer to start from.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: seeds DIRECTORY");
        return ExitCode::FAILURE;
    };
    for (name, seed) in fuzz::script::seeds() {
        if let Err(error) = std::fs::write(directory.join(name), seed) {
            eprintln!("write to {}: {error}", directory.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
