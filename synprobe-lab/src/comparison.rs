//! One comparison of ground truth with a count.

use std::ops::RangeInclusive;

/// Events that the run reported as lost, which explain a difference.
#[derive(Clone, Copy)]
pub(super) enum ReportedLoss {
    Nothing,
    /// This number of the compared events.
    Exactly(u64),
    /// This number of events of several kinds, of which the compared one is a part.
    UpTo(u64),
}

/// One comparison.
pub(super) struct Comparison {
    pub what: String,
    pub expected: RangeInclusive<u64>,
    pub seen: u64,
    /// Not counted, but reported as lost.
    pub reported_lost: ReportedLoss,
    /// Who counted `seen`.
    pub by: &'static str,
}

impl Comparison {
    /// Whether they agree. An event that was reported as lost is no difference.
    pub fn agrees(&self) -> bool {
        self.expected.contains(&self.seen)
            || match self.reported_lost {
                ReportedLoss::Nothing => false,
                ReportedLoss::Exactly(lost) => self.expected.contains(&(self.seen + lost)),
                ReportedLoss::UpTo(lost) => {
                    *self.expected.start() <= self.seen + lost && self.seen <= *self.expected.end()
                }
            }
    }

    pub fn mark(&self) -> String {
        match (self.agrees(), self.reported_lost) {
            _ if self.expected.contains(&self.seen) => "ok".to_owned(),
            (true, ReportedLoss::Exactly(lost)) => format!("ok, {lost} reported as lost"),
            (true, ReportedLoss::UpTo(lost)) => format!("ok, among {lost} reported as lost"),
            _ => "DIFFERS".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reported_loss_is_no_difference() {
        let compared = |seen, lost| Comparison {
            what: String::new(),
            expected: 11..=11,
            seen,
            reported_lost: ReportedLoss::Exactly(lost),
            by: "synprobe",
        };
        let mark = |seen, lost| compared(seen, lost).mark();
        assert_eq!(mark(11, 0), "ok");
        assert_eq!(mark(9, 2), "ok, 2 reported as lost");
        for (seen, lost) in [(9, 0), (9, 1), (9, 3), (12, 0), (12, 1)] {
            assert_eq!(mark(seen, lost), "DIFFERS");
        }
    }

    #[test]
    fn a_reported_loss_may_be_of_several_kinds() {
        let mark = |seen, lost| {
            let kind = Comparison {
                what: String::new(),
                expected: 3..=3,
                seen,
                reported_lost: ReportedLoss::UpTo(lost),
                by: "synprobe",
            };
            kind.mark()
        };
        assert_eq!(mark(3, 0), "ok");
        assert_eq!(mark(3, 2), "ok");
        assert_eq!(mark(2, 2), "ok, among 2 reported as lost");
        for (seen, lost) in [(2, 0), (1, 1), (4, 0), (4, 2)] {
            assert_eq!(mark(seen, lost), "DIFFERS");
        }
    }
}
