//! Three nodes, a client outside and real sockets: every kind of Service from every kind of client, against the rules said again in
//! `spec.rs`. Each node is a network namespace on a bridge with an agent process of its own; pods are namespaces too.
//!
//! Needs root and a build with programs; otherwise it says so and passes. Not shown here: anything of Kubernetes but Services and
//! EndpointSlices as objects, and real network cards.
#![expect(clippy::unwrap_used, reason = "tests")]

mod affinity;
mod agent;
mod bulk;
mod capture;
mod changes;
mod churn;
mod client;
mod cluster;
mod direct;
mod fabric;
mod features;
mod held;
mod matrix;
mod pass;
mod ping;
mod process;
mod reuse;
mod server;
mod spec;
mod stream;
mod takeover;
mod traffic;

use std::sync::{Mutex, MutexGuard, PoisonError};

use agent::Mode;
use cluster::Cluster;
use fabric::Plan;
use spec::SHAPES;

/// Bytes of datagrams: one that fits every way, one of many fragments.
const DATAGRAMS: [u16; 2] = [1400, 20_000];

/// Entry of the child processes: the test binary runs itself with a role in the environment.
#[test]
fn child_process() {
    match std::env::var("BEELINE_TEST_ROLE").as_deref() {
        Ok("agent") => agent::main(),
        Ok("server") => server::main(),
        Ok("client") => client::main(),
        Ok("held") => held::main(),
        Ok("traffic") => traffic::main(),
        _ => {}
    }
}

/// One cluster at a time; `None` if none is possible here.
fn turn() -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return None;
    }
    if !datapath::has_programs() {
        println!("skipped: needs a build with BPF programs (cargo xtask build)");
        return None;
    }
    Some(TURN.lock().unwrap_or_else(PoisonError::into_inner))
}

fn mode(xdp: &str) -> Mode {
    Mode { xdp: xdp.to_owned(), tunnel: false, salt: 0, flows: 16_384 }
}

fn matrix_with(xdp: &str) {
    let Some(_turn) = turn() else { return };
    let plan = Plan { far_ends_run_xdp: xdp == "native", ..Plan::default() };
    let mut cluster = Cluster::start(plan, &mode(xdp));
    matrix::publish(&mut cluster);
    matrix::check(&mut cluster, &format!("XDP {xdp}"), &SHAPES);
}

#[test]
fn services_follow_the_rules_without_xdp() {
    matrix_with("off");
}

#[test]
fn services_follow_the_rules_with_generic_xdp() {
    matrix_with("generic");
}

#[test]
fn services_follow_the_rules_with_native_xdp() {
    matrix_with("native");
}

fn features_with(xdp: &str) {
    let Some(_turn) = turn() else { return };
    let plan = Plan { far_ends_run_xdp: xdp == "native", ..Plan::default() };
    let mut cluster = Cluster::start(plan, &mode(xdp));
    matrix::publish(&mut cluster);
    features::service_addresses_answer_pings(&cluster);
    features::pods_leave_the_cluster_under_their_nodes_address(&mut cluster);
    features::source_ranges_bind_the_balancers_address(&mut cluster);
    features::maglev_is_the_same_on_all_nodes(&mut cluster);
    features::host_ports_may_have_an_address(&mut cluster);
    features::node_ports_cannot_be_bound(&mut cluster);
}

#[test]
fn further_fields_of_services_are_honoured_without_xdp() {
    features_with("off");
}

#[test]
fn further_fields_of_services_are_honoured_with_native_xdp() {
    features_with("native");
}

#[test]
fn changes_of_a_service_reach_every_client() {
    let Some(_turn) = turn() else { return };
    let mut cluster = Cluster::start(Plan::default(), &mode("off"));
    changes::policies_and_endpoints_change(&mut cluster);
    changes::udp_flows_move_when_their_backend_goes(&mut cluster);
    affinity::clients_stay_with_their_backend(&mut cluster);
}

#[test]
fn connections_outlive_agents_layouts_and_sizes() {
    let Some(_turn) = turn() else { return };
    let mut cluster = Cluster::start(Plan::default(), &mode("off"));
    takeover::connections_stay(&mut cluster, &mode("off"));
}

#[test]
fn source_ports_may_be_used_again() {
    let Some(_turn) = turn() else { return };
    for xdp in ["off", "generic"] {
        let mut cluster = Cluster::start(Plan::default(), &mode(xdp));
        reuse::source_ports_are_free_again(&mut cluster, &format!("XDP {xdp}"));
    }
}

#[test]
fn every_frame_between_nodes_has_good_checksums() {
    let Some(_turn) = turn() else { return };
    if !capture::possible() {
        println!("skipped: needs tcpdump");
        return;
    }
    for xdp in ["off", "native"] {
        let plan = Plan { far_ends_run_xdp: xdp == "native", coalescing: false, ..Plan::default() };
        let mut cluster = Cluster::start(plan, &mode(xdp));
        bulk::captured(&mut cluster, &format!("XDP {xdp}"));
    }
}

#[test]
fn streams_in_large_segments_arrive_whole() {
    let Some(_turn) = turn() else { return };
    for (xdp, mtu) in [("off", 1500), ("off", 9000)] {
        let plan = Plan { offloads: true, mtu, ..Plan::default() };
        let mut cluster = Cluster::start(plan, &mode(xdp));
        bulk::whole(&mut cluster, &format!("offloads on, MTU {mtu}"), &DATAGRAMS);
    }
}

#[test]
fn streams_arrive_whole_through_native_xdp() {
    let Some(_turn) = turn() else { return };
    // Not in generic mode: it sees what GRO has put together and cannot tell.
    for mtu in [1500, 3000] {
        let plan = Plan { far_ends_run_xdp: true, mtu, ..Plan::default() };
        let mut cluster = Cluster::start(plan, &mode("native"));
        bulk::whole(&mut cluster, &format!("native XDP, MTU {mtu}"), &DATAGRAMS);
    }
}

#[test]
fn direct_server_return_keeps_the_client() {
    let Some(_turn) = turn() else { return };
    for xdp in ["off", "native"] {
        let plan = Plan { far_ends_run_xdp: xdp == "native", ..Plan::default() };
        let mut cluster = Cluster::start(plan, &mode(xdp));
        direct::check(&mut cluster, &format!("XDP {xdp}"));
    }
}

#[test]
fn a_node_behind_a_router_is_reached_by_tunnel() {
    let Some(_turn) = turn() else { return };
    // XDP cannot fragment, nor give a packet for a tunnel back: IPv4 packets that fill the segment and may be fragmented are dropped there.
    for (xdp, datagrams) in [("off", &DATAGRAMS[..]), ("native", &DATAGRAMS[..1])] {
        let plan = Plan { far_ends_run_xdp: xdp == "native", routed: true, ..Plan::default() };
        let mut cluster = Cluster::start(plan, &Mode { tunnel: true, ..mode(xdp) });
        bulk::whole(&mut cluster, &format!("third node behind a router, XDP {xdp}"), datagrams);
        matrix::publish(&mut cluster);
        matrix::check(&mut cluster, &format!("third node behind a router, XDP {xdp}"), &SHAPES);
    }
}

#[test]
fn nobody_notices_changes() {
    let Some(_turn) = turn() else { return };
    for xdp in ["off", "native"] {
        let plan = Plan { far_ends_run_xdp: xdp == "native", ..Plan::default() };
        let mut cluster = Cluster::start(plan, &mode(xdp));
        let title = format!("XDP {xdp}");
        churn::endpoints_come_and_go(&mut cluster, &title);
        churn::flow_tables_grow(&mut cluster, &title);
        churn::agents_of_another_layout_follow(&mut cluster, &mode(xdp), &title);
    }
}
