//! `perf`: measures services as their clients see them. A result is a comparison of two targets, taken in one run.
//!
//! One `match` here, one module a command.

mod compare;
mod crr;
mod datagram;
mod flags;
mod namespace;
mod soak;

use std::time::Duration;

use anyhow::Result;
use clap::Parser;

use flags::Command;

fn main() -> Result<()> {
    match flags::Perf::parse().command {
        Command::Crr(args) => compare_crr(&args),
        Command::Datagram { target, text } => {
            println!("{}", datagram::ask(target, &text)?.trim_end());
            Ok(())
        }
        Command::Soak(args) => soak::run(&args),
    }
}

fn compare_crr(args: &flags::Crr) -> Result<()> {
    let plan = compare::Plan {
        pairs: args.pairs,
        slice: Duration::from_millis(args.slice_ms),
        warm_up: Duration::from_millis(500),
    };
    let result = compare::run(&plan, || crr::once(args.reference), || crr::once(args.target))?;
    println!("{}", serde_json::to_string(&result)?);
    eprintln!("{result}");
    Ok(())
}
