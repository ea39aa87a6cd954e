//! One handshake and its verdict: the first that applies, as sure as what was lost and what was not watched allow.

use super::{ALL, Context, arithmetic, times, undecided::why_no_verdict};
use crate::model::{Confidence, Evidence, Handshake, OpenReason, Outcome, Role};

/// Gives the handshake its verdict. Returns whether it is in trouble.
pub(super) fn judge(h: &mut Handshake, context: &Context) -> bool {
    if h.was_evicted() {
        // The tracker's evidence says so: how it went on is not known.
        h.confidence = Confidence::Insufficient;
        return true;
    }
    let found = ALL
        .iter()
        .find_map(|verdict| Some((verdict, verdict.check(h, context)?)));
    let Some((verdict, finding)) = found else {
        h.confidence = Confidence::Insufficient;
        if h.outcome != Outcome::Established && h.open_reason != Some(OpenReason::EndNotSeen) {
            h.evidence.push(Evidence {
                fact: why_no_verdict(h),
                supports: false,
            });
        }
        if h.outcome == Outcome::Established && h.copied_syns() > 0 {
            h.evidence.push(Evidence {
                fact: format!(
                    "its SYN came again {}, sooner than TCP repeats it: the network made the copy, and nothing was lost",
                    times(h.copied_syns())
                ),
                supports: false,
            });
        }
        return h.outcome != Outcome::Established;
    };
    let mut finding = arithmetic::add_up(h, finding);
    finding = finding.maybe_pro(context.redirect_fact(&h.connection));
    if context.losses.touch(h) {
        finding = finding
            .contra("records were lost that may have been of it: what they contained is not known");
        finding.confidence = match (finding.confidence, finding.by_absence) {
            (Confidence::Certain, _) => Confidence::Likely,
            (_, true) => Confidence::Insufficient,
            (other, false) => other,
        };
    }
    // An active open that is still open has not been answered, whenever it began.
    let unwatched =
        h.connection.role == Role::Server && h.facts.preexisting && !h.facts.history_known;
    if finding.by_absence && unwatched {
        finding =
            finding.contra("it existed before the run: what happened until then is not known");
        finding.confidence = match finding.confidence {
            Confidence::Certain => Confidence::Likely,
            _ => Confidence::Insufficient,
        };
    }
    h.confidence = finding.confidence;
    h.evidence.append(&mut finding.evidence);
    if finding.confidence != Confidence::Insufficient {
        h.verdict = Some(verdict.kind());
        h.remedy = (!finding.remedy.is_empty()).then_some(finding.remedy);
    }
    true
}
