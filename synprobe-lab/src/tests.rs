use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use super::*;

fn check(name: &str, family: SocketFamily) {
    check_varied(name, family, Jitter::default());
}

fn check_varied(name: &str, family: SocketFamily, jitter: Jitter) {
    let scenario = find(name).unwrap();
    let mut lab = Lab::new(family).unwrap();
    lab.jitter = jitter;
    if !scenario.supports(family) {
        assert!(scenario.run(&lab, &AtomicBool::new(false)).is_err());
        return;
    }
    let before = lab.counters().unwrap();
    let start = Instant::now();
    let made = scenario.run(&lab, &AtomicBool::new(false));
    let took = start.elapsed();
    let moved = lab.counters().unwrap().since(&before);
    eprintln!("{name} {family:?}: {took:.2?}");
    for (side, counters) in [("client", &moved.client), ("server", &moved.server)] {
        let moved: Vec<_> = counters.moved().map(|(n, v)| format!("{n} {v}")).collect();
        eprintln!("  {side}: {}", moved.join(", "));
    }
    let made = made.unwrap_or_else(|error| panic!("{name} {family:?} {jitter:?}: {error:#}"));
    for fault in &made.faults {
        eprintln!("  lost {}: {:?}", fault.what, fault.count);
    }
    assert!(!made.interrupted);
    assert!(!made.handshakes.is_empty());
    assert_eq!(made.counters.is_empty(), jitter.background);
    let mut wrong = Vec::new();
    for expected in &made.counters {
        let counters = match expected.side {
            Side::Client => &moved.client,
            Side::Server => &moved.server,
        };
        assert!(counters.has(expected.name), "no counter {}", expected.name);
        let was = counters.get(expected.name);
        if !expected.moved.contains(&was) {
            wrong.push(format!("{expected:?}: was {was}"));
        }
    }
    assert!(wrong.is_empty(), "{name} {family:?}: {wrong:#?}");
    assert!(took < Duration::from_secs(30), "took {took:?}");
    let nominal = Duration::from_secs(scenario.nominal_seconds().into());
    assert!(
        took < nominal + nominal / 4 + Duration::from_secs(2),
        "took {took:?}"
    );
}

macro_rules! scenario_tests {
    ($($module:ident = $name:literal;)*) => {
        $(mod $module {
            use super::*;

            #[test]
            #[ignore = "needs root"]
            fn v4() {
                check($name, SocketFamily::V4);
            }

            #[test]
            #[ignore = "needs root"]
            fn v6() {
                check($name, SocketFamily::V6);
            }

            #[test]
            #[ignore = "needs root"]
            fn v4_mapped() {
                check($name, SocketFamily::V4Mapped);
            }
        })*

        #[test]
        fn every_scenario_has_its_tests() {
            let tested = [$($name),*];
            let listed: Vec<_> = all().iter().map(|scenario| scenario.name()).collect();
            assert_eq!(listed, tested);
        }
    };
}

scenario_tests! {
    healthy = "healthy";
    syn_lost = "syn-lost";
    synack_lost = "synack-lost";
    ack_lost = "ack-lost";
    refused = "refused";
    unreachable = "unreachable";
    accept_queue_full = "accept-queue-full";
    accept_slow = "accept-slow";
    accept_burst = "accept-burst";
    abandoned = "abandoned";
    half_open_reset = "half-open-reset";
    syn_flood = "syn-flood";
    lossy = "lossy";
    data_unacknowledged = "data-unacknowledged";
    reset_after_handshake = "reset-after-handshake";
    peer_silent = "peer-silent";
    slow_peer = "slow-peer";
    defer_accept = "defer-accept";
    flash_crowd = "flash-crowd";
    scan_horizontal = "scan-horizontal";
    scan_vertical = "scan-vertical";
    ports_exhausted = "ports-exhausted";
    tuple_in_use = "tuple-in-use";
    self_connect = "self-connect";
    stale_established = "stale-established";
    option_dropped = "option-dropped";
    long_round_trip = "long-round-trip";
    impatient = "impatient";
    several = "several";
    own_firewall = "own-firewall";
    own_reject = "own-reject";
    tcp_md5 = "tcp-md5";
    snat_exhausted = "snat-exhausted";
    rp_filter = "rp-filter";
    dnat_without_snat = "dnat-without-snat";
    forwarded_drop = "forwarded-drop";
    asymmetric_return = "asymmetric-return";
    no_route_back = "no-route-back";
    syn_queue_full = "syn-queue-full";
    transparent_proxy = "transparent-proxy";
    listener_reload = "listener-reload";
    reuseport_worker = "reuseport-worker";
    incident_accept_queue = "incident-accept-queue";
    incident_synack_lost = "incident-synack-lost";
    incident_flood = "incident-flood";
    incident_firewall = "incident-firewall";
    incident_asymmetric_nat = "incident-asymmetric-nat";
}

#[test]
fn summaries_are_one_line() {
    for scenario in all() {
        assert!(!scenario.summary().contains('\n') && scenario.summary().len() < 100);
        assert!(scenario.nominal_seconds() < 30);
    }
}

/// Runs four at a time: they mostly wait.
fn check_all(jitter: impl Fn(u64) -> Jitter) {
    let short: Vec<_> = all()
        .iter()
        .filter(|scenario| scenario.nominal_seconds() < 10)
        .collect();
    for (n, some) in (0..).zip(short.chunks(4)) {
        std::thread::scope(|scope| {
            for (scenario, family) in some.iter().zip(SocketFamily::ALL.iter().cycle().skip(n)) {
                let jitter = jitter(n as u64 + 1);
                if scenario.supports(*family) {
                    scope.spawn(move || check_varied(scenario.name(), *family, jitter));
                }
            }
        });
    }
}

#[test]
#[ignore = "needs root"]
fn other_pauses_give_the_same_results() {
    check_all(|seed| Jitter {
        seed,
        background: false,
    });
}

#[test]
#[ignore = "needs root"]
fn a_background_disturbs_no_scenario() {
    check_all(|seed| Jitter {
        seed,
        background: true,
    });
}

#[test]
#[ignore = "needs root"]
fn a_stopped_scenario_returns_at_once() {
    for scenario in all() {
        let lab = Lab::new(SocketFamily::V4).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let run = scope.spawn(|| scenario.run(&lab, &stop));
            std::thread::sleep(Duration::from_millis(300));
            stop.store(true, Ordering::Relaxed);
            let start = Instant::now();
            run.join().unwrap().unwrap();
            let took = start.elapsed();
            assert!(
                took < Duration::from_millis(500),
                "{}: {took:?}",
                scenario.name()
            );
        });
    }
}

#[test]
#[ignore = "needs root"]
fn a_raw_server_keeps_its_delays() {
    for family in [SocketFamily::V4, SocketFamily::V6] {
        let lab = Lab::with_bare_server(family).unwrap();
        let capture = capture::Capture::start(&lab.client).unwrap();
        let delays = [0, 20, 200].map(Duration::from_millis);
        let peer = raw_peer::RawPeer::serve(&lab, move |n| delays[n as usize % 3]).unwrap();
        let stop = AtomicBool::new(false);
        for _ in 0..6 {
            let server = lab.server_addr(PORT);
            let mut client = Client::connect(&lab.client, server, |_| Ok(())).unwrap();
            settle(
                [&mut client],
                &stop,
                Instant::now() + Duration::from_secs(5),
            )
            .unwrap();
            if client.seen != ConnectState::Connected {
                let handshakes = peer.stop();
                let segments = capture.stop().unwrap().segments;
                panic!("{:?} {family:?} {handshakes:?} {segments:#?}", client.seen);
            }
            client.reset().unwrap();
        }
        let handshakes = peer.stop().unwrap();
        let recording = capture.stop().unwrap();
        assert_eq!((handshakes.len(), recording.missed), (6, 0));
        for handshake in handshakes {
            let of = |flags: u8, outgoing: bool| {
                let found = recording.segments.iter().find(|captured| {
                    let ports = [
                        captured.segment.source.port(),
                        captured.segment.destination.port(),
                    ];
                    captured.outgoing == outgoing
                        && captured.segment.flags == flags
                        && ports.contains(&handshake.client_port)
                });
                found.unwrap().mono_ns
            };
            let (syn, ack) = (packet::flags::SYN, packet::flags::ACK);
            let waited = Duration::from_nanos(of(syn | ack, false) - of(syn, true));
            assert!(
                waited >= handshake.delay,
                "{waited:?} {:?}",
                handshake.delay
            );
            assert!(
                waited < handshake.delay + Duration::from_millis(20),
                "{waited:?}"
            );
            let apart = of(syn, true).abs_diff(handshake.syn_ns.unwrap());
            assert!(apart < 1_000_000, "{apart} ns");
            let apart = of(ack, true).abs_diff(handshake.ack_ns.unwrap());
            assert!(apart < 1_000_000, "{apart} ns");
        }
    }
}

#[test]
#[ignore = "needs root"]
fn a_raw_client_is_accepted() {
    for family in [SocketFamily::V4, SocketFamily::V6] {
        let lab = Lab::with_bare_server(family).unwrap();
        let any = if family == SocketFamily::V6 {
            "::"
        } else {
            "0.0.0.0"
        };
        let listener = listen(&lab.client, any.parse().unwrap(), PORT, 128, false).unwrap();
        let capture = capture::Capture::start(&lab.client).unwrap();
        let delays = [0, 20, 200].map(Duration::from_millis);
        let spacing = Duration::from_millis(5);
        let peer = raw_peer::RawPeer::call(&lab, 12, spacing, move |n| delays[n as usize % 3]);
        let peer = peer.unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut accepted = Vec::new();
        while accepted.len() < 12 {
            if !synprobe_common::sys::poll::readable(&listener, deadline).unwrap() {
                let handshakes = peer.stop();
                let segments = capture.stop().unwrap().segments;
                panic!(
                    "{} of 12 accepted; {handshakes:#?} {segments:#?}",
                    accepted.len()
                );
            }
            accepted.push(listener.accept().unwrap());
        }
        let handshakes = peer.stop().unwrap();
        assert_eq!(capture.stop().unwrap().missed, 0);
        assert!(
            handshakes
                .iter()
                .all(|handshake| handshake.ack_ns.is_some())
        );
    }
}

/// Run in a separate process by [`nothing_is_left_after_a_kill`].
#[test]
#[ignore = "needs root; a part of nothing_is_left_after_a_kill"]
fn hold_a_lab_until_killed() {
    if std::env::var_os("SYNPROBE_LAB_HOLD").is_none() {
        return;
    }
    let lab = Lab::new(SocketFamily::V4).unwrap();
    let _fault = FaultInjector::attach(&lab.server).unwrap();
    println!("held {} {}", lab.client.inode(), lab.server.inode());
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
#[ignore = "needs root"]
fn nothing_is_left_after_a_kill() {
    use std::{
        io::{BufRead, BufReader},
        process::{Command, Stdio},
    };

    let links = || {
        std::fs::read_to_string("/proc/net/dev")
            .unwrap()
            .lines()
            .count()
    };
    let named = || std::fs::read_dir("/run/netns").map_or(0, Iterator::count);
    let before = (links(), named());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--nocapture",
            "--exact",
            "tests::hold_a_lab_until_killed",
        ])
        .env("SYNPROBE_LAB_HOLD", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let held = lines.map_while(Result::ok).find_map(|line| {
        let (_, inodes) = line.split_once("held ")?;
        Some(inodes.to_owned())
    });
    let held = held.unwrap();
    assert_eq!(
        (links(), named()),
        before,
        "the host sees nothing of the lab"
    );
    let (client, server) = held.split_once(' ').unwrap();
    let alive = |inode: &str| namespaces_held().contains(inode.trim());
    assert!(alive(client) && alive(server));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!alive(client) && !alive(server));
    assert_eq!((links(), named()), before);
}

/// Inode numbers of the network namespaces that any process of the host holds a descriptor of.
fn namespaces_held() -> std::collections::HashSet<String> {
    let mut held = std::collections::HashSet::new();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(descriptors) = std::fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        for descriptor in descriptors.flatten() {
            let Ok(target) = std::fs::read_link(descriptor.path()) else {
                continue;
            };
            let target = target.to_string_lossy().into_owned();
            let inode = target
                .strip_prefix("net:[")
                .and_then(|rest| rest.strip_suffix(']'));
            held.extend(inode.map(str::to_owned));
        }
    }
    held
}
