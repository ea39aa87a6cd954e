//! The page of a run that goes on: the last minutes, as `synprobe report` shows a run that is over.
//!
//! Two reports take the same lines. Each begins [`SHOWN_NS`] after the other; the older one is shown, until the
//! younger one has that much. So the page has the last ten to twenty minutes, and the memory has a bound.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{Arc, Mutex, PoisonError},
};

use synprobe_ebpf::histogram::BUCKETS;

use super::{HtmlReport, Now, ReportBounds, cards};
use crate::{
    engine::HandshakeStats,
    lang::Lang,
    model::{Body, End, Handshake, Line, QueueSample, RetransmitKind, Role, Start, WallClock},
    status::RunStatus,
    view::{Page, View},
};

/// The page has at least this much of the past, where the run is that old; at most twice as much while lines come.
const SHOWN_NS: u64 = 600 * 1_000_000_000;
/// A page takes this many times the memory of a report: two that are filled, one that is drawn, and the text.
const PARTS: u64 = 4;

/// Handshakes without a line, by role and duration.
type CountedBuckets = BTreeMap<Role, Box<[u64; BUCKETS]>>;

/// See the module.
pub struct LiveReport {
    lang: Lang,
    bounds: ReportBounds,
    /// The first line of the run, and its time, CLOCK_MONOTONIC nanoseconds.
    start: Option<(u64, Start)>,
    /// Oldest first.
    parts: VecDeque<Part>,
    /// The latest line or status, CLOCK_MONOTONIC nanoseconds.
    last_ns: u64,
}

/// A report, and what was counted when it began.
struct Part {
    began_ns: u64,
    report: HtmlReport,
    /// The first status of its time; of the first part, the beginning of the run.
    before: Option<CountedBefore>,
}

/// Counts of the run that a part leaves out.
#[derive(Default)]
struct CountedBefore {
    at_ns: u64,
    handshakes: CountedBuckets,
    overflows: Option<u64>,
    cookies: Option<u64>,
}

/// The output that fills it.
pub struct LiveOutput(pub Arc<Mutex<LiveReport>>);

impl View for LiveOutput {
    fn show(&mut self, lines: &[Line], clock: WallClock) -> io::Result<()> {
        let mut live = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let used = lines.iter().filter(|line| LiveReport::uses(line));
        for line in used {
            live.line(line, clock)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LiveReport {
    /// An empty one, which takes about `memory` bytes at most.
    pub fn within(memory: u64, lang: Lang) -> Self {
        Self {
            lang,
            bounds: ReportBounds::within(memory / PARTS),
            start: None,
            parts: VecDeque::new(),
            last_ns: 0,
        }
    }

    /// Whether a line is in it.
    pub fn uses(line: &Line) -> bool {
        match &line.body {
            Body::Retransmit(r) => matches!(r.kind, RetransmitKind::Syn | RetransmitKind::Synack),
            Body::Start(_)
            | Body::Handshake(_)
            | Body::SynRefused(_)
            | Body::ConnectionReset(_)
            | Body::Problem(_)
            | Body::Lost(_) => true,
            Body::State(_)
            | Body::Peer(_)
            | Body::Listener(_)
            | Body::Completed(_)
            | Body::Connect(_)
            | Body::End(_) => false,
        }
    }

    fn line(&mut self, line: &Line, clock: WallClock) -> io::Result<()> {
        if let Body::Start(start) = &line.body {
            self.start = Some((line.mono_ns, start.clone()));
            self.parts.clear();
            self.begin(line.mono_ns, clock);
            if let Some(part) = self.parts.back_mut() {
                part.before = Some(CountedBefore {
                    at_ns: line.mono_ns,
                    ..CountedBefore::default()
                });
            }
            return Ok(());
        }
        self.advance(line.mono_ns, clock);
        for part in &mut self.parts {
            part.report.show(std::slice::from_ref(line), clock)?;
        }
        Ok(())
    }

    /// Another part begins.
    fn begin(&mut self, at_ns: u64, clock: WallClock) {
        let Some((_, start)) = &self.start else {
            return;
        };
        let mut report = HtmlReport {
            page: Page::of_run_that_goes_on(),
            goes_on: true,
            ..HtmlReport::bounded(self.lang, self.bounds)
        };
        let line = Line {
            mono_ns: at_ns,
            body: Body::Start(start.clone()),
        };
        // It writes into memory.
        let _ = report.show(&[line], clock);
        self.parts.push_back(Part {
            began_ns: at_ns,
            report,
            before: None,
        });
    }

    /// The time passes.
    fn advance(&mut self, at_ns: u64, clock: WallClock) {
        let latest = self.parts.back().map_or(at_ns, |part| part.began_ns);
        if at_ns.saturating_sub(latest) >= SHOWN_NS {
            // Nothing came since the last line: what begins then has all since.
            self.begin((at_ns - SHOWN_NS).max(self.last_ns + 1), clock);
        }
        let is_enough = |part: &Part| at_ns.saturating_sub(part.began_ns) >= SHOWN_NS;
        while self.parts.get(1).is_some_and(is_enough) {
            self.parts.pop_front();
        }
        self.last_ns = self.last_ns.max(at_ns);
    }

    /// Takes in a status that somebody asked for: the queues, and what is only counted.
    pub fn observe(&mut self, status: &RunStatus) {
        if self.start.is_none() {
            // Somebody asks before the first line has come.
            self.start = Some((status.at_ns, status.snapshot.start.clone()));
            self.begin(status.at_ns, status.clock);
        }
        if self.parts.is_empty() || status.at_ns <= self.last_ns.saturating_sub(SHOWN_NS) {
            return;
        }
        self.advance(status.at_ns, status.clock);
        let snapshot = &status.snapshot;
        let host = &snapshot.host;
        for part in &mut self.parts {
            let before = part.before.get_or_insert_with(|| CountedBefore {
                at_ns: status.at_ns,
                handshakes: counted(&snapshot.stats),
                overflows: host.listen_overflows,
                cookies: host.syn_cookies_sent,
            });
            let since = |now: Option<u64>, before: Option<u64>| {
                now.map(|now| now.saturating_sub(before.unwrap_or(0)))
            };
            part.report.queues(&QueueSample {
                at_ns: status.at_ns,
                listeners: snapshot.listeners.clone(),
                listen_overflows: since(host.listen_overflows, before.overflows),
                listen_drops: None,
                syn_cookies: since(host.syn_cookies_sent, before.cookies),
            });
        }
    }

    /// The report as of a status, ready to be drawn. `refresh_s`: after how many seconds a browser asks again. `None`: the
    /// run has not begun.
    pub fn at(&self, status: &RunStatus, refresh_s: Option<u32>) -> Option<HtmlReport> {
        let part = self.parts.front()?;
        let (began_ns, _) = self.start.as_ref()?;
        let second = |at_ns: u64| cards::second(status.clock, at_ns) + " UTC";
        let mut report = part.report.clone();
        let before = part.before.as_ref();
        let now = Now {
            run_began: second(*began_ns),
            in_progress: status.snapshot.open_total as u64,
            drawn: report.add_open(status),
            counted: report.add_counted(&status.snapshot.stats, before.map(|b| &b.handshakes)),
            counted_since: second(before.map_or(status.at_ns, |before| before.at_ns)),
            refresh_s,
        };
        report.now = Some(now);
        report.end_at(status, part.began_ns);
        Some(report)
    }
}

impl HtmlReport {
    /// Adds those in progress that have a verdict, were retransmitted, or are older than the run; how many.
    fn add_open(&mut self, status: &RunStatus) -> u64 {
        let is_shown =
            |h: &&Handshake| h.verdict.is_some() || h.retransmits > 0 || h.facts.preexisting;
        let mut added = 0;
        for h in status.judged.iter().flatten().filter(is_shown) {
            self.handshake(h, status.at_ns);
            added += 1;
        }
        added
    }

    /// Adds those that were counted since then; how many.
    fn add_counted(&mut self, stats: &HandshakeStats, before: Option<&CountedBuckets>) -> u64 {
        let Some(before) = before else { return 0 };
        let mut all = 0;
        for (role, mut counts) in counted(stats) {
            if let Some(before) = before.get(&role) {
                let both = counts.iter_mut().zip(before.iter());
                both.for_each(|(n, before)| *n = n.saturating_sub(*before));
            }
            let handshakes: u64 = counts.iter().sum();
            self.flow.counted(role, handshakes);
            self.durations.counted(role, &counts);
            all += handshakes;
        }
        all
    }

    /// What is wrong now, and the totals.
    fn end_at(&mut self, status: &RunStatus, began_ns: u64) {
        let problems =
            status.snapshot.problems.iter().zip(1..).map(|(p, rank)| {
                Body::Problem(Box::new(crate::model::Problem { rank, ..p.clone() }))
            });
        let totals = &status.snapshot.totals;
        let end = Body::End(End {
            events: totals.events,
            lost: totals.lost,
            counted: totals.counted,
            evicted: self.evicted,
            duration_us: status.at_ns.saturating_sub(began_ns) / 1000,
            ..End::default()
        });
        let lines: Vec<Line> = problems
            .chain([end])
            .map(|body| Line {
                mono_ns: status.at_ns,
                body,
            })
            .collect();
        if let Some(end) = lines.last() {
            self.line(end, status.clock);
        }
        // It writes into memory.
        let _ = self.page.show(&lines, status.clock);
    }
}

/// All ports together.
fn counted(stats: &HandshakeStats) -> CountedBuckets {
    let mut all = CountedBuckets::new();
    for ((role, _), totals) in &stats.counted {
        let sum = all.entry(*role).or_insert_with(|| Box::new([0; BUCKETS]));
        let both = sum.iter_mut().zip(totals.durations);
        both.for_each(|(sum, n)| *sum += n);
    }
    all
}

#[cfg(test)]
mod tests;
