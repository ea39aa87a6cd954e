//! Handshakes and contexts for tests.

// Only tests use it, those of other crates too.
#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, SocketAddr};

use super::{
    Context, Judge, Mode,
    context::{DroppedPacket, Packet},
};
use crate::{
    model::{
        Body, Confidence, Connection, Facts, Family, HalfOpenRow, Handshake, Line, ListenCounters,
        Listener, Lost, Missed, OpenReason, Outcome, Problem, ProblemRole, Role, State, TcpState,
        Tuple, VerdictKind,
    },
    util::addresses::mapped,
};

pub const SEC: u64 = 1_000_000_000;
pub const NETNS: u32 = 4_026_531_833;
pub const T0: u64 = 1_000 * SEC;

pub fn connection(role: Role, peer: &str, peer_port: u16) -> Connection {
    let (local_port, peer_port) = match role {
        Role::Server => (8080, peer_port),
        Role::Client => (40_000, peer_port),
    };
    Connection {
        id: 1,
        role,
        family: Family::Ipv4,
        v4_mapped: false,
        local_addr: "10.0.0.1".parse().unwrap(),
        local_port: Some(local_port),
        peer_addr: peer.parse().unwrap(),
        peer_port: Some(peer_port),
        netns: NETNS,
        netns_name: Some("host".into()),
        pid: Some(77),
        comm: Some("app".into()),
        cgroup: None,
        workload: Default::default(),
    }
}

/// As a dump shows it after one retransmission.
pub fn repeated_once(c: &Connection) -> HalfOpenRow {
    HalfOpenRow {
        tuple: Tuple {
            netns: c.netns,
            local_addr: mapped(c.local_addr),
            peer_addr: mapped(c.peer_addr),
            local_port: c.local_port.unwrap(),
            peer_port: c.peer_port.unwrap(),
        },
        family: 2,
        retrans: 1,
        expires_ms: 1000,
    }
}

fn handshake(connection: Connection, outcome: Outcome) -> Handshake {
    Handshake {
        connection,
        outcome,
        open_reason: (outcome == Outcome::Open).then_some(OpenReason::RunEnded),
        dwell_us: Some(3_000_000),
        dwell_source: None,
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
        facts: Facts {
            began_ns: Some(T0),
            ended_ns: T0 + 3 * SEC,
            history_known: true,
            ..Facts::default()
        },
    }
}

/// A half-open of 10.0.0.9, by default silent.
pub fn half_open(outcome: Outcome) -> Handshake {
    half_open_of("10.0.0.9", outcome)
}

/// A half-open of some peer; its SYN-ACK was retransmitted twice.
pub fn half_open_of(peer: &str, outcome: Outcome) -> Handshake {
    let mut h = handshake(connection(Role::Server, peer, 55_555), outcome);
    h.retransmits = 2;
    h
}

/// An active open to 10.0.0.9:5432.
pub fn active(outcome: Outcome) -> Handshake {
    handshake(connection(Role::Client, "10.0.0.9", 5432), outcome)
}

/// A handshake's verdict and its confidence.
pub fn verdict_of(h: &Handshake, context: Context) -> (Option<VerdictKind>, Confidence) {
    let h = judged(h, context);
    (h.verdict, h.confidence)
}

/// A handshake with its verdict.
pub fn judged(h: &Handshake, context: Context) -> Handshake {
    let mut judge = Judge::new(Mode::AtOnce, context);
    let lines = judge.pass(vec![line(h.clone())]);
    match lines.into_iter().next().unwrap().body {
        Body::Handshake(h) => *h,
        other => panic!("{other:?}"),
    }
}

pub fn line(h: Handshake) -> Line {
    Line {
        mono_ns: T0 + 3 * SEC,
        body: Body::Handshake(Box::new(h)),
    }
}

/// A line that says that connect() was called.
pub fn began(peer: IpAddr, port: u16, at_ns: u64) -> Line {
    let connection = Connection {
        peer_addr: peer,
        peer_port: Some(port),
        ..connection(Role::Client, "10.0.0.9", port)
    };
    Line {
        mono_ns: at_ns,
        body: Body::State(State {
            connection,
            old: TcpState::Close,
            new: TcpState::SynSent,
            dwell_us: None,
        }),
    }
}

/// Records were lost while the handshakes of this module lasted.
pub fn lose(context: &mut Context, events: u64, of: Missed) {
    context.note(&Line {
        mono_ns: T0 + SEC,
        body: Body::Lost(Lost {
            events,
            reason: "the ring was full".into(),
            of,
        }),
    });
}

/// A packet of the handshake that this host's netfilter dropped.
pub fn discard(h: &Handshake, packet: Packet, count: u64) -> DroppedPacket {
    let c = &h.connection;
    let local = SocketAddr::new(c.local_addr, c.local_port.unwrap());
    let peer = SocketAddr::new(c.peer_addr, c.peer_port.unwrap());
    DroppedPacket {
        netns: NETNS,
        from: local,
        to: peer,
        packet,
        incoming: false,
        reason: "NETFILTER_DROP".into(),
        words: "this host's netfilter rules".into(),
        remedy: "nft list ruleset".into(),
        place: Some("nft_do_chain".into()),
        device: None,
        count,
        last_ns: T0 + SEC,
        came_by: 0,
        syn_seq: None,
        flags: match packet {
            Packet::Syn => 0x02,
            Packet::SynAck => 0x12,
            Packet::Ack => 0x10,
            Packet::Rst => 0x04,
        },
        called_port: None,
        invalid: None,
        seqs: vec![0],
    }
}

/// The listener on port 8080 with `accept_queue` of 128 connections waiting.
pub fn listener(accept_queue: u32, syn_queue: u32) -> Listener {
    Listener {
        netns_name: Some("host".into()),
        pid: Some(77),
        comm: Some("app".into()),
        syn_queue: Some(syn_queue),
        syn_queue_max: Some(128),
        accept_queue: Some(accept_queue),
        accept_queue_max: Some(128),
        ..Listener::at(NETNS, "0.0.0.0".parse().unwrap(), 8080)
    }
}

/// A context with three samples of the listener, between which the counters rose.
pub fn looked(listener: &Listener, overflows: u64, cookies: u64) -> Context {
    let mut context = Context::default();
    context.sees_drops = true;
    for n in 0..3 {
        let counters = ListenCounters {
            netns: NETNS,
            listen_overflows: Some(overflows * n / 2),
            syncookies_sent: Some(cookies * n / 2),
            ..ListenCounters::default()
        };
        context.sample(std::slice::from_ref(listener), &[counters]);
    }
    context
}

/// A problem of one half-open at a listener.
pub fn problem() -> Problem {
    Problem {
        rank: 1,
        verdict: Some(VerdictKind::AcceptQueueFull),
        confidence: Confidence::Likely,
        role: ProblemRole::Server,
        netns: 1,
        netns_name: None,
        local_addr: None,
        local_port: Some(80),
        peer_port: None,
        forward: None,
        pid: Some(1),
        comm: None,
        workload: Default::default(),
        handshakes: 1,
        open: 0,
        peers: Vec::new(),
        peers_more: 0,
        evidence: Vec::new(),
        remedy: None,
        effects: Vec::new(),
        life: Default::default(),
    }
}
