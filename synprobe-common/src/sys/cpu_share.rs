//! Work that takes a bounded share of one core, whoever causes it.

use std::time::{Duration, Instant};

/// What such work has cost.
#[derive(Debug)]
pub struct CpuShare {
    /// In the long run it takes one part in this many of a core.
    parts: u32,
    /// CPU time that may be spent ahead of that share.
    ahead: Duration,
    /// CPU time that the share has not paid for yet, when the work last ended.
    debt: Duration,
    ended: Option<Instant>,
}

impl CpuShare {
    /// One part in `parts` of a core, and `ahead` of it at once.
    #[must_use]
    pub const fn new(parts: u32, ahead: Duration) -> Self {
        Self {
            parts,
            ahead,
            debt: Duration::ZERO,
            ended: None,
        }
    }

    fn debt_at(&self, now: Instant) -> Duration {
        let since = self.since_end(now);
        self.debt.saturating_sub(since / self.parts)
    }

    /// How long ago the work last ended.
    #[must_use]
    pub fn since_end(&self, now: Instant) -> Duration {
        self.ended
            .map_or(Duration::MAX, |at| now.saturating_duration_since(at))
    }

    /// How long the next work has to wait. Any debt below what may be spent ahead lets it begin.
    #[must_use]
    pub fn pause(&self, now: Instant) -> Duration {
        (self.debt_at(now) + Duration::from_nanos(1)).saturating_sub(self.ahead) * self.parts
    }

    /// Work has ended, and took this much CPU time.
    pub fn spent(&mut self, now: Instant, took: Duration) {
        self.debt = self.debt_at(now) + took;
        self.ended = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_its_share_and_no_more() {
        const AHEAD: Duration = Duration::from_millis(200);
        // 20 ms, whenever it may begin, asked for every 10 ms.
        let took = Duration::from_millis(20);
        let step = Duration::from_millis(10);
        let mut share = CpuShare::new(100, AHEAD);
        let mut now = Instant::now();
        let mut begun = Vec::new();
        for _ in 0..6000 {
            if share.pause(now).is_zero() {
                share.spent(now, took);
                begun.push(now);
            }
            now += step;
        }
        // 1 % of 60 s, and what is ahead of it.
        let spent = took * u32::try_from(begun.len()).unwrap();
        let due = Duration::from_secs(60) / 100 + AHEAD;
        assert!(spent >= due - took && spent <= due + took, "{spent:?}");
        // Never longer than two seconds without it.
        assert!(
            begun
                .windows(2)
                .all(|w| w[1] - w[0] <= Duration::from_millis(2010))
        );
        // Whoever sleeps for the pause may begin then.
        share.spent(now, AHEAD * 3);
        assert!(share.pause(now + share.pause(now)).is_zero());
    }
}
