//! The grammar of `perf`: every command with its help. No action is taken here.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Measures services as their clients see them.
#[derive(Parser)]
#[command(name = "perf")]
pub(crate) struct Perf {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// TCP connect + request (one line) + close, against two servers that answer a line with a line (`echo`).
    Crr(Crr),
    /// One datagram and its answer: no measurement, only whether a target answers.
    Datagram {
        /// Who is asked.
        #[arg(long)]
        target: SocketAddr,
        /// What is sent.
        #[arg(long, default_value = "x")]
        text: String,
    },
    /// Keep connections and datagrams going for a time, and count what got lost meanwhile.
    Soak(Soak),
}

#[derive(Args)]
pub(crate) struct Crr {
    /// The reference: for example a pod's address.
    #[arg(long)]
    pub(crate) reference: SocketAddr,
    /// What is compared with it: for example the ClusterIP in front of that pod.
    #[arg(long)]
    pub(crate) target: SocketAddr,
    /// How many pairs of slices (a pair is reference, target, target, reference).
    #[arg(long, default_value_t = 60)]
    pub(crate) pairs: usize,
    /// How long each slice lasts.
    #[arg(long, default_value_t = 20)]
    pub(crate) slice_ms: u64,
}

/// Everything is asked in turn: the first connection goes to the first target, the second to the second.
#[derive(Args, Clone)]
pub(crate) struct Soak {
    /// A server that answers lines (`echo`, port 9090). Repeat it for more.
    #[arg(long)]
    pub(crate) target: Vec<SocketAddr>,
    /// A server that answers datagrams. Repeat it for more.
    #[arg(long)]
    pub(crate) udp_target: Vec<SocketAddr>,
    /// How many connections are held open.
    #[arg(long, default_value_t = 10)]
    pub(crate) long: usize,
    /// Milliseconds between two requests on each of them.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) request_ms: u64,
    /// How many connections a minute are opened, asked once and closed.
    #[arg(long, default_value_t = 600)]
    pub(crate) short_per_minute: u64,
    /// How many datagrams a second are sent, over all of --udp-flows.
    #[arg(long, default_value_t = 100)]
    pub(crate) udp_rate: u64,
    /// How many sockets the datagrams leave from.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) udp_flows: u64,
    /// How long it goes on.
    #[arg(long, default_value_t = 60)]
    pub(crate) seconds: u64,
    /// How long what is still unanswered at the end is waited for.
    #[arg(long, default_value_t = 10)]
    pub(crate) grace_seconds: u64,
    /// Do it in the network namespace pinned here.
    #[arg(long)]
    pub(crate) netns: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        use clap::CommandFactory;
        Perf::command().debug_assert();
    }
}
