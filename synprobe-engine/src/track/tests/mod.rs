//! From records to lines, without a kernel: every record here has the shape of one that was seen.

use std::{cell::Cell, collections::HashMap, rc::Rc};

use synprobe_ebpf::event::{
    AF_INET, AF_INET6, ErrorRecord, Flow, Header, ResetRecord, RetransmitRecord, StateRecord,
    SynAckRecord, TRIGGER_PEER, TRIGGER_TIMER,
};

use super::*;
use crate::{
    filter::{PortSet, Selection},
    model::{
        DwellSource, Fate, HalfOpenRow, Handshake, HandshakeCounters, HandshakeSettings, Outcome,
        Peer, SocketDump, Trigger,
    },
    util::{addresses::mapped, table_bounds::TableBounds},
};

mod client_end;
mod early_resets;
mod evicted;
mod facts;
mod orphaned;
mod owners;
mod request_sock;
mod unreported;

const MS: u64 = 1_000_000;
const SEC: u64 = 1_000_000_000;
const NETNS: u32 = 4_026_531_833;
const T0: u64 = 1_000 * SEC;

/// A host whose counters the test sets.
#[derive(Clone, Default)]
struct Fake {
    cookies: Rc<Cell<u64>>,
    resets: Rc<Cell<u64>>,
    aborts: Rc<Cell<bool>>,
    now_ns: Rc<Cell<u64>>,
}

impl Fake {
    fn counters(&self) -> HandshakeCounters {
        HandshakeCounters {
            at_ns: self.now_ns.get(),
            embryonic_rsts: Some(self.resets.get()),
            syncookies_recv: Some(self.cookies.get()),
        }
    }

    fn settings(&self) -> HandshakeSettings {
        HandshakeSettings {
            syn_retries: Some(6),
            syn_linear_timeouts: Some(4),
            abort_on_overflow: Some(self.aborts.get().into()),
            syncookies: Some(4),
        }
    }
}

fn config() -> TrackConfig {
    let tables = TableBounds {
        peers: 1000,
        ..room_for(1000)
    };
    TrackConfig::fixture(tables, T0)
}

/// Few handshakes.
fn room_for(handshakes: usize) -> TableBounds {
    TableBounds {
        half_opens: handshakes,
        clients: handshakes,
        ..TableBounds::default()
    }
}

struct Bench {
    tracker: Tracker,
    host: Fake,
}

fn bench_with(config: TrackConfig) -> Bench {
    let host = Fake::default();
    Bench {
        tracker: Tracker::new(config),
        host,
    }
}

fn bench() -> Bench {
    bench_with(config())
}

impl Bench {
    /// What the shell says before an event or a dump of this namespace.
    fn host_says(&mut self, netns: u32) {
        self.tracker.set_netns_name(netns, Some("host".into()));
        self.tracker.set_settings(netns, self.host.settings());
        self.tracker.set_counters(netns, self.host.counters());
    }

    /// On a kernel that tells what a half-open makes of a packet.
    fn see(&mut self, event: Event) {
        let treatment = match &event {
            Event::Drop(r) if r.flags & facts::ACK != 0 && r.defer_accept != 0 => Treatment::Taken,
            Event::Drop(r) if r.flags & facts::ACK != 0 => {
                match r.ack_backlog > r.max_ack_backlog {
                    true => Treatment::Overflow,
                    false => Treatment::Ignored,
                }
            }
            _ => Treatment::Taken,
        };
        self.see_as(event, treatment);
    }

    fn see_as(&mut self, event: Event, treatment: Treatment) {
        let netns = event.flow().netns;
        // Only where the tracker asks for them are the counters new.
        let asks = self.tracker.needs_counters(&event);
        self.tracker.set_netns_name(netns, Some("host".into()));
        self.tracker.set_settings(netns, self.host.settings());
        if asks {
            self.tracker.set_counters(netns, self.host.counters());
        }
        self.tracker.observe(match event {
            Event::Drop(r) => Observation::Drop(r, treatment),
            event => Observation::Event(event),
        });
    }

    fn dump(&mut self, dumped: impl Into<Dumped>) {
        let dumped = dumped.into();
        let at_ns = dumped.dump.after_ns;
        self.tracker.poll_begins();
        self.take_in(dumped);
        self.tracker.poll_ends(at_ns);
    }

    fn take_in(&mut self, dumped: Dumped) {
        let Dumped { dump, fates } = dumped;
        self.host_says(dump.netns);
        let fates = Fates {
            asked_ns: dump.after_ns + MS,
            of: fates,
        };
        self.tracker
            .observe(Observation::Dump(Box::new(dump), fates));
    }

    fn lines(&mut self) -> Vec<Line> {
        self.tracker.take_lines()
    }

    fn handshakes(&mut self) -> Vec<Handshake> {
        handshakes(&self.lines())
    }

    fn one(&mut self) -> Handshake {
        let mut all = self.handshakes();
        assert_eq!(all.len(), 1, "{all:#?}");
        all.remove(0)
    }
}

fn handshakes(lines: &[Line]) -> Vec<Handshake> {
    let of = |line: &Line| match &line.body {
        Body::Handshake(h) => Some(h.as_ref().clone()),
        _ => None,
    };
    lines.iter().filter_map(of).collect()
}

fn states(lines: &[Line]) -> Vec<(&'static str, &'static str, u64, Option<u64>)> {
    let of = |line: &Line| match &line.body {
        Body::State(s) => Some((s.old.name(), s.new.name(), line.mono_ns, s.dwell_us)),
        _ => None,
    };
    lines.iter().filter_map(of).collect()
}

fn flow(local: &str, local_port: u16, peer: &str, peer_port: u16) -> Flow {
    Flow {
        local_addr: mapped(local.parse().unwrap()),
        peer_addr: mapped(peer.parse().unwrap()),
        local_port,
        peer_port,
        family: if peer.contains(':') {
            AF_INET6
        } else {
            AF_INET
        },
        netns: NETNS,
        ..Flow::default()
    }
}

fn server_flow() -> Flow {
    flow("10.0.0.1", 8080, "10.0.0.5", 40000)
}

fn client_flow(port: u16) -> Flow {
    flow("10.0.0.5", port, "10.0.0.1", 8080)
}

fn header(at: u64) -> Header {
    Header {
        ts_ns: at,
        ..Header::default()
    }
}

fn state(
    at: u64,
    sock: u64,
    flow: Flow,
    old: u8,
    new: u8,
    fill: impl FnOnce(&mut StateRecord),
) -> Event {
    let mut r = StateRecord {
        header: header(at),
        flow,
        sock,
        old,
        new,
        ..StateRecord::default()
    };
    fill(&mut r);
    Event::State(
        r,
        TcpState::from_kernel(old).unwrap(),
        TcpState::from_kernel(new).unwrap(),
    )
}

fn connect(at: u64, sock: u64) -> Event {
    state(at, sock, client_flow(0), 7, 2, |r| {
        r.tgid = 77;
        r.comm[..4].copy_from_slice(b"curl");
    })
}

fn syn_retransmitted(at: u64, sock: u64, n: u8, rto_jiffies: u32) -> Event {
    let r = RetransmitRecord {
        header: header(at),
        flow: client_flow(50000),
        sock,
        segs: 1,
        state: 2,
        retransmits: n,
        total_retrans: n.into(),
        rto_jiffies,
        sysctl_syn_retries: 6,
        sysctl_syn_linear: 4,
        ..RetransmitRecord::default()
    };
    Event::Retransmit(r, TcpState::SynSent)
}

fn synack_retransmitted(
    at: u64,
    first: u64,
    num_timeout: u8,
    num_retrans: u8,
    by_peer: bool,
) -> Event {
    let r = SynAckRecord {
        header: header(at),
        flow: server_flow(),
        req: 0xbeef,
        sock: 0xfeed,
        snt_synack_us: first / 1000,
        timeout_jiffies: 250,
        qlen: 1,
        young: 1,
        max_ack_backlog: 128,
        trigger: if by_peer { TRIGGER_PEER } else { TRIGGER_TIMER },
        num_timeout,
        num_retrans,
        sysctl_synack_retries: 5,
        sock_state: 10,
        ..SynAckRecord::default()
    };
    Event::SynAck(
        r,
        if by_peer {
            Trigger::Peer
        } else {
            Trigger::Timer
        },
    )
}

fn accepted(at: u64, sock: u64, srtt_us: u32, total_retrans: u32) -> [Event; 2] {
    [
        state(at - 20_000, sock, server_flow(), 10, 3, |_| ()),
        state(at, sock, server_flow(), 3, 1, |r| {
            r.srtt_us = srtt_us;
            r.total_retrans = total_retrans;
        }),
    ]
}

fn row(retrans: u8, expires_ms: u32) -> HalfOpenRow {
    HalfOpenRow {
        tuple: Tuple::from(&server_flow()),
        family: AF_INET,
        retrans,
        expires_ms,
    }
}

/// A dump, and what became of those that it does not show.
struct Dumped {
    dump: SocketDump,
    fates: Vec<(Tuple, Fate)>,
}

impl From<SocketDump> for Dumped {
    fn from(dump: SocketDump) -> Self {
        Self {
            dump,
            fates: Vec::new(),
        }
    }
}

fn snapshot_at(at: u64, rows: Vec<HalfOpenRow>, resets: u64) -> SocketDump {
    SocketDump {
        netns: NETNS,
        before_ns: at,
        after_ns: at + MS,
        rows,
        embryonic_rsts: Some(resets),
        synack_retries: Some(5),
        ..SocketDump::default()
    }
}

fn gone_at(at: u64, resets: u64) -> Dumped {
    Dumped {
        dump: snapshot_at(at, Vec::new(), resets),
        fates: vec![(Tuple::from(&server_flow()), Fate::Gone)],
    }
}

fn listening(b: &mut Bench) {
    let listener = flow("0.0.0.0", 8080, "0.0.0.0", 0);
    b.see(state(T0 - SEC, 0xfeed, listener, 7, 10, |r| {
        r.tgid = 99;
        r.comm[..5].copy_from_slice(b"nginx");
    }));
}

#[test]
fn a_passive_open_is_timed_by_its_own_first_sample_and_never_by_the_child() {
    let mut b = bench();
    listening(&mut b);
    for event in accepted(T0, 0xc0, 20_100 * 8, 0) {
        b.see(event);
    }
    let lines = b.lines();
    let began = T0 - 20_100_000;
    assert_eq!(
        states(&lines),
        [
            ("LISTEN", "SYN_RECV", began, None),
            ("SYN_RECV", "ESTABLISHED", T0, Some(20_100))
        ]
    );
    let h = handshakes(&lines).remove(0);
    assert_eq!(
        (h.outcome, h.dwell_us),
        (Outcome::Established, Some(20_100))
    );
    assert_eq!(
        (h.dwell_source, h.dwell_error_us),
        (Some(DwellSource::RttSample), None)
    );
    assert_eq!(
        (h.connection.pid, h.connection.comm.as_deref()),
        (Some(99), Some("nginx"))
    );
}

#[test]
fn with_retransmissions_the_first_syn_ack_is_the_request_s_own_word() {
    let mut b = bench();
    b.see(synack_retransmitted(T0 + 1_010 * MS, T0, 0, 0, false));
    b.see(synack_retransmitted(T0 + 1_011 * MS, T0, 1, 1, true));
    b.see(synack_retransmitted(T0 + 3_040 * MS, T0, 1, 2, false));
    // The sample counts from whichever SYN-ACK the client echoes: 1 ms here, and worthless.
    for event in accepted(T0 + 3_060 * MS, 0xc0, 8000, 3) {
        b.see(event);
    }
    let lines = b.lines();
    let h = handshakes(&lines).remove(0);
    assert_eq!(
        (h.dwell_us, h.dwell_source),
        (Some(3_060_000), Some(DwellSource::RequestSock))
    );
    assert_eq!((h.retransmits, h.retransmits_by_peer), (3, 1));
    assert_eq!(h.gaps_us, [1_010_000, 1_000, 2_029_000]);
    assert_eq!(states(&lines)[0], ("LISTEN", "SYN_RECV", T0, None));
    let said: Vec<_> = lines
        .iter()
        .filter_map(|line| match &line.body {
            Body::Retransmit(r) => Some((
                r.attempt,
                r.trigger,
                r.expected_gap_us,
                r.next_us,
                r.gives_up_us,
            )),
            _ => None,
        })
        .collect();
    let s = |n: u64| Some(n * 1_000_000);
    assert_eq!(
        said,
        [
            (Some(1), Some(Trigger::Timer), s(1), s(2), s(62)),
            (Some(2), Some(Trigger::Peer), None, s(2), s(62)),
            (Some(3), Some(Trigger::Timer), s(2), s(4), s(60)),
        ]
    );
}

#[test]
fn a_port_used_again_is_another_handshake() {
    let mut b = bench();
    listening(&mut b);
    b.dump(snapshot_at(T0, Vec::new(), 0));
    b.see(synack_retransmitted(T0 + 1_010 * MS, T0, 0, 0, false));
    b.host.resets.set(1);
    let second = T0 + 1_500 * MS;
    b.see(synack_retransmitted(
        second + 1_010 * MS,
        second,
        0,
        0,
        false,
    ));
    let first = b.one();
    assert_eq!((first.outcome, first.retransmits), (Outcome::Reset, 1));
    assert_eq!(
        first.dwell_us,
        Some(1_500_000),
        "at most until the next one began"
    );
    assert_eq!(
        first.dwell_error_us,
        Some(490_000),
        "at least until it was last seen"
    );
    for event in accepted(second + 2_000 * MS, 0xc0, 8000, 1) {
        b.see(event);
    }
    let h = b.one();
    assert_ne!(h.connection.id, first.connection.id);
    assert_eq!(
        (h.outcome, h.dwell_us),
        (Outcome::Established, Some(2_000_000))
    );
}

#[test]
fn without_a_stash_the_child_s_own_rto_time_serves() {
    let mut b = bench();
    b.see(state(T0, 0xc0, server_flow(), 3, 1, |r| {
        r.total_retrans = 2;
        r.total_rto_time_ms = 3_029;
        r.srtt_us = 8000;
    }));
    let h = b.one();
    assert_eq!(
        (h.dwell_us, h.dwell_error_us),
        (Some(3_029_000), Some(1000))
    );
    assert_eq!(
        (h.dwell_source, h.retransmits),
        (Some(DwellSource::RequestSock), 2)
    );
}

#[test]
fn a_syn_cookie_has_no_dwell() {
    let mut b = bench();
    b.host.now_ns.set(T0 + SEC);
    b.host.cookies.set(16);
    for event in accepted(T0, 0xc0, 101_000 * 8, 0) {
        b.see(event);
    }
    let h = b.one();
    assert_eq!(
        (h.outcome, h.dwell_us, h.dwell_source),
        (Outcome::Established, None, None)
    );
    assert!(h.evidence[0].fact.contains("SYN cookie"));
}

#[test]
fn whole_milliseconds_are_believed_where_no_cookie_came() {
    let mut b = bench();
    for event in accepted(T0, 0xc0, 101_000 * 8, 0) {
        b.see(event);
    }
    assert_eq!(b.one().dwell_us, Some(101_000));
    // Once the counter has moved, connections up to that moment are doubtful, later ones are not.
    b.host.now_ns.set(T0 + 10 * SEC);
    b.host.cookies.set(1);
    for (at, known) in [
        (T0 + 9 * SEC, false),
        (T0 + 10 * SEC, false),
        (T0 + 11 * SEC, true),
    ] {
        for event in accepted(at, 0xc1, 5_000 * 8, 0) {
            b.see(event);
        }
        assert_eq!(b.one().dwell_us.is_some(), known, "at {at}");
    }
}

#[test]
fn an_active_open_has_its_caller_and_its_ladder() {
    let mut b = bench();
    b.see(connect(T0, 0xa));
    b.see(syn_retransmitted(T0 + 1_012 * MS, 0xa, 1, 250));
    b.see(syn_retransmitted(T0 + 2_030 * MS, 0xa, 2, 250));
    b.see(state(T0 + 2_040 * MS, 0xa, client_flow(50000), 2, 1, |r| {
        r.total_retrans = 2
    }));
    let lines = b.lines();
    assert_eq!(states(&lines)[0], ("CLOSE", "SYN_SENT", T0, None));
    let h = handshakes(&lines).remove(0);
    assert_eq!(
        (h.dwell_us, h.dwell_source),
        (Some(2_040_000), Some(DwellSource::Events))
    );
    assert_eq!((h.retransmits, h.gaps_us), (2, vec![1_012_000, 1_018_000]));
    assert_eq!(
        (h.connection.pid, h.connection.comm.as_deref()),
        (Some(77), Some("curl"))
    );
    assert_eq!(h.connection.local_port, Some(50000));
}

#[test]
fn a_syn_sent_late_is_timed_by_its_sample() {
    // TCP_FASTOPEN_CONNECT: SYN_SENT at connect(), the SYN with the first write 300 ms later.
    let mut b = bench();
    b.see(connect(T0, 0xa));
    b.see(state(T0 + 300 * MS, 0xa, client_flow(50000), 2, 1, |r| {
        r.srtt_us = 100 * 8
    }));
    let h = b.one();
    assert_eq!(
        (h.dwell_us, h.dwell_source),
        (Some(100), Some(DwellSource::RttSample))
    );
}

#[test]
fn sk_err_tells_how_an_active_open_ended() {
    let rows: [(i32, u32, bool, Outcome, Option<&str>); 9] = [
        (
            libc::ECONNREFUSED,
            0,
            true,
            Outcome::Refused,
            Some("ECONNREFUSED"),
        ),
        (
            libc::ECONNREFUSED,
            0,
            false,
            Outcome::Unreachable,
            Some("ECONNREFUSED"),
        ),
        (
            libc::ETIMEDOUT,
            0,
            false,
            Outcome::TimedOut,
            Some("ETIMEDOUT"),
        ),
        (
            libc::EHOSTUNREACH,
            0,
            false,
            Outcome::Unreachable,
            Some("EHOSTUNREACH"),
        ),
        (
            libc::ENETUNREACH,
            0,
            false,
            Outcome::Unreachable,
            Some("ENETUNREACH"),
        ),
        (
            libc::ENOPROTOOPT,
            0,
            false,
            Outcome::Unreachable,
            Some("ENOPROTOOPT"),
        ),
        (
            libc::ECONNABORTED,
            0,
            false,
            Outcome::Abandoned,
            Some("ECONNABORTED"),
        ),
        (0, 0, false, Outcome::Abandoned, None),
        (
            0,
            libc::EHOSTUNREACH as u32,
            false,
            Outcome::Abandoned,
            Some("EHOSTUNREACH"),
        ),
    ];
    for (sk_err, soft, reset, outcome, error) in rows {
        let mut b = bench();
        b.see(connect(T0, 0xa));
        if reset {
            let r = ResetRecord {
                header: header(T0 + MS),
                flow: client_flow(50000),
                sock: 0xa,
                state: 2,
                ..ResetRecord::default()
            };
            b.see(Event::Reset(r, TcpState::SynSent));
        }
        b.see(state(T0 + MS, 0xa, client_flow(50000), 2, 7, |r| {
            r.sk_err = sk_err as u32;
            r.sk_err_soft = soft;
        }));
        let h = b.one();
        assert_eq!(
            (h.outcome, h.error.as_deref()),
            (outcome, error),
            "sk_err {sk_err}, soft {soft}"
        );
        assert_eq!(h.dwell_us, Some(1000));
    }
}

#[test]
fn an_icmp_error_that_the_application_took_is_why_it_closed() {
    // (after the error) → outcome
    for (after, outcome) in [(MS, Outcome::Unreachable), (5 * SEC, Outcome::Abandoned)] {
        let mut b = bench();
        b.see(connect(T0, 0xa));
        let r = ErrorRecord {
            header: header(T0 + MS),
            flow: client_flow(50000),
            sock: 0xa,
            sk_err_soft: libc::ENETUNREACH as u32,
            state: 2,
            ..ErrorRecord::default()
        };
        b.see(Event::Error(r, TcpState::SynSent));
        b.see(state(T0 + MS + after, 0xa, client_flow(50000), 2, 7, |r| {
            r.sk_err_soft = libc::ENETUNREACH as u32;
        }));
        let h = b.one();
        assert_eq!(
            (h.outcome, h.error.as_deref()),
            (outcome, Some("ENETUNREACH"))
        );
    }
}

/// While connect() holds the socket, the kernel reports the error before it has a number.
#[test]
fn an_icmp_error_without_a_number_is_why_it_closed_too() {
    for (after, outcome) in [(MS, Outcome::Unreachable), (5 * SEC, Outcome::Abandoned)] {
        let mut b = bench();
        let r = ErrorRecord {
            header: header(T0 + 20_000),
            flow: client_flow(50000),
            sock: 0xa,
            state: 2,
            ..ErrorRecord::default()
        };
        b.see(connect(T0, 0xa));
        b.see(Event::Error(r, TcpState::SynSent));
        b.see(state(
            T0 + 20_000 + after,
            0xa,
            client_flow(50000),
            2,
            7,
            |_| (),
        ));
        let h = b.one();
        assert_eq!((h.outcome, h.error), (outcome, None));
        assert_eq!(h.facts.soft_error, None);
    }
}

#[test]
fn without_a_local_port_no_syn_was_sent() {
    let mut b = bench();
    b.see(connect(T0, 0xa));
    b.see(state(T0 + 30_000, 0xa, client_flow(0), 2, 7, |_| ()));
    let h = b.one();
    assert_eq!(
        (h.outcome, h.error.as_deref()),
        (Outcome::Unreachable, Some("EADDRNOTAVAIL"))
    );
}

#[test]
fn one_that_was_there_before_is_timed_by_its_socket() {
    let mut b = bench();
    let mut event = syn_retransmitted(T0, 0xa, 3, 250);
    if let Event::Retransmit(r, _) = &mut event {
        r.retrans_stamp_ms = ((T0 - 3_050 * MS) / MS) as u32;
    }
    b.see(event);
    b.see(state(T0 + MS, 0xa, client_flow(50000), 2, 1, |r| {
        r.total_retrans = 3
    }));
    let h = b.one();
    assert_eq!(
        (h.dwell_us, h.dwell_error_us),
        (Some(3_051_000), Some(1000))
    );
    assert_eq!(
        (h.dwell_source, h.retransmits),
        (Some(DwellSource::SockDiag), 3)
    );
}

#[test]
fn an_address_used_again_at_once_is_another_handshake() {
    let mut b = bench();
    b.see(connect(T0, 0xa));
    b.see(connect(T0 + SEC, 0xa));
    b.see(state(T0 + SEC + MS, 0xa, client_flow(50000), 2, 1, |r| {
        r.srtt_us = 8 * 900
    }));
    let all = b.handshakes();
    assert_eq!(all.len(), 2);
    assert_eq!(
        (all[0].outcome, all[1].outcome),
        (Outcome::Open, Outcome::Established)
    );
    assert_ne!(all[0].connection.id, all[1].connection.id);
    assert_eq!(all[1].dwell_us, Some(900));
}

#[test]
fn half_opens_that_were_there_before_are_found_and_bounded() {
    let mut b = bench();
    b.dump(snapshot_at(T0, vec![row(0, 400)], 0));
    let lines = b.lines();
    assert_eq!(states(&lines).len(), 1, "600 ms old: worth a line");
    assert_eq!(states(&lines)[0].2, T0 + MS - 600 * MS);
    // Its next SYN-ACK tells the truth.
    b.see(synack_retransmitted(
        T0 + 401 * MS,
        T0 - 598 * MS,
        0,
        0,
        false,
    ));
    for event in accepted(T0 + 500 * MS, 0xc0, 8, 1) {
        b.see(event);
    }
    let h = b.one();
    assert_eq!((h.dwell_us, h.dwell_error_us), (Some(1_098_000), None));
    assert_eq!(h.dwell_source, Some(DwellSource::RequestSock));
}

/// Measured on 6.18 with a client that repeats its SYN (tcp_syn_linear_timeouts = 4): age, SYN-ACKs, timer.
#[test]
fn syn_acks_that_the_peer_caused_are_no_time_outs() {
    for (age_us, retrans, left_ms) in [
        (5_000_000, 5, 1_316),
        (14_000_000, 10, 5_592),
        (24_000_000, 12, 11_000),
        (59_000_000, 14, 8_784),
    ] {
        let mut b = bench();
        b.dump(snapshot_at(T0, vec![row(retrans, left_ms)], 0));
        let open: Vec<_> = b.tracker.under_way().collect();
        b.tracker.finish(T0 + MS);
        let h = b.one();
        let by_peer = u32::from(retrans).saturating_sub(5);
        assert_eq!(h.retransmits_by_peer, by_peer, "{retrans} SYN-ACKs");
        match h.dwell_us {
            Some(us) => {
                let error_us = h.dwell_error_us.unwrap_or(0);
                assert!(
                    us.abs_diff(age_us) <= error_us && error_us <= us / 2,
                    "{h:?}"
                );
                assert!(open[0].began_ns.is_some());
            }
            None => {
                let least = h.dwell_at_least_us.unwrap();
                assert!(least <= age_us && least >= age_us / 4, "{h:?}");
                assert_eq!((h.dwell_source, h.dwell_error_us), (None, None));
                assert_eq!(open[0].began_ns, None);
            }
        }
    }
}

/// No event names the caller of an active open that is older than the run.
#[test]
fn the_socket_names_the_caller_of_an_older_active_open() {
    let tuple = Tuple::from(&client_flow(5000));
    let caller = crate::model::ClientOwner {
        tuple,
        process: crate::model::Process {
            pid: 42,
            comm: "curl".into(),
        },
        cgroup: Some("/app".into()),
    };
    let names = std::sync::Arc::new(crate::model::WorkloadNames {
        unit: Some("app.service".into()),
        ..Default::default()
    });
    let syn_sent = HalfOpenRow {
        tuple,
        ..row(2, 500)
    };
    let dump = || SocketDump {
        syn_sent: Some(vec![syn_sent]),
        is_first: true,
        ..snapshot_at(T0, Vec::new(), 0)
    };
    // The search may end before the dump is taken in, or after it.
    for before in [true, false] {
        let mut b = bench();
        let workload = crate::model::Workload(Some(names.clone()));
        b.tracker
            .set_workload(Some("/app".into()), None, workload.clone());
        if before {
            b.tracker.set_callers(vec![caller.clone()]);
        }
        b.dump(dump());
        if !before {
            b.tracker.set_callers(vec![caller.clone()]);
        }
        b.tracker.finish(T0 + SEC);
        let c = b.one().connection;
        assert_eq!((c.pid, c.comm.as_deref()), (Some(42), Some("curl")));
        assert_eq!((c.cgroup.as_deref(), c.workload), (Some("/app"), workload));
    }
}

/// By its timer alone every time-out is known, and so is the age.
#[test]
fn the_timer_alone_shows_the_age() {
    let mut b = bench();
    b.dump(snapshot_at(T0, vec![row(5, 20_000)], 0));
    b.tracker.finish(T0 + MS);
    let h = b.one();
    let (us, error_us) = (h.dwell_us.unwrap(), h.dwell_error_us.unwrap());
    assert!(
        us.abs_diff(43_000_000) <= error_us && error_us < 5_000_000,
        "{us} ± {error_us}"
    );
}

#[test]
fn a_healthy_one_seen_in_passing_is_no_line() {
    let mut b = bench();
    b.dump(snapshot_at(T0, vec![row(0, 990)], 0));
    assert!(b.lines().is_empty());
    for event in accepted(T0 + 20 * MS, 0xc0, 31_000 * 8, 0) {
        b.see(event);
    }
    assert_eq!(b.one().dwell_us, Some(31_000));
}

#[test]
fn a_row_read_just_before_its_end_does_not_come_back() {
    let mut b = bench();
    b.see(synack_retransmitted(T0, T0 - SEC, 0, 0, false));
    b.tracker.poll_begins();
    for event in accepted(T0 + 10 * MS, 0xc0, 8, 1) {
        b.see(event);
    }
    b.take_in(snapshot_at(T0 + 9 * MS, vec![row(1, 1000)], 0).into());
    b.tracker.poll_ends(T0 + 10 * MS);
    assert_eq!(b.handshakes().len(), 1);
    assert_eq!(b.tracker.open(), 0);
}

#[test]
fn ends_without_an_event_are_told_apart() {
    // (listener, last SYN-ACK at, resets, looked at) → outcome
    let rows = [
        (true, 1, 1, T0 + 2 * SEC, Outcome::Reset),
        (true, 1, 0, T0 + 2 * SEC, Outcome::Dropped),
        (false, 1, 0, T0 + 2 * SEC, Outcome::Dropped),
        (true, 6, 0, T0 + 64 * SEC, Outcome::Expired),
        (true, 6, 1, T0 + 64 * SEC, Outcome::Expired),
    ];
    for (listener, timeouts, resets, looked, outcome) in rows {
        let mut b = bench();
        if listener {
            listening(&mut b);
        }
        b.dump(snapshot_at(T0, Vec::new(), 0));
        let mut at = T0;
        for n in 0..timeouts.min(5) {
            at += (1 << n) * SEC;
            b.see(synack_retransmitted(
                at + 5 * MS,
                T0,
                n as u8,
                n as u8,
                false,
            ));
        }
        b.host.resets.set(resets);
        b.dump(gone_at(looked, resets));
        let h = b.one();
        assert_eq!(
            h.outcome, outcome,
            "listener {listener}, {resets} resets, {timeouts} time-outs"
        );
        assert_eq!(h.dwell_source, Some(DwellSource::SockDiag));
        let end = looked + 2 * MS;
        let bound = h.dwell_error_us.unwrap() * 1000;
        assert!(
            end - bound >= at,
            "the bound reaches back to the last sighting at the most"
        );
        assert_eq!(h.evidence.len(), 1);
    }
}

#[test]
fn one_whose_tuple_is_used_again_had_ended_by_then() {
    let mut b = bench();
    listening(&mut b);
    b.dump(snapshot_at(T0, Vec::new(), 0));
    let mut at = T0;
    for n in 0..5 {
        at += (1 << n) * SEC;
        b.see(synack_retransmitted(at, T0, n, n, false));
    }
    // It expires after 63 s; the peer's next SYN comes 200 ms later, the look 700 ms after that.
    let again = T0 + 63 * SEC + 200 * MS;
    b.dump(snapshot_at(again + 699 * MS, vec![row(0, 300)], 0));
    let lines = b.lines();
    let ended = &handshakes(&lines)[0];
    assert_eq!(ended.outcome, Outcome::Expired);
    let (dwell_us, error_us) = (ended.dwell_us.unwrap(), ended.dwell_error_us.unwrap());
    assert!(
        (63_000_000..=63_210_000).contains(&dwell_us) && dwell_us - error_us <= 63_000_000,
        "{dwell_us} ± {error_us}"
    );
    let begun = states(&lines).pop().unwrap();
    assert_eq!((begun.0, begun.1, begun.2), ("LISTEN", "SYN_RECV", again));
    assert_eq!(b.tracker.open(), 1);
}

#[test]
fn what_began_after_the_look_up_is_not_gone() {
    let mut b = bench();
    b.see(synack_retransmitted(T0, T0 - SEC, 0, 0, false));
    let dump = gone_at(T0 - 10 * MS, 0);
    b.dump(dump);
    assert!(b.handshakes().is_empty());
    assert_eq!(b.tracker.open(), 1);
}

#[test]
fn a_lost_end_is_found_connected() {
    let mut b = bench();
    b.see(synack_retransmitted(T0, T0 - SEC, 0, 0, false));
    let mut dump = gone_at(T0 + SEC, 0);
    dump.fates[0].1 = Fate::Connected;
    b.dump(dump);
    let h = b.one();
    assert_eq!(
        (h.outcome, h.dwell_error_us),
        (Outcome::Established, Some(1_002_000))
    );
}

#[test]
fn a_child_that_was_never_one_is_no_handshake() {
    let mut b = bench();
    b.see(synack_retransmitted(T0, T0 - SEC, 0, 0, false));
    b.see(state(T0 + 10 * MS, 0xc0, server_flow(), 10, 3, |_| ()));
    b.see(state(
        T0 + 10 * MS + 20_000,
        0xc0,
        server_flow(),
        3,
        7,
        |_| (),
    ));
    assert!(b.handshakes().is_empty());
    assert_eq!(b.tracker.open(), 1, "the half-open goes on");
}

#[test]
fn fast_open_and_simultaneous_open() {
    let mut b = bench();
    // Fast Open: the child is there from the SYN on, and is killed by a RST.
    b.see(state(T0, 0xc0, server_flow(), 10, 3, |_| ()));
    b.see(state(T0 + 40 * MS, 0xc0, server_flow(), 3, 7, |r| {
        r.sk_err = libc::ECONNRESET as u32
    }));
    let h = b.one();
    assert_eq!((h.outcome, h.dwell_us), (Outcome::Reset, Some(40_000)));
    assert_eq!(h.connection.role, Role::Server);
    // Simultaneous: one handshake, ours to lead.
    b.see(connect(T0, 0xa));
    b.see(state(T0 + MS, 0xa, client_flow(50000), 2, 3, |_| ()));
    b.see(state(T0 + 2 * MS, 0xa, client_flow(50000), 3, 1, |_| ()));
    let lines = b.lines();
    let names: Vec<_> = states(&lines).iter().map(|s| (s.0, s.1)).collect();
    assert_eq!(
        names,
        [
            ("CLOSE", "SYN_SENT"),
            ("SYN_SENT", "SYN_RECV"),
            ("SYN_RECV", "ESTABLISHED")
        ]
    );
    let h = handshakes(&lines).remove(0);
    assert_eq!((h.connection.role, h.dwell_us), (Role::Client, Some(2000)));
}

#[test]
fn the_table_is_bounded_and_says_so() {
    let mut b = bench_with(TrackConfig {
        tables: room_for(10),
        ..config()
    });
    for sock in 0..25 {
        b.see(connect(T0 + sock, sock));
    }
    assert_eq!(b.tracker.open(), 10);
    let evicted = b.handshakes();
    assert_eq!((evicted.len(), b.tracker.totals().evicted), (15, 15));
    assert!(evicted.iter().all(|h| h.outcome == Outcome::Open));
    assert!(evicted[0].evidence[0].fact.contains("--max-handshakes"));
    b.tracker.finish(T0 + SEC);
    assert_eq!(b.handshakes().len(), 10);
}

#[test]
fn an_undecided_local_port_is_held_back() {
    let local_ports: PortSet = "50000".parse().unwrap();
    let selection = Selection {
        local_ports,
        ..Selection::default()
    };
    let mut b = bench_with(TrackConfig {
        selection,
        ..config()
    });
    b.see(connect(T0, 0xa));
    b.see(connect(T0, 0xb));
    assert!(b.lines().is_empty());
    b.see(state(T0 + MS, 0xa, client_flow(50000), 2, 1, |r| {
        r.srtt_us = 8 * 900
    }));
    b.see(state(T0 + MS, 0xb, client_flow(50001), 2, 1, |r| {
        r.srtt_us = 8 * 900
    }));
    let lines = b.lines();
    assert_eq!(states(&lines).len(), 2);
    assert_eq!(handshakes(&lines).len(), 1);
}

#[test]
fn peers_are_sorted_by_trouble() {
    let mut b = bench();
    let good = flow("10.0.0.5", 0, "10.0.0.9", 443);
    b.see(state(T0, 1, good, 7, 2, |_| ()));
    b.see(state(
        T0 + MS,
        1,
        Flow {
            local_port: 50001,
            ..good
        },
        2,
        1,
        |r| r.srtt_us = 8 * 900,
    ));
    b.see(connect(T0, 2));
    b.see(syn_retransmitted(T0 + SEC, 2, 1, 250));
    b.see(state(T0 + 2 * SEC, 2, client_flow(50000), 2, 7, |r| {
        r.sk_err = libc::ETIMEDOUT as u32
    }));
    b.tracker.finish(T0 + 3 * SEC);
    let peers: Vec<Peer> = b
        .lines()
        .into_iter()
        .filter_map(|line| match line.body {
            Body::Peer(p) => Some(*p),
            _ => None,
        })
        .collect();
    assert_eq!(peers.len(), 2);
    assert_eq!(
        (
            peers[0].failed,
            peers[0].syn_retransmits,
            peers[0].dwell_max_us
        ),
        (1, 1, Some(2_000_000))
    );
    assert_eq!(
        (peers[1].established, peers[1].dwell_p50_us),
        (1, Some(900))
    );
}

/// Whatever comes, in whatever order: one `handshake` line for an id at the most, and exactly one once
/// the run is over.
#[test]
fn every_handshake_has_exactly_one_line() {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    for _ in 0..200 {
        let mut b = bench_with(TrackConfig {
            tables: room_for(6),
            ..config()
        });
        let mut at = T0;
        for _ in 0..200 {
            at += random(2 * SEC);
            let sock = random(4);
            match random(9) {
                0 => b.see(connect(at, sock)),
                1 => b.see(syn_retransmitted(at, sock, 1 + random(5) as u8, 250)),
                2 => b.see(state(at, sock, client_flow(50000), 2, 1, |r| {
                    r.srtt_us = 800
                })),
                3 => b.see(state(at, sock, client_flow(50000), 2, 7, |_| ())),
                4 => b.see(state(at, sock, client_flow(50000), 2, 3, |_| ())),
                5 => b.see(synack_retransmitted(
                    at,
                    at - random(3 * SEC),
                    0,
                    random(3) as u8,
                    random(2) == 0,
                )),
                6 => accepted(at, sock, random(100_000) as u32, random(2) as u32)
                    .into_iter()
                    .for_each(|event| b.see(event)),
                7 => b.dump(snapshot_at(
                    at,
                    vec![row(random(3) as u8, random(1000) as u32)],
                    0,
                )),
                _ => b.dump(gone_at(at, random(2))),
            }
        }
        b.tracker.finish(at);
        let lines = b.lines();
        let mut ends: HashMap<u64, u32> = HashMap::new();
        for h in handshakes(&lines) {
            *ends.entry(h.connection.id).or_default() += 1;
        }
        assert!(ends.values().all(|n| *n == 1), "{ends:?}");
        let begun = lines
            .iter()
            .filter_map(|line| match &line.body {
                Body::State(s) if s.new.is_handshake() => Some(s.connection.id),
                _ => None,
            })
            .collect::<std::collections::HashSet<_>>();
        assert!(
            begun.iter().all(|id| ends.contains_key(id)),
            "begun and never ended"
        );
    }
}

#[test]
fn a_socket_that_a_connection_outside_the_selection_uses_again_ends_the_handshake() {
    let selection = Selection {
        peers: vec!["10.0.0.0/24".parse().unwrap()],
        ..Selection::default()
    };
    let mut b = bench_with(TrackConfig {
        selection,
        ..config()
    });
    b.see(connect(T0, 1));
    let other = flow("10.0.0.5", 50_000, "192.0.2.1", 8080);
    b.see(state(T0 + SEC, 1, other, 2, 7, |_| ()));
    let h = b.one();
    assert_eq!(h.open_reason, Some(OpenReason::EndNotSeen));
    b.tracker.finish(T0 + 2 * SEC);
    assert!(b.handshakes().is_empty());
}
