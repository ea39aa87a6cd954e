//! The line of a handshake: its outcome, its verdict and the evidence.

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{CommunityId, Connection, DwellSource, Facts, OpenReason, Outcome, VerdictKind};

/// How sure a verdict is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// Seen.
    Certain,
    /// The best explanation of what was seen.
    Likely,
    /// Not enough evidence.
    Insufficient,
}

impl Confidence {
    /// The name in the output contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::Certain => "certain",
            Self::Likely => "likely",
            Self::Insufficient => "insufficient",
        }
    }
}

/// One fact that speaks for or against.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Evidence {
    /// In words, with its numbers.
    pub fact: String,
    /// For the verdict, or against it.
    #[serde(rename = "for")]
    pub supports: bool,
}

fn sequence_numbers<S: Serializer>(facts: &Facts, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(2))?;
    map.serialize_entry("syn_seq", &facts.syn_seq)?;
    map.serialize_entry("syn_ack_seq", &facts.syn_ack_seq)?;
    map.end()
}

fn with_community_id<S: Serializer>(c: &Connection, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Identified<'a> {
        #[serde(flatten)]
        connection: &'a Connection,
        community_id: Option<CommunityId>,
    }
    Identified {
        connection: c,
        community_id: c.community_id(),
    }
    .serialize(serializer)
}

/// No TCP repeats its SYN sooner, µs: the first time-out is 1 s (RFC 6298 section 2.1), less what the way takes off.
const REPEAT_US: u64 = 800_000;

/// The end of a handshake; exactly one for each.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Handshake {
    /// Whose.
    #[serde(flatten, serialize_with = "with_community_id")]
    pub connection: Connection,
    /// How it ended.
    pub outcome: Outcome,
    /// Why the outcome is [`Outcome::Open`]; `None` for any other outcome.
    pub open_reason: Option<OpenReason>,
    /// First SYN (client) or first SYN-ACK (server) → outcome, microseconds.
    pub dwell_us: Option<u64>,
    /// Where that comes from.
    pub dwell_source: Option<DwellSource>,
    /// Bound of its error, microseconds; `None` where it is exact to the clock.
    pub dwell_error_us: Option<u64>,
    /// A lower bound of the dwell, microseconds, where no better is known: then `dwell_us` is `None`.
    pub dwell_at_least_us: Option<u64>,
    /// SYNs or SYN-ACKs that this host retransmitted.
    pub retransmits: u32,
    /// SYN-ACKs among them that the peer's repeated SYN caused.
    pub retransmits_by_peer: u32,
    /// Name of the errno that ended it.
    pub error: Option<String>,
    /// Its verdict.
    pub verdict: Option<VerdictKind>,
    /// How sure.
    pub confidence: Confidence,
    /// The facts.
    pub evidence: Vec<Evidence>,
    /// What to do.
    pub remedy: Option<String>,
    /// The measured gaps between its transmissions, microseconds: the ladder of the text view.
    #[serde(skip)]
    pub gaps_us: Vec<u64>,
    /// What verdicts are drawn from. Of them, the sequence numbers are printed.
    #[serde(flatten, serialize_with = "sequence_numbers")]
    pub facts: Facts,
}

impl Handshake {
    /// Whether it was evicted from the table: then its line is no evidence of its outcome.
    pub fn was_evicted(&self) -> bool {
        self.open_reason == Some(OpenReason::Evicted)
    }

    /// SYNs or SYN-ACKs that were retransmitted because no answer came. A SYN that was only too large for the path is
    /// none of them.
    pub fn unanswered(&self) -> u32 {
        self.retransmits
            .saturating_sub(self.facts.syn_too_large.into())
    }

    /// How often the peer repeated its SYN. A SYN that comes again sooner than any TCP repeats it is a copy that the
    /// network made.
    pub fn repeated_syns(&self) -> u32 {
        let completed_early =
            self.outcome == Outcome::Established && self.dwell_us.is_some_and(|us| us < REPEAT_US);
        if completed_early {
            return 0;
        }
        // The first gap: no timer is that short, so the peer's SYN caused the SYN-ACK.
        let copy = self.gaps_us.first().is_some_and(|us| *us < REPEAT_US);
        self.retransmits_by_peer.saturating_sub(copy.into())
    }

    /// How many copies of its SYN came that the network made, at least.
    pub fn copied_syns(&self) -> u32 {
        self.retransmits_by_peer - self.repeated_syns()
    }

    /// Whether it was still open when the run ended.
    pub fn is_still_open(&self) -> bool {
        self.open_reason == Some(OpenReason::RunEnded)
    }
}
