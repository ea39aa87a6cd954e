//! What is collected for the verdicts while a handshake is in progress, and packets that a half-open has
//! processed.

use std::collections::{HashMap, HashSet};

use synprobe_ebpf::event::{DropRecord, StateRecord, SynAckRecord};

use super::{
    Tracker, Treatment,
    handshake::OpenHandshake,
    handshake_end::HandshakeEnd,
    schedule::{RTO_MAX_US, SynSchedule, TIMEOUT_INIT_US},
};
use crate::{
    model::{Facts, HalfOpenCounts, Outcome, Queue, Role, TcpState, Trigger, Tuple},
    util::errno,
};

/// A half-open that nothing showed before is not older: its first SYN-ACK time-out takes 1 s, and its end raises an
/// event that has the beginning, or the next dump estimates it. Nanoseconds.
const UNSEEN_NS: u64 = 2_000_000_000;

/// TCP flags.
const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
const ACK: u8 = 16;

impl OpenHandshake {
    /// Takes the facts that a SYN-ACK retransmission carries.
    pub(super) fn learn(&mut self, r: &SynAckRecord, trigger: Trigger) {
        self.facts.history_known = true;
        if (r.rcv_isn, r.snt_isn) != (0, 0) {
            self.facts.syn_seq = Some(r.rcv_isn);
            self.facts.syn_ack_seq = Some(r.snt_isn);
        }
        self.facts.acked |= r.acked != 0;
        self.facts.defer_accept = Some(r.defer_accept != 0);
        self.facts.time_outs = u32::from(r.num_timeout) + u32::from(trigger == Trigger::Timer);
        self.queued(Queue {
            qlen: r.qlen,
            young: r.young,
            accept_queue: r.ack_backlog,
            max: r.max_ack_backlog,
        });
        // Every time-out that sends raises both counts, a repeated SYN only the first
        // (tcp_rtx_synack(), reqsk_timer_handler()); one that does not send only the second. So the
        // difference is a lower bound, of what came before the run too.
        let earlier = u32::from(r.num_retrans.saturating_sub(r.num_timeout));
        self.by_peer = self.by_peer.max(earlier);
    }

    /// Takes the initial sequence numbers of both ends, as the last record of a handshake has them.
    pub(super) fn sequence_numbers(&mut self, r: &StateRecord) {
        let facts = &mut self.facts;
        // 0 is not read, or one of 4 billion.
        let sent = r.snd_first();
        let received = r.rcv_first().map(|first| first.wrapping_sub(1));
        let (syn, syn_ack) = match self.connection.role {
            Role::Client => (sent, received),
            Role::Server => (received, sent.map(|seq| seq.wrapping_sub(1))),
        };
        facts.syn_seq = syn.or(facts.syn_seq);
        facts.syn_ack_seq = syn_ack.or(facts.syn_ack_seq);
    }

    pub(super) fn queued(&mut self, queue: Queue) {
        self.facts.queue_was_full |= queue.accept_queue_is_full();
        self.facts.queue = Some(queue);
    }
}

/// Why it ended where [`Tracker::reset_here`].
pub(super) const RESET_HERE: &str =
    "this host reset it: the accept queue was full, and tcp_abort_on_overflow is set";

impl Tracker {
    /// The half-opens of this moment, by namespace and port.
    pub fn half_opens_by_port(&self) -> Vec<((u32, u16), HalfOpenCounts)> {
        type Sources = HashSet<[u8; 16]>;
        let mut ports = HashMap::<(u32, u16), (HalfOpenCounts, Sources)>::new();
        for (tuple, open) in self.half_opens.iter() {
            let (now, sources) = ports.entry((tuple.netns, tuple.local_port)).or_default();
            now.open += 1;
            let f = &open.facts;
            if f.history_known && open.retransmits > 0 && !f.acked {
                now.silent += 1;
                sources.insert(tuple.peer_addr);
            }
        }
        ports
            .into_iter()
            .map(|(key, (mut now, sources))| {
                now.silent_sources = sources.len() as u64;
                (key, now)
            })
            .collect()
    }

    /// All facts for the verdicts.
    pub(super) fn facts(&self, open: &OpenHandshake, end: &HandshakeEnd) -> Facts {
        let mut facts = open.facts.clone();
        facts.began_ns = open.start.map(|start| {
            // As early as it can have been.
            start.at_ns.saturating_sub(start.error_us * 1000)
        });
        facts.ended_ns = end.at_ns;
        if open.connection.role == Role::Server {
            let seen_ns = open.alive_ns.min(end.at_ns);
            facts.not_before_ns = seen_ns.saturating_sub(UNSEEN_NS);
        }
        facts.preexisting = facts
            .began_ns
            .is_some_and(|began| began < self.config.began_ns);
        facts.cookie = open.start.is_none() && end.dwell_unknown && open.retransmits == 0;
        facts.reset_seen |= open.reset_seen;
        facts.unbound = open.connection.local_port.is_none();
        if open.soft_error != 0 {
            facts.soft_error = Some(errno::name(open.soft_error));
        }
        if open.connection.role == Role::Client && end.outcome != Outcome::Established {
            facts.time_outs = open.time_outs;
            facts.would_give_up_us = self.would_give_up_us(open);
        }
        facts
    }

    /// How long the kernel would have tried, from the first SYN, microseconds: by its last retransmission,
    /// else by the namespace's settings (a socket's own, TCP_SYNCNT and TCP_USER_TIMEOUT, show only in one).
    fn would_give_up_us(&self, open: &OpenHandshake) -> Option<u64> {
        if let (Some((end_ns, _)), Some(start)) = (open.gives_up, open.start) {
            return Some(end_ns.saturating_sub(start.at_ns) / 1000);
        }
        let netns = open.connection.netns;
        let settings = self.host.settings(netns);
        let (retries, linear) = (settings.syn_retries?, settings.syn_linear_timeouts);
        let schedule = SynSchedule {
            undoubled: 0,
            congested: false,
            base_us: TIMEOUT_INIT_US,
            linear: u32::try_from(linear.unwrap_or(0)).ok()?,
            retries: u32::try_from(retries).ok()?,
            max_us: RTO_MAX_US,
            user_timeout_us: None,
        };
        Some(schedule.ahead_us(0, 0).1)
    }

    /// A half-open, or its listener, processed and dropped a packet: a repeated SYN, a RST that may have
    /// ended it, or a final ACK that is refused. Anybody can send one that it ignores.
    pub(super) fn packet_dropped(&mut self, r: &DropRecord, treatment: Treatment) {
        self.learn_sequence_numbers(r, treatment);
        if r.listener == 0 || !self.config.selection.wants(Role::Server) {
            return;
        }
        let tuple = Tuple::from(&r.flow);
        let at_ns = r.header.ts_ns;
        self.deferrals.note(tuple.netns, r.defer_accept);
        if treatment == Treatment::Ignored {
            self.half_opens.update(&tuple, |open| {
                open.alive_ns = open.alive_ns.max(at_ns);
                open.facts.ignored_segment = true;
            });
            return;
        }
        if r.flags & RST != 0 {
            return self.reset_by_peer(tuple, r, treatment);
        }
        if is_refused_ack(r, treatment) && self.aborts_on_overflow(tuple.netns) {
            return self.reset_for_its_ack(tuple, r, treatment);
        }
        let known = self.half_opens.update(&tuple, |open| {
            open.alive_ns = open.alive_ns.max(at_ns);
            note_ack(open, r, treatment);
        });
        if known.is_none() {
            self.refused_ack(tuple, r, treatment);
        }
    }

    /// A dropped segment of a half-open shows the sequence numbers of both ends: a repeated SYN, its SYN-ACK, or
    /// an ACK without data that acknowledges nothing but the SYN-ACK.
    fn learn_sequence_numbers(&mut self, r: &DropRecord, treatment: Treatment) {
        let incoming = r.ifindex != 0;
        if incoming && (r.listener == 0 || treatment == Treatment::Ignored) {
            // Anybody may have sent it.
            return;
        }
        let (syn_seq, syn_ack_seq) = match (r.flags & (SYN | RST | ACK), incoming) {
            (SYN, true) => (r.seq, None),
            (both, false) if both == SYN | ACK => (r.ack.wrapping_sub(1), Some(r.seq)),
            (ACK, true) if r.listener != 0 && r.payload == 0 => {
                (r.seq.wrapping_sub(1), Some(r.ack.wrapping_sub(1)))
            }
            _ => return,
        };
        let tuple = Tuple::from(&r.flow);
        self.half_opens.update(&tuple, |open| {
            open.facts.syn_seq = Some(syn_seq);
            open.facts.syn_ack_seq = syn_ack_seq.or(open.facts.syn_ack_seq);
        });
    }

    /// A final ACK of a half-open that is not known yet, because no SYN-ACK was retransmitted. It is tracked
    /// from now on.
    fn refused_ack(&mut self, tuple: Tuple, r: &DropRecord, treatment: Treatment) {
        // An ACK to a listener without a half-open is a stray one, or a cookie's.
        let is_final = match treatment {
            Treatment::Overflow => true,
            Treatment::Taken => r.defer_accept != 0,
            Treatment::Untold => queue(r).accept_queue_is_full() || r.defer_accept != 0,
            Treatment::Ignored => false,
        };
        if !is_ack(r) || !is_final || !self.wants(&tuple, None) {
            return;
        }
        let at_ns = r.header.ts_ns;
        let mut open = self.new_half_open(tuple, r.flow.family, None, at_ns);
        note_ack(&mut open, r, treatment);
        if r.payload == 0 {
            open.facts.syn_seq = Some(r.seq.wrapping_sub(1));
            open.facts.syn_ack_seq = Some(r.ack.wrapping_sub(1));
        }
        self.keep_half_open(tuple, open, at_ns);
    }

    /// Whether this host itself reset it: with `tcp_abort_on_overflow` a final ACK at a full accept queue is
    /// answered with a RST (`tcp_check_req()`), and counted in `EmbryonicRsts` like a peer's.
    pub(super) fn reset_here(&self, open: &OpenHandshake) -> bool {
        open.facts.queue_was_full && self.aborts_on_overflow(open.connection.netns)
    }

    fn aborts_on_overflow(&self, netns: u32) -> bool {
        self.host.settings(netns).abort_on_overflow == Some(1)
    }

    /// [`Tracker::reset_here`], seen directly: the final ACK is dropped after the RST was sent.
    fn reset_for_its_ack(&mut self, tuple: Tuple, r: &DropRecord, treatment: Treatment) {
        let at_ns = r.header.ts_ns;
        let noted = |open: &mut OpenHandshake| {
            open.alive_ns = open.alive_ns.max(at_ns);
            note_ack(open, r, treatment);
        };
        // In the exact mode an event of its own has already reported its end.
        if self.config.source.is_exact() || self.killed_by_rst(tuple.netns) != Some(true) {
            self.half_opens.update(&tuple, noted);
            return;
        }
        let Some(mut open) = self.remove_or_new(tuple, r.flow.family, at_ns) else {
            return;
        };
        noted(&mut open);
        self.ended_at(
            tuple,
            open,
            HandshakeEnd::new(Outcome::Dropped, at_ns).fact(RESET_HERE),
        );
    }

    /// The half-open of the table, or a new one for a half-open of less than a second, whose beginning raised
    /// no event.
    fn remove_or_new(&mut self, tuple: Tuple, family: u16, at_ns: u64) -> Option<OpenHandshake> {
        let known = self.half_opens.remove(&tuple);
        known.or_else(|| {
            let wanted = self.wants(&tuple, None);
            wanted.then(|| self.new_half_open(tuple, family, None, at_ns))
        })
    }

    fn ended_at(&mut self, tuple: Tuple, open: OpenHandshake, mut end: HandshakeEnd) {
        self.reconcile.ended(tuple, end.at_ns);
        if open.start.is_none() {
            end.dwell_unknown = true;
            end = end.fact("it lived for less than a second: when it began is not known");
        }
        self.end(open, TcpState::Close, &end);
    }

    /// A RST ended it, if its reason says that it fitted. Where the kernel does not tell, it may have missed the window
    /// (RFC 9293, section 3.10.7.4): then EmbryonicRsts has to have risen, and the next dump decides.
    fn reset_by_peer(&mut self, tuple: Tuple, r: &DropRecord, treatment: Treatment) {
        let at_ns = r.header.ts_ns;
        let untold = treatment == Treatment::Untold;
        // In the exact mode an event of its own has already reported its end.
        let waits = self.config.source.is_exact() || untold && self.has_half_open(&tuple);
        // What the counter shows of it is accounted for.
        let counted = !waits && self.killed_by_rst(tuple.netns) == Some(true);
        if waits || untold && !counted {
            self.half_opens.update(&tuple, |open| {
                open.rst_ns = Some(at_ns);
                open.facts.reset_untold |= untold;
                open.facts.rst_seq = Some(r.seq);
            });
            return;
        }
        let Some(mut open) = self.remove_or_new(tuple, r.flow.family, at_ns) else {
            return;
        };
        open.facts.reset_seen = !untold;
        open.facts.reset_untold |= untold;
        open.facts.rst_seq = Some(r.seq);
        self.ended_at(tuple, open, HandshakeEnd::new(Outcome::Reset, at_ns));
    }
}

/// A segment that may be a final ACK.
fn is_ack(r: &DropRecord) -> bool {
    r.flags & (SYN | RST | ACK) == ACK
}

/// A final ACK that met a full accept queue; where this kernel does not tell, one that may be.
pub(super) fn is_refused_ack(r: &DropRecord, treatment: Treatment) -> bool {
    is_ack(r)
        && match treatment {
            Treatment::Overflow => true,
            Treatment::Untold => queue(r).accept_queue_is_full(),
            Treatment::Taken | Treatment::Ignored => false,
        }
}

/// Takes in an ACK that a half-open discarded. Without TCP_DEFER_ACCEPT none that fits is discarded without a
/// reason.
fn note_ack(open: &mut OpenHandshake, r: &DropRecord, treatment: Treatment) {
    if !is_ack(r) {
        return;
    }
    match treatment {
        Treatment::Overflow => open.facts.acked = true,
        Treatment::Taken if r.defer_accept != 0 => open.facts.acked = true,
        Treatment::Untold => open.facts.ack_untold = true,
        Treatment::Taken | Treatment::Ignored => return,
    }
    open.facts.defer_accept = Some(r.defer_accept != 0);
    open.queued(queue(r));
}

fn queue(r: &DropRecord) -> Queue {
    Queue {
        qlen: r.qlen,
        young: r.young,
        accept_queue: r.ack_backlog,
        max: r.max_ack_backlog,
    }
}
