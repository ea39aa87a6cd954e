//! Active opens: from CLOSE→SYN_SENT to whatever ended it.

use std::sync::Arc;

use synprobe_ebpf::event::{
    RetransmitRecord, SYN_BUILT, SYN_HAD_ECN, SYN_HAD_FAST_OPEN, SYN_NO_TUPLE, SYN_NOT_BUILT,
    StateRecord,
};

use super::{
    Tracker,
    client_end::{established, sample_us},
    handshake::{HandshakeStart, OpenHandshake},
    handshake_end::HandshakeEnd,
    lines::retransmit_line,
    schedule::{SynSchedule, TIMEOUT_INIT_US, jiffies_to_us},
    server::Child,
    syn_too_large::too_large_for_path,
};
use crate::{
    model::{
        Connection, DwellSource, OpenReason, Process, RetransmitKind, Role, SynSent, TcpState,
        Tuple,
    },
    util::{addresses::printable, errno},
};

impl Tracker {
    /// connect(): the only transition that runs in its caller's context.
    pub(super) fn syn_sent(&mut self, r: &StateRecord, old: TcpState) {
        let at_ns = r.header.ts_ns;
        let tuple = Tuple::from(&r.flow);
        let mut connection = self.new_connection(&tuple, Role::Client, r.flow.family);
        if r.tgid != 0 {
            self.called_by(&mut connection, r);
        }
        let start = HandshakeStart {
            at_ns,
            source: DwellSource::Events,
            error_us: 0,
        };
        let mut open = OpenHandshake::new(connection, TcpState::SynSent, Some(start), at_ns);
        open.last_total_retrans = Some(0);
        // With a filter on an ephemeral local port the kernel passes records that may not match. No line is
        // made before the port is known.
        open.awaits_port = r.flow.local_port == 0 && !self.wants(&Tuple::from(&r.flow), Some(0));
        if !open.awaits_port {
            self.emit_state(&open.connection, at_ns, old, TcpState::SynSent, None);
            open.announced = true;
        }
        self.established.remove(&r.sock);
        let (replaced, evicted) = self.clients.insert(r.sock, open);
        if let Some(before) = replaced {
            // The socket's address was reused, and the end of the connection before was not seen.
            self.end_not_seen(before, at_ns, "its socket was used again");
        }
        self.evicted(evicted.map(|(_, open)| open), at_ns);
    }

    /// Names the process that called connect().
    fn called_by(&self, connection: &mut Connection, r: &StateRecord) {
        let process = Process {
            pid: r.tgid,
            comm: comm(&r.comm),
        };
        connection.set_process(Some(&process));
        connection.cgroup = self.host.cgroup_path(r.cgroup);
        self.name_workload(connection);
    }

    /// Whether a connection is one that was asked for; `local` overrides the tuple's port.
    pub(super) fn wants(&self, tuple: &Tuple, local: Option<u16>) -> bool {
        self.config.selection.matches(
            local.or((tuple.local_port != 0).then_some(tuple.local_port)),
            Some(tuple.peer_port),
            printable(tuple.peer_addr),
            tuple.netns,
        )
    }

    /// Ends a handshake whose end was not seen. Its line has the outcome `open`.
    pub(super) fn end_not_seen(&mut self, open: OpenHandshake, at_ns: u64, shown_by: &str) {
        if !open.awaits_port {
            let mut end = HandshakeEnd::open(OpenReason::EndNotSeen, open.alive_ns)
                .fact(format!("its end was not seen: {shown_by}"));
            end.error_us = at_ns.saturating_sub(open.alive_ns) / 1000;
            self.announce_if_due(&open);
            self.emit_handshake(open, &end);
        }
    }

    /// A handshake in SYN_SENT that is older than the run.
    pub(super) fn preexisting_client(
        &mut self,
        tuple: Tuple,
        family: u16,
        n: u32,
        start: HandshakeStart,
        seen_ns: u64,
    ) {
        if !self.config.selection.wants(Role::Client) || !self.wants(&tuple, None) {
            return;
        }
        let mut connection = self.new_connection(&tuple, Role::Client, family);
        if let Some(caller) = self.callers.remove(&tuple) {
            self.named_by(&mut connection, caller);
        }
        let mut open = OpenHandshake::new(connection, TcpState::SynSent, Some(start), seen_ns);
        open.retransmits = n;
        let (_, evicted) = self.preexisting.insert(tuple, open);
        self.evicted(evicted.map(|(_, open)| open), seen_ns);
    }

    /// Takes a handshake out of the table and fills in its local port. `None`: the port shows that it is not
    /// selected.
    pub(super) fn take_client(
        &mut self,
        sock: u64,
        tuple: &Tuple,
        family: u16,
        at_ns: u64,
    ) -> Option<OpenHandshake> {
        let mut open = match self.clients.remove(&sock) {
            Some(open) => open,
            None => match self.preexisting.remove(tuple) {
                Some(open) => open,
                // Its beginning was lost, or gave no record (the quiet mode).
                None => {
                    let connection = self.new_connection(tuple, Role::Client, family);
                    let mut open = OpenHandshake::new(connection, TcpState::SynSent, None, at_ns);
                    self.recall(sock, tuple, &mut open);
                    open
                }
            },
        };
        if tuple.local_port != 0 {
            let known = tuple.connection(open.connection.id, Role::Client, family);
            open.connection.local_addr = known.local_addr;
            open.connection.local_port = known.local_port;
            if !self.wants(tuple, None) {
                if open.announced {
                    self.end_not_seen(open, at_ns, "its socket was used again");
                }
                return None;
            }
            open.awaits_port = false;
        }
        Some(open)
    }

    /// A SYN was retransmitted, or, from 6.17, could not be.
    pub(super) fn syn_retransmitted(&mut self, r: &RetransmitRecord) {
        let at_ns = r.header.ts_ns;
        let tuple = Tuple::from(&r.flow);
        let Some(mut open) = self.take_client(r.sock, &tuple, r.flow.family, at_ns) else {
            return;
        };
        if open
            .start
            .is_none_or(|start| start.error_us > STAMP_ERROR_US)
        {
            open.start = first_syn(r.retrans_stamp_ms, at_ns);
        }
        if !open.announced {
            self.announce_if_due(&open);
            open.announced = true;
        }
        open.facts.syn_seq = Some(r.seq);
        if too_large_for_path(r) {
            self.syn_sent_without_data(r, open);
            return;
        }
        let n = u32::from(r.retransmits).max(1);
        if n != open.time_outs + 1 {
            // One before it was not seen: the gap since then is not known.
            open.last_tx_ns = None;
        }
        open.time_outs = n;
        // This one is counted already, unless it failed early.
        let missed = self.count(&mut open, r.total_retrans).saturating_sub(1);
        self.missed(tuple.netns, at_ns, missed);
        if open.last_tx_ns.is_none() {
            // The first transmission seen of one that is older than the run.
            open.retransmits = n - 1;
        }
        let base_us = *open.base_us.get_or_insert_with(|| {
            // While nothing has doubled yet, the time-out that just expired is the first one: one
            // second, unless a BPF program chose another (BPF_SOCK_OPS_TIMEOUT_INIT).
            if n <= 1 + u32::from(r.sysctl_syn_linear) && r.rto_jiffies != 0 {
                jiffies_to_us(r.rto_jiffies, self.config.hz)
            } else {
                TIMEOUT_INIT_US
            }
        });
        let mut schedule = SynSchedule::of(r, base_us, self.config.hz);
        let expected_gap_us = open.congestion.met(r.err, n, &mut schedule);
        let gap_us = open.transmitted(at_ns);
        let elapsed_us = open
            .dwell_us(at_ns)
            .unwrap_or_else(|| (1..=n).map(|k| schedule.gap_us(k)).sum());
        let (next_us, gives_up_us) = schedule.ahead_us(n, elapsed_us);
        open.facts.user_timeout_us = schedule.user_timeout_us;
        open.facts.syn_count = (r.syn_retries != 0).then_some(r.syn_retries);
        open.facts.first_syn_had_fast_open |= r.syn_had & SYN_HAD_FAST_OPEN != 0;
        open.facts.first_syn_had_ecn |= r.syn_had & SYN_HAD_ECN != 0;
        // A SYN that could not be sent is tried again after half a second, whatever the schedule.
        // An ICMP error, or Fast Open that falls back, may bring one forward too.
        let since_us = gap_us.or_else(|| open.dwell_us(at_ns).filter(|_| n == 1));
        let is_early = r.err == 0
            && open.soft_error == 0
            && r.syn_had & SYN_HAD_FAST_OPEN == 0
            && since_us.is_some_and(|us| us < expected_gap_us / EARLY);
        if is_early {
            open.facts.early_repeats += 1;
            open.facts.early_gap_us = since_us;
        }
        let last_gap_us = schedule.next_gap_us(n);
        open.gives_up = Some((at_ns + gives_up_us * 1000, last_gap_us));
        open.next_us = next_us;
        if r.err == 0 {
            open.retransmits = open.retransmits.saturating_add(1);
        }
        let mut line = retransmit_line(open.connection.clone(), RetransmitKind::Syn, r.segs);
        line.attempt = Some(n);
        line.gap_us = gap_us;
        line.expected_gap_us = Some(expected_gap_us);
        line.next_us = next_us;
        line.gives_up_us = Some(gives_up_us);
        line.failed = r.err != 0;
        line.error = (r.err != 0).then(|| errno::transmit_error(r.err));
        self.emit_retransmit(at_ns, line, 1);
        let (_, evicted) = self.clients.insert(r.sock, open);
        self.evicted(evicted.map(|(_, open)| open), at_ns);
    }

    /// How far the socket's own count has risen since its last record. Before 6.17 failed attempts are
    /// counted and raise no event, so it proves nothing.
    pub(super) fn count(&self, open: &mut OpenHandshake, total_retrans: u32) -> u32 {
        let before = open.last_total_retrans.replace(total_retrans);
        match before.filter(|_| self.config.sees_failures) {
            Some(before) => total_retrans.saturating_sub(before),
            None => 0,
        }
    }

    /// SYN_SENT→SYN_RECV: both ends opened at once (RFC 9293 section 3.5); still one handshake, ours
    /// to lead.
    pub(super) fn simultaneous(&mut self, r: &StateRecord) {
        let at_ns = r.header.ts_ns;
        let tuple = Tuple::from(&r.flow);
        let Some(mut open) = self.take_client(r.sock, &tuple, r.flow.family, at_ns) else {
            return;
        };
        self.children.insert(r.sock, Child::Simultaneous);
        open.facts.peer_called_too = true;
        // In the quiet mode the kernel side only counts it once it is established: nothing would end it here. A
        // socket that is connected to itself sends a record.
        if self.config.detail.slow_us().is_some() && tuple.local_port != tuple.peer_port {
            if open.announced {
                let counted = "both ends opened at once, and the kernel side counts what follows";
                self.end_not_seen(open, at_ns, counted);
            }
            return;
        }
        self.announce_if_due(&open);
        open.announced = true;
        let dwell_us = open.dwell_us(at_ns);
        self.emit_state(
            &open.connection,
            at_ns,
            TcpState::SynSent,
            TcpState::SynRecv,
            dwell_us,
        );
        open.state = TcpState::SynRecv;
        open.alive_ns = at_ns;
        let (_, evicted) = self.clients.insert(r.sock, open);
        self.evicted(evicted.map(|(_, open)| open), at_ns);
    }

    /// The end of an active open.
    pub(super) fn client_left(&mut self, r: &StateRecord, new: TcpState) {
        let at_ns = r.header.ts_ns;
        let tuple = Tuple::from(&r.flow);
        // The first dump may have been read before this, and be taken in after it.
        self.reconcile.ended(tuple, at_ns);
        let Some(mut open) = self.take_client(r.sock, &tuple, r.flow.family, at_ns) else {
            return;
        };
        if open.awaits_port {
            return;
        }
        if r.tgid != 0 && open.connection.pid.is_none() {
            self.called_by(&mut open.connection, r);
        }
        if open.last_total_retrans.is_none() {
            open.retransmits = open.retransmits.max(r.total_retrans);
        }
        let missed = self.count(&mut open, r.total_retrans);
        self.missed(tuple.netns, at_ns, missed);
        open.retransmits = open.retransmits.saturating_add(missed);
        if r.began_ns != 0 && open.start.is_none_or(|start| start.error_us > 0) {
            open.start = Some(HandshakeStart {
                at_ns: r.began_ns,
                source: DwellSource::Events,
                error_us: 0,
            });
        }
        if open.start.is_none() && tuple.local_port != 0 {
            open.start = match sample_us(r, &open) {
                Some(us) => Some(HandshakeStart {
                    at_ns: at_ns.saturating_sub(us * 1000),
                    source: DwellSource::RttSample,
                    error_us: 0,
                }),
                None => first_syn(r.retrans_stamp_ms, at_ns),
            };
        }
        if new == TcpState::Established && r.total_retrans > 0 && open.state == TcpState::SynSent {
            open.facts.echo_us = (r.srtt_us != 0).then_some(u64::from(r.srtt_us >> 3));
            open.facts.since_last_syn_us = open
                .last_tx_ns
                .map(|last_ns| at_ns.saturating_sub(last_ns) / 1000);
        }
        open.facts.syn = match r.syn {
            SYN_BUILT => SynSent::Built,
            SYN_NO_TUPLE => SynSent::NoTuple,
            SYN_NOT_BUILT => SynSent::NotBuilt,
            _ => SynSent::Unknown,
        };
        if new == TcpState::Established && no_packet(r, &open) {
            return self.remember(r.sock, &open.connection, at_ns);
        }
        open.sequence_numbers(r);
        let end = if new == TcpState::Established {
            self.remember(r.sock, &open.connection, r.header.ts_ns);
            established(r, &open)
        } else {
            self.closed_while_open(r, &open)
        };
        self.end(open, new, &end);
    }
}

/// A SYN that is repeated after less than this part of its time-out is not repeated for the time-out.
const EARLY: u64 = 4;
/// `tcp_sock.retrans_stamp` counts milliseconds.
const STAMP_ERROR_US: u64 = 1000;
/// No handshake is older than this: the longest schedule there can be (127 retries at 120 s).
const OLDEST_MS: u32 = 5 * 3600 * 1000;

/// Whether a connection was restored without a packet (TCP_REPAIR): there was no handshake. An answer to a SYN that was
/// sent once gives a sample of at least 1 (`tcp_rtt_estimator()`); `tcp_connect()` under TCP_REPAIR sends none and calls
/// `tcp_finish_connect()` itself.
fn no_packet(r: &StateRecord, open: &OpenHandshake) -> bool {
    open.state == TcpState::SynSent && r.srtt_us == 0 && r.total_retrans == 0
}

/// When the first SYN was sent, by the socket's own time stamp.
fn first_syn(retrans_stamp_ms: u32, now_ns: u64) -> Option<HandshakeStart> {
    let now_ms = (now_ns / 1_000_000) as u32;
    let age_ms = now_ms.wrapping_sub(retrans_stamp_ms);
    (retrans_stamp_ms != 0 && age_ms <= OLDEST_MS).then(|| HandshakeStart {
        at_ns: now_ns.saturating_sub(u64::from(age_ms) * 1_000_000),
        source: DwellSource::SockDiag,
        error_us: STAMP_ERROR_US,
    })
}

/// A NUL-padded `comm` as text.
pub(super) fn comm(bytes: &[u8; 16]) -> Arc<str> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into()
}
