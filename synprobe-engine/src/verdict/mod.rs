//! Why a handshake went as it did, with the facts for it and against it.
//!
//! A verdict is a pure function of one handshake ([`Handshake`], its `facts` included) and of what is known
//! around it ([`Context`]). Each has a file of its own, behind [`Verdict`]. [`ALL`] lists them, the strongest
//! evidence first; the first that applies is the handshake's. Where none applies, the line names the missing
//! evidence. [`Judge`] decides when that happens, and sums handshakes to problems.

mod arithmetic;
mod client;
pub mod context;
mod data_unacknowledged;
mod dropped_here;
#[cfg(any(test, feature = "fixtures"))]
pub mod fixtures;
mod judge;
mod judgement;
#[cfg(test)]
mod linear;
mod parts;
mod problem_states;
mod problems;
mod reset_after_handshake;
mod run_in;
mod server;
mod undecided;
mod window;

pub use arithmetic::Accounted;
pub use context::Context;
pub use judge::{Judge, Mode};
pub use problems::ProblemGroups;
pub use run_in::{enter, enter_of, run_in, tcp_flags, who_listens};

use synprobe_common::verdict_table;

use client::*;
use data_unacknowledged::DataUnacknowledged;
use dropped_here::DroppedHere;
use reset_after_handshake::ResetAfterHandshake;
use server::*;

use crate::model::{Confidence, Evidence, Handshake, VerdictKind};

/// What a verdict found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How sure.
    pub confidence: Confidence,
    /// For and against.
    pub evidence: Vec<Evidence>,
    /// Whether it rests on the absence of an event: then a lost record weighs more.
    pub by_absence: bool,
    /// What the evidence accounts for: without it, nothing is certain.
    pub accounted: Accounted,
    /// What to do, in commands.
    pub remedy: String,
}

impl Finding {
    /// Observed directly.
    pub fn certain() -> Self {
        Self::new(Confidence::Certain)
    }

    /// The best explanation of the evidence.
    pub fn likely() -> Self {
        Self::new(Confidence::Likely)
    }

    fn new(confidence: Confidence) -> Self {
        Self {
            confidence,
            evidence: Vec::new(),
            by_absence: false,
            accounted: Accounted::Nothing,
            remedy: String::new(),
        }
    }

    /// It rests on the absence of an event.
    pub fn by_absence(mut self) -> Self {
        self.by_absence = true;
        self
    }

    /// How many of this host's SYNs or SYN-ACKs the evidence accounts for.
    pub fn accounts_for(mut self, transmissions: u64) -> Self {
        self.accounted = Accounted::Transmissions(transmissions);
        self
    }

    /// The evidence shows the event that decided the outcome.
    pub fn accounts_for_outcome(mut self) -> Self {
        self.accounted = Accounted::Outcome;
        self
    }

    /// A fact for it.
    pub fn pro(mut self, fact: impl Into<String>) -> Self {
        self.evidence.push(Evidence {
            fact: fact.into(),
            supports: true,
        });
        self
    }

    /// A fact for it, where there is one.
    pub fn maybe_pro(self, fact: Option<String>) -> Self {
        match fact {
            Some(fact) => self.pro(fact),
            None => self,
        }
    }

    /// A fact against it.
    pub fn contra(mut self, fact: impl Into<String>) -> Self {
        self.evidence.push(Evidence {
            fact: fact.into(),
            supports: false,
        });
        self
    }

    /// A fact against it, where there is one.
    pub fn maybe_contra(self, fact: Option<String>) -> Self {
        match fact {
            Some(fact) => self.contra(fact),
            None => self,
        }
    }

    /// Sets what to do, in commands.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }
}

/// What the counters of the listeners show, where they rose in a run. Another kind has its line in
/// `problems/unexplained.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CounterRise {
    /// `ListenOverflows`.
    Overflows,
    /// `ListenDrops` beyond `ListenOverflows` and `TCPReqQFullDrop`.
    Refusals,
    /// `TCPReqQFullDrop`.
    FullSynQueue,
    /// `SyncookiesSent`.
    Cookies,
    /// ICMP errors about SYN-ACKs that end half-opens, which `ListenDrops` counts.
    IcmpErrors,
    /// A listener that was closed while another listens at its address.
    ClosedListener,
}

/// One way for a handshake to go badly.
pub trait Verdict: Sync {
    /// Which one it is.
    fn kind(&self) -> VerdictKind;

    /// Its name in the output contract and in `synprobe explain`.
    fn name(&self) -> &'static str {
        self.kind().name()
    }

    /// Whether it is a fault; else it is intended behaviour.
    fn is_fault(&self) -> bool {
        true
    }

    /// The evidence, where the handshake has this verdict; else `None`.
    fn check(&self, h: &Handshake, context: &Context) -> Option<Finding>;

    /// What a problem with this verdict explains: it is not listed as unexplained then.
    fn explains(&self) -> &'static [CounterRise] {
        &[]
    }

    /// Whether [`Verdict::facts_of_many`] sums over whole handshakes: then some are kept for it.
    fn sums_handshakes(&self) -> bool {
        false
    }

    /// The facts of a group of handshakes with this verdict, added up. `None`: the problem quotes the facts
    /// that they share, and some examples.
    fn facts_of_many(&self, _: &[&Handshake], _: &Context) -> Option<Vec<Evidence>> {
        None
    }

    /// The long form.
    fn explain(&self) -> Explanation;
}

/// The long form of a verdict, for `synprobe explain`.
#[derive(Clone, Copy, Debug)]
pub struct Explanation {
    /// In one line.
    pub summary: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// How it is detected, and what looks the same.
    pub detection: &'static str,
    /// What to try.
    pub remedy: &'static str,
    /// The lab's scenario that makes it.
    pub reproduce: &'static str,
}

macro_rules! verdict_types {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)*) => {
        /// Every verdict, in the order in which they are tried: the table of
        /// `synprobe-common/src/model/verdict.rs`.
        pub const ALL: &[&dyn Verdict] = &[$(&$kind),*];
    };
}

verdict_table!(verdict_types);

/// The verdict of that kind.
pub fn find(kind: VerdictKind) -> Option<&'static dyn Verdict> {
    ALL.iter().copied().find(|verdict| verdict.kind() == kind)
}

/// `once`, `5 times`
fn times(n: u32) -> String {
    context::times(u64::from(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_in_the_table_has_the_kind_of_its_line() {
        let table: Vec<_> = ALL.iter().map(|verdict| verdict.kind()).collect();
        assert_eq!(table, VerdictKind::ALL);
    }
}
