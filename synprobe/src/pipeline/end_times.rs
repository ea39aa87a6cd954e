//! The end of a run. A host may have a thousand namespaces, and the kernel may keep the poller waiting: each part of the
//! end has its time, and what it does not reach is reported.

use std::time::{Duration, Instant};

/// The last look may take this long.
const LOOK: Duration = Duration::from_secs(1);
/// In a run with a duration too, however late it is.
const LEAST_LOOK: Duration = Duration::from_millis(100);
/// So long after the look the last rules of packet filters are waited for: they may be ten thousand, and name the cause.
const RULES: Duration = Duration::from_secs(1);
/// They, and the count of the sockets, have this long in any case.
const LEAST_REST: Duration = Duration::from_millis(250);

/// When each part of the end is to be over.
#[derive(Clone, Copy)]
pub(super) struct EndTimes {
    pub look: Instant,
    rules: Instant,
    count: Instant,
}

impl EndTimes {
    /// `ends`: when a run with a duration is over. `count_takes`: how long the sockets were counted before it.
    pub fn new(now: Instant, ends: Option<Instant>, count_takes: Duration) -> Self {
        let look = match ends {
            Some(at) => (at - count_takes).clamp(now + LEAST_LOOK, now + LOOK),
            None => now + LOOK,
        };
        Self {
            look,
            rules: look + RULES,
            count: ends.unwrap_or(look).max(look + LEAST_REST) + LEAST_REST,
        }
    }

    /// When the last rules are to be read.
    pub fn rules(&self) -> Instant {
        self.rules.max(Instant::now() + LEAST_REST)
    }

    /// When the sockets are to be counted.
    pub fn count(&self) -> Instant {
        self.count.max(Instant::now() + LEAST_REST)
    }
}
