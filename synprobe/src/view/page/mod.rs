//! The page that `diagnose` prints at the end, ready to be pasted into a ticket.

mod conclusion;
mod facts;
mod layout;
mod states;
mod steps;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, io};

use conclusion::is_fault;
use layout::Sheet;
pub(super) use layout::heading;
#[cfg(feature = "top")]
pub(crate) use layout::tie;
pub(crate) use layout::{effect, place};
pub use states::PageCounts;
pub(crate) use steps::steps;

use super::{Style, View, WallClock, rfc3339, seen_in};
use crate::{
    model::{
        Body, Confidence, Counted, End, Handshake, Line, Lost, Missed, Outcome, Problem, Start,
    },
    util::format,
};

/// Problems, worst first, that are printed in full.
const IN_FULL: usize = 8;
/// Further problems that are printed in one line each.
const IN_A_LINE: usize = 12;

/// Gathers the lines of a run; [`Page::text`] renders them.
#[derive(Clone, Default)]
pub struct Page {
    start: Option<Start>,
    began: String,
    problems: Vec<Problem>,
    lost: Vec<Lost>,
    end: Option<End>,
    judged: u64,
    preexisting: u64,
    undecided: u64,
    /// The run goes on: what is wrong is wrong now, and nobody can let it run longer.
    goes_on: bool,
}

impl View for Page {
    fn show(&mut self, lines: &[Line], clock: WallClock) -> io::Result<()> {
        for line in lines {
            match &line.body {
                // A recording may hold several runs, one after the other.
                Body::Start(_) if self.start.is_some() => (),
                Body::Start(start) => {
                    self.start = Some(start.clone());
                    self.began = rfc3339(clock, line.mono_ns);
                }
                Body::Problem(problem) => self.problems.push(problem.as_ref().clone()),
                Body::Lost(lost) => self.lost.push(lost.clone()),
                Body::End(end) => self.end(end),
                Body::Handshake(h) => self.handshake(h),
                _ => (),
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Page {
    fn end(&mut self, end: &End) {
        let all = self.end.get_or_insert_with(End::default);
        all.events += end.events;
        all.lost += end.lost;
        all.handshakes += end.handshakes;
        all.counted += end.counted;
        all.syns_refused += end.syns_refused;
        all.evicted += end.evicted;
        all.unexplained.extend_from_slice(&end.unexplained);
        all.duration_us += end.duration_us;
    }

    fn handshake(&mut self, h: &Handshake) {
        self.judged += 1;
        self.preexisting += u64::from(h.facts.preexisting);
        let failed = h.outcome != Outcome::Established && !h.was_evicted();
        self.undecided += u64::from(h.verdict.is_none() && failed);
    }

    /// A page of a run that goes on.
    pub(crate) fn of_run_that_goes_on() -> Self {
        Self {
            goes_on: true,
            ..Self::default()
        }
    }

    /// The `start` line of the first run.
    pub(crate) fn start(&self) -> Option<&Start> {
        self.start.as_ref()
    }

    /// The totals of all runs.
    pub(crate) fn totals(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// What is wrong, worst first.
    pub(crate) fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// What was seen and no problem explains.
    pub(crate) fn unexplained(&self) -> &[String] {
        self.end.as_ref().map_or(&[], |end| &end.unexplained)
    }

    /// The page.
    pub fn text(&self, counts: &PageCounts<'_>, style: Style) -> String {
        let mut sheet = Sheet::new(style);
        self.head(&mut sheet);
        let conclusion = self.conclusion();
        let code = match self.is_wrong() {
            true => "1;31",
            false => "1;32",
        };
        sheet.empty_line();
        sheet.heading(code, &conclusion);
        states::push(&mut sheet, counts, &self.problems);
        let (judged, not_judged): (Vec<&Problem>, Vec<&Problem>) =
            self.problems.iter().partition(|p| p.verdict.is_some());
        self.listed(&mut sheet, &judged);
        if !not_judged.is_empty() {
            sheet.empty_line();
            sheet.heading("1", "Too little was seen of");
            self.listed(&mut sheet, &not_judged);
        }
        let unexplained = self.unexplained();
        if !unexplained.is_empty() {
            sheet.empty_line();
            sheet.heading("1", "Seen and not explained");
            for fact in unexplained {
                sheet.entry("-", fact);
            }
        }
        sheet.empty_line();
        if let Some(start) = &self.start {
            sheet.entry("mode", &seen_in(start));
        }
        self.blind_spots(&mut sheet, counts.at_end);
        // A long page scrolls: its end is what the reader sees.
        sheet.empty_line();
        sheet.heading(code, &conclusion);
        sheet.text
    }

    fn head(&self, sheet: &mut Sheet) {
        let (Some(start), Some(end)) = (&self.start, &self.end) else {
            return;
        };
        let filters: Vec<String> = start
            .filters
            .iter()
            .map(|(name, value)| format!("{} {}", name.replace('_', " "), value.replace(',', ", ")))
            .collect();
        let what = if filters.is_empty() {
            "the whole host".to_owned()
        } else {
            filters.join(", ")
        };
        let host = match start.host.hostname.as_deref() {
            Some(name) => format!("host {name}, "),
            None => String::new(),
        };
        let head = format!(
            "synprobe {} diagnose: {what}, {host}Linux {}, watched for {} from {}",
            start.version,
            start.kernel,
            format::duration(end.duration_us),
            self.began
                .get(..19)
                .unwrap_or(&self.began)
                .replace('T', " ")
                + " UTC",
        );
        sheet.heading("1", &head);
        let seen = format!(
            "{} handshakes ended or were open, {} of them with a problem; {} kernel records",
            end.handshakes + end.counted,
            self.judged,
            end.events
        );
        sheet.heading("", &seen);
    }

    /// The first [`IN_FULL`] problems in full, then one line each, then a count of the rest.
    fn listed(&self, sheet: &mut Sheet, problems: &[&Problem]) {
        for problem in problems.iter().take(IN_FULL) {
            self.problem(sheet, problem);
        }
        let others = problems.get(IN_FULL..).unwrap_or_default();
        if others.is_empty() {
            return;
        }
        sheet.empty_line();
        for p in others.iter().take(IN_A_LINE) {
            sheet.heading("", &heading(p));
        }
        let mut rest: BTreeMap<&str, usize> = BTreeMap::new();
        for p in others.iter().skip(IN_A_LINE) {
            *rest.entry(p.verdict_name()).or_default() += 1;
        }
        if !rest.is_empty() {
            let rest: Vec<_> = rest.iter().map(|(v, n)| format!("{v} ×{n}")).collect();
            let rest = format!(
                "and more problems: {} (--format json lists all)",
                rest.join(", ")
            );
            sheet.heading("", &rest);
        }
    }

    fn problem(&self, sheet: &mut Sheet, p: &Problem) {
        let code = match p.confidence {
            _ if !is_fault(p) => "2",
            Confidence::Certain => "1;31",
            _ => "1;33",
        };
        sheet.empty_line();
        sheet.heading(code, &heading(p));
        if p.verdict.is_some() && !is_fault(p) {
            sheet.entry("note", "this is no fault");
        }
        for e in facts::added_up(&p.evidence, p.handshakes) {
            let (label, fact) = match (e.supports, e.fact.strip_prefix(facts::EXAMPLE)) {
                (true, Some(fact)) => ("such as", fact),
                (true, None) => ("for", &*e.fact),
                (false, _) => ("against", &*e.fact),
            };
            sheet.entry(label, fact);
        }
        if !p.peers.is_empty() {
            let named: Vec<String> = p
                .peers
                .iter()
                .map(|s| format!("{} ×{}", s.peer_addr, s.handshakes))
                .collect();
            let more = match p.peers_more {
                0 => String::new(),
                n => format!(", and {n} more"),
            };
            sheet.items("peers", &named, ", ", &more);
        }
        for effect in &p.effects {
            sheet.entry("effect", &layout::effect(effect));
        }
        if let Some(remedy) = &p.remedy {
            sheet.steps(remedy);
        }
        if let Some(verdict) = p.verdict {
            sheet.entry("more", &format!("synprobe explain {verdict}"));
        }
    }

    /// What the run could not see.
    fn blind_spots(&self, sheet: &mut Sheet, states: &Counted) {
        let spots = self.not_seen(states);
        sheet.empty_line();
        if spots.is_empty() {
            sheet.heading("", "Nothing was lost.");
            return;
        }
        sheet.heading("1", "What could not be seen");
        for spot in spots {
            sheet.entry("-", &spot);
        }
    }

    /// What the run could not see, a sentence each. The mode's own blind spots are not among them.
    pub(crate) fn not_seen(&self, states: &Counted) -> Vec<String> {
        let mut spots = Vec::new();
        let mut lost: BTreeMap<&str, u64> = BTreeMap::new();
        // Evicted handshakes have an entry of their own below.
        for one in self.lost.iter().filter(|one| one.of != Missed::Evicted) {
            *lost.entry(&one.reason).or_default() += one.events;
        }
        for (reason, events) in lost {
            spots.push(format!(
                "{events} lost: {reason}; verdicts are less certain for it"
            ));
        }
        if self.end.as_ref().is_some_and(|end| end.counted > 0) {
            spots.push(
                "healthy handshakes were only counted, not examined: the usual times of a peer are not known, \
                 so neither is what is slow for it (--every examines all)"
                    .to_owned(),
            );
        }
        if self.preexisting > 0 {
            spots.push(format!(
                "{} of the handshakes began before the run: of the time before it, only the kernel's own \
                 counts are known",
                self.preexisting
            ));
        }
        if self.undecided > 0 && self.goes_on {
            spots.push(format!(
                "{} handshakes showed too little before they ended: their cause is not known",
                self.undecided
            ));
        } else if self.undecided > 0 {
            spots.push(format!(
                "{} handshakes showed too little in this time: a longer --duration shows more (SYN-ACKs are \
                 retransmitted at 1, 3, 7, 15, 31 s)",
                self.undecided
            ));
        }
        if let Some(start) = &self.start {
            spots.extend(
                start
                    .missing
                    .iter()
                    .map(|m| format!("not known on this host: {m}")),
            );
        }
        if let Some(end) = self.end.as_ref().filter(|end| end.evicted > 0) {
            spots.push(format!(
                "{} handshakes were evicted from the full table: what became of them is not known (a larger \
                 --max-memory keeps them)",
                end.evicted
            ));
        }
        spots.extend(states.failures.iter().cloned());
        spots
    }
}
