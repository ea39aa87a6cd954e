//! Passive opens: from the first SYN-ACK to whatever ended the half-open.
//!
//! The child socket's own time in SYN_RECV, between `inet_csk_clone_lock()` and
//! `tcp_rcv_state_process()`, is microseconds and means nothing; it is never reported.

use synprobe_ebpf::event::{StateRecord, SynAckRecord};

use super::{
    Tracker,
    handshake::{HandshakeStart, OpenHandshake},
    handshake_end::HandshakeEnd,
    lines::retransmit_line,
    schedule::SynAckSchedule,
};
use crate::{
    model::{DwellSource, Fate, Outcome, RetransmitKind, Role, TcpState, Trigger, Tuple},
    util::errno,
};

/// A full socket in SYN_RECV, by its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Child {
    /// Of a listener: for the instant until its next transition, or, under TCP Fast Open, from the
    /// SYN on.
    Passive {
        /// When it was made.
        at_ns: u64,
    },
    /// Reached from SYN_SENT.
    Simultaneous,
}

/// A child that is closed without an error within this time was discarded: another CPU's child replaced it,
/// or `tcp_v4_syn_recv_sock()` failed.
const UNDONE_NS: u64 = 1_000_000;

impl Tracker {
    /// LISTEN→SYN_RECV: the final ACK is here already, except under TCP Fast Open.
    pub(super) fn child_created(&mut self, r: &StateRecord) {
        self.children.insert(
            r.sock,
            Child::Passive {
                at_ns: r.header.ts_ns,
            },
        );
    }

    /// A full socket leaves SYN_RECV.
    pub(super) fn syn_recv_left(&mut self, r: &StateRecord, new: TcpState) {
        let child = self.children.remove(&r.sock);
        // A selection by role may have left out how it began. A socket that is its own peer opened actively.
        let flow = &r.flow;
        let is_own_peer = (flow.local_addr, flow.local_port) == (flow.peer_addr, flow.peer_port);
        if child == Some(Child::Simultaneous) || is_own_peer {
            if self.config.selection.wants(Role::Client) {
                self.simultaneous_left(r, new);
            }
            return;
        }
        let at_ns = r.header.ts_ns;
        let made_ns = match child {
            Some(Child::Passive { at_ns }) => Some(at_ns),
            _ => None,
        };
        let undone = made_ns.is_none_or(|made| at_ns.saturating_sub(made) < UNDONE_NS);
        if new == TcpState::Close && r.sk_err == 0 && undone {
            return;
        }
        if !self.config.selection.wants(Role::Server) {
            return;
        }
        let tuple = Tuple::from(&r.flow);
        let known = self.half_opens.remove(&tuple);
        self.reconcile.ended(tuple, at_ns);
        let outcome = match (new, i32::try_from(r.sk_err).unwrap_or(0)) {
            (TcpState::Established, _) => Outcome::Established,
            (TcpState::Close, libc::ECONNRESET) => Outcome::Reset,
            (TcpState::Close, libc::ETIMEDOUT) => Outcome::Expired,
            (TcpState::Close, _) => Outcome::Dropped,
            // A Fast Open child that the application closed before the final ACK.
            _ => Outcome::Abandoned,
        };
        // Under Fast Open the child is there from the SYN on, and its own time is the half-open's.
        let fast_open = made_ns.filter(|made| at_ns.saturating_sub(*made) >= UNDONE_NS);
        let end =
            HandshakeEnd::new(outcome, at_ns).error((r.sk_err != 0).then(|| errno::name(r.sk_err)));
        let (mut open, end) = self.passive_dwell(r, tuple, known, fast_open, end);
        // What the request had counted (tcp_create_openreq_child()).
        self.count_missed_synacks(&open, r.total_retrans, at_ns);
        open.retransmits = open.retransmits.max(r.total_retrans);
        open.sequence_numbers(r);
        if outcome == Outcome::Established {
            self.remember(r.sock, &open.connection, r.header.ts_ns);
        }
        self.end(open, new, &end);
    }

    /// When the half-open of a child began, from the best source there is.
    fn passive_dwell(
        &mut self,
        r: &StateRecord,
        tuple: Tuple,
        known: Option<OpenHandshake>,
        fast_open: Option<u64>,
        end: HandshakeEnd,
    ) -> (OpenHandshake, HandshakeEnd) {
        let at_ns = r.header.ts_ns;
        let sample_us = u64::from(r.srtt_us >> 3);
        let mut known = known;
        let mut end = end;
        let start = if r.total_retrans == 0 && sample_us != 0 && !self.may_be_cookie(r, &known) {
            // tcp_synack_rtt_meas(): now - snt_synack, the first sample, stored times eight.
            let began_ns = at_ns.saturating_sub(sample_us * 1000);
            known = self.same_generation(known, began_ns, at_ns);
            end = end.dwell(sample_us, DwellSource::RttSample);
            Some(HandshakeStart {
                at_ns: began_ns,
                source: DwellSource::RttSample,
                error_us: 0,
            })
        } else if let Some(made_ns) = fast_open {
            Some(HandshakeStart {
                at_ns: made_ns,
                source: DwellSource::Events,
                error_us: 0,
            })
        } else if let Some(exact) = known
            .as_ref()
            .and_then(|o| o.start)
            .filter(|s| s.error_us == 0)
        {
            Some(exact)
        } else if r.total_retrans > 0 && r.total_rto_time_ms != 0 {
            // tcp_create_openreq_child() (6.7): now - snt_synack, milliseconds.
            let dwell_us = u64::from(r.total_rto_time_ms) * 1000;
            end = end.dwell(dwell_us, DwellSource::RequestSock);
            end.error_us = 1000;
            let at_ns = at_ns.saturating_sub(dwell_us * 1000);
            Some(HandshakeStart {
                at_ns,
                source: DwellSource::RequestSock,
                error_us: 1000,
            })
        } else {
            known.as_ref().and_then(|open| open.start)
        };
        end.dwell_unknown = start.is_none();
        if start.is_none() {
            end = end.fact(match r.total_retrans {
                0 => "no request_sock: it came through a SYN cookie, or began before the run",
                _ => "its SYN-ACK retransmissions were not seen",
            });
        }
        let mut open = match known {
            Some(open) => open,
            None => self.new_half_open(tuple, r.flow.family, None, at_ns),
        };
        open.start = start;
        (open, end)
    }

    /// A connection made through a SYN cookie has no request_sock, and its first sample comes from a
    /// timestamp whose low bits encode options: whole milliseconds (`cookie_init_timestamp()`). A
    /// true sample has one chance in a thousand to look so; then the namespace's own counter decides.
    fn may_be_cookie(&mut self, r: &StateRecord, known: &Option<OpenHandshake>) -> bool {
        if known.is_some() || !r.srtt_us.is_multiple_of(8000) {
            return false;
        }
        let Some((now, noticed_ns)) = self
            .host
            .counters(r.flow.netns)
            .and_then(|counters| Some((counters.syncookies_recv?, counters.at_ns)))
        else {
            return true;
        };
        self.reconcile
            .cookies_in_use(r.flow.netns, now, noticed_ns, r.header.ts_ns)
    }

    /// The half-open of the table, if it is the one that began then. Otherwise its end was not seen: the peer
    /// reused the port.
    pub(super) fn same_generation(
        &mut self,
        known: Option<OpenHandshake>,
        began_ns: u64,
        at_ns: u64,
    ) -> Option<OpenHandshake> {
        let open = known?;
        // One that has been there since then has had the tuple: nothing that began later was another one. Where time-outs
        // send nothing (TCP_DEFER_ACCEPT), the timer shows too late a beginning.
        if open.began_at(began_ns) || open.began_after(began_ns) {
            return Some(open);
        }
        let latest_ns = began_ns.clamp(open.alive_ns, at_ns.max(open.alive_ns));
        self.gone(open, Fate::Gone, latest_ns);
        None
    }

    /// A half-open that has just become known.
    pub(super) fn new_half_open(
        &mut self,
        tuple: Tuple,
        family: u16,
        start: Option<HandshakeStart>,
        alive_ns: u64,
    ) -> OpenHandshake {
        let mut connection = self.new_connection(&tuple, Role::Server, family);
        if let Some(owner) = self.owners.of(&tuple) {
            connection.set_process(owner.process.as_ref());
            connection.cgroup = owner.cgroup.clone();
            self.name_workload(&mut connection);
        }
        OpenHandshake::new(connection, TcpState::SynRecv, start, alive_ns)
    }

    /// A SYN-ACK was retransmitted.
    pub(super) fn synack_retransmitted(&mut self, r: &SynAckRecord, trigger: Trigger) {
        let at_ns = r.header.ts_ns;
        let tuple = Tuple::from(&r.flow);
        let began_ns = r.snt_synack_us.saturating_mul(1000);
        let known = self.half_opens.remove(&tuple);
        let start = HandshakeStart {
            at_ns: began_ns,
            source: DwellSource::RequestSock,
            error_us: 0,
        };
        let mut open = match self.same_generation(known, began_ns, at_ns) {
            Some(open) => open,
            None => self.new_half_open(tuple, r.flow.family, None, at_ns),
        };
        open.start = Some(start);
        if !open.announced {
            self.announce_if_due(&open);
            open.announced = true;
        }
        // The transmission before this one was seen only if it was the first, or if none is missing.
        let sent_before = u32::from(r.num_retrans);
        self.count_missed_synacks(&open, sent_before, at_ns);
        if sent_before == 0 {
            open.last_tx_ns = Some(began_ns);
        } else if open.retransmits != sent_before {
            open.last_tx_ns = None;
        }
        let gap_us = open.transmitted(at_ns);
        open.retransmits = sent_before + 1;
        open.learn(r, trigger);
        self.deferrals.note(tuple.netns, r.defer_accept);
        open.by_peer += u32::from(trigger == Trigger::Peer);

        let schedule = SynAckSchedule::of(r, self.config.hz, self.config.synack_rto_max);
        let fired = u32::from(r.num_timeout);
        let (expected_gap_us, armed) = match trigger {
            Trigger::Timer => (Some(schedule.gap_us(fired)), fired + 1),
            // No schedule predicts the peer; it starts our time-out anew, and as long as before.
            Trigger::Peer => (None, fired),
        };
        let (next_us, gives_up_us) = schedule.ahead_us(armed);
        open.gives_up = Some((at_ns + gives_up_us * 1000, schedule.gap_us(armed)));
        open.next_us = next_us;

        let mut line = retransmit_line(open.connection.clone(), RetransmitKind::Synack, 1);
        line.trigger = Some(trigger);
        line.attempt = Some(sent_before + 1);
        line.gap_us = gap_us;
        line.expected_gap_us = expected_gap_us;
        line.next_us = next_us;
        line.gives_up_us = Some(gives_up_us);
        self.emit_retransmit(at_ns, line, 1);
        self.keep_half_open(tuple, open, at_ns);
    }

    /// Counts SYN-ACK retransmissions as lost that the request counted and no event reported.
    pub(super) fn count_missed_synacks(&mut self, open: &OpenHandshake, counted: u32, at_ns: u64) {
        let begun = |start: HandshakeStart| {
            start.at_ns.saturating_sub(start.error_us * 1000) >= self.config.began_ns
        };
        // The events of an evicted half-open were received.
        let may_be_evicted = self.totals.evicted > 0 && open.retransmits == 0;
        if open.start.is_some_and(begun) && !may_be_evicted {
            let missed = counted.saturating_sub(open.retransmits);
            self.missed(open.connection.netns, at_ns, missed);
        }
    }

    /// Puts a half-open (back) into the table.
    pub(super) fn keep_half_open(&mut self, tuple: Tuple, open: OpenHandshake, at_ns: u64) {
        let evicted = self.half_opens.insert(tuple, open);
        self.evicted(evicted, at_ns);
    }

    /// The end of a simultaneous open.
    fn simultaneous_left(&mut self, r: &StateRecord, new: TcpState) {
        let tuple = Tuple::from(&r.flow);
        let at_ns = r.header.ts_ns;
        let Some(mut open) = self.take_client(r.sock, &tuple, r.flow.family, at_ns) else {
            return;
        };
        open.sequence_numbers(r);
        let outcome = match (new, i32::try_from(r.sk_err).unwrap_or(0)) {
            (TcpState::Established, _) => Outcome::Established,
            (TcpState::Close, libc::ECONNRESET) => Outcome::Reset,
            (TcpState::Close, libc::ETIMEDOUT) => Outcome::TimedOut,
            _ => Outcome::Abandoned,
        };
        if outcome == Outcome::Established {
            self.remember(r.sock, &open.connection, r.header.ts_ns);
        }
        let end = HandshakeEnd::new(outcome, r.header.ts_ns)
            .error((r.sk_err != 0).then(|| errno::name(r.sk_err)));
        self.end(open, new, &end);
    }
}
