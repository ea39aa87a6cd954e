//! Retransmissions outside the handshake, and the transitions that `--states all` adds.

use std::sync::Arc;

use synprobe_ebpf::event::{RetransmitRecord, StateRecord};

use super::{Tracker, lines::retransmit_line};
use crate::{
    filter::Detail,
    model::{Connection, RetransmitKind, Role, TcpState, Trigger, Tuple},
    util::errno,
};

/// A segment that was retransmitted.
#[derive(Clone, Copy, Debug)]
pub(super) struct RetransmittedSegment {
    attempts: u32,
    last_ns: u64,
}

/// `TCP_CA_Recovery` and `TCP_CA_Loss` (include/uapi/linux/tcp.h).
const CA_RECOVERY: u8 = 3;
pub(super) const CA_LOSS: u8 = 4;
/// `ICSK_TIME_LOSS_PROBE` (include/net/inet_connection_sock.h).
const TIME_LOSS_PROBE: u8 = 5;

/// Why the kernel retransmitted a data segment: `icsk_ca_state` first, then `icsk_pending`
/// (docs/kernel-facts.md, section 2).
fn kind(ca_state: u8, pending: u8) -> RetransmitKind {
    match (ca_state, pending) {
        // tcp_write_timer_handler() clears icsk_pending before tcp_retransmit_timer() runs.
        (CA_LOSS, 0) => RetransmitKind::Rto,
        (CA_LOSS, _) => RetransmitKind::Recovery,
        (CA_RECOVERY, _) => RetransmitKind::Fast,
        (_, TIME_LOSS_PROBE) => RetransmitKind::Tlp,
        (_, 0) => RetransmitKind::Rto,
        _ => RetransmitKind::Recovery,
    }
}

impl Tracker {
    /// A segment of a full socket beyond SYN_SENT was retransmitted.
    pub(super) fn segment_retransmitted(&mut self, r: &RetransmitRecord, state: TcpState) {
        let at_ns = r.header.ts_ns;
        let tuple = Tuple::from(&r.flow);
        // SYN_RECV is a simultaneous open here: it sends its SYN-ACK from a full socket.
        let handshake = state == TcpState::SynRecv;
        let in_handshake = handshake || state == TcpState::SynSent;
        let connection = match self.clients.get_mut(&r.sock).filter(|_| in_handshake) {
            Some(open) => {
                open.retransmits += u32::from(handshake && r.err == 0);
                open.connection.clone()
            }
            None => self.connection_of(r.sock, &tuple, r.flow.family),
        };
        if !self.config.selection.wants(connection.role) {
            return;
        }
        let kind = if handshake {
            RetransmitKind::Synack
        } else {
            kind(r.ca_state, r.pending)
        };
        let key = (r.sock, r.seq);
        let before = self.segments.get(&key).copied();
        let attempts = before.map_or(0, |s| s.attempts) + 1;
        self.segments.insert(
            key,
            RetransmittedSegment {
                attempts,
                last_ns: at_ns,
            },
        );

        let mut line = retransmit_line(connection, kind, r.segs);
        line.trigger = handshake.then_some(Trigger::Timer);
        line.attempt = Some(attempts);
        // The first transmission of a data segment is not an event: its gap is not known.
        line.gap_us = before.map(|s| at_ns.saturating_sub(s.last_ns) / 1000);
        line.failed = r.err != 0;
        line.error = (r.err != 0).then(|| errno::transmit_error(r.err));
        self.emit_retransmit(at_ns, line, u64::from(r.segs));
    }

    /// The connection of a socket whose handshake is over: the one that was watched, or a new one if
    /// it is older than the run. A listener on its local port makes it a server's.
    fn connection_of(&mut self, sock: u64, tuple: &Tuple, family: u16) -> Connection {
        if let Some(known) = self.known_connection(sock, tuple, family) {
            return known;
        }
        let owner = self.owners.of(tuple).cloned();
        let role = if owner.is_some() {
            Role::Server
        } else {
            Role::Client
        };
        let mut connection = self.new_connection(tuple, role, family);
        if let Some(owner) = owner {
            connection.set_process(owner.process.as_ref());
            connection.cgroup = owner.cgroup;
            self.name_workload(&mut connection);
        }
        self.established.insert(sock, Arc::new(connection.clone()));
        connection
    }

    /// The connection of a socket whose handshake was watched.
    pub(super) fn known_connection(
        &self,
        sock: u64,
        tuple: &Tuple,
        family: u16,
    ) -> Option<Connection> {
        let known = self.established.get(&sock)?;
        let now = tuple.connection(known.id, known.role, family);
        // The address of a closed socket is reused at once: the tuple must agree.
        let same = (now.local_port, now.peer_port, now.peer_addr, now.netns)
            == (
                known.local_port,
                known.peer_port,
                known.peer_addr,
                known.netns,
            );
        same.then(|| known.as_ref().clone())
    }

    /// A listener was opened or closed.
    pub(super) fn listener(&mut self, r: &StateRecord, old: TcpState, new: TcpState) {
        if new == TcpState::Listen {
            let cgroup = self.host.cgroup_path(r.cgroup);
            self.owners.opened(r, cgroup);
        } else {
            self.owners.closed(r);
        }
        if self.config.detail == Detail::AllStates && self.config.selection.wants(Role::Server) {
            let tuple = Tuple::from(&r.flow);
            let connection = self.new_connection(&tuple, Role::Server, r.flow.family);
            self.emit_state(&connection, r.header.ts_ns, old, new, None);
        }
    }

    /// A transition that is no handshake's (`--states all`).
    pub(super) fn other_transition(&mut self, r: &StateRecord, old: TcpState, new: TcpState) {
        if self.config.detail != Detail::AllStates {
            return;
        }
        let tuple = Tuple::from(&r.flow);
        let connection = self.connection_of(r.sock, &tuple, r.flow.family);
        if !self.config.selection.wants(connection.role) {
            return;
        }
        let at_ns = r.header.ts_ns;
        let dwell_us = self
            .entered
            .get(&r.sock)
            .map(|since| at_ns.saturating_sub(*since) / 1000);
        self.emit_state(&connection, at_ns, old, new, dwell_us);
        if new == TcpState::Close {
            self.entered.remove(&r.sock);
            self.established.remove(&r.sock);
        } else {
            self.entered.insert(r.sock, at_ns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Each row was held against the kernel's own counters (docs/kernel-facts.md, section 2).
    #[test]
    fn congestion_state_comes_before_the_pending_timer() {
        assert_eq!(kind(4, 0), RetransmitKind::Rto);
        assert_eq!(kind(4, 1), RetransmitKind::Recovery);
        assert_eq!(kind(3, 6), RetransmitKind::Fast);
        assert_eq!(
            kind(3, 5),
            RetransmitKind::Fast,
            "a pure SACK leaves the probe armed"
        );
        assert_eq!(kind(0, 5), RetransmitKind::Tlp);
        assert_eq!(kind(2, 5), RetransmitKind::Tlp);
    }
}
