//! The soak against servers that pause, close and forget.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::*;

/// A server of lines that answers the `n`th line of each connection as `act` says.
fn lines(act: fn(usize) -> Act) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut writer = stream.try_clone().unwrap();
                for (number, line) in BufReader::new(stream).lines().map_while(Result::ok).enumerate() {
                    match act(number) {
                        Act::Answer => {}
                        Act::Pause(time) => thread::sleep(time),
                        Act::Close => return,
                    }
                    if writeln!(writer, "pod=p got={line}").is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

enum Act {
    Answer,
    Pause(Duration),
    Close,
}

/// A server that answers datagrams: not the third, and the fifth twice.
fn datagrams() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        for number in 0.. {
            let (length, peer) = socket.recv_from(&mut buffer).unwrap();
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let times = [1, 1, 0, 1, 2].get(number).copied().unwrap_or(1);
            (0..times).for_each(|_| drop(socket.send_to(format!("pod=p got={text}\n").as_bytes(), peer)));
        }
    });
    address
}

/// Runs a soak of a second and gives its result as JSON.
fn check(change: impl FnOnce(&mut Soak)) -> Value {
    let mut args = Soak {
        target: Vec::new(),
        udp_target: Vec::new(),
        long: 0,
        request_ms: 50,
        short_per_minute: 0,
        udp_rate: 0,
        udp_flows: 1,
        seconds: 1,
        grace_seconds: 5,
        netns: None,
    };
    change(&mut args);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let totals = runtime.block_on(LocalSet::new().run_until(soak(&args))).unwrap();
    serde_json::to_value(totals).unwrap()
}

#[test]
fn a_path_without_faults_loses_nothing() {
    let result = check(|args| {
        args.target = vec![lines(|_| Act::Answer)];
        (args.long, args.short_per_minute) = (5, 1200);
    });
    let (long, short) = (&result["long"], &result["short"]);
    assert_eq!((&long["open"], &long["broken"], &long["unanswered"]), (&5.into(), &0.into(), &0.into()));
    assert!(long["answers"].as_u64() > Some(5) && long["pods"]["p"] == 5, "{long}");
    assert!(short["ok"].as_u64() > Some(0) && short["ok"] == short["attempts"], "{short}");
    assert_eq!((&long["wrong"], &short["failed"]), (&0.into(), &0.into()));
}

#[test]
fn a_pause_is_waited_for_and_measured() {
    let result = check(|args| {
        args.target =
            vec![lines(|n| if n == 2 { Act::Pause(Duration::from_millis(1500)) } else { Act::Answer })];
        args.long = 2;
    });
    let long = &result["long"];
    assert_eq!((&long["broken"], &long["unanswered"]), (&0.into(), &0.into()), "{long}");
    assert!(long["longest_ms"].as_f64() >= Some(1500.0), "{long}");
}

#[test]
fn a_connection_that_breaks_is_counted_with_its_pod_and_opened_anew() {
    let result = check(|args| {
        args.target = vec![lines(|n| if n == 2 { Act::Close } else { Act::Answer })];
        args.long = 1;
    });
    let long = &result["long"];
    let broken = long["broken"].as_u64().unwrap();
    assert!(broken >= 1 && long["broken_by_pod"]["p"] == broken, "{long}");
    assert_eq!(long["unanswered"], broken, "{long}");
    assert_eq!(long["connects"], broken + long["open"].as_u64().unwrap(), "{long}");
    assert!(long["failures"]["errors"][0].as_str().unwrap().contains("(p), request 3: "), "{long}");
}

#[test]
fn what_is_unanswered_at_the_end_is_a_failure() {
    let result = check(|args| {
        args.target = vec![lines(|_| Act::Pause(Duration::from_secs(30)))];
        (args.long, args.short_per_minute, args.grace_seconds) = (1, 120, 1);
    });
    assert_eq!(result["long"]["unanswered"], 1, "{result}");
    assert!(result["short"]["failures"]["reasons"]["no answer at the end"].as_u64() >= Some(1), "{result}");
    assert_eq!(result["short"]["failed"], result["short"]["attempts"]);
}

#[test]
fn a_closed_port_is_a_failure_with_its_reason() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let result = check(|args| {
        args.target = vec![closed];
        (args.long, args.short_per_minute) = (1, 600);
    });
    assert_eq!(result["long"]["open"], 0);
    assert!(result["long"]["connects_failed"].as_u64() > Some(1), "{result}");
    assert!(
        result["short"]["failures"]["reasons"]["connect: connection refused"].as_u64() > Some(1),
        "{result}"
    );
}

#[test]
fn datagrams_are_counted_one_by_one() {
    let result = check(|args| {
        args.udp_target = vec![datagrams()];
        args.udp_rate = 50;
    });
    let udp = &result["udp"];
    assert!(udp["sent"].as_u64() > Some(10), "{udp}");
    assert_eq!((&udp["lost"], &udp["duplicated"], &udp["wrong"]), (&1.into(), &1.into(), &0.into()), "{udp}");
    assert_eq!((&udp["lost_by_pod"]["p"], &udp["lost_runs"][0]), (&1.into(), &"0: 2-2".into()), "{udp}");
}
