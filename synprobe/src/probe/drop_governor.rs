//! When to detach the program on dropped packets. A host under attack drops hundreds of thousands of
//! packets a second. Running even a short program for each costs more than it can show.

use std::time::{Duration, Instant};

/// Dropped packets a second, on all CPUs, above which they are not watched. Rejecting one by its reason
/// costs about 50 ns (measured on Linux 6.18), so this is about 1 % of one core.
pub const TOO_MANY_PER_SECOND: u64 = 200_000;
/// How long they are not watched.
pub const PAUSE: Duration = Duration::from_secs(10);
/// The shortest interval that gives a usable rate.
const SHORTEST: Duration = Duration::from_millis(100);

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GovernorAction {
    /// Detach.
    Detach {
        /// The measured rate, packets a second.
        per_second: u64,
    },
    /// Attach again.
    Attach,
}

/// Whether dropped packets are watched, and how many there are.
#[derive(Clone, Copy, Debug)]
pub enum DropGovernor {
    /// Watched.
    Watching {
        /// When the runs of the program were last read.
        since: Instant,
        /// Runs by then.
        runs: u64,
    },
    /// Not watched.
    Resting {
        /// When to attach again.
        until: Instant,
    },
}

impl DropGovernor {
    /// Watching from now on.
    pub fn watching(now: Instant, runs: u64) -> Self {
        Self::Watching { since: now, runs }
    }

    /// To be called about once a second. `runs`: how often the program has run since it was loaded.
    pub fn decide(&mut self, now: Instant, runs: u64) -> Option<GovernorAction> {
        match *self {
            Self::Watching {
                since,
                runs: before,
            } => {
                let over = now.saturating_duration_since(since);
                if over < SHORTEST {
                    return None;
                }
                let rate = u128::from(runs.saturating_sub(before)) * 1_000_000 / over.as_micros();
                let per_second = u64::try_from(rate).unwrap_or(u64::MAX);
                if per_second <= TOO_MANY_PER_SECOND {
                    *self = Self::watching(now, runs);
                    return None;
                }
                *self = Self::Resting { until: now + PAUSE };
                Some(GovernorAction::Detach { per_second })
            }
            Self::Resting { until } if now < until => None,
            Self::Resting { .. } => {
                *self = Self::watching(now, runs);
                Some(GovernorAction::Attach)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_calm_host_is_watched_for_ever() {
        let mut now = Instant::now();
        let mut governor = DropGovernor::watching(now, 7);
        let mut runs = 7;
        for _ in 0..100 {
            now += SECOND;
            runs += TOO_MANY_PER_SECOND;
            assert_eq!(governor.decide(now, runs), None);
        }
    }

    #[test]
    fn a_storm_is_left_alone_for_the_pause_and_looked_at_again() {
        let start = Instant::now();
        let mut governor = DropGovernor::watching(start, 0);
        assert_eq!(governor.decide(start + SECOND, 100), None);
        let storm = 100 + 2 * 412_000;
        let per_second = 412_000;
        // The tick came late: it is the rate that counts.
        let began = start + 3 * SECOND;
        assert_eq!(
            governor.decide(began, storm),
            Some(GovernorAction::Detach { per_second })
        );
        // Detached: the runs stand still.
        assert_eq!(governor.decide(began + SECOND, storm), None);
        let almost = began + PAUSE - Duration::from_nanos(1);
        assert_eq!(governor.decide(almost, storm), None);
        assert_eq!(
            governor.decide(began + PAUSE, storm),
            Some(GovernorAction::Attach)
        );
        // It is counted from the return on, and not from before.
        let next = began + PAUSE + SECOND;
        assert_eq!(governor.decide(next, storm + TOO_MANY_PER_SECOND), None);
        let more = storm + 2 * TOO_MANY_PER_SECOND + 1;
        let per_second = TOO_MANY_PER_SECOND + 1;
        assert_eq!(
            governor.decide(next + SECOND, more),
            Some(GovernorAction::Detach { per_second })
        );
    }

    #[test]
    fn two_ticks_at_once_decide_nothing() {
        let now = Instant::now();
        let mut governor = DropGovernor::watching(now, 0);
        assert_eq!(governor.decide(now, u64::MAX), None);
        assert_eq!(
            governor.decide(now + Duration::from_millis(1), 300_000),
            None
        );
        // The first count still stands.
        assert!(governor.decide(now + SECOND, 300_000).is_some());
    }
}
