//! The last look of a run. A host may have a thousand namespaces, and the run has to end in its time.

use std::time::{Duration, Instant};

use super::{WatchError, run::Run};

/// The look may take this long: what it does not reach is reported.
const LAST_LOOK: Duration = Duration::from_secs(1);

impl Run {
    /// A look at everything, as far as the time allows.
    pub(super) async fn last_look(&mut self) -> Result<(), WatchError> {
        let hurry = self.polling.hurry.clone();
        // The round under way may be the first, over a thousand namespaces.
        hurry.set(true);
        self.take_report().await?;
        hurry.set(false);
        let until = Instant::now() + LAST_LOOK;
        // Where one dump does not show a half-open, the next one decides.
        for _ in 0..2 {
            self.request_poll(true)?;
            self.polling.skipped = 0;
            let no_time = hurry.clone();
            let alarm = tokio::spawn(async move {
                tokio::time::sleep_until(until.into()).await;
                no_time.set(true);
            });
            let looked = self.take_report().await;
            alarm.abort();
            looked?;
            if hurry.is_set() || !self.core.engine.in_doubt() {
                break;
            }
        }
        if self.polling.skipped > 0 {
            let lost = self.losses.not_reached(self.polling.skipped);
            self.core.feed(lost);
        }
        Ok(())
    }
}
