//! What was found, in one line.

use super::{Page, place};
use crate::model::{Confidence, Problem, Role, VerdictKind};

/// Whether somebody has to act on it. A deferred accept is meant so, and health checks and scans reset their
/// connections to a server.
pub(crate) fn is_fault(p: &Problem) -> bool {
    match p.verdict {
        None | Some(VerdictKind::DeferAccept) => false,
        Some(VerdictKind::ResetAfterHandshake) => p.role != Role::Server,
        Some(_) => true,
    }
}

impl Page {
    /// What the page says where nothing has a cause; else `None`.
    pub(crate) fn without_cause(&self) -> Option<&'static str> {
        if self.problems.iter().any(is_fault) {
            return None;
        }
        if self.goes_on {
            return Some("No problem is open.");
        }
        Some(
            match (self.unexplained().is_empty(), self.problems.is_empty()) {
                (false, _) => "No cause was found.",
                // Too little was seen of them, or they are no fault.
                (true, false) => "No problem was found.",
                (true, true) => "Nothing wrong was found.",
            },
        )
    }

    /// Whether something is wrong: a problem, or what no problem explains.
    pub fn is_wrong(&self) -> bool {
        !self.unexplained().is_empty() || self.problems.iter().any(is_fault)
    }

    /// How many problems, and the cause of the worst, or that there is none.
    pub(crate) fn conclusion(&self) -> String {
        let faults: Vec<&Problem> = self.problems.iter().filter(|p| is_fault(p)).collect();
        let Some(first) = faults.first() else {
            return self.without_cause().unwrap_or_default().to_owned() + &self.not_judged();
        };
        let sure = match first.confidence {
            Confidence::Likely => "likely ",
            _ => "",
        };
        let name = first.verdict.map_or("", VerdictKind::name);
        let (count, what) = match faults.len() {
            1 => ("1 problem".to_owned(), "Cause"),
            n => (format!("{n} problems"), "The worst"),
        };
        format!("{count}. {what}: {sure}{name}, {}.", place(first))
    }
    /// ` Of 3 handshakes too little was seen.`
    fn not_judged(&self) -> String {
        let undecided = self.problems.iter().filter(|p| p.verdict.is_none());
        match undecided.map(|p| p.handshakes).sum() {
            0 => String::new(),
            1u64 => " Of 1 handshake too little was seen.".to_owned(),
            n => format!(" Of {n} handshakes too little was seen."),
        }
    }
}
