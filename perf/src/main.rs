//! `perf`: measures services as their clients see them. A result is a comparison of two targets, taken in one run.
//!
//! One `match` here, one module a command.

mod alternate;
mod bpf;
mod cgroup;
mod control;
mod cost;
mod datagram;
mod environment;
mod flags;
mod image;
mod latency;
mod load;
mod measure;
mod namespace;
mod peers;
mod processor;
mod progress;
mod report;
mod results;
mod rules;
mod service;
mod soak;
mod statistics;
mod suite;
mod traffic;
mod verdict;

use anyhow::Result;
use clap::Parser;

use flags::Command;

fn main() -> Result<()> {
    match flags::Perf::parse().command {
        Command::Ratio(args) => measure::ratio(&args),
        Command::Load(args) => measure::load(&args),
        Command::Cost(args) => cost::run(&args),
        Command::Datagram { target, text } => {
            println!("{}", datagram::ask(target, &text)?.trim_end());
            Ok(())
        }
        Command::Service(args) => service::run(&args),
        Command::Control(args) => control::run(&args),
        Command::Probe => control::prober::run(),
        Command::Image(args) => image::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Compare { old, new } => verdict::run(&old, &new),
        Command::Suite(args) => suite::run(&args),
        Command::Rules(args) => rules::run(&args),
        Command::Soak(args) => soak::run(&args),
    }
}
