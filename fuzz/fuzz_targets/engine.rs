//! Any sequence of inputs goes through the engine and every view, and what docs/events.md promises holds:
//! one line for each handshake, sums that add up, nothing certain after a loss, bounded tables.
//!
//! Two engines take the same inputs. The second takes them as a recording gives them back, is asked for no
//! questions, and is looked at in between: both give the same lines, as a run and its replay do.
//!
//! The first three bytes choose the run. Then each input is a byte for its kind, one for the time that has
//! passed, and those that choose its values. The values are few, so that they meet.

#![no_main]

use std::{
    collections::{BTreeMap, HashSet},
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, LazyLock},
    time::Duration,
};

use libfuzzer_sys::fuzz_target;
use synprobe::{
    decode::{Event, Moment},
    engine::{DropMeaning, Engine, Input, RunConfig},
    filter::Selection,
    model::{
        AcceptCounts, AcceptReading, Body, Confidence, Counted, Detail, Fate, HalfOpenRow,
        HalfOpenSource, HandshakeCounters, HandshakeSettings, LaterCounters, Line, ListenCounters,
        Listener, ListenerOwner, Missed, OpenReason, Outcome, PathQuestion, Process, RetransCounts,
        RetransReading, ReturnPath, Role, SocketDump, Start, TcpState, Trigger, Tuple, WallClock,
    },
    recording::inputs::{Decoded, InputDecoder, encode},
    track::{Fates, TrackConfig},
    util::{addresses::mapped, table_bounds::TableBounds},
    verdict::Mode,
    view::{JsonView, Page, PageCounts, Style, TextOptions, TextView, View},
};
use synprobe_ebpf::event::*;

const MS: u64 = 1_000_000;
const SEC: u64 = 1_000 * MS;
/// What passes between two inputs, nanoseconds.
const STEPS: [u64; 16] = [
    0,
    0,
    0,
    1_000,
    60_000,
    MS,
    30 * MS,
    260 * MS,
    500 * MS,
    SEC,
    SEC + 4 * MS,
    3 * SEC,
    7 * SEC,
    15 * SEC,
    63 * SEC,
    130 * SEC,
];

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or(0)
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.byte()) % of.len()]
    }

    fn is(&mut self) -> bool {
        self.byte() & 1 != 0
    }

    fn maybe(&mut self) -> Option<u64> {
        self.pick(&[None, Some(0), Some(1), Some(2), Some(5), Some(1000)])
    }
}

static LOCALS: LazyLock<[[u8; 16]; 4]> =
    LazyLock::new(|| ["10.0.0.1", "10.0.0.2", "fd00::1", "::"].map(address));
static PEERS: LazyLock<[[u8; 16]; 6]> = LazyLock::new(|| {
    [
        "10.0.0.2",
        "10.0.1.3",
        "10.0.1.4",
        "192.0.2.9",
        "fd00::2",
        "127.0.0.1",
    ]
    .map(address)
});
static SELECTIONS: LazyLock<Vec<Selection>> = LazyLock::new(|| {
    let whole = Selection::default;
    vec![
        whole(),
        whole(),
        Selection {
            netns: Some([1, 2]),
            ..whole()
        },
        Selection {
            local_ports: "80".parse().unwrap(),
            ..whole()
        },
        Selection {
            ports: "80,40000".parse().unwrap(),
            ..whole()
        },
        Selection {
            role: Some(Role::Server),
            ..whole()
        },
        Selection {
            role: Some(Role::Client),
            ..whole()
        },
        Selection {
            peers: vec!["10.0.1.0/24".parse().unwrap()],
            ..whole()
        },
    ]
});

fn address(text: &str) -> [u8; 16] {
    mapped(text.parse().unwrap())
}

/// The run, and what is known of it beside the engine.
struct Made<'a> {
    bytes: Bytes<'a>,
    now_ns: u64,
    /// Records and losses that the kernel side would have counted.
    produced: u64,
}

impl Made<'_> {
    fn flow(&mut self) -> Flow {
        let b = &mut self.bytes;
        let ends = b.byte();
        let ports = b.byte();
        Flow {
            local_addr: LOCALS[usize::from(ends & 3)],
            peer_addr: PEERS[usize::from(ends >> 2 & 7) % 6],
            local_port: [80, 443, 40_000, 0][usize::from(ports & 3)],
            peer_port: [80, 40_000, 40_001, 0][usize::from(ports >> 2 & 3)],
            family: [AF_INET, AF_INET6][usize::from(ends >> 5 & 1)],
            netns: [1, 2, 1, 1][usize::from(ends >> 6)],
            ..Flow::default()
        }
    }

    fn tuple(&mut self) -> Tuple {
        Tuple::from(&self.flow())
    }

    fn netns(&mut self) -> u32 {
        self.bytes.pick(&[1, 2])
    }

    fn sock(&mut self) -> u64 {
        self.bytes.pick(&[8, 16, 24, 32, 40])
    }

    fn ip(&mut self) -> IpAddr {
        synprobe::util::addresses::printable(self.bytes.pick(&*PEERS))
    }

    /// A moment before now.
    fn before(&mut self) -> u64 {
        self.now_ns - self.bytes.pick(&STEPS).min(100 * SEC)
    }

    fn header(&mut self, kind: u16, len: usize) -> Header {
        let late = self.bytes.pick(&[0, 0, 0, 0, 1_000, 20_000, 5 * MS]);
        Header {
            kind,
            len: len as u16,
            cpu: 0,
            ts_ns: self.now_ns - late,
        }
    }

    fn event(&mut self, choice: u8) -> Event {
        let flow = self.flow();
        let states = |b: &mut Bytes<'_>| {
            let number = b.pick(&[2, 3, 7, 10, 1, 2, 3, 7, 10, 1, 4, 12]);
            (number, TcpState::from_kernel(number).unwrap())
        };
        match choice {
            0..=6 => {
                let header = self.header(KIND_STATE, size_of::<StateRecord>());
                let sock = self.sock();
                let began_ns = [0, self.before()][usize::from(self.bytes.is())];
                let b = &mut self.bytes;
                // Those that handshakes are made of come most.
                let (old, new) = b.pick(&[
                    (7, 2),
                    (2, 1),
                    (2, 7),
                    (10, 3),
                    (3, 1),
                    (3, 7),
                    (2, 3),
                    (7, 10),
                    (10, 7),
                    (7, 2),
                    (10, 3),
                    (0, 0),
                ]);
                let (old, new) = match old {
                    0 => (states(b), states(b)),
                    old => (
                        (old, TcpState::from_kernel(old).unwrap()),
                        (new, TcpState::from_kernel(new).unwrap()),
                    ),
                };
                let tgid = b.pick(&[0, 7, 8]);
                let record = StateRecord {
                    header,
                    flow,
                    sock,
                    cgroup: if tgid == 0 { 0 } else { 5 },
                    tgid,
                    sk_err: b.pick(&[0, 0, 111, 110, 113, 4, 104]),
                    sk_err_soft: b.pick(&[0, 0, 111, 113]),
                    total_retrans: b.pick(&[0, 0, 1, 2, 6]),
                    srtt_us: b.pick(&[0, 800, 8_000, 16_000, 8_000_000, u32::MAX]),
                    total_rto_time_ms: b.pick(&[0, 0, 1000, 3000]),
                    old: old.0,
                    new: new.0,
                    comm: *b"curl\0\0\0\0\0\0\0\0\0\0\0\0",
                    began_ns,
                    retrans_stamp_ms: (began_ns / MS) as u32,
                    syn: b.pick(&[0, 1, 2, 3]),
                    snd_first_or_backlog: b.pick(&[0, 3, u32::MAX]),
                    rcv_first_or_half_open: b.pick(&[0, 1, u32::MAX]),
                    queue_known: b.byte() % 3,
                    ..StateRecord::default()
                };
                Event::State(record, old.1, new.1)
            }
            7 => {
                let header = self.header(KIND_RETRANSMIT, size_of::<RetransmitRecord>());
                let sock = self.sock();
                let stamp_ns = self.before();
                let b = &mut self.bytes;
                let state = states(b);
                let record = RetransmitRecord {
                    header,
                    flow,
                    sock,
                    err: b.pick(&[0, 0, 0, -105, 1]),
                    seq: b.pick(&[1, 2, 3]),
                    // A SYN is one.
                    segs: if matches!(state.0, 2 | 3 | 12) {
                        1
                    } else {
                        b.pick(&[1, 1, 2])
                    },
                    snd_wnd: b.pick(&[0, 65_535]),
                    total_retrans: b.pick(&[0, 1, 2, 6, 200]),
                    rto_jiffies: b.pick(&[250, 500, 0, u32::MAX]),
                    rto_max_jiffies: b.pick(&[0, 30_000]),
                    user_timeout_ms: b.pick(&[0, 5000]),
                    state: state.0,
                    ca_state: b.byte() % 5,
                    pending: b.byte() % 6,
                    retransmits: b.pick(&[1, 2, 6, 0, 255]),
                    backoff: b.pick(&[0, 1, 5, 255]),
                    syn_retries: b.pick(&[0, 1, 6, 255]),
                    sysctl_syn_retries: b.pick(&[6, 0, 255]),
                    sysctl_syn_linear: b.pick(&[4, 0, 255]),
                    retrans_stamp_ms: (stamp_ns / MS) as u32,
                    no_syn: b.byte() & 1,
                    ..RetransmitRecord::default()
                };
                Event::Retransmit(record, state.1)
            }
            8 | 9 => {
                let header = self.header(KIND_SYNACK, size_of::<SynAckRecord>());
                let (req, sock, began_ns) = (self.sock(), self.sock(), self.before());
                let b = &mut self.bytes;
                let trigger = b.pick(&[
                    (TRIGGER_TIMER, Trigger::Timer),
                    (TRIGGER_PEER, Trigger::Peer),
                ]);
                let record = SynAckRecord {
                    header,
                    flow,
                    req,
                    sock,
                    snt_synack_us: b.pick(&[began_ns / 1000, began_ns / 1000, 0]),
                    timeout_jiffies: b.pick(&[250, 0, 500, u32::MAX]),
                    qlen: b.pick(&[0, 1, 128]),
                    young: b.pick(&[0, 1, 100]),
                    ack_backlog: b.pick(&[0, 2, 129]),
                    max_ack_backlog: b.pick(&[0, 1, 128]),
                    rto_max_jiffies: b.pick(&[0, 30_000]),
                    trigger: trigger.0,
                    num_timeout: b.pick(&[0, 1, 2, 5, 255]),
                    num_retrans: b.pick(&[0, 1, 2, 5, 255]),
                    acked: b.byte() & 1,
                    syn_retries: b.pick(&[0, 1, 255]),
                    sysctl_synack_retries: b.pick(&[5, 0, 255]),
                    defer_accept: b.pick(&[0, 1]),
                    sock_state: b.pick(&[10, 3]),
                    rcv_isn: b.pick(&[0, 1, u32::MAX]),
                    snt_isn: b.pick(&[0, 1, u32::MAX]),
                };
                Event::SynAck(record, trigger.1)
            }
            10 => {
                let header = self.header(KIND_RESET, size_of::<ResetRecord>());
                let sock = self.sock();
                let state = states(&mut self.bytes);
                Event::Reset(
                    ResetRecord {
                        header,
                        flow,
                        sock,
                        state: state.0,
                        _pad: [0; 7],
                    },
                    state.1,
                )
            }
            11 => {
                let header = self.header(KIND_ERROR, size_of::<ErrorRecord>());
                let sock = self.sock();
                let b = &mut self.bytes;
                let (sk_err, sk_err_soft) = (b.pick(&[0, 111, 113]), b.pick(&[0, 111, 113]));
                let state = states(b);
                let record = ErrorRecord {
                    header,
                    flow,
                    sock,
                    sk_err,
                    sk_err_soft,
                    state: state.0,
                    _pad: [0; 7],
                };
                Event::Error(record, state.1)
            }
            12 => {
                let header = self.header(KIND_DROP, size_of::<DropRecord>());
                let b = &mut self.bytes;
                Event::Drop(DropRecord {
                    header,
                    flow,
                    location: 1,
                    reason: b.pick(&[2, 3]),
                    ifindex: b.pick(&[0, 2]),
                    seq: b.pick(&[1, 2]),
                    ack: b.pick(&[0, 1, 2]),
                    qlen: b.pick(&[0, 128]),
                    young: b.pick(&[0, 100]),
                    ack_backlog: b.pick(&[0, 129]),
                    max_ack_backlog: b.pick(&[0, 128]),
                    source_mac: [2; 6],
                    has_mac: b.byte() & 1,
                    flags: b.pick(&[2, 16, 18, 4, 20, 24]),
                    listener: b.byte() & 1,
                    defer_accept: b.byte() & 1,
                    payload: b.byte() & 1,
                    receiver: b.pick(&[0, 0, 1, 2, 6, 8, 10]),
                    sender: b.pick(&[0, 0, 2]),
                    ..DropRecord::default()
                })
            }
            14 => {
                let header = self.header(KIND_EARLY_RESET, size_of::<EarlyResetRecord>());
                let sock = self.sock();
                let b = &mut self.bytes;
                let state = b.pick(&[(1, TcpState::Established), (8, TcpState::CloseWait)]);
                let tgid = b.pick(&[0, 7, 8]);
                let record = EarlyResetRecord {
                    header,
                    flow,
                    sock,
                    bytes_sent: b.pick(&[0, 1, u64::MAX]),
                    cgroup: if tgid == 0 { 0 } else { 5 },
                    age_us: b.pick(&[0, 20, 2_000_000, u64::MAX]),
                    data_age_us: b.pick(&[0, 5, u32::MAX]),
                    tgid,
                    state: state.0,
                    unacknowledged: b.byte() & 1,
                    ..EarlyResetRecord::default()
                };
                Event::EarlyReset(record, state.1)
            }
            _ => {
                let header = self.header(KIND_REQUEST, size_of::<RequestRecord>());
                let (req, began_ns) = (self.sock(), self.before());
                let b = &mut self.bytes;
                let moment = b.pick(&[
                    (REQUEST_BEGUN, Moment::Begun),
                    (REQUEST_ENDED, Moment::Ended),
                    (REQUEST_REFUSED, Moment::Refused),
                ]);
                let record = RequestRecord {
                    header,
                    flow,
                    req,
                    snt_synack_us: b.pick(&[began_ns / 1000, began_ns / 1000, 0]),
                    timeout_jiffies: b.pick(&[250, 0, u32::MAX]),
                    qlen: b.pick(&[0, 1, 128]),
                    young: b.pick(&[0, 1, 100]),
                    ack_backlog: b.pick(&[0, 129]),
                    max_ack_backlog: b.pick(&[0, 128]),
                    rto_max_jiffies: b.pick(&[0, 30_000]),
                    moment: moment.0,
                    ended_by: b.byte() % 5,
                    num_timeout: b.pick(&[0, 1, 5, 255]),
                    num_retrans: b.pick(&[0, 1, 5, 255]),
                    acked: b.byte() & 1,
                    syn_retries: b.pick(&[0, 1, 255]),
                    sysctl_synack_retries: b.pick(&[5, 0, 255]),
                    defer_accept: b.byte() & 1,
                    listener_state: b.pick(&[10, 10, 7]),
                    queue: b.byte() % 3,
                    _pad: [0; 2],
                    rcv_isn: b.pick(&[0, 1, u32::MAX]),
                };
                Event::Request(record, moment.1)
            }
        }
    }

    fn rows(&mut self) -> Vec<HalfOpenRow> {
        let rows = self.bytes.byte() % 4;
        (0..rows)
            .map(|_| HalfOpenRow {
                tuple: self.tuple(),
                family: AF_INET,
                retrans: self.bytes.pick(&[0, 1, 2, 6, 255]),
                expires_ms: self.bytes.pick(&[0, 10, 900, 4000, 60_000, u32::MAX]),
            })
            .collect()
    }

    fn dump(&mut self) -> Box<SocketDump> {
        let before_ns = self.now_ns - self.bytes.pick(&[0, 100_000, 5 * MS]);
        let (netns, rows) = (self.netns(), self.rows());
        let syn_sent = self.bytes.is().then(|| self.rows());
        let b = &mut self.bytes;
        let counts = |b: &mut Bytes<'_>| RetransCounts {
            handshake: b.pick(&[0, 1, 2, 5]),
            segments: b.pick(&[0, 1, 2, 5]),
        };
        Box::new(SocketDump {
            netns,
            before_ns,
            after_ns: self.now_ns,
            rows,
            syn_sent,
            is_first: b.is(),
            embryonic_rsts: b.maybe(),
            retransmitted: b.is().then(|| RetransReading {
                before_ns,
                after_ns: self.now_ns,
                counts: counts(b),
            }),
            retrans_fail: b.pick(&[0, 1]),
            synack_retries: b.pick(&[None, Some(5), Some(0)]),
            syn_linear: b.pick(&[4, 0, 255]),
        })
    }

    fn fates(&mut self, asked: Vec<Tuple>) -> Fates {
        let of = asked
            .into_iter()
            .map(|tuple| {
                (
                    tuple,
                    self.bytes
                        .pick(&[Fate::Gone, Fate::Connected, Fate::HalfOpen]),
                )
            })
            .collect();
        Fates {
            asked_ns: self.now_ns,
            of,
        }
    }

    fn listener(&mut self) -> Listener {
        let flow = self.flow();
        let b = &mut self.bytes;
        Listener {
            pid: b.is().then_some(7),
            comm: b.is().then(|| "nginx".into()),
            syn_queue: b.pick(&[None, Some(0), Some(128)]),
            syn_queue_max: b.pick(&[None, Some(128)]),
            accept_queue: b.pick(&[None, Some(0), Some(129)]),
            accept_queue_max: b.pick(&[None, Some(0), Some(128)]),
            overflows: b.maybe(),
            syn_cookies: b.maybe(),
            drops: b.maybe(),
            syn_queue_group: b.pick(&[None, Some(0), Some(7)]),
            inode: b.pick(&[None, Some(5), Some(6)]),
            ..Listener::at(
                flow.netns,
                synprobe::util::addresses::printable(flow.local_addr),
                flow.local_port.max(1),
            )
        }
    }

    fn input(&mut self, choice: u8, engine: &mut Engine) -> Input {
        match choice {
            0..=19 => {
                let event = self.event(choice.saturating_sub(2) % 16);
                self.produced += 1;
                match event {
                    Event::Drop(record) => {
                        let meaning = self.bytes.is().then(|| {
                            Arc::new(DropMeaning {
                                reason: "NETFILTER_DROP".into(),
                                words: "a firewall rule".into(),
                                remedy: "nft list ruleset".into(),
                                place: self.bytes.is().then(|| "nf_hook_slow".into()),
                            })
                        });
                        Input::Drop(record, meaning)
                    }
                    event => Input::Event(event),
                }
            }
            20 => {
                let events = self.bytes.pick(&[1, 2, 100]);
                self.produced += events;
                Input::Lost {
                    at_ns: self.now_ns,
                    events,
                    reason: "ring full".to_owned(),
                    of: self.bytes.pick(&[
                        Missed::Any,
                        Missed::States,
                        Missed::Retransmissions,
                        Missed::Requests,
                        Missed::Drops,
                        Missed::Others,
                    ]),
                }
            }
            21 => {
                let netns = self.netns();
                let name = self.bytes.is().then(|| "blue".into());
                Input::NetnsName(netns, name)
            }
            22 => Input::CgroupPath(5, self.bytes.is().then(|| "/system.slice/x".into())),
            23 => {
                let netns = self.netns();
                let b = &mut self.bytes;
                let settings = HandshakeSettings {
                    syn_retries: b.maybe(),
                    syn_linear_timeouts: b.maybe(),
                    abort_on_overflow: b.maybe(),
                    syncookies: b.maybe(),
                };
                Input::Settings(netns, settings)
            }
            24 => {
                let netns = self.netns();
                let counters = HandshakeCounters {
                    at_ns: self.now_ns,
                    embryonic_rsts: self.bytes.maybe(),
                    syncookies_recv: self.bytes.maybe(),
                };
                Input::Counters(netns, counters)
            }
            25 => Input::PollBegins,
            26 => {
                let flow = self.flow();
                let owner = ListenerOwner {
                    netns: flow.netns,
                    local_addr: flow.local_addr,
                    local_port: flow.local_port.max(1),
                    process: self.bytes.is().then(|| Process {
                        pid: 7,
                        comm: "nginx".into(),
                    }),
                    cgroup: self.bytes.is().then(|| "/system.slice/x".into()),
                };
                Input::Owners(vec![owner])
            }
            27 => {
                let listeners = (0..self.bytes.byte() % 3)
                    .map(|_| self.listener())
                    .collect();
                let netns = self.netns();
                let b = &mut self.bytes;
                let counters = ListenCounters {
                    netns,
                    listen_overflows: b.maybe(),
                    listen_drops: b.maybe(),
                    syncookies_sent: b.maybe(),
                    syncookies_recv: b.maybe(),
                    req_q_full_drop: b.maybe(),
                    out_no_routes: b.maybe(),
                    out_rsts: b.maybe(),
                    migrate_req: b.maybe(),
                    later: LaterCounters::default(),
                };
                Input::ListenSockets {
                    before_ns: self.now_ns.saturating_sub(5_000_000),
                    at_ns: self.now_ns,
                    listeners,
                    counters: vec![counters],
                }
            }
            28 => {
                let (netns, ip) = (self.netns(), self.ip());
                Input::Addresses(netns, vec![ip])
            }
            29 => {
                let asked = engine.questions().paths.pop();
                let (netns, peer, local) = (self.netns(), self.ip(), self.ip());
                let question = asked.unwrap_or(PathQuestion { netns, peer, local });
                let path = ReturnPath {
                    ifindex: self.bytes.pick(&[1, 2, 3]),
                    interface: "eth0".to_owned(),
                    gateway: self.bytes.is().then(|| self.ip()),
                    mac: self.bytes.pick(&[None, Some([2; 6]), Some([3; 6])]),
                };
                Input::Path(question, path)
            }
            30 => {
                let flow = self.flow();
                let end =
                    |addr, port| SocketAddr::new(synprobe::util::addresses::printable(addr), port);
                Input::Icmp {
                    local: end(flow.local_addr, flow.local_port),
                    peer: end(flow.peer_addr, flow.peer_port),
                    from: self.ip(),
                    what: "host unreachable".to_owned(),
                }
            }
            31..=34 => Input::Dump(self.dump()),
            35..=38 => {
                let asked = engine.questions().fates;
                Input::Fates(self.fates(asked))
            }
            39 | 40 => Input::PollEnds { at_ns: self.now_ns },
            41 => Input::CountHalfOpens,
            42 => {
                let (role, port) = (
                    self.bytes.pick(&[Role::Client, Role::Server]),
                    self.bytes.pick(&[None, Some(80)]),
                );
                let mut counts = vec![0; synprobe_ebpf::histogram::BUCKETS];
                counts[usize::from(self.bytes.byte()) % synprobe_ebpf::histogram::BUCKETS] =
                    self.bytes.pick(&[1, 1000]);
                Input::Completed(role, port, counts)
            }
            43 => Input::CompletedAll,
            46 => {
                let netns = self.netns();
                let b = &mut self.bytes;
                let reading = AcceptReading {
                    netns,
                    before_ns: self.now_ns.saturating_sub(4_000_000),
                    after_ns: self.now_ns.saturating_sub(3_000_000),
                    opens_before: b.maybe(),
                    opens_after: b.maybe(),
                };
                Input::AcceptReadings(vec![reading])
            }
            48 => {
                let netns = self.netns();
                let b = &mut self.bytes;
                let counts = AcceptCounts {
                    netns,
                    port: 80,
                    total_us: b.pick(&[0, 7, u64::MAX]),
                    counts: vec![b.pick(&[1, u64::MAX]); b.pick(&[0, 96, 200])],
                    accepted_by: None,
                };
                Input::AcceptCounts(vec![counts])
            }
            47 => Input::ServerCounts {
                ports: vec![(80, self.bytes.pick(&[0, 7, u64::MAX]))],
                others: self.bytes.pick(&[0, 1]),
            },
            44 => Input::SocketStates(Box::default()),
            45 => Input::EndOpen {
                at_ns: self.now_ns,
                most: self.bytes.pick(&[0, 1, 2, u32::MAX]),
            },
            49..=51 => Input::JudgeProblems {
                at_ns: self.now_ns,
                counted_clients: [None, Some(0), Some(5)][usize::from(choice - 49)],
            },
            _ => Input::BatchEnds(self.bytes.pick(&[0, 1_700_000_000 * 1_000_000_000, -5])),
        }
    }
}

/// As a recording gives it back.
fn recorded(input: &Input, decoder: &mut InputDecoder) -> Input {
    let mut back = None;
    encode(input, |frame| {
        assert!(back.is_none());
        back = decoder.frame(frame);
    })
    .unwrap();
    match back {
        Some(Decoded::Input(input)) => input,
        other => panic!("{input:?} came back as {other:?}"),
    }
}

fn tables(handshakes: usize, peers: usize) -> TableBounds {
    TableBounds {
        half_opens: handshakes,
        clients: handshakes,
        peers,
        silent_peers: peers,
        held: 3,
        sources: 5,
        destinations: 5,
        ..TableBounds::default()
    }
}

fn config(bytes: &mut Bytes<'_>) -> (RunConfig, Mode) {
    let (first, second) = (bytes.byte(), bytes.byte());
    let track = TrackConfig {
        hz: [250, 1000, 100, 0][usize::from(first & 3)],
        synack_rto_max: first & 4 != 0,
        sees_failures: first & 8 != 0,
        sees_resets: first & 16 != 0,
        source: [
            HalfOpenSource::Tracepoints,
            HalfOpenSource::Fentry,
            HalfOpenSource::Timer,
        ][usize::from(first >> 5) % 3],
        detail: [
            Detail::Handshakes,
            Detail::AllStates,
            Detail::Quiet {
                slow: Duration::from_secs(1),
            },
            Detail::Handshakes,
        ][usize::from(second & 3)],
        tables: tables(
            [8, 1, 2, 100][usize::from(second >> 2 & 3)],
            [4, 1, 100, 2][usize::from(second >> 4 & 3)],
        ),
        began_ns: 1000 * SEC,
        hash_seed: 7,
        selection: bytes
            .pick(&[0, 1, 2, 3, 4, 5, 6, 7])
            .pipe(|i: usize| SELECTIONS[i].clone()),
    };
    let mode = [Mode::AtOnce, Mode::AtTheEnd][usize::from(second >> 6 & 1)];
    let sees_drops = second & 128 != 0;
    (
        RunConfig {
            start: Start::default(),
            track,
            sees_drops,
            window: (first & 8 != 0).then_some(Duration::from_secs(10)),
        },
        mode,
    )
}

trait Pipe: Sized {
    fn pipe<T>(self, f: impl FnOnce(Self) -> T) -> T {
        f(self)
    }
}

impl Pipe for usize {}

/// With this variable set, every input and line is printed: to look at one artifact.
static IS_TRACED: LazyLock<bool> = LazyLock::new(|| std::env::var_os("TRACE").is_some());

fn trace(what: &str, value: &impl std::fmt::Debug) {
    if *IS_TRACED {
        eprintln!("{what}: {value:?}");
    }
}

fuzz_target!(|data: &[u8]| {
    let mut bytes = Bytes(data);
    let (config, mode) = config(&mut bytes);
    trace("config", &(&config.track, mode));
    let clock = WallClock::new(1_700_000_000_000_000_000, 0);
    let mut engine = Engine::new(&config, mode, clock);
    let mut replay = Engine::new(&config, mode, clock);
    let mut decoder = InputDecoder::default();
    let mut made = Made {
        bytes,
        now_ns: 1000 * SEC,
        produced: 0,
    };
    let mut batches = engine.take_lines();
    let mut replayed = replay.take_lines();
    // Lines from here on were judged after a loss that could matter.
    let mut lost_at = None;
    while !made.bytes.0.is_empty() {
        let (choice, step) = (made.bytes.byte(), made.bytes.byte());
        made.now_ns += STEPS[usize::from(step & 15)];
        let input = made.input(choice % 52, &mut engine);
        if let Input::Event(event) = &input {
            assert_eq!(engine.needs_counters(event), replay.needs_counters(event));
        }
        if let Input::Lost { of, .. } = &input
            && *of != Missed::Drops
        {
            lost_at.get_or_insert(batches.len());
        }
        if step & 16 != 0 {
            let snapshot = replay.snapshot(usize::from(step >> 5));
            assert!(snapshot.open.len() <= usize::from(step >> 5));
            assert!(snapshot.open_total <= 3 * config.track.tables.half_opens);
        }
        let again = recorded(&input, &mut decoder);
        trace("input", &input);
        engine.feed(input);
        replay.feed(again);
        assert!(engine.open() <= 3 * config.track.tables.half_opens);
        batches.extend(engine.take_lines());
        replayed.extend(replay.take_lines());
    }
    let end = Input::End {
        at_ns: made.now_ns,
        produced: made.produced,
    };
    replay.feed(recorded(&end, &mut decoder));
    engine.feed(end);
    batches.extend(engine.take_lines());
    replayed.extend(replay.take_lines());
    for line in batches.iter().flat_map(|batch| &batch.lines) {
        trace("line", line);
    }
    assert_eq!(batches.len(), replayed.len());
    for (batch, again) in batches.iter().zip(&replayed) {
        assert_eq!(batch.lines, again.lines, "a replay gives other lines");
        assert_eq!(batch.clock, again.clock);
    }
    assert_eq!(engine.open(), 0);

    let mut json = JsonView::new(io::sink());
    let mut text = TextView::new(io::sink(), TextOptions::default());
    let mut page = Page::default();
    for batch in &batches {
        for view in [&mut json as &mut dyn View, &mut text, &mut page] {
            view.show(&batch.lines, batch.clock).unwrap();
        }
    }
    page.text(&PageCounts::from(&Counted::default()), Style::default());

    let lines = || batches.iter().flat_map(|batch| &batch.lines);
    one_line_each(lines(), mode);
    sums(lines(), mode, &engine);
    // Over a window, what was lost long ago does not count.
    if let Some(first) = lost_at.filter(|_| config.window.is_none()) {
        nothing_certain(batches[first..].iter().flat_map(|batch| &batch.lines));
    }
    if config.track.source != HalfOpenSource::Fentry {
        refusals_are_unknown(lines());
    }
});

/// Every handshake has exactly one line, and none that was begun has none.
fn one_line_each<'l>(lines: impl Iterator<Item = &'l Line>, mode: Mode) {
    let (mut begun, mut ended) = (HashSet::new(), HashSet::new());
    for line in lines {
        match &line.body {
            Body::State(s)
                // An active open that TCP_REPAIR completes is no handshake, and has no line.
                if (s.old, s.new) == (TcpState::Listen, TcpState::SynRecv) =>
            {
                begun.insert(s.connection.id);
            }
            Body::Handshake(h) => {
                assert!(ended.insert(h.connection.id), "two lines: {h:?}");
                assert_eq!(h.open_reason.is_some(), h.outcome == Outcome::Open);
                assert_eq!(
                    h.verdict.is_none(),
                    h.confidence == Confidence::Insufficient
                );
                assert_eq!(h.dwell_us.is_none(), h.dwell_source.is_none());
            }
            _ => (),
        }
    }
    if mode == Mode::AtOnce {
        let lacking: Vec<_> = begun.difference(&ended).collect();
        assert!(lacking.is_empty(), "begun, and no line: {lacking:?}");
    }
}

/// Records, handshakes, peers, outcomes and losses add up.
fn sums<'l>(lines: impl Iterator<Item = &'l Line>, mode: Mode, engine: &Engine) {
    let end = engine.end().unwrap();
    let (mut handshakes, mut evicted, mut lost, mut resent) = (0, 0, 0, 0);
    let (mut of_peers, mut peers) = (0, BTreeMap::<Role, u64>::new());
    let mut outcomes = BTreeMap::<Outcome, u64>::new();
    for line in lines {
        match &line.body {
            Body::Handshake(h) => {
                handshakes += 1;
                evicted += u64::from(h.open_reason == Some(OpenReason::Evicted));
                if h.outcome != Outcome::Open {
                    *outcomes.entry(h.outcome).or_default() += 1;
                }
            }
            Body::Retransmit(r) if !r.failed => resent += u64::from(r.segs),
            Body::Lost(l) => lost += l.events,
            Body::Peer(p) => {
                *peers.entry(p.role).or_default() += 1;
                of_peers += p.attempts
                    + p.syn_retransmits
                    + p.synack_retransmits
                    + p.rto_retransmits
                    + p.tlp_retransmits
                    + p.fast_retransmits
                    + p.recovery_retransmits;
                assert_eq!(p.attempts, p.established + p.failed + p.open);
            }
            _ => (),
        }
    }
    assert_eq!(end.events + end.lost, end.produced, "{end:?}");
    assert_eq!(lost, end.lost);
    assert!(end.peers_distinct.client >= peers.get(&Role::Client).copied().unwrap_or(0));
    assert!(end.peers_distinct.server >= peers.get(&Role::Server).copied().unwrap_or(0));
    let stats = engine.snapshot(0).stats;
    assert_eq!(stats.lost.values().sum::<u64>(), lost);
    if mode == Mode::AtOnce {
        assert_eq!(handshakes, end.handshakes);
        assert_eq!(evicted, end.evicted);
        assert_eq!(
            of_peers + end.peers_unlisted,
            handshakes + resent,
            "{end:?}"
        );
        let mut by_outcome = BTreeMap::<Outcome, u64>::new();
        for port in stats.ports.values() {
            for (outcome, count) in Outcome::ALL.iter().zip(port.outcomes) {
                if count > 0 {
                    *by_outcome.entry(*outcome).or_default() += count;
                }
            }
        }
        assert_eq!(by_outcome, outcomes);
    } else {
        assert!(handshakes <= end.handshakes);
    }
}

/// After a loss no handshake that it can have been of is certain: those of its time, and of its namespace.
fn nothing_certain<'l>(lines: impl Iterator<Item = &'l Line>) {
    const NOTICED_NS: u64 = 60_000_000_000;
    let mut losses = Vec::new();
    for line in lines {
        match &line.body {
            Body::Lost(l) if l.is_of_handshakes() => {
                let netns = match l.of {
                    Missed::Handshakes(netns) => Some(netns),
                    _ => None,
                };
                losses.push((line.mono_ns, netns));
            }
            Body::Handshake(h) => {
                let until_ns = h.facts.ended_ns.saturating_add(NOTICED_NS);
                let touched = losses.iter().any(|(at_ns, netns)| {
                    (h.facts.since_ns()..=until_ns).contains(at_ns)
                        && netns.is_none_or(|of| of == h.connection.netns)
                });
                assert!(!touched || h.confidence != Confidence::Certain, "{h:?}");
            }
            _ => (),
        }
    }
}

fn refusals_are_unknown<'l>(lines: impl Iterator<Item = &'l Line>) {
    for line in lines {
        if let Body::Peer(p) = &line.body {
            assert_eq!(
                (p.syns_refused_accept_queue, p.syns_refused_syn_queue),
                (None, None)
            );
        }
    }
}
