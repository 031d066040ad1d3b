//! `perf`: measures services as their clients see them. A result is a comparison of two targets, taken in one run.
//!
//! So far one case: TCP connect + request + close. It starts nothing and deploys nothing: it asks two addresses that
//! its caller names, from wherever it is started.

mod compare;
mod crr;
mod datagram;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Compares two targets by fast alternation.
#[derive(Parser)]
struct Perf {
    #[command(subcommand)]
    case: Case,
}

#[derive(Subcommand)]
enum Case {
    /// TCP connect + request (one line) + close, against two servers that answer a line with a line (`echo`).
    Crr {
        /// The reference: for example a pod's address.
        #[arg(long)]
        reference: SocketAddr,
        /// What is compared with it: for example the ClusterIP in front of that pod.
        #[arg(long)]
        target: SocketAddr,
        /// How many pairs of slices (a pair is reference, target, target, reference).
        #[arg(long, default_value_t = 60)]
        pairs: usize,
        /// How long each slice lasts.
        #[arg(long, default_value_t = 20)]
        slice_ms: u64,
    },
    /// One datagram and its answer: no measurement, only whether a target answers.
    Datagram {
        /// Who is asked.
        #[arg(long)]
        target: SocketAddr,
        /// What is sent.
        #[arg(long, default_value = "x")]
        text: String,
    },
}

fn main() -> Result<()> {
    match Perf::parse().case {
        Case::Crr { reference, target, pairs, slice_ms } => compare_crr(reference, target, pairs, slice_ms),
        Case::Datagram { target, text } => {
            println!("{}", datagram::ask(target, &text)?.trim_end());
            Ok(())
        }
    }
}

fn compare_crr(reference: SocketAddr, target: SocketAddr, pairs: usize, slice_ms: u64) -> Result<()> {
    let plan =
        compare::Plan { pairs, slice: Duration::from_millis(slice_ms), warm_up: Duration::from_millis(500) };
    let result = compare::run(&plan, || crr::once(reference), || crr::once(target))?;
    println!("{}", serde_json::to_string(&result)?);
    eprintln!("{result}");
    Ok(())
}
