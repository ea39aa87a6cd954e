//! Why handshakes went as they did, and the colour that a cause has in every picture.

use std::collections::BTreeMap;

use crate::model::{Handshake, Outcome, SynSent, VerdictKind};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum HandshakeCause {
    /// It has a verdict.
    Verdict(VerdictKind),
    /// It did not complete, and nothing tells why.
    Undecided,
    /// It completed, and no verdict applies.
    Well,
}

impl HandshakeCause {
    pub fn of(h: &Handshake) -> Self {
        match h.verdict {
            Some(verdict) => Self::Verdict(verdict),
            None if h.outcome == Outcome::Established => Self::Well,
            // It was deferred to a first write that never came: it has not begun.
            None if h.outcome == Outcome::Abandoned && h.facts.syn == SynSent::NotBuilt => {
                Self::Well
            }
            None => Self::Undecided,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Verdict(verdict) => verdict.name(),
            Self::Undecided => "not enough evidence",
            Self::Well => "no trouble",
        }
    }
}

/// Verdicts with a colour of their own.
const COLOURS: usize = 6;

/// Gives the most frequent causes a colour each.
#[derive(Clone, Debug, Default)]
pub(super) struct Palette {
    coloured: Vec<HandshakeCause>,
}

impl Palette {
    pub fn new(counts: &BTreeMap<HandshakeCause, u64>) -> Self {
        let mut causes: Vec<(HandshakeCause, u64)> = counts
            .iter()
            .filter(|(cause, _)| matches!(cause, HandshakeCause::Verdict(_)))
            .map(|(cause, n)| (*cause, *n))
            .collect();
        causes.sort_by_key(|(cause, n)| (std::cmp::Reverse(*n), *cause));
        causes.truncate(COLOURS);
        Self {
            coloured: causes.into_iter().map(|(cause, _)| cause).collect(),
        }
    }

    /// The class of its colour in the style sheet.
    pub fn class(&self, cause: HandshakeCause) -> &'static str {
        const CLASSES: [&str; COLOURS] = ["c1", "c2", "c3", "c4", "c5", "c6"];
        match cause {
            HandshakeCause::Well => "cw",
            HandshakeCause::Undecided => "cu",
            HandshakeCause::Verdict(_) => self
                .coloured
                .iter()
                .position(|of| *of == cause)
                .map_or("cx", |at| CLASSES[at]),
        }
    }
}
