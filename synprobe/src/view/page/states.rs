//! Sockets by state and handshakes in progress, at the start of the run, at their peak and at its end.

use std::{cmp::Reverse, collections::BTreeMap};

use super::layout::Sheet;
use crate::{
    model::{ByRole, Counted, Counts, NetnsStates, OpenOverRun, Problem, Role},
    util::format,
};

/// Namespaces whose sockets are counted in a line each.
const LISTED: usize = 8;

/// What was counted beside the lines.
#[derive(Clone, Copy, Debug)]
pub struct PageCounts<'c> {
    /// Sockets by state when the run began, where they were counted.
    pub at_start: Option<&'c Counted>,
    /// The same when it ended.
    pub at_end: &'c Counted,
    /// Handshakes in progress over the run, of the selection.
    pub in_progress: Option<OpenOverRun>,
}

impl<'c> From<&'c Counted> for PageCounts<'c> {
    fn from(at_end: &'c Counted) -> Self {
        Self {
            at_start: None,
            at_end,
            in_progress: None,
        }
    }
}

pub(super) fn push(sheet: &mut Sheet, counts: &PageCounts<'_>, problems: &[Problem]) {
    if let Some(seen) = counts.in_progress {
        for (state, role) in [("SYN_RECV", Role::Server), ("SYN_SENT", Role::Client)] {
            let of = |counts: &ByRole<u64>| *counts.get(role);
            if of(&seen.most) > 0 {
                let text = format!(
                    "{state} {} at the start, {} at most, {} at the end",
                    of(&seen.at_start),
                    of(&seen.most),
                    of(&seen.at_end)
                );
                sheet.entry("open", &text);
            }
        }
    }
    histogram(sheet, counts, problems);
}

/// Sockets by state: the namespaces that a problem concerns, and the host's; the others in one line.
fn histogram(sheet: &mut Sheet, counts: &PageCounts<'_>, problems: &[Problem]) {
    let concerned = |n: &NetnsStates| problems.iter().any(|p| p.netns == n.netns);
    let under_way = |n: &NetnsStates| -> u64 {
        let count = |state: &str| n.states.get(state).copied().unwrap_or(0);
        count("SYN_RECV") + count("SYN_SENT")
    };
    let all = &counts.at_end.namespaces;
    let any_concerned = all.iter().any(concerned);
    let (mut listed, mut others): (Vec<&NetnsStates>, Vec<&NetnsStates>) =
        all.iter().partition(|n| {
            all.len() == 1
                || concerned(n)
                || !any_concerned && (n.name == "host" || under_way(n) > 0)
        });
    listed.sort_by_key(|n| Reverse(under_way(n)));
    others.extend(listed.drain(listed.len().min(LISTED)..));
    let before = |netns: u32| {
        let at_start = counts.at_start?.namespaces.iter();
        at_start.into_iter().find(|n| n.netns == netns)
    };
    for netns in listed {
        let name = match &*netns.name {
            "host" => String::new(),
            name => format!(" of netns {}", format::safe(name)),
        };
        let before = before(netns.netns).map(|n| &n.states);
        let counted = changed(&netns.states, before.or(no_sockets(counts)));
        if counted.is_empty() {
            continue;
        }
        sheet.items("states", &counted, "  ", &name);
    }
    if !others.is_empty() {
        let mut sums = Counts::new();
        for (state, n) in others.iter().flat_map(|netns| &netns.states) {
            *sums.entry(state.clone()).or_default() += n;
        }
        let counted = changed(&sums, None);
        let what = match others.len() {
            1 => " of 1 other namespace".to_owned(),
            n => format!(" of {n} other namespaces"),
        };
        sheet.items("states", &counted, "  ", &what);
    }
}

/// A namespace that was not there when the run began had no socket. Where some could not be counted then, it may have
/// been one of them.
fn no_sockets(counts: &PageCounts<'_>) -> Option<&'static Counts> {
    static NONE: Counts = BTreeMap::new();
    let at_start = counts.at_start.filter(|c| c.failures.is_empty());
    at_start.map(|_| &NONE)
}

/// `ESTABLISHED 12→14`, `LISTEN 3`, the most at the end first.
fn changed(at_end: &Counts, at_start: Option<&Counts>) -> Vec<String> {
    let mut states: Vec<&str> = at_end.keys().map(|state| &**state).collect();
    if let Some(at_start) = at_start {
        let gone = at_start
            .iter()
            .filter(|(state, n)| **n > 0 && !at_end.contains_key(*state));
        states.extend(gone.map(|(state, _)| &**state));
    }
    let of = |counts: &Counts, state: &str| counts.get(state).copied().unwrap_or(0);
    states.sort_by_key(|state| (Reverse(of(at_end, state)), *state));
    states
        .iter()
        .map(
            |state| match (at_start.map(|n| of(n, state)), of(at_end, state)) {
                (Some(before), now) if before != now => format!("{state} {before}→{now}"),
                (_, now) => format!("{state} {now}"),
            },
        )
        .collect()
}
