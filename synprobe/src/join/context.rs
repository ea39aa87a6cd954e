//! What a join knows besides the two ends, and what its pairs are called.

use std::sync::Arc;

use super::{
    clock::{ClockModel, ClockOffset},
    coverage::Coverage,
    crossed::CrossedOpens,
    fact::SideHandshake,
    refusals::Refusals,
};
use crate::model::{Confidence, Evidence};

/// The verdict of a connect that lost segments toward the server.
pub const TOWARD_SERVER: &str = "lost-toward-server";
/// The verdict of one that lost them toward the client.
pub const TOWARD_CLIENT: &str = "lost-toward-client";
/// The verdict of one that lost some both ways.
pub const BOTH_WAYS: &str = "lost-both-ways";
/// The verdict where one end cannot testify.
pub const NOT_ENOUGH: &str = "insufficient";

/// Facts of an end that a pair quotes at most.
pub const QUOTED: usize = 3;

/// What a join knows besides the two ends.
pub struct JoinContext<'j> {
    /// The clocks.
    pub clock: &'j ClockModel,
    /// What the client's file covers.
    pub client: &'j Coverage,
    /// What the server's file covers.
    pub server: &'j Coverage,
    /// SYNs that the server refused.
    pub refusals: &'j Refusals<'j>,
    /// Connects of the server's that met the SYN of whom they called.
    pub crossed: &'j CrossedOpens,
}

impl JoinContext<'_> {
    /// A time of the client's clock on the server's.
    pub(super) fn on_server(&self, client_ns: i64) -> i64 {
        client_ns.saturating_add(self.clock.roughly_at(client_ns).unwrap_or(0))
    }

    /// Offset and error at a time of the client's clock, microseconds.
    pub(super) fn offset_us(&self, client_ns: i64) -> (Option<i64>, Option<i64>) {
        let at = self.clock.at(client_ns);
        let up = |ns: i64| ns.saturating_add(999) / 1000;
        (
            at.map(|o| o.offset_ns.div_euclid(1000)),
            at.map(|ClockOffset { error_ns, .. }| up(error_ns)),
        )
    }
}

/// A fact for the verdict.
pub(super) fn fact(words: impl Into<String>) -> Evidence {
    Evidence {
        fact: words.into(),
        supports: true,
    }
}

/// The verdict of an end that is its own doing.
pub(super) fn own<'h>(h: &'h SideHandshake, verdicts: &[&str]) -> Option<&'h Arc<str>> {
    let verdict = h.verdict.as_ref()?;
    (verdicts.contains(&&**verdict) && h.confidence != Confidence::Insufficient).then_some(verdict)
}
