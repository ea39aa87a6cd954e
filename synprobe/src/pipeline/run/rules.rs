//! The rules of packet filters: asked for where the engine wants them, and once more at the end.

use std::time::{Duration, Instant};

use tokio::time::{timeout, timeout_at};

use super::Run;
use crate::{engine::Input, model::FilterFound};

/// Namespaces that are read at the beginning, at most.
const AT_THE_BEGINNING: usize = 4;
/// How long the beginning of a run waits for its readings.
const FIRST: Duration = Duration::from_millis(250);

impl Run {
    /// Reads the rules of the namespaces that the run was told.
    pub(super) fn ask_first_rules(&mut self) {
        for netns in self.options.namespaces.iter().take(AT_THE_BEGINNING) {
            self.rules.ask(netns.clone());
        }
    }

    /// Waits for those, a moment at most.
    pub async fn take_first_rules(&mut self) {
        let _ = timeout(FIRST, self.take_rules_under_way()).await;
    }

    /// Reads the rules that the engine asks for.
    pub(super) fn ask_rules(&mut self, is_last: bool) {
        for inode in self.core.engine.wanted_rules(is_last) {
            match self.enricher.find(inode) {
                Some(netns) => self.rules.ask(netns),
                None => {
                    let gone = FilterFound::Failed("the namespace was not found".to_owned());
                    self.rules.under_way += usize::from(self.rules.refuse(inode, gone));
                }
            }
        }
    }

    /// Takes in what was read, and at the end of the run the last readings of namespaces in which packets were
    /// dropped meanwhile. What is read later than `until` is not waited for.
    pub(super) async fn take_last_rules(&mut self, until: Instant) {
        let _ = timeout_at(until.into(), async {
            self.take_rules_under_way().await;
            self.ask_rules(true);
            self.take_rules_under_way().await;
        })
        .await;
    }

    async fn take_rules_under_way(&mut self) {
        while self.rules.under_way > 0 {
            let reading = self.rules.next().await;
            self.core.feed(Input::Rules(Box::new(reading)));
        }
    }
}
