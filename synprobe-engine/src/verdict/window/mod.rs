//! Problems of a window: handshakes of the last minute, judged again and again by what is known meanwhile.

use std::collections::VecDeque;

use super::{Context, ProblemGroups, judgement::judge, problem_states::ProblemStates};
use crate::{
    model::{Confidence, Handshake, Problem},
    util::table_bounds::TableBounds,
};

/// Handshakes that ended in one step of the window.
#[derive(Default)]
struct Step {
    began_ns: u64,
    /// As the tracker made them, without a verdict, and when each ended.
    held: Vec<(u64, Handshake)>,
    /// Sums of those beyond the bound.
    beyond: ProblemGroups,
}

/// See the module.
pub struct ProblemWindow {
    length_ns: u64,
    /// The present one last.
    steps: VecDeque<Step>,
    held: usize,
    /// Handshakes that are kept whole, and judged again each time. Those beyond are judged once, and summed.
    most_held: usize,
    /// When it was judged last.
    judged_ns: u64,
    /// The problems that are open.
    pub states: ProblemStates,
}

impl ProblemWindow {
    /// Without handshakes. `run` names the run in the ids of its problems.
    pub fn new(length_ns: u64, run: u64) -> Self {
        Self {
            length_ns,
            steps: VecDeque::from([Step::default()]),
            held: 0,
            most_held: TableBounds::default().held_of_window,
            judged_ns: 0,
            states: ProblemStates::new(length_ns, run),
        }
    }

    /// Keeps so many handshakes whole.
    pub fn holding(mut self, most: usize) -> Self {
        self.most_held = most;
        self
    }

    /// Whether a handshake in trouble ended in the window, or a problem is open.
    pub fn has_trouble(&self) -> bool {
        let none = |step: &Step| step.held.is_empty() && step.beyond.is_empty();
        !self.steps.iter().all(none) || !self.states.is_empty()
    }

    /// Takes in a judged handshake in trouble. `own`: how many of its facts are the tracker's.
    pub fn add(&mut self, at_ns: u64, h: &Handshake, own: usize) {
        let Some(step) = self.steps.back_mut() else {
            return;
        };
        if self.held >= self.most_held {
            step.beyond.add(h);
            return;
        }
        let mut unjudged = h.clone();
        unjudged.evidence.truncate(own);
        (unjudged.verdict, unjudged.remedy) = (None, None);
        unjudged.confidence = Confidence::Insufficient;
        // Known of since then only: where a record was read late, it would leave the window unjudged.
        step.held.push((at_ns.max(self.judged_ns), unjudged));
        self.held += 1;
    }

    /// A step of the window begins.
    pub fn step(&mut self, at_ns: u64) {
        let cutoff_ns = at_ns.saturating_sub(self.length_ns);
        self.steps.push_back(Step {
            began_ns: at_ns,
            ..Step::default()
        });
        // The next one begins where one ends.
        while self
            .steps
            .get(1)
            .is_some_and(|next| next.began_ns <= cutoff_ns)
        {
            if let Some(old) = self.steps.pop_front() {
                self.held -= old.held.len();
            }
        }
    }

    /// The problems of the window, worst first. `open`: handshakes in progress, as if they ended now.
    pub fn problems(
        &mut self,
        at_ns: u64,
        open: Vec<Handshake>,
        context: &Context,
    ) -> Vec<Problem> {
        let (groups, judged) = self.groups(at_ns, open, context);
        self.judged_ns = at_ns;
        groups.problems(judged.iter(), context)
    }

    /// The sums of the window, and those of their handshakes that are kept whole.
    pub fn groups(
        &self,
        at_ns: u64,
        open: Vec<Handshake>,
        context: &Context,
    ) -> (ProblemGroups, Vec<Handshake>) {
        // On a busy host judgements may lie further apart than a short window is long: each handshake is in one.
        let cutoff_ns = at_ns.saturating_sub(self.length_ns).min(self.judged_ns);
        let mut groups = ProblemGroups::default();
        for step in &self.steps {
            groups.merge(&step.beyond);
        }
        let held = self.steps.iter().flat_map(|step| &step.held);
        let mut judged = Vec::new();
        for (_, h) in held.filter(|(at, _)| *at >= cutoff_ns) {
            let mut h = h.clone();
            if judge(&mut h, context) {
                groups.add(&h);
                judged.push(h);
            }
        }
        for mut h in open {
            // Without a verdict it is too early to call it a problem.
            if judge(&mut h, context) && h.verdict.is_some() {
                groups.add(&h);
                judged.push(h);
            }
        }
        (groups, judged)
    }
}

#[cfg(test)]
mod tests;
