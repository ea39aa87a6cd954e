//! How far the counters of refused and statelessly answered SYNs have risen in this run.

use std::collections::HashMap;

use crate::model::ListenCounters;

/// Namespaces that are counted individually.
const NAMESPACES: usize = 65_536;

/// `ListenDrops` and `SyncookiesSent`, at first and at last, by namespace.
#[derive(Debug, Default)]
pub(super) struct ListenRises {
    by_netns: HashMap<u32, [Reading; 2]>,
    /// More namespaces than there is room for.
    is_partial: bool,
}

/// One counter: at first and at last.
type Reading = Option<(u64, u64)>;

impl ListenRises {
    pub(super) fn note(&mut self, counters: &[ListenCounters]) {
        for c in counters {
            if self.by_netns.len() >= NAMESPACES && !self.by_netns.contains_key(&c.netns) {
                self.is_partial = true;
                continue;
            }
            let known = self.by_netns.entry(c.netns).or_default();
            for (known, now) in known.iter_mut().zip([c.listen_drops, c.syncookies_sent]) {
                if let Some(now) = now {
                    *known = Some((known.map_or(now, |(first, _)| first), now));
                }
            }
        }
    }

    /// All namespaces together; `None`: not read.
    pub(super) fn listen_drops(&self) -> Option<u64> {
        self.sum(0)
    }

    /// As [`Self::listen_drops`].
    pub(super) fn syn_cookies(&self) -> Option<u64> {
        self.sum(1)
    }

    fn sum(&self, counter: usize) -> Option<u64> {
        if self.is_partial || self.by_netns.is_empty() {
            return None;
        }
        let rises = self.by_netns.values();
        rises
            .map(|known| known[counter].map(|(first, last)| last.saturating_sub(first)))
            .sum()
    }
}
