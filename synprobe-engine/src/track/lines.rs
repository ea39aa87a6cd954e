//! The lines that the tracker makes.

use super::{
    Tracker,
    handshake::{OpenHandshake, is_a_value},
    handshake_end::HandshakeEnd,
    unreported::EVICTION_REPORT_NS,
};
use crate::model::{
    Body, Confidence, Connection, Handshake, Line, OpenReason, Retransmit, RetransmitKind, Role,
    State, TcpState, Trigger,
};

impl Tracker {
    pub(super) fn emit_state(
        &mut self,
        connection: &Connection,
        at_ns: u64,
        old: TcpState,
        new: TcpState,
        dwell_us: Option<u64>,
    ) {
        let state = State {
            connection: connection.clone(),
            old,
            new,
            dwell_us,
        };
        self.lines.push(Line {
            mono_ns: at_ns,
            body: Body::State(state),
        });
    }

    /// Prints the beginning of a handshake, unless that was done.
    pub(super) fn announce_if_due(&mut self, open: &OpenHandshake) {
        if open.announced || open.awaits_port {
            return;
        }
        let old = match open.connection.role {
            Role::Client => TcpState::Close,
            Role::Server => TcpState::Listen,
        };
        // A beginning that is only estimated roughly is no time for a line.
        let known = open.start.filter(|start| start.is_known(open.alive_ns));
        let at_ns = known.map_or(open.alive_ns, |start| start.at_ns);
        self.emit_state(&open.connection, at_ns, old, open.state, None);
    }

    /// The one exit of every handshake: its last transition and its `handshake` line.
    pub(super) fn end(&mut self, open: OpenHandshake, new: TcpState, end: &HandshakeEnd) {
        self.announce_if_due(&open);
        let dwell = end
            .dwell_us
            .or_else(|| open.dwell_us(end.at_ns))
            .filter(|_| !end.dwell_unknown)
            .filter(|us| is_a_value(*us, start_error_us(&open, end), end.error_us));
        self.emit_state(&open.connection, end.at_ns, open.state, new, dwell);
        self.emit_handshake(open, end);
    }

    pub(super) fn emit_handshake(&mut self, open: OpenHandshake, end: &HandshakeEnd) {
        let handshake = self.handshake(open, end);
        self.totals.handshakes += 1;
        self.peers.ended(&handshake);
        self.count_completed(&handshake);
        self.lines.push(Line {
            mono_ns: end.at_ns,
            body: Body::Handshake(Box::new(handshake)),
        });
    }

    /// The handshake as its line has it, without a verdict.
    pub(super) fn handshake(&self, open: OpenHandshake, end: &HandshakeEnd) -> Handshake {
        let start = open.start;
        let (dwell_us, source) = match end.dwell_us {
            _ if end.dwell_unknown => (None, None),
            Some(dwell) => (Some(dwell), end.source),
            None => (
                open.dwell_us(end.at_ns),
                end.source.or(start.map(|s| s.source)),
            ),
        };
        let start_error_us = start_error_us(&open, end);
        let error_us = start_error_us.saturating_add(end.error_us);
        let at_least_us = dwell_us.map(|us| us.saturating_sub(error_us));
        let dwell_us = dwell_us.filter(|us| is_a_value(*us, start_error_us, end.error_us));
        let facts = self.facts(&open, end);
        Handshake {
            outcome: end.outcome,
            open_reason: end.open_reason,
            dwell_us,
            dwell_source: dwell_us.and(source),
            dwell_error_us: dwell_us.and((error_us > 0).then_some(error_us)),
            dwell_at_least_us: at_least_us.filter(|us| dwell_us.is_none() && *us > 0),
            retransmits: open.retransmits,
            retransmits_by_peer: open.by_peer,
            error: end.error.clone(),
            verdict: None,
            confidence: Confidence::Insufficient,
            evidence: end.facts.clone(),
            remedy: None,
            gaps_us: open.gaps_us,
            facts,
            connection: open.connection,
        }
    }

    /// Prints the line of a handshake that the full table evicted, and counts it as lost.
    pub(super) fn evicted(&mut self, open: Option<OpenHandshake>, at_ns: u64) {
        let Some(open) = open.filter(|open| !open.awaits_port) else {
            return;
        };
        self.totals.evicted += 1;
        self.announce_if_due(&open);
        let end = HandshakeEnd::open(OpenReason::Evicted, at_ns).fact(format!(
            "evicted: the table holds {} handshakes (--max-memory, --max-handshakes)",
            match open.connection.role {
                Role::Client => self.config.tables.clients,
                Role::Server => self.config.tables.half_opens,
            }
        ));
        self.emit_handshake(open, &end);
        self.evictions.count += 1;
        let since_ns = *self.evictions.since_ns.get_or_insert(at_ns);
        if at_ns.saturating_sub(since_ns) >= EVICTION_REPORT_NS {
            self.report_evictions(at_ns);
        }
    }

    pub(super) fn emit_retransmit(&mut self, at_ns: u64, retransmit: Retransmit, count: u64) {
        if !retransmit.failed {
            let c = &retransmit.connection;
            self.peers
                .retransmitted(c.peer_addr, c.role, retransmit.kind, count);
            if retransmit.trigger == Some(Trigger::Peer) {
                self.peers.syn_repeated(c.peer_addr, c.role);
            }
        }
        self.lines.push(Line {
            mono_ns: at_ns,
            body: Body::Retransmit(retransmit),
        });
    }
}

/// Bound of the error of the beginning, where the dwell is the difference of two times, microseconds.
fn start_error_us(open: &OpenHandshake, end: &HandshakeEnd) -> u64 {
    match end.dwell_us {
        Some(_) => 0,
        None => open.start.map_or(0, |s| s.error_us).max(end.start_error_us),
    }
}

/// A `retransmit` line's fixed part.
pub(super) fn retransmit_line(
    connection: Connection,
    kind: RetransmitKind,
    segs: u32,
) -> Retransmit {
    Retransmit {
        connection,
        kind,
        trigger: None,
        attempt: None,
        gap_us: None,
        expected_gap_us: None,
        next_us: None,
        gives_up_us: None,
        segs,
        failed: false,
        error: None,
    }
}
