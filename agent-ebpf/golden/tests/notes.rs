//! XDP's note reaches tcx: a packet goes through both programs in the kernel and into a pod's network namespace. Needs root and the
//! object; skips aloud without.
#![allow(clippy::unwrap_used, reason = "tests")]

mod bpf;

use std::{
    fs,
    process::{Child, Command},
    thread,
    time::Duration,
};

use abi::{Config, config::features};
use aya::programs::{SchedClassifier, TcAttachType, TestRun as _, TestRunAttrs, TestRunOptions, Xdp};
use bpf::{Loaded, load};
use golden::{frame::Spec, objects::Objects, world};

/// A process that holds a network namespace open.
struct Pod(Child);

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ip(words: &str) {
    assert!(Command::new("ip").args(words.split(' ')).status().unwrap().success(), "ip {words}");
}

#[test]
fn a_packet_with_a_note_is_delivered_without_a_look_up() {
    bpf::in_namespace(|path| {
        let own = fs::read_link("/proc/thread-self/ns/net").unwrap();
        let pod = Pod(Command::new("unshare").args(["-n", "sleep", "60"]).spawn().unwrap());
        let theirs = format!("/proc/{}/ns/net", pod.0.id());
        while fs::read_link(&theirs).is_ok_and(|namespace| namespace == own) {
            thread::sleep(Duration::from_millis(5));
        }
        ip("link set lo up");
        ip("link add golden5 index 5 type veth peer name goldenp5");
        ip(&format!("link set goldenp5 netns {}", pod.0.id()));
        ip("link set golden5 up");
        let enter = format!("--net={theirs}");
        let inside = |words: &[&str]| Command::new("nsenter").arg(&enter).args(words).output().unwrap();
        assert!(inside(&["ip", "link", "set", "goldenp5", "up"]).status.success());
        let received = || {
            let out = String::from_utf8(inside(&["cat", "/proc/net/dev"]).stdout).unwrap();
            let line = out.lines().find(|line| line.contains("goldenp5")).unwrap().to_owned();
            line.split_whitespace().nth(2).unwrap().parse::<u64>().unwrap()
        };
        let config = world::config();
        let on = config.features | features::METADATA | features::XDP;
        let mut ebpf = load(&path, &Config { features: on, ..config });
        world::furnish(&mut Loaded(&mut ebpf));
        let mut objects = Objects::default();
        objects.service("node:30080/tcp -> 10.244.1.5:8080", false, &mut Loaded(&mut ebpf)).unwrap();
        let tcx: &mut SchedClassifier = ebpf.program_mut("tcx_up_in").unwrap().try_into().unwrap();
        tcx.load().unwrap();
        tcx.attach("lo", TcAttachType::Ingress).unwrap();
        let xdp: &mut Xdp = ebpf.program_mut("xdp_ns").unwrap().try_into().unwrap();
        xdp.load().unwrap();
        // The last but one hop is taken at XDP. Without the note tcx would find none left and leave the packet to the stack.
        let line = "client>uplink 2 tcp 172.30.0.3:40000>172.30.0.11:30080 S +10";
        let packet = Spec::parse(line).unwrap().build(&[]);
        let before = received();
        let attrs = TestRunAttrs::new().xdp_live_frames(1);
        xdp.test_run(TestRunOptions { data_in: Some(&packet), attrs, ..TestRunOptions::new() }).unwrap();
        assert_eq!(received(), before + 1, "packets that the pod received");
    });
}
