//! The page that `diagnose` prints at the end, ready to be pasted into a ticket.

mod layout;
#[cfg(test)]
mod tests;

use std::{cmp::Reverse, collections::BTreeMap, fmt::Write as _, io};

pub(super) use layout::heading;
pub(crate) use layout::{effect, place};
use layout::{entry, paint};

use super::{View, WallClock, blind_in, rfc3339};
use crate::{
    model::{
        Body, Confidence, Counted, End, Evidence, Handshake, Line, Lost, Missed, NetnsStates,
        Outcome, Problem, Role, Start, VerdictKind,
    },
    util::format,
};

/// Problems, worst first, that are printed in full.
const IN_FULL: usize = 8;
/// Namespaces whose sockets are counted in a line each.
const STATES_LISTED: usize = 8;
/// Further problems that are printed in one line each.
const IN_A_LINE: usize = 12;

/// Gathers the lines of a run; [`Page::text`] renders them.
#[derive(Default)]
pub struct Page {
    start: Option<Start>,
    began: String,
    problems: Vec<Problem>,
    lost: Vec<Lost>,
    end: Option<End>,
    judged: u64,
    preexisting: u64,
    undecided: u64,
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

    /// What the page says where nothing has a cause; else `None`.
    pub(crate) fn without_cause(&self) -> Option<&'static str> {
        let none = self.problems.iter().all(|p| p.verdict.is_none());
        none.then_some(match self.unexplained().is_empty() {
            true => "Nothing wrong was found.",
            false => "No cause was found.",
        })
    }

    /// The page.
    pub fn text(&self, states: &Counted, colour: bool) -> String {
        let mut text = String::new();
        self.head(&mut text, colour);
        histogram(&mut text, states, &self.problems);
        let unexplained = self.unexplained();
        if let Some(said) = self.without_cause() {
            let _ = writeln!(text, "\n{said}");
        }
        for problem in self.problems.iter().take(IN_FULL) {
            self.problem(&mut text, problem, colour);
        }
        self.the_others(&mut text);
        if !unexplained.is_empty() {
            let _ = writeln!(text, "\n{}", paint(colour, "1", "Seen and not explained"));
            for fact in unexplained {
                entry(&mut text, "-", fact);
            }
        }
        self.mode(&mut text);
        self.blind_spots(&mut text, states, colour);
        text
    }

    fn head(&self, text: &mut String, colour: bool) {
        let (Some(start), Some(end)) = (&self.start, &self.end) else {
            return;
        };
        let filters: Vec<String> = start
            .filters
            .iter()
            .map(|(name, value)| format!("{} {value}", name.replace('_', " ")))
            .collect();
        let what = if filters.is_empty() {
            "the whole host".to_owned()
        } else {
            filters.join(", ")
        };
        let head = format!(
            "synprobe {} diagnose: {what}, Linux {}, watched for {} from {}",
            start.version,
            start.kernel,
            format::duration(end.duration_us),
            self.began
                .get(..19)
                .unwrap_or(&self.began)
                .replace('T', " ")
                + " UTC",
        );
        let _ = writeln!(text, "{}", paint(colour, "1", &head));
        let _ = writeln!(
            text,
            "{} handshakes ended or were open, {} of them with a problem; {} kernel records",
            end.handshakes + end.counted,
            self.judged,
            end.events
        );
    }

    /// The mode, and what is not seen in it.
    fn mode(&self, text: &mut String) {
        let blind = self
            .start
            .as_ref()
            .and_then(|start| Some((start, blind_in(start)?)));
        if let Some((start, blind)) = blind {
            text.push('\n');
            entry(
                text,
                "mode",
                &format!("{}; it does not see: {blind}", start.mode),
            );
        }
    }

    /// The problems after the first [`IN_FULL`]: one line each, then a count of the rest.
    fn the_others(&self, text: &mut String) {
        let others = self.problems.get(IN_FULL..).unwrap_or_default();
        if others.is_empty() {
            return;
        }
        text.push('\n');
        for p in others.iter().take(IN_A_LINE) {
            let _ = writeln!(text, "{}", heading(p));
        }
        let mut rest: BTreeMap<&str, usize> = BTreeMap::new();
        for p in others.iter().skip(IN_A_LINE) {
            *rest.entry(p.verdict_name()).or_default() += 1;
        }
        if !rest.is_empty() {
            let rest: Vec<_> = rest.iter().map(|(v, n)| format!("{v} ×{n}")).collect();
            let _ = writeln!(
                text,
                "and more problems: {} (--format json lists all)",
                rest.join(", ")
            );
        }
    }

    fn problem(&self, text: &mut String, p: &Problem, colour: bool) {
        let code = match (p.verdict, p.confidence) {
            (None | Some(VerdictKind::DeferAccept), _) => "2",
            (Some(VerdictKind::ResetAfterHandshake), _) if p.role == Role::Server => "2",
            (_, Confidence::Certain) => "1;31",
            _ => "1;33",
        };
        let _ = writeln!(text, "\n{}", paint(colour, code, &heading(p)));
        for e in &p.evidence {
            fact(text, e);
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
            entry(text, "peers", &format!("{}{more}", named.join(", ")));
        }
        for effect in &p.effects {
            entry(text, "effect", &layout::effect(effect));
        }
        if let Some(remedy) = &p.remedy {
            layout::steps(text, remedy);
        }
        if let Some(verdict) = p.verdict {
            entry(text, "more", &format!("synprobe explain {verdict}"));
        }
    }

    /// What the run could not see.
    fn blind_spots(&self, text: &mut String, states: &Counted, colour: bool) {
        let spots = self.not_seen(states);
        if spots.is_empty() {
            text.push_str("\nNothing was lost.\n");
            return;
        }
        let _ = writeln!(text, "\n{}", paint(colour, "1", "What could not be seen"));
        for spot in spots {
            entry(text, "-", &spot);
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
        if self.undecided > 0 {
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
                 --max-handshakes keeps them)",
                end.evicted
            ));
        }
        spots.extend(states.failures.iter().cloned());
        spots
    }
}

/// Sockets by state: the namespaces that a problem concerns and the host's, then the busiest; the others in one
/// line.
fn histogram(text: &mut String, states: &Counted, problems: &[Problem]) {
    let concerned =
        |n: &NetnsStates| n.name == "host" || problems.iter().any(|p| p.netns == n.netns);
    let under_way = |n: &NetnsStates| -> u64 {
        let count = |state: &str| n.states.get(state).copied().unwrap_or(0);
        count("SYN_RECV") + count("SYN_SENT")
    };
    let mut namespaces: Vec<&NetnsStates> = states.namespaces.iter().collect();
    if namespaces.len() > STATES_LISTED {
        namespaces.sort_by_key(|n| (Reverse(concerned(n)), Reverse(under_way(n))));
    }
    let (listed, others) = namespaces.split_at(namespaces.len().min(STATES_LISTED));
    for netns in listed {
        let name = if netns.name == "host" {
            String::new()
        } else {
            format!(" of netns {}", format::safe(&netns.name))
        };
        let counts = counts(netns.states.iter().map(|(s, n)| (&**s, *n)));
        entry(text, "states", &format!("{counts}{name}"));
    }
    if !others.is_empty() {
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for (state, n) in others.iter().flat_map(|netns| &netns.states) {
            *sums.entry(state).or_default() += n;
        }
        let counts = counts(sums.into_iter());
        entry(
            text,
            "states",
            &format!("{counts} of {} other namespaces", others.len()),
        );
    }
}

/// `ESTABLISHED 12  LISTEN 3`, the most first.
fn counts<'a>(states: impl Iterator<Item = (&'a str, u64)>) -> String {
    let mut counts: Vec<(&str, u64)> = states.collect();
    counts.sort_by_key(|(state, n)| (Reverse(*n), *state));
    let counts: Vec<String> = counts.iter().map(|(s, n)| format!("{s} {n}")).collect();
    counts.join("  ")
}

fn fact(text: &mut String, e: &Evidence) {
    entry(text, if e.supports { "for" } else { "against" }, &e.fact);
}
