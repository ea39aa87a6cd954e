//! How old a half-open is that sock_diag shows: by its SYN-ACK timer and the SYN-ACKs that were sent again.

use super::{handshake::HandshakeStart, schedule::SynAckSchedule};
use crate::model::{DwellSource, HalfOpenRow, SocketDump};

/// How many time-outs a half-open that began then has behind it, if its timer is one that the schedule
/// of such a beginning arms later than the first. A time-out whose SYN-ACK could not be sent, or need
/// not be (TCP_DEFER_ACCEPT), arms the timer anew and shows nowhere: `num_retrans` stays.
pub(super) fn time_outs(
    start: HandshakeStart,
    row: &HalfOpenRow,
    dump: &SocketDump,
) -> Option<u32> {
    if start.error_us > MOST_ERROR_US {
        return None;
    }
    let due_ns = dump.after_ns + u64::from(row.expires_ms) * 1_000_000;
    let due_us = due_ns.saturating_sub(start.at_ns) / 1000;
    let slack_us = start.error_us + dump.took_us() + 100_000;
    let mut nominal_us = SynAckSchedule::PLAIN.gap_us(0);
    (1..=MOST_TIME_OUTS).find(|passed| {
        nominal_us += SynAckSchedule::PLAIN.gap_us(*passed);
        // The wheel is never early and up to an eighth late, each time.
        (nominal_us.saturating_sub(slack_us)..=nominal_us + nominal_us / 8 + slack_us)
            .contains(&due_us)
    })
}

/// With a larger error of the beginning every number of time-outs fits, microseconds: half the first one.
const MOST_ERROR_US: u64 = 500_000;

/// More than any schedule has by default (`tcp_synack_retries`: 5).
const MOST_TIME_OUTS: u32 = 8;

/// How many time-outs a half-open may have behind it that sock_diag shows: the fewest and the most.
///
/// Its timer was armed for `1 s << num_timeout` (`reqsk_timeout()`), so what is left of it shows the fewest.
/// `num_retrans` counts the SYN-ACKs that the peer's repeated SYNs caused too (`tcp_rtx_synack()`), so it
/// shows the most. A request does not outlive `tcp_synack_retries` time-outs and one more.
pub(super) fn possible_time_outs(row: &HalfOpenRow, retries: Option<u32>, hz: u32) -> (u32, u32) {
    let left_us = (u64::from(row.expires_ms) * 1000).saturating_sub(ticks_us(hz));
    let fits = |k: &u32| SynAckSchedule::PLAIN.gap_us(*k) >= left_us;
    let fewest = (0..MOST_TIME_OUTS).find(fits).unwrap_or(MOST_TIME_OUTS);
    let most = u32::from(row.retrans).min(retries.unwrap_or(u32::MAX));
    (fewest, most.max(fewest))
}

/// When a half-open that sock_diag shows began: the middle of what is possible, and how far the truth may lie
/// from it.
///
/// A time-out takes no less than its nominal time. Each SYN-ACK that the peer caused arms the timer anew, for
/// as long as before: it delays the next time-out by one gap at the most. Nothing is older than the host.
///
/// `seen_ns`: it was there at this time, CLOCK_MONOTONIC nanoseconds, and its beginning is not known. Time-outs that
/// send nothing (TCP_DEFER_ACCEPT, [`time_outs`]) show nowhere else.
pub(super) fn estimate(
    row: &HalfOpenRow,
    dump: &SocketDump,
    hz: u32,
    seen_ns: Option<u64>,
) -> HandshakeStart {
    let schedule = SynAckSchedule::PLAIN;
    let now_ns = dump.after_ns;
    let (mut fewest, most) = possible_time_outs(row, dump.synack_retries, hz);
    let left_us = u64::from(row.expires_ms) * 1000;
    let n = u32::from(row.retrans);
    let late = |us: u64| us + us / 8;
    let past_us = |k: u32| (0..k).map(|k| schedule.gap_us(k)).sum::<u64>();
    let since_us = |k: u32| schedule.gap_us(k).saturating_sub(left_us);
    let longest_us = |k: u32| {
        let by_peer = u64::from(n.saturating_sub(k));
        late(past_us(k)) + since_us(k) + by_peer * late(schedule.gap_us(k))
    };
    if let Some(seen_ns) = seen_ns {
        let seen_us = now_ns.saturating_sub(seen_ns) / 1000;
        let is_older = |k: &u32| longest_us(*k) + ticks_us(hz) >= seen_us;
        fewest = (fewest..MOST_TIME_OUTS).find(is_older).unwrap_or(fewest);
    }
    let most = most.max(fewest);
    let least_us = past_us(fewest) + since_us(fewest);
    let most_us = (fewest..=most).map(longest_us).max().unwrap_or(least_us);
    let most_us = most_us.min(now_ns / 1000).max(least_us);
    let age_us = least_us + (most_us - least_us) / 2;
    HandshakeStart {
        at_ns: now_ns.saturating_sub(age_us * 1000),
        source: DwellSource::SockDiag,
        error_us: most_us - age_us + ticks_us(hz),
    }
}

/// Two ticks, and the millisecond to which sock_diag rounds.
pub(super) fn ticks_us(hz: u32) -> u64 {
    2_000_000 / u64::from(hz.max(1)) + 1000
}
