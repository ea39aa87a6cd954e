//! What was made held against what was seen.

use std::ops::RangeInclusive;

/// What a run has missed and told, of what is compared.
#[derive(Clone, Copy)]
pub(super) enum Told {
    Nothing,
    /// So many.
    These(u64),
    /// So many, and what is compared is one part of those that they may be.
    Among(u64),
}

/// One comparison.
pub(super) struct Comparison {
    pub what: String,
    pub made: RangeInclusive<u64>,
    pub seen: u64,
    /// Not seen, and the run said so.
    pub told_as_lost: Told,
    /// Whose word `seen` is.
    pub by: &'static str,
}

impl Comparison {
    /// What was missed and told is no difference: nothing that the run says is wrong.
    pub fn agrees(&self) -> bool {
        self.made.contains(&self.seen)
            || match self.told_as_lost {
                Told::Nothing => false,
                Told::These(lost) => self.made.contains(&(self.seen + lost)),
                Told::Among(lost) => {
                    *self.made.start() <= self.seen + lost && self.seen <= *self.made.end()
                }
            }
    }

    pub fn mark(&self) -> String {
        match (self.agrees(), self.told_as_lost) {
            _ if self.made.contains(&self.seen) => "ok".to_owned(),
            (true, Told::These(lost)) => format!("ok, {lost} told as lost"),
            (true, Told::Among(lost)) => format!("ok, among {lost} told as lost"),
            _ => "DIFFERS".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_missed_and_told_is_no_difference() {
        let compared = |seen, lost| Comparison {
            what: String::new(),
            made: 11..=11,
            seen,
            told_as_lost: Told::These(lost),
            by: "synprobe",
        };
        let mark = |seen, lost| compared(seen, lost).mark();
        assert_eq!(mark(11, 0), "ok");
        assert_eq!(mark(9, 2), "ok, 2 told as lost");
        for (seen, told_as_lost) in [(9, 0), (9, 1), (9, 3), (12, 0), (12, 1)] {
            assert_eq!(mark(seen, told_as_lost), "DIFFERS");
        }
    }

    #[test]
    fn what_was_missed_may_be_of_several_kinds() {
        let mark = |seen, lost| {
            let kind = Comparison {
                what: String::new(),
                made: 3..=3,
                seen,
                told_as_lost: Told::Among(lost),
                by: "synprobe",
            };
            kind.mark()
        };
        assert_eq!(mark(3, 0), "ok");
        assert_eq!(mark(3, 2), "ok");
        assert_eq!(mark(2, 2), "ok, among 2 told as lost");
        for (seen, lost) in [(2, 0), (1, 1), (4, 0), (4, 2)] {
            assert_eq!(mark(seen, lost), "DIFFERS");
        }
    }
}
