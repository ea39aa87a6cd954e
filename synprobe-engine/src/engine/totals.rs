//! The totals of a run.

use super::Engine;
use crate::model::{ByRole, End};

impl Engine {
    /// The `end` line as of now.
    pub fn totals_at(&self, at_ns: u64, produced: u64) -> End {
        let totals = self.tracker.totals();
        End {
            events: totals.events,
            lost: totals.lost,
            handshakes: totals.handshakes,
            syns_refused: self.judge.context.refused_syns.total(),
            duration_us: at_ns.saturating_sub(self.began_ns) / 1000,
            listen_drops: self.listen_rises.listen_drops(),
            syn_cookies: self.listen_rises.syn_cookies(),
            evicted: totals.evicted,
            counted: totals.counted,
            produced: produced + totals.unreported,
            peers_unlisted: totals.peers_unlisted,
            peers_distinct: ByRole {
                client: totals.peers_distinct.client.count,
                server: totals.peers_distinct.server.count,
            },
            peers_distinct_error: ByRole {
                client: four_digits(totals.peers_distinct.client.error),
                server: four_digits(totals.peers_distinct.server.error),
            },
            unexplained: Vec::new(),
        }
    }
}

/// More digits of an error have no meaning.
fn four_digits(share: f64) -> f64 {
    (share * 1e4).round() / 1e4
}
