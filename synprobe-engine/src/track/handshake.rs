//! One handshake in progress.

use super::schedule::{RESOURCE_PROBE_US, SynSchedule};
use crate::model::{Connection, DwellSource, Facts, TcpState};

/// Gaps kept for the ladder of the text view, at most.
const LADDER: usize = 64;
/// Two sightings of one first SYN-ACK differ by less than this, nanoseconds: the resolution of
/// `snt_synack` and of the RTT sample, and the time between the sample and the event.
const SAME_START_NS: u64 = 2_000_000;

/// When it began, and how well that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeStart {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub at_ns: u64,
    /// Where that comes from.
    pub source: DwellSource,
    /// Bound of its error, microseconds; 0: exact to the clock.
    pub error_us: u64,
}

impl HandshakeStart {
    /// Whether it is known well enough to be printed, at this moment: [`is_a_value`].
    pub fn is_known(&self, at_ns: u64) -> bool {
        is_a_value(at_ns.saturating_sub(self.at_ns) / 1000, self.error_us, 0)
    }
}

/// A small error is stated with any time that it does not exceed, microseconds.
const SMALL_ERROR_US: u64 = 5_000;

/// Whether a time says more than a lower bound does. With an error of its beginning of more than half of it,
/// the longest possible time is more than three times the shortest. No bound may exceed the time itself.
pub fn is_a_value(us: u64, start_error_us: u64, end_error_us: u64) -> bool {
    (start_error_us <= us / 2 || start_error_us <= SMALL_ERROR_US)
        && start_error_us.saturating_add(end_error_us) <= us
}

/// SYN retransmissions that failed because of local congestion (`NET_XMIT_DROP`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalCongestion {
    /// The last one did: the next follows after `TCP_RESOURCE_PROBE_INTERVAL`.
    pub is_last: bool,
    /// How many did in a row of time-outs that double: none of them doubled it.
    pub undoubled: u32,
}

impl LocalCongestion {
    /// Takes in the result of the `n`th retransmission, and completes the schedule with it. Returns how long it
    /// was due after the transmission before it, microseconds.
    pub fn met(&mut self, err: i32, n: u32, schedule: &mut SynSchedule) -> u64 {
        schedule.undoubled = self.undoubled;
        let expected_us = match self.is_last {
            true => RESOURCE_PROBE_US,
            false => schedule.gap_us(n),
        };
        // A negative error is another failure: net_xmit_eval() leaves only the queue's refusal.
        self.is_last = err > 0;
        if self.is_last {
            self.undoubled += u32::from(n > schedule.linear);
        }
        (schedule.congested, schedule.undoubled) = (self.is_last, self.undoubled);
        expected_us
    }
}

/// One handshake under way.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenHandshake {
    /// Whose.
    pub connection: Connection,
    /// SYN_SENT or SYN_RECV.
    pub state: TcpState,
    /// First SYN or first SYN-ACK; `None`: it is older than the run, and its beginning is not known.
    pub start: Option<HandshakeStart>,
    /// The last transmission of the SYN or SYN-ACK that was seen.
    pub last_tx_ns: Option<u64>,
    /// Retransmissions of its SYN or SYN-ACK.
    pub retransmits: u32,
    /// `tcp_sock.total_retrans` of the last record; `None`: it is older than the run.
    pub last_total_retrans: Option<u32>,
    /// Those of them that the peer's repeated SYN triggered.
    pub by_peer: u32,
    /// Ordinal of the last time-out that was seen.
    pub time_outs: u32,
    /// Measured gaps.
    pub gaps_us: Vec<u64>,
    /// Whether its beginning was printed.
    pub announced: bool,
    /// Whether the filter cannot be applied yet, because the local port is not known.
    pub awaits_port: bool,
    /// A RST for it was received.
    pub reset_seen: bool,
    /// Last error reported to the socket.
    pub soft_error: u32,
    /// When it was reported, CLOCK_MONOTONIC nanoseconds.
    pub error_ns: Option<u64>,
    /// When a RST was received that may have ended it, CLOCK_MONOTONIC nanoseconds.
    pub rst_ns: Option<u64>,
    /// First SYN time-out where it is not the kernel's constant, microseconds.
    pub base_us: Option<u64>,
    /// Its SYNs that this host's own queue refused.
    pub congestion: LocalCongestion,
    /// When the kernel gives up, by its schedule; and the length of the last time-out before it.
    pub gives_up: Option<(u64, u64)>,
    /// When its next retransmission is due, microseconds after the last transmission; `None`: none follows, or
    /// that is not known.
    pub next_us: Option<u64>,
    /// The last moment at which it was known to be alive.
    pub alive_ns: u64,
    /// Dumps in a row that did not show it.
    pub absences: u8,
    /// It ended with its listener then, CLOCK_MONOTONIC nanoseconds, unless another listener took it over
    /// (`tcp_migrate_req`).
    pub moved_ns: Option<u64>,
    /// What verdicts are drawn from.
    pub facts: Facts,
}

impl OpenHandshake {
    /// When it began, CLOCK_MONOTONIC nanoseconds, where that is known well enough to be printed.
    pub fn known_start_ns(&self) -> Option<u64> {
        let start = self.start.filter(|start| start.is_known(self.alive_ns))?;
        Some(start.at_ns)
    }

    /// Whether it may be the one that began then: its own beginning is within the bound of its error.
    pub fn began_at(&self, began_ns: u64) -> bool {
        self.start.is_none_or(|start| {
            let slack_ns = SAME_START_NS + start.error_us * 1000;
            start.at_ns.abs_diff(began_ns) <= slack_ns
        })
    }

    /// Whether its own beginning lies after that moment.
    pub fn began_after(&self, at_ns: u64) -> bool {
        self.start.is_some_and(|start| start.at_ns > at_ns)
    }

    /// A handshake that has just become known.
    pub fn new(
        connection: Connection,
        state: TcpState,
        start: Option<HandshakeStart>,
        alive_ns: u64,
    ) -> Self {
        Self {
            connection,
            state,
            start,
            last_tx_ns: start.filter(|s| s.error_us == 0).map(|s| s.at_ns),
            retransmits: 0,
            last_total_retrans: None,
            by_peer: 0,
            time_outs: 0,
            gaps_us: Vec::new(),
            announced: false,
            awaits_port: false,
            reset_seen: false,
            soft_error: 0,
            error_ns: None,
            rst_ns: None,
            base_us: None,
            congestion: LocalCongestion::default(),
            gives_up: None,
            next_us: None,
            alive_ns,
            absences: 0,
            moved_ns: None,
            facts: Facts::default(),
        }
    }

    /// Records a transmission; returns the gap since the one before it, microseconds.
    pub fn transmitted(&mut self, at_ns: u64) -> Option<u64> {
        let gap = self
            .last_tx_ns
            .map(|last| at_ns.saturating_sub(last) / 1000);
        if let Some(gap) = gap.filter(|_| self.gaps_us.len() < LADDER) {
            self.gaps_us.push(gap);
        }
        self.last_tx_ns = Some(at_ns);
        self.alive_ns = self.alive_ns.max(at_ns);
        gap
    }

    /// Time since it began, microseconds.
    pub fn dwell_us(&self, at_ns: u64) -> Option<u64> {
        self.start
            .map(|start| at_ns.saturating_sub(start.at_ns) / 1000)
    }
}
