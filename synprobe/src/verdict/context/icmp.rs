//! ICMP errors about handshakes, and their senders.

use std::net::IpAddr;

use super::{Ends, window::STEPS};
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

/// What an ICMP error means that this host sent to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnIcmp {
    /// The kernel sends it when the next hop does not answer (`arp_error_report()`, `ndisc_error_report()`). A
    /// REJECT rule can send the same.
    LinkFailure,
    /// The kernel sends it for no segment of its own: a REJECT rule does.
    Rule,
    /// Neither is known.
    Other,
}

impl IcmpReport {
    /// Whether only a packet filter sends it for a TCP segment: a host answers one to a closed port with RST (RFC
    /// 9293, section 3.10.7.1).
    pub fn is_of_a_filter(&self) -> bool {
        self.what.starts_with("port unreachable")
    }

    /// What it means if this host itself sent it. Type and code decide (RFC 792, RFC 4443), not the sender.
    pub fn as_own(&self) -> OwnIcmp {
        let is = |words: &[&str]| words.iter().any(|w| self.what.starts_with(w));
        if is(&["host unreachable", "address unreachable"]) {
            OwnIcmp::LinkFailure
        } else if is(&[
            "port unreachable",
            "protocol unreachable",
            "network unreachable",
            "no route to destination",
            "administratively prohibited",
            "source address failed policy",
            "reject route",
        ]) {
            OwnIcmp::Rule
        } else {
            OwnIcmp::Other
        }
    }
}

#[derive(Default)]
pub(super) struct IcmpReports {
    /// With the step of the last one.
    reports: Bounded<Ends, (IcmpReport, u64)>,
    step: u64,
}

impl IcmpReports {
    pub(super) fn note(&mut self, ends: Ends, word: IcmpReport) {
        let now = self.step;
        match self.reports.get_mut(&ends) {
            Some((known, step)) if known.what == word.what && known.from == word.from => {
                known.count += word.count;
                *step = now;
            }
            _ => {
                self.reports.insert(ends, (word, now));
            }
        }
    }

    /// A step of the window begins: forgets those that are older than the window.
    pub(super) fn step(&mut self) {
        self.step += 1;
        let oldest = self.step.saturating_sub(STEPS);
        self.reports.retain(|_, (_, step)| *step >= oldest);
    }

    pub(super) fn of(&self, ends: &Ends) -> Option<&IcmpReport> {
        self.reports.get(ends).map(|(report, _)| report)
    }
}
