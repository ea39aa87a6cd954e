//! What this run cannot see, and what it lost.

use super::Observed;
use crate::{util::format, view::blind_in};

/// One sentence each; empty: nothing of the kind.
pub(super) fn not_seen(observed: &Observed) -> Vec<String> {
    let snapshot = &observed.status.snapshot;
    let start = &snapshot.start;
    let mut spots = Vec::new();
    if snapshot.totals.lost > 0 {
        let lost = match snapshot.totals.lost {
            1 => "1 kernel record was lost".to_owned(),
            n => format!("{n} kernel records were lost"),
        };
        spots.push(format!("{lost}: verdicts are less certain for it"));
    }
    spots.extend(observed.notes.iter().cloned());
    if let Some(blind) = blind_in(start) {
        spots.push(blind.to_owned());
    }
    if let Some(slow_us) = observed.slow_us {
        spots.push(format!(
            "handshakes in progress that were not retransmitted and are younger than {}; the healthy ones are \
             only counted (--every)",
            format::duration(slow_us)
        ));
    }
    let listed = snapshot.open.len();
    if snapshot.open_total > listed && !snapshot.open_is_part {
        spots.push(format!(
            "{} of the {} handshakes in progress",
            snapshot.open_total - listed,
            snapshot.open_total
        ));
    }
    if let Some(why) = &start.mode_why {
        spots.push(format!("the mode is {} because: {why}", start.mode));
    }
    let missing = start.missing.iter();
    spots.extend(missing.map(|m| format!("not known on this host: {m}")));
    spots
}
