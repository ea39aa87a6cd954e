//! ICMP errors about handshakes, and their senders.

use std::net::IpAddr;

use super::Ends;
use crate::util::bounded::Bounded;

/// An ICMP error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IcmpReport {
    /// Who sent it.
    pub from: IpAddr,
    /// What: `host unreachable (type 3, code 1)`.
    pub what: String,
    /// How often.
    pub count: u64,
}

#[derive(Default)]
pub(super) struct IcmpReports(Bounded<Ends, IcmpReport>);

impl IcmpReports {
    pub(super) fn note(&mut self, ends: Ends, word: IcmpReport) {
        match self.0.get_mut(&ends) {
            Some(known) if known.what == word.what && known.from == word.from => {
                known.count += word.count;
            }
            _ => {
                self.0.insert(ends, word);
            }
        }
    }

    pub(super) fn of(&self, ends: &Ends) -> Option<&IcmpReport> {
        self.0.get(ends)
    }
}
