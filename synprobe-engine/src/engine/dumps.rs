//! What sock_diag showed of each namespace, and what became of the half-opens that it did not show.

use std::{collections::HashMap, mem};

use super::Engine;
use crate::{
    model::{Fate, SocketDump, Tuple},
    track::{Fates, Observation},
};

impl Engine {
    /// A dump that shows every known half-open is taken in at once; else the missing ones become questions.
    pub(super) fn dump(&mut self, mut dump: Box<SocketDump>) {
        self.judge.context.repeats(&dump);
        self.tracker
            .counters_of_dump(dump.netns, dump.after_ns, dump.embryonic_rsts);
        let missing = self.tracker.missing(&mut dump);
        if missing.is_empty() {
            self.tracker
                .observe(Observation::Dump(dump, Fates::default()));
        } else {
            self.dumps.push((dump, missing));
        }
    }

    /// One answer may be for the dumps of many namespaces.
    pub(super) fn fates(&mut self, fates: &Fates) {
        let mut by_netns: HashMap<u32, Vec<(Tuple, Fate)>> = HashMap::new();
        for (tuple, fate) in &fates.of {
            let of = by_netns.entry(tuple.netns).or_default();
            of.push((*tuple, *fate));
        }
        for (dump, _) in mem::take(&mut self.dumps) {
            let fates = Fates {
                asked_ns: fates.asked_ns,
                of: by_netns.remove(&dump.netns).unwrap_or_default(),
            };
            self.tracker.observe(Observation::Dump(dump, fates));
        }
    }
}
