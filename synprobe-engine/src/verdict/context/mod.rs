//! What is known around a handshake: its listener's queues, packets that this host dropped, and how other
//! handshakes went. Everything here was observed in this run, and is bounded.

mod accept_waits;
mod answers;
mod baseline;
mod checksum;
mod closed_listeners;
mod conntrack;
mod destinations;
mod drop_words;
mod drops;
mod early_resets;
mod ends;
mod existing;
mod fanout;
mod forwarding;
mod freed_syns;
mod handed_over;
mod icmp;
mod listener_histories;
mod listener_history;
mod listener_remedy;
mod listening;
mod losses;
mod no_socket;
mod paths;
mod port_stats;
mod port_waits;
mod refused_syns;
mod repeated_synacks;
mod resets;
mod rules;
mod stuck_data;
mod syn_options;
mod unanswered;
mod whose_drop;
mod window;
mod windowed;

use std::{net::IpAddr, sync::Arc};

pub use accept_waits::AcceptWaits;
pub use answers::RefusedAnswer;
pub use checksum::tell_offload_from_damage;
pub use closed_listeners::ClosedListener;
pub use drops::{DropStage, DroppedPacket, DroppedPackets, Packet, connections, times};
pub use early_resets::EarlyResetSum;
pub use ends::Ends;
pub use existing::{SynAtExisting, kill};
pub use fanout::Fanout;
pub use forwarding::Forwarding;
pub use icmp::{IcmpReport, OwnIcmp};
pub use listener_history::ListenerHistory;
pub use no_socket::{NO_SOCKET, NoSocketSum, SynWithoutSocket};
pub use paths::Paths;
pub use port_stats::{PortStats, sent_only_syns, silent};
pub use port_waits::{LONG_US, PortWaits};
pub use refused_syns::{RefusedSum, RefusedSyn, RefusedSyns, SEVERAL_NETNS};
pub use rules::RuleWords;
pub use stuck_data::StuckConnection;
pub use syn_options::{OptionCounts, SynOption};
pub use whose_drop::DropIsOf;
pub use window::Window;

use crate::{
    filter::Selection,
    model::{
        Body, Connection, HalfOpenCounts, Handshake, Line, Outcome, PathQuestion, ReturnPath, Role,
        TcpState, TupleHolder,
    },
    util::{bounded::Bounded, table_bounds::TableBounds},
};

/// What verdicts know beside the handshake itself.
#[derive(Default)]
pub struct Context {
    /// Bounds of what strangers can fill.
    pub bounds: TableBounds,
    /// Records that were lost in this run.
    pub losses: losses::LossTimes,
    /// Successful active opens that the kernel only counted; `u64::MAX` while their number is not known.
    pub counted_clients: u64,
    /// Whether this kernel reports the packets that it drops, with a reason.
    pub sees_drops: bool,
    /// Whether this kernel reports the packets that a socket refuses (Linux 6.11).
    pub sees_answers: bool,
    /// What the user asked for: no problem, listener or drop outside it is printed.
    pub selection: Selection,
    /// SYNs that this host refused before a half-open existed.
    pub refused_syns: RefusedSyns,
    /// How long connections wait for accept().
    pub accept_waits: AcceptWaits,
    drops: DroppedPackets,
    devices: Bounded<(u32, u32), Option<Arc<str>>>,
    conntrack: conntrack::ConntrackHistories,
    rules: rules::FilterRules,
    histories: listener_histories::ListenerHistories,
    handed_over: handed_over::HandedOver,
    answers: answers::RefusedAnswers,
    freed_syns: freed_syns::FreedSyns,
    existing: existing::Existing,
    repeated_synacks: repeated_synacks::RepeatedSynAcks,
    no_socket: no_socket::NoSocketSyns,
    syn_options: syn_options::SynOptions,
    ports: port_stats::AllPortStats,
    fanouts: fanout::Fanouts,
    paths: Paths,
    forwarding: Forwarding,
    /// Where this host's NAT sends the connections of its clients.
    pub destinations: destinations::Destinations,
    icmp: icmp::IcmpReports,
    baseline: baseline::Baseline,
    stuck: stuck_data::StuckData,
    early_resets: early_resets::EarlyResets,
    closed_listeners: closed_listeners::ClosedListeners,
    unanswered: unanswered::UnansweredSyns,
    /// Of handshakes in progress, while they are judged.
    unanswered_open: unanswered::UnansweredSyns,
    resets: resets::Resets,
    /// Half-opens of the same two ends that did not complete: when each began.
    failed_half_opens: Bounded<(u32, Ends), Vec<u64>>,
    /// Facts that are older do not count; `None`: all of the run do.
    pub window: Option<Window>,
}

/// No client repeats the SYN of one connect() for longer (127 s by default, with the kernel's lateness).
const ONE_CONNECT_NS: u64 = 140_000_000_000;
/// Beginnings remembered of one connection.
const BEGINNINGS: usize = 8;

impl Context {
    /// Knows nothing yet, and keeps to these bounds.
    pub fn within(bounds: TableBounds) -> Self {
        Self {
            bounds,
            ports: port_stats::AllPortStats::new(bounds.sources),
            fanouts: fanout::Fanouts::new(bounds.destinations),
            ..Self::default()
        }
    }

    /// Takes in a line of the tracker.
    pub fn note(&mut self, line: &Line) {
        match &line.body {
            Body::State(s) if s.new == TcpState::SynSent => {
                self.fanouts.began(&s.connection, line.mono_ns)
            }
            Body::Handshake(h) => self.note_handshake(h, line.mono_ns),
            Body::Retransmit(r) => self.stuck.note(r, line.mono_ns),
            Body::ConnectionReset(r) => self.early_resets.note(r),
            Body::Lost(lost) => self.losses.note(lost, line.mono_ns),
            _ => (),
        }
    }

    fn note_handshake(&mut self, h: &Handshake, at_ns: u64) {
        let c = &h.connection;
        self.early_resets.completed(h);
        if c.role == Role::Client && !h.was_evicted() {
            self.unanswered.note(h, self.dropped_own_syns(h));
            self.syn_options.note(h);
        }
        match c.role {
            Role::Client if h.outcome == Outcome::Established => self.fanouts.established(c),
            Role::Client => (),
            // Its line is no outcome: it goes on under another id.
            Role::Server if h.was_evicted() => {
                self.ports.queue_seen(h);
            }
            Role::Server => {
                self.ports.note(h, at_ns);
                self.histories.served(c.netns, c.local_addr);
                if h.outcome == Outcome::Established {
                    self.note_served(c);
                    self.forwarding.accepted(c);
                    self.accept_waits.completed(c.netns, c.local_port);
                }
                if let (true, Some(queue), Some(port)) =
                    (h.facts.queue_was_full, h.facts.queue, self.serving_port(c))
                {
                    self.histories
                        .full_at_event(c.netns, c.local_addr, port, queue);
                }
                if let Some(ends) = Ends::of(c) {
                    self.note_end((c.netns, ends), h);
                }
            }
        }
        if h.outcome == Outcome::Established
            && h.retransmits == 0
            && let Some(dwell_us) = h.dwell_us
        {
            self.baseline.note(c, dwell_us);
        }
    }

    /// Takes in the handshakes that are in progress, in place of those before.
    pub fn note_open(&mut self, open: &[Handshake]) {
        self.unanswered_open = Default::default();
        for h in open.iter().filter(|h| h.connection.role == Role::Client) {
            let dropped = self.dropped_own_syns(h);
            self.unanswered_open.note(h, dropped);
        }
    }

    fn note_end(&mut self, key: (u32, Ends), h: &Handshake) {
        match h.outcome {
            Outcome::Reset => self.resets.note(key, &h.facts),
            Outcome::Expired | Outcome::Dropped | Outcome::Open => {
                let Some(began) = h.facts.began_ns else {
                    return;
                };
                let mut all = self.failed_half_opens.remove(&key).unwrap_or_default();
                if all.len() < BEGINNINGS && !all.contains(&began) {
                    // Of a flood's sources most have one.
                    all.reserve_exact(1);
                    all.push(began);
                }
                self.failed_half_opens.insert(key, all);
            }
            _ => (),
        }
    }

    /// Takes in a packet of a handshake that this host dropped.
    pub fn note_drop(&mut self, drop: DroppedPacket) {
        self.want_route_of(&drop);
        self.drops.note(drop);
    }

    /// Takes in an answer that a socket in SYN_SENT refused.
    pub fn note_refused_answer(&mut self, netns: u32, ends: Ends, answer: RefusedAnswer) {
        self.answers.note(netns, ends, answer);
    }

    /// Takes in a SYN that met a connection which exists.
    pub fn note_syn_at_existing(&mut self, ends: Ends, syn: SynAtExisting) {
        self.existing.note(ends, syn);
    }

    /// Takes in which socket holds these ends; `None`: none does.
    pub fn note_holder(&mut self, netns: u32, ends: Ends, holder: Option<TupleHolder>) {
        self.existing.note_holder(netns, ends, holder);
    }

    /// Answers that a handshake's socket refused.
    pub fn refused_answers(&self, h: &Handshake) -> Vec<RefusedAnswer> {
        let until_ns = match h.is_still_open() {
            true => u64::MAX,
            // A later connection may have the same ends (a fixed source port).
            false => h.facts.ended_ns,
        };
        let during = (h.facts.since_ns(), until_ns);
        let c = &h.connection;
        Ends::of(c).map_or(Vec::new(), |ends| self.answers.of(c.netns, &ends, during))
    }

    /// What became of first SYNs with an option, to the end that a connection calls.
    pub fn syn_options(&self, c: &Connection, option: SynOption) -> OptionCounts {
        self.syn_options.of(c, option)
    }

    /// SYNs of the selection that met a connection of this host.
    pub fn syns_at_existing(&self) -> impl Iterator<Item = &SynAtExisting> {
        self.existing.iter().filter(|syn| {
            let (local, peer) = (syn.local.port(), syn.peer.port());
            let ip = syn.peer.ip();
            self.selection.wants(Role::Server)
                && self
                    .selection
                    .matches(Some(local), Some(peer), ip, syn.netns)
        })
    }

    /// Which socket held a connection's ends when it was asked; `None`: not known.
    pub fn holder_of(&self, netns: u32, ends: &Ends) -> Option<Option<&TupleHolder>> {
        self.existing.holder(netns, ends)
    }

    /// Takes in the interface and the neighbour from which a peer's SYN came, and when, CLOCK_MONOTONIC nanoseconds.
    pub fn note_syn_path(
        &mut self,
        netns: u32,
        peer: IpAddr,
        local: IpAddr,
        from: (u32, [u8; 6]),
        at_ns: u64,
    ) {
        self.paths.note_syn_path(netns, peer, local, from, at_ns);
        self.want_device(netns, peer, local, from.0);
    }

    /// Takes in an ICMP error.
    pub fn note_icmp(&mut self, ends: Ends, report: IcmpReport) {
        self.icmp.note(ends, report);
    }

    /// Takes in the current half-opens, by namespace and port.
    pub fn half_opens(&mut self, now: Vec<((u32, u16), HalfOpenCounts)>) {
        self.ports.now(now);
    }

    /// Paths to peers that should be looked up. Each is returned once, and again when it may have changed.
    pub fn wanted_paths(&mut self) -> Vec<PathQuestion> {
        self.paths.wanted()
    }

    /// Takes in the answer to a [`PathQuestion`].
    pub fn path(&mut self, wanted: &PathQuestion, path: ReturnPath) {
        self.paths.found(wanted, path);
    }

    /// Packets of a connection that this host dropped since `since_ns`, CLOCK_MONOTONIC nanoseconds.
    pub fn drops_of(&self, c: &Connection, since_ns: u64) -> Vec<&DroppedPacket> {
        Ends::of(c).map_or(Vec::new(), |ends| self.drops.of(&ends, since_ns))
    }

    /// Incoming SYNs of the selection that this host dropped.
    pub fn dropped_syns(&self) -> impl Iterator<Item = &DroppedPacket> {
        self.drops.iter().filter(|d| {
            d.packet == Packet::Syn
                && d.incoming
                && !d.may_be_a_copy()
                && self.selection.wants(Role::Server)
                && self.selection.selects_dropped(d)
        })
    }

    /// Packets of handshakes of the selection that this host dropped.
    pub fn dropped_packets(&self) -> impl Iterator<Item = &DroppedPacket> {
        let all = self.drops.iter();
        all.filter(|d| self.selection.selects_dropped(d))
    }

    /// How many SYNs of an active open this host dropped, anywhere: no listener saw them.
    pub fn dropped_own_syns(&self, h: &Handshake) -> u64 {
        let drops = self.drops_of(&h.connection, h.facts.since_ns());
        let syns = drops
            .into_iter()
            .filter(|d| d.packet == Packet::Syn && d.is_of(h) != DropIsOf::Another);
        syns.map(|d| d.count).sum()
    }

    /// The statistics of a connection's listening port.
    pub fn port_stats(&self, c: &Connection) -> Option<&PortStats> {
        self.ports.of(c.netns, c.local_port?)
    }

    /// What the caller's process has called.
    pub fn fanout(&self, c: &Connection) -> Option<&Fanout> {
        self.fanouts.of(c)
    }

    /// How long this peer's handshakes usually take, µs, and of how many that is the median.
    pub fn typical_us(&self, c: &Connection) -> Option<(u64, usize)> {
        self.baseline.median_us(c)
    }

    /// How many half-opens of the same two ends did not complete within the time of one connect(). With more
    /// than one, the peer has repeated its SYN after the first had ended.
    pub fn failed_half_opens(&self, h: &Handshake) -> usize {
        let key = Ends::of(&h.connection).map(|ends| (h.connection.netns, ends));
        let (Some(key), Some(began)) = (key, h.facts.began_ns) else {
            return 0;
        };
        self.failed_half_opens.get(&key).map_or(0, |all| {
            let near = |at: &&u64| at.abs_diff(began) < ONE_CONNECT_NS;
            all.iter().filter(near).count()
        })
    }

    /// Connections whose data is not acknowledged.
    pub fn stuck_connections(&self) -> impl Iterator<Item = &StuckConnection> {
        self.stuck.connections()
    }
}
