//! What the program on `skb:kfree_skb` did not report.

use synprobe_ebpf::{config::DROPS_PER_SECOND, event::KIND_DROP, stats::Stats};

/// Two kinds of loss since `before`, each with its reason: those estimated from the kernel's skips of
/// the program (`skips`), and those counted at the rate limit.
///
/// [`Stats::produced`] includes the second, not the first.
pub fn of_drops(before: &Stats, now: &Stats, skips: u64) -> [(u64, String); 2] {
    let drops = |stats: &Stats| stats.produced[usize::from(KIND_DROP)];
    let unseen = records_among(
        skips,
        now.drop_runs.saturating_sub(before.drop_runs),
        drops(now).saturating_sub(drops(before)),
    );
    let held_back = now.held_back.saturating_sub(before.held_back);
    [
        (
            unseen,
            "drop records, estimated: packets that were dropped while the same program was running on \
             that CPU"
                .to_owned(),
        ),
        (
            held_back,
            format!("drop records: more than {DROPS_PER_SECOND} in a second on one CPU"),
        ),
    ]
}

/// How many records the `skips` skipped runs would have given, at the rate of the others: `records` of
/// `runs`. Rounded up, so that a loss is never reported as none.
///
/// The program runs for every dropped packet, and very few belong to a handshake. Counting each skip as
/// a loss would raise false alarms.
fn records_among(skips: u64, runs: u64, records: u64) -> u64 {
    let expected = (u128::from(skips) * u128::from(records)).div_ceil(u128::from(runs.max(1)));
    u64::try_from(expected).unwrap_or(u64::MAX).min(skips)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skips_are_losses_in_proportion() {
        assert_eq!(records_among(0, 1000, 1000), 0);
        assert_eq!(records_among(5, 1000, 0), 0);
        assert_eq!(records_among(5, 0, 0), 0);
        assert_eq!(records_among(5, 1000, 1), 1);
        assert_eq!(records_among(500, 1000, 100), 50);
        assert_eq!(records_among(5, 1000, 1000), 5);
        assert_eq!(records_among(5, 10, 1000), 5);
        assert_eq!(records_among(u64::MAX, u64::MAX, u64::MAX), u64::MAX);
    }

    #[test]
    fn both_losses_are_differences() {
        let mut before = Stats {
            held_back: 5,
            drop_runs: 100,
            ..Stats::default()
        };
        before.produced[usize::from(KIND_DROP)] = 40;
        let mut now = before;
        now.held_back += 3;
        now.drop_runs += 10;
        now.produced[usize::from(KIND_DROP)] += 5;
        let [unseen, held_back] = of_drops(&before, &now, 4);
        assert_eq!((unseen.0, held_back.0), (2, 3));
        let [unseen, held_back] = of_drops(&now, &now, 4);
        assert_eq!((unseen.0, held_back.0), (0, 0));
    }
}
