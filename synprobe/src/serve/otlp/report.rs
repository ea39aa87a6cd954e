//! What is said about a lane on standard error: one line where its state changes, not one for each failure.

use std::time::{Duration, Instant};

use crate::{sys::journal::Priority, util::format};

/// Two lines of one lane are at least so far apart: its state may change with each request.
const APART: Duration = Duration::from_secs(10);
/// Characters of a reason that are printed; a collector may have written it.
const REASON: usize = 200;

/// How a lane does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LaneState {
    /// What is sent is taken.
    Delivers,
    /// It is not, and sent again.
    Fails(String),
    /// It is not, and some of it never will be.
    Loses(String),
}

impl LaneState {
    fn rank(&self) -> u8 {
        match self {
            Self::Delivers => 0,
            Self::Fails(_) => 1,
            Self::Loses(_) => 2,
        }
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct LaneReport {
    printed: u8,
    when: Option<Instant>,
}

impl LaneReport {
    /// The line to print, and how urgent it is; `None`: nothing has changed. `lost`: items lost so far.
    pub fn note(&mut self, state: LaneState, lost: u64) -> Option<(Priority, String)> {
        let early = self.when.is_some_and(|when| when.elapsed() < APART);
        if state.rank() == self.printed || early {
            return None;
        }
        self.printed = state.rank();
        self.when = Some(Instant::now());
        Some(match state {
            LaneState::Delivers => (
                Priority::Info,
                format!("delivered again; {lost} lost so far"),
            ),
            LaneState::Fails(why) => (
                Priority::Warning,
                format!("{}; it is sent again until taken", short(&why)),
            ),
            LaneState::Loses(why) => (
                Priority::Warning,
                format!("{}; {lost} lost so far", short(&why)),
            ),
        })
    }
}

fn short(why: &str) -> String {
    let short: String = why.chars().take(REASON).collect();
    format::safe(&short).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_for_each_change() {
        let mut report = LaneReport::default();
        let fails = || LaneState::Fails("refused\n".to_owned());
        assert_eq!(report.note(LaneState::Delivers, 0), None);
        let (priority, line) = report.note(fails(), 0).unwrap();
        assert_eq!(priority, Priority::Warning);
        assert!(
            line.starts_with("refused") && !line.contains('\n'),
            "{line}"
        );
        assert_eq!(report.note(fails(), 0), None);
        // Too early for a line: it comes with the next note.
        assert_eq!(report.note(LaneState::Delivers, 0), None);
        report.when = Instant::now().checked_sub(APART);
        let (priority, line) = report.note(LaneState::Delivers, 7).unwrap();
        assert_eq!(priority, Priority::Info);
        assert!(line.contains("again; 7 lost"), "{line}");
        assert_eq!(report.note(LaneState::Delivers, 7), None);
    }
}
