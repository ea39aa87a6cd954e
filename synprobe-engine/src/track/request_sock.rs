//! The exact mode: half-opens that begin and end with an event, and SYNs that none was made of.
//!
//! The end comes with the request's own account (`snt_synack`, `num_retrans`), so it needs no beginning that
//! was seen. It is final: the half-open leaves the table, and no dump is needed to conclude its outcome.

use synprobe_ebpf::event::{
    ENDED_BY_ABORTED, ENDED_BY_ICMP, ENDED_BY_PACKET, ENDED_BY_TIMER, QUEUE_ACCEPT, QUEUE_SYN,
    RequestRecord, SynAckRecord, state,
};

use super::{
    Tracker,
    facts::RESET_HERE,
    handshake::{HandshakeStart, OpenHandshake},
    handshake_end::HandshakeEnd,
    peers::FullQueue,
    schedule::SynAckSchedule,
    unreported::Unreported,
};
use crate::{
    decode::Moment,
    model::{DwellSource, Fate, Outcome, Queue, Role, TcpState, Tuple},
    util::addresses::printable,
};

/// The first SYN-ACK is built on the same CPU right after the SYN was accepted, with softirqs off. Only an
/// interrupt or the hypervisor can come between. Microseconds.
const UNTIL_SYNACK_US: u64 = 5_000;

impl Tracker {
    /// An event of the exact mode: of a half-open, or of a refused SYN.
    pub(super) fn request(&mut self, r: &RequestRecord, moment: Moment) {
        if !self.config.selection.wants(Role::Server) {
            return;
        }
        match moment {
            Moment::Begun => self.request_begun(r),
            Moment::Ended => self.request_ended(r),
            Moment::Refused => self.syn_refused(r),
        }
    }

    fn request_begun(&mut self, r: &RequestRecord) {
        let (tuple, at_ns) = (Tuple::from(&r.flow), r.header.ts_ns);
        if let Some(before) = self.half_opens.remove(&tuple) {
            // One tuple has one half-open: the end of the first was missed.
            let latest_ns = at_ns.max(before.alive_ns);
            self.gone(before, Fate::Gone, latest_ns);
        }
        let start = HandshakeStart {
            at_ns,
            source: DwellSource::Events,
            error_us: UNTIL_SYNACK_US,
        };
        let open = self.new_half_open(tuple, r.flow.family, Some(start), at_ns);
        self.keep_half_open(tuple, open, at_ns);
    }

    fn request_ended(&mut self, r: &RequestRecord) {
        let (tuple, at_ns) = (Tuple::from(&r.flow), r.header.ts_ns);
        let mut known = self.half_opens.remove(&tuple);
        let began_ns = r.snt_synack_us.saturating_mul(1000);
        if began_ns != 0 {
            known = self.same_generation(known, began_ns, at_ns);
        }
        let mut open = match known {
            Some(open) => open,
            None => self.new_half_open(tuple, r.flow.family, None, at_ns),
        };
        if began_ns != 0 {
            open.start = Some(HandshakeStart {
                at_ns: began_ns,
                source: DwellSource::RequestSock,
                error_us: 0,
            });
        }
        self.take_counts(&mut open, r);
        let listens = r.listener_state == state::LISTEN;
        if !listens && self.owners.listens(&open) {
            // Another listener of its SO_REUSEPORT group may have taken it over (tcp_migrate_req): then it
            // lives on. The next dump decides.
            open.moved_ns = Some(at_ns);
            return self.keep_half_open(tuple, open, at_ns);
        }
        self.reconcile.ended(tuple, at_ns);
        let mut end = self.end_of_request(&mut open, r, listens);
        end.dwell_unknown = open.start.is_none();
        self.end(open, TcpState::Close, &end);
    }

    /// Counts an end as lost that a dump shows: in the exact mode an event was due.
    pub(super) fn count_unreported_end(&mut self, open: &OpenHandshake, fate: Fate, at_ns: u64) {
        let due = self.config.source.is_exact() && fate == Fate::Gone && open.moved_ns.is_none();
        if due && !self.may_have_completed(open) {
            self.count_unreported(open.connection.netns, at_ns, 1, Unreported::HalfOpenEnds);
        }
    }

    /// Takes the counts of the request.
    fn take_counts(&mut self, open: &mut OpenHandshake, r: &RequestRecord) {
        let retransmitted = u32::from(r.num_retrans);
        self.count_missed_synacks(open, retransmitted, r.header.ts_ns);
        open.retransmits = open.retransmits.max(retransmitted);
        open.by_peer = open
            .by_peer
            .max(u32::from(r.num_retrans.saturating_sub(r.num_timeout)));
        open.alive_ns = open.alive_ns.max(r.header.ts_ns);
        open.facts.history_known = true;
        open.facts.acked |= r.acked != 0;
        if r.rcv_isn != 0 {
            open.facts.syn_seq = Some(r.rcv_isn);
        }
        open.facts.defer_accept = Some(r.defer_accept != 0);
        let fired = u32::from(r.ended_by == ENDED_BY_TIMER);
        open.facts.time_outs = open.facts.time_outs.max(u32::from(r.num_timeout) + fired);
        open.queued(Queue {
            qlen: r.qlen,
            young: r.young,
            accept_queue: r.ack_backlog,
            max: r.max_ack_backlog,
        });
    }

    fn end_of_request(
        &mut self,
        open: &mut OpenHandshake,
        r: &RequestRecord,
        listens: bool,
    ) -> HandshakeEnd {
        let at_ns = r.header.ts_ns;
        let dropped = |fact: &str| HandshakeEnd::new(Outcome::Dropped, at_ns).fact(fact);
        match r.ended_by {
            ENDED_BY_PACKET => {
                // What the counter shows of it is accounted for.
                let accounted = self.reconcile.embryonic.get_mut(&open.connection.netns);
                if let Some(accounted) = accounted {
                    *accounted += 1;
                }
                if self.reset_here(open) {
                    open.facts.acked = true;
                    return dropped(RESET_HERE);
                }
                open.facts.reset_seen = true;
                HandshakeEnd::new(Outcome::Reset, at_ns)
            }
            _ if !listens => {
                // The record shows the state of its own listener, also where the event of that was not seen.
                let close = self.owners.closed_meanwhile(open, at_ns);
                let closed_ns = close.map(|close| close.at_ns);
                open.facts.listener_closed_ns = closed_ns.or(Some(at_ns));
                dropped("its listener is closed")
            }
            ENDED_BY_TIMER => {
                let schedule =
                    SynAckSchedule::of(&as_synack(r), self.config.hz, self.config.synack_rto_max);
                match schedule.is_over(u32::from(r.num_timeout)) {
                    true => HandshakeEnd::new(Outcome::Expired, at_ns),
                    // reqsk_timer_handler() drops what it cannot send again.
                    false => dropped("its SYN-ACK could not be retransmitted"),
                }
            }
            ENDED_BY_ICMP => dropped("an ICMP error ended it"),
            ENDED_BY_ABORTED => dropped("it was closed by a tool (ss -K)"),
            _ => match self.killed_by_rst(open.connection.netns) {
                Some(true) => HandshakeEnd::new(Outcome::Reset, at_ns).fact("EmbryonicRsts rose"),
                _ => dropped("it was removed, and this kernel does not tell by what"),
            },
        }
    }

    /// No half-open exists: the SYN is counted for the peer.
    fn syn_refused(&mut self, r: &RequestRecord) {
        let queue = match r.queue {
            QUEUE_ACCEPT => FullQueue::Accept,
            QUEUE_SYN => FullQueue::Syn,
            // With cookies off, tcp_max_syn_backlog limits the SYN queue to less than its own limit.
            _ => match self.host.settings(r.flow.netns).syncookies {
                Some(0) => FullQueue::Syn,
                _ => return,
            },
        };
        let peer = printable(r.flow.peer_addr);
        self.peers.refused(peer, queue);
    }
}

/// In the form of a retransmission, from which the schedule is made.
fn as_synack(r: &RequestRecord) -> SynAckRecord {
    SynAckRecord {
        timeout_jiffies: r.timeout_jiffies,
        qlen: r.qlen,
        young: r.young,
        max_ack_backlog: r.max_ack_backlog,
        rto_max_jiffies: r.rto_max_jiffies,
        acked: r.acked,
        syn_retries: r.syn_retries,
        sysctl_synack_retries: r.sysctl_synack_retries,
        defer_accept: r.defer_accept,
        ..SynAckRecord::default()
    }
}
