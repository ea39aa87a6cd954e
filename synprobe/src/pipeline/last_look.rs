//! The end of a run. A host may have a thousand namespaces, and the kernel may keep the poller waiting: each part of the
//! end has its time, and what it does not reach is reported.

use std::time::{Duration, Instant};

use tokio::time::timeout_at;

use super::{WatchError, run::Run};

/// The last look may take this long.
const LOOK: Duration = Duration::from_secs(1);
/// In a run with a duration too, however late it is.
const LEAST_LOOK: Duration = Duration::from_millis(100);
/// How long a poller may take to notice that its time is over. Then the kernel keeps it waiting.
const UNHEARD: Duration = Duration::from_millis(250);
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

impl Run {
    /// A look at everything, as far as the time allows.
    pub(super) async fn last_look(&mut self, times: &EndTimes) -> Result<(), WatchError> {
        let hurry = self.polling.hurry.clone();
        // The round under way may be the first, over a thousand namespaces.
        hurry.within(Duration::ZERO);
        let mut answers = self.take_report_until(times.look + UNHEARD).await?;
        // Where one dump does not show a half-open, the next one decides.
        for _ in 0..2 {
            if !answers {
                break;
            }
            hurry.within(times.look.saturating_duration_since(Instant::now()));
            self.request_poll(true)?;
            answers = self.take_report_until(times.look + UNHEARD).await?;
            if hurry.is_set() || !self.core.engine.in_doubt() {
                break;
            }
        }
        let not_reached = match answers {
            true => self.polling.skipped,
            // The kernel does not end a call of the poller's.
            false => self.polling.watched.max(1),
        };
        if not_reached > 0 {
            let lost = self.losses.not_reached(not_reached);
            self.core.feed(lost);
        }
        Ok(())
    }

    /// Waits for the round that is under way, if one is. Returns whether it has come.
    async fn take_report_until(&mut self, until: Instant) -> Result<bool, WatchError> {
        if !self.polling.under_way {
            return Ok(true);
        }
        match timeout_at(until.into(), self.polling.report()).await {
            Ok(Some(report)) => self.take_in(report).await?,
            Ok(None) => (),
            Err(_) => return Ok(false),
        }
        Ok(true)
    }
}
