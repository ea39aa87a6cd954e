//! Handshakes without a verdict.

use crate::{
    model::{Handshake, Outcome},
    util::format,
};

/// A handshake that is open for longer is late: the first time-out of both ends is over, µs.
const LATE_US: u64 = 1_000_000;

/// Whether it has no verdict though its time to complete is over: it ended otherwise, is older than a round
/// trip, or was retransmitted.
pub(super) fn is_undecided(h: &Handshake) -> bool {
    let well = h.outcome == Outcome::Established || h.was_evicted();
    let late = h.retransmits > 0 || h.dwell_us.is_none_or(|us| us >= LATE_US);
    h.verdict.is_none() && !well && (h.outcome != Outcome::Open || late)
}

/// Why there is no verdict.
pub(super) fn why_no_verdict(h: &Handshake) -> String {
    let age = match (h.dwell_us, h.dwell_at_least_us) {
        (Some(us), _) => format::duration(us),
        (None, Some(us)) => format!("at least {}", format::duration(us)),
        (None, None) => "an unknown time".to_owned(),
    };
    match (h.outcome, h.retransmits) {
        (Outcome::Open, 0) => {
            format!("open for {age}, and nothing retransmitted yet: too early to judge")
        }
        (Outcome::Open, _) if h.facts.preexisting && !h.facts.history_known => {
            "it existed before the run, and no event of it was seen since".to_owned()
        }
        (Outcome::Dropped, _) => "no event shows why it was removed".to_owned(),
        _ => "the evidence does not show why".to_owned(),
    }
}
