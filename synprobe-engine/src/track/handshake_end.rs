//! How a handshake ended, with the evidence.

use crate::model::{DwellSource, Evidence, OpenReason, Outcome};

/// How a handshake ended.
pub(super) struct HandshakeEnd {
    pub outcome: Outcome,
    /// Of [`Outcome::Open`].
    pub open_reason: Option<OpenReason>,
    pub at_ns: u64,
    pub error: Option<String>,
    /// The dwell, where it is known by itself and not as a difference of times.
    pub dwell_us: Option<u64>,
    pub source: Option<DwellSource>,
    /// Bound of the error of the end's own time, microseconds.
    pub error_us: u64,
    /// At least this bound for the start's.
    pub start_error_us: u64,
    /// The dwell cannot be known (SYN cookie).
    pub dwell_unknown: bool,
    /// The evidence for this outcome, where no event reported it.
    pub facts: Vec<Evidence>,
}

impl HandshakeEnd {
    pub fn new(outcome: Outcome, at_ns: u64) -> Self {
        Self {
            outcome,
            open_reason: None,
            at_ns,
            error: None,
            dwell_us: None,
            source: None,
            error_us: 0,
            start_error_us: 0,
            dwell_unknown: false,
            facts: Vec::new(),
        }
    }

    /// It was open when last seen.
    pub fn open(reason: OpenReason, at_ns: u64) -> Self {
        Self {
            open_reason: Some(reason),
            ..Self::new(Outcome::Open, at_ns)
        }
    }

    pub fn error(mut self, error: Option<String>) -> Self {
        self.error = error;
        self
    }

    pub fn fact(mut self, fact: impl Into<String>) -> Self {
        self.facts.push(Evidence {
            fact: fact.into(),
            supports: true,
        });
        self
    }

    pub fn dwell(mut self, dwell_us: u64, source: DwellSource) -> Self {
        (self.dwell_us, self.source) = (Some(dwell_us), Some(source));
        self
    }
}
