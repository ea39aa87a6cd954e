//! The end of a run: a last look at everything, and the lines of what is still in progress.

use std::time::{Duration, Instant};

use tokio::time::timeout_at;

use super::{Run, at};
use crate::{
    diag::state_counts,
    engine::Input,
    pipeline::{Stop, WatchError, end_times::EndTimes, subscriber::Subscriber},
    sys::clock::monotonic_ns,
};

/// How long a poller may take to notice that its time is over. Then the kernel keeps it waiting.
const UNHEARD: Duration = Duration::from_millis(250);

/// Handshakes that are still open at the end and judged together: enough to recognise a flood, and their
/// lines fit into memory.
const LAST_BATCH: u32 = 65_536;

impl Run {
    /// A last poll, then all remaining records, those until the run's time ends included, and the summary.
    /// `ends`: when that is, and what ends the wait for it earlier; `None`: now.
    pub async fn finish(&mut self, mut ends: Option<(Instant, Stop)>) -> Result<(), WatchError> {
        let count_takes = self.polling.count_takes;
        let at_the_end = ends.as_ref().map(|(at, _)| *at);
        let times = EndTimes::new(Instant::now(), at_the_end, count_takes);
        self.last_look(&times).await?;
        while let Some((end, stop)) = &mut ends {
            tokio::select! {
                biased;
                () = stop => ends = None,
                () = at(Some(*end - count_takes)) => break,
                ready = self.ring.ready() => {
                    ready.map_err(|e| WatchError::System("ring buffer", e))?;
                    self.drain();
                }
            }
        }
        self.probes.detach();
        self.drain_icmp();
        self.drain_all();
        self.count_losses()?;
        self.take_last_rules(times.rules()).await;
        let unnamed = self.core.engine.unnamed_namespaces();
        if !unnamed.is_empty() {
            let (core, enricher) = (&mut self.core, &mut self.enricher);
            enricher.last_names(&unnamed, &mut |input| core.feed(input));
        }
        self.end_part()?;
        if self.core.engine.is_quiet() {
            for input in self.completed()? {
                self.core.feed(input);
            }
            self.core.feed(Input::CompletedAll);
        }
        self.feed_accept_counts()?;
        if self.options.count_sockets || self.options.record.is_some() {
            let only = self.options.namespaces.first().cloned();
            let states = state_counts::by_namespace(only, times.count());
            self.core.feed(Input::SocketStates(Box::new(states)));
        }
        if let Some((end, stop)) = &mut ends {
            tokio::select! {
                () = stop => (),
                () = at(Some(*end)) => (),
            }
        }
        let at_ns = monotonic_ns();
        while self.core.engine.open() > 0 {
            self.core.feed(Input::EndOpen {
                at_ns,
                most: LAST_BATCH,
            });
            self.core.read_clock();
            self.core.publish(Subscriber::publish_last);
        }
        self.core.feed(Input::End {
            at_ns: monotonic_ns(),
            produced: self.losses.produced(),
        });
        self.core.publish(Subscriber::publish_last);
        Ok(())
    }

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
