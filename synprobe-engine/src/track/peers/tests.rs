use std::net::Ipv4Addr;

use super::*;
use crate::model::{Confidence, Connection, DwellSource, Facts, Family};

fn handshake(n: u32, role: Role, outcome: Outcome) -> Handshake {
    Handshake {
        connection: Connection {
            id: 1,
            role,
            family: Family::Ipv4,
            v4_mapped: false,
            local_addr: Ipv4Addr::LOCALHOST.into(),
            local_port: Some(80),
            peer_addr: addr(n),
            peer_port: Some(1024),
            netns: 1,
            netns_name: None,
            pid: None,
            comm: None,
            cgroup: None,
            workload: Default::default(),
        },
        outcome,
        open_reason: None,
        dwell_us: Some(1000),
        dwell_source: Some(DwellSource::Events),
        dwell_error_us: None,
        dwell_at_least_us: None,
        retransmits: 0,
        retransmits_by_peer: 0,
        error: None,
        verdict: None,
        confidence: Confidence::Insufficient,
        evidence: Vec::new(),
        remedy: None,
        gaps_us: Vec::new(),
        facts: Facts::default(),
    }
}

fn addr(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(n).into()
}

/// At most so many peers, silent ones not counted.
fn small(limit: usize) -> Peers {
    let bounds = TableBounds {
        peers: limit,
        silent_peers: limit,
        ..TableBounds::default()
    };
    Peers::new(&bounds, 7)
}

fn server(peers: &mut Peers, n: u32, outcome: Outcome) {
    peers.ended(&handshake(n, Role::Server, outcome));
}

fn listed(peers: &Peers) -> Vec<u32> {
    let mut listed: Vec<u32> = peers
        .table()
        .iter()
        .map(|peer| match peer.peer_addr {
            IpAddr::V4(addr) => addr.to_bits(),
            IpAddr::V6(_) => panic!("no such peer"),
        })
        .collect();
    listed.sort_unstable();
    listed
}

/// What is listed and what made room is all there was.
fn attempts(peers: &Peers) -> u64 {
    peers.others().attempts + peers.table().iter().map(|p| p.attempts).sum::<u64>()
}

#[test]
fn the_oldest_silent_one_makes_room_for_the_next() {
    let mut peers = small(3);
    for n in 1..=5 {
        server(&mut peers, n, Outcome::Expired);
    }
    // Silent still, whatever it costs us; and again does not make it younger.
    peers.retransmitted(addr(3), Role::Server, RetransmitKind::Synack, 5);
    server(&mut peers, 6, Outcome::Expired);
    assert_eq!(listed(&peers), [4, 5, 6]);
    assert_eq!((attempts(&peers), peers.unlisted()), (6, 3 + 5));
    let others = peers.others();
    assert_eq!(
        (others.failed, others.established, others.retransmits),
        (3, 0, 5)
    );
}

#[test]
fn each_sign_of_life_protects_from_the_silent() {
    let signs: [fn(&mut Peers); 9] = [
        |p| server(p, 1, Outcome::Established),
        |p| server(p, 1, Outcome::Reset),
        |p| {
            let by_peer = Handshake {
                retransmits_by_peer: 1,
                ..handshake(1, Role::Server, Outcome::Expired)
            };
            p.ended(&by_peer);
        },
        |p| {
            let facts = Facts {
                acked: true,
                ..Facts::default()
            };
            p.ended(&Handshake {
                facts,
                ..handshake(1, Role::Server, Outcome::Dropped)
            });
        },
        |p| p.syn_repeated(addr(1), Role::Server),
        |p| p.retransmitted(addr(1), Role::Client, RetransmitKind::Rto, 1),
        |p| p.retransmitted(addr(1), Role::Server, RetransmitKind::Tlp, 1),
        |p| p.ended(&handshake(1, Role::Client, Outcome::Established)),
        |p| p.ended(&handshake(1, Role::Client, Outcome::Refused)),
    ];
    for (sign, show) in signs.iter().enumerate() {
        let mut peers = small(4);
        show(&mut peers);
        for n in 2..100 {
            server(&mut peers, n, Outcome::Expired);
        }
        assert_eq!(listed(&peers), [1, 96, 97, 98, 99], "sign {sign}");
    }
    let silent: [fn(&mut Peers); 6] = [
        |p| server(p, 1, Outcome::Expired),
        |p| server(p, 1, Outcome::Open),
        |p| server(p, 1, Outcome::Dropped),
        |p| p.ended(&handshake(1, Role::Client, Outcome::TimedOut)),
        |p| p.ended(&handshake(1, Role::Client, Outcome::Unreachable)),
        |p| p.retransmitted(addr(1), Role::Client, RetransmitKind::Syn, 3),
    ];
    for (sign, show) in silent.iter().enumerate() {
        let mut peers = small(4);
        show(&mut peers);
        for n in 2..100 {
            server(&mut peers, n, Outcome::Expired);
        }
        assert_eq!(listed(&peers), [96, 97, 98, 99], "no sign {sign}");
    }
}

#[test]
fn whoever_is_least_in_trouble_makes_room() {
    let mut peers = small(3);
    server(&mut peers, 1, Outcome::Reset);
    server(&mut peers, 1, Outcome::Reset);
    server(&mut peers, 2, Outcome::Established);
    server(&mut peers, 3, Outcome::Reset);
    server(&mut peers, 4, Outcome::Established);
    assert_eq!(listed(&peers), [1, 2, 4], "one attempt, one RST");
    server(&mut peers, 5, Outcome::Established);
    assert_eq!(listed(&peers), [1, 4, 5], "then the oldest healthy one");
    server(&mut peers, 4, Outcome::Dropped);
    server(&mut peers, 6, Outcome::Established);
    assert_eq!(listed(&peers), [1, 4, 6], "healthy no more");
    server(&mut peers, 6, Outcome::Reset);
    server(&mut peers, 7, Outcome::Established);
    assert_eq!(listed(&peers), [1, 4, 6], "all others are in trouble");
    // All of them in trouble: the one in which nothing happened since.
    server(&mut peers, 1, Outcome::Established);
    server(&mut peers, 8, Outcome::Reset);
    server(&mut peers, 8, Outcome::Reset);
    assert_eq!(
        listed(&peers),
        [1, 4, 6],
        "it comes as one attempt, one RST"
    );
    peers.retransmitted(addr(8), Role::Server, RetransmitKind::Fast, 1);
    assert_eq!(listed(&peers), [1, 6, 8]);
    assert_eq!(attempts(&peers), 13);
}

#[test]
fn the_number_of_peers_is_exact_until_one_makes_room() {
    let mut peers = small(50);
    for n in 0..50 {
        server(&mut peers, n, Outcome::Expired);
        server(&mut peers, n, Outcome::Expired);
    }
    peers.ended(&handshake(7, Role::Client, Outcome::Established));
    let exact = |count| Estimate { count, error: 0.0 };
    assert_eq!(peers.distinct(Role::Server), exact(50));
    assert_eq!(peers.distinct(Role::Client), exact(1));
    server(&mut peers, 50, Outcome::Expired);
    let estimate = peers.distinct(Role::Server);
    assert!(estimate.count == 51 && estimate.error > 0.0, "{estimate:?}");
    assert_eq!(
        peers.distinct(Role::Client),
        exact(1),
        "each role by itself"
    );
    // Those that come back are no new ones.
    for n in 0..50 {
        server(&mut peers, n, Outcome::Expired);
    }
    assert_eq!(peers.distinct(Role::Server).count, 51);
}

#[test]
fn dead_tickets_do_not_gather() {
    let mut peers = small(10);
    for n in 0..100_000 {
        server(&mut peers, n, Outcome::Expired);
        server(&mut peers, n, Outcome::Established);
    }
    let tickets: usize = peers.tickets.iter().map(VecDeque::len).sum();
    assert!(tickets < 5_000, "{tickets}");
    assert_eq!(attempts(&peers), 200_000);
}
