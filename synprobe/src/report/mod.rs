//! `synprobe report`: one HTML file of a run ([docs/report.md](../../../docs/report.md)).
//!
//! [`HtmlReport`] is an output like the others: it takes lines, and the queues of listeners. It keeps sums of bounded
//! size, and the worst handshakes as they are. [`HtmlReport::html`] makes the file of them: no script, nothing from
//! elsewhere, and every name escaped.

mod bounds;
mod cards;
mod cause;
mod durations_chart;
mod flow_chart;
mod html;
mod ladder_chart;
mod live;
mod page;
mod path_chart;
mod peers_chart;
mod places;
mod queues_chart;
mod sums;
mod table;
#[cfg(test)]
mod tests;
mod time_axis;
mod timeline_chart;
mod translated;
mod worst;

use std::{collections::VecDeque, io};

pub use bounds::ReportBounds;
use cause::HandshakeCause;
pub use live::{LiveOutput, LiveReport};
use places::{PeerTimes, QueueTimes};
use sums::{Durations, FlowCounts, InProgress, Rises};
use time_axis::TimeAxis;
use worst::Worst;

use crate::{
    lang::Lang,
    model::{
        Body, Counted, Handshake, Line, Missed, Problem, ProblemState, QueueSample, SynRefused,
        WallClock,
    },
    view::{Page, View},
};

/// `syn_refused` lines that are listed.
const REFUSED: usize = 50;
/// Problems that have closed, at most: the last.
const CLOSED: usize = 20;

/// See the module.
#[derive(Clone)]
pub struct HtmlReport {
    /// The language of the file.
    lang: Lang,
    /// What `diagnose` says of the same run.
    page: Page,
    runs: u64,
    /// When the first run began, and the clock then.
    began: Option<(u64, WallClock)>,
    /// The latest moment, and the clock then.
    ended: Option<(u64, WallClock)>,
    /// The clock of the run's beginning: a step of the wall clock bends no axis.
    clock: WallClock,
    axis: Option<TimeAxis>,
    flow: FlowCounts,
    durations: Durations,
    in_progress: InProgress,
    /// Handshakes whose beginning is not known: they are not among those in progress.
    not_placed: u64,
    rises: Rises,
    peers: PeerTimes,
    queues: QueueTimes,
    worst: Worst,
    refused: Vec<SynRefused>,
    refused_more: u64,
    /// Connections that were reset right after their handshake.
    resets: u64,
    spots: Vec<String>,
    /// Handshakes evicted from the table.
    evicted: u64,
    /// Of a run that goes on: `problem` lines are the history of problems, and not what is wrong at the end.
    goes_on: bool,
    /// Of such a run: problems that have closed.
    closed: VecDeque<Problem>,
    /// Of such a run: what is known of this moment.
    now: Option<Now>,
}

/// A run that goes on, at the moment of its page.
#[derive(Clone, Debug)]
struct Now {
    /// Where the run itself began, in words.
    run_began: String,
    /// Handshakes in progress, and those of them that are in the pictures.
    in_progress: u64,
    drawn: u64,
    /// Handshakes without trouble that were only counted, and since when, in words.
    counted: u64,
    counted_since: String,
    /// Seconds after which a browser asks again.
    refresh_s: Option<u32>,
}

impl Default for HtmlReport {
    fn default() -> Self {
        Self::new(Lang::En)
    }
}

impl View for HtmlReport {
    fn show(&mut self, lines: &[Line], clock: WallClock) -> io::Result<()> {
        for line in lines {
            self.line(line, clock);
            // As a run of `diagnose` would print it.
            let is_of_page = match &line.body {
                Body::Problem(_) if self.goes_on => false,
                Body::Handshake(h) => HandshakeCause::of(h) != HandshakeCause::Well,
                Body::State(_) | Body::Retransmit(_) => false,
                _ => true,
            };
            if is_of_page {
                self.page.show(std::slice::from_ref(line), clock)?;
            }
        }
        Ok(())
    }

    fn queues(&mut self, sample: &QueueSample) {
        let at = self.clock.realtime_ns(sample.at_ns);
        let interval = self.reach(at);
        self.queues.sample(interval, sample);
        self.rises.sample(interval, sample);
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl HtmlReport {
    /// An empty one in that language.
    pub fn new(lang: Lang) -> Self {
        Self::bounded(lang, ReportBounds::default())
    }

    fn bounded(lang: Lang, bounds: ReportBounds) -> Self {
        Self {
            lang,
            page: Page::default(),
            runs: 0,
            began: None,
            ended: None,
            clock: WallClock::default(),
            axis: None,
            flow: FlowCounts::default(),
            durations: Durations::default(),
            in_progress: InProgress::default(),
            not_placed: 0,
            rises: Rises::default(),
            peers: PeerTimes::new(bounds.peers),
            queues: QueueTimes::new(bounds.listeners),
            worst: Worst::new(bounds),
            refused: Vec::new(),
            refused_more: 0,
            resets: 0,
            spots: Vec::new(),
            evicted: 0,
            goes_on: false,
            closed: VecDeque::new(),
            now: None,
        }
    }

    /// The file. `states`: the sockets at the end of the run.
    pub fn html(&self, states: &Counted) -> String {
        let html = page::html(self, states);
        match self.lang {
            Lang::En => html,
            lang => translated::translated(&html, lang, &self.conclusion()),
        }
    }

    /// The language of the file.
    pub fn lang(&self) -> Lang {
        self.lang
    }

    /// What was found, in one line: it begins the file.
    pub fn conclusion(&self) -> String {
        self.page.conclusion()
    }

    /// Something that could not be seen, which no line says.
    pub fn add_blind_spot(&mut self, sentence: String) {
        self.spots.push(sentence);
    }

    fn line(&mut self, line: &Line, clock: WallClock) {
        match &line.body {
            Body::Start(_) => self.begin(line.mono_ns, clock),
            Body::Handshake(h) => self.handshake(h, line.mono_ns),
            Body::Retransmit(r) => self.worst.retransmit(line.mono_ns, r),
            Body::Completed(completed) => {
                self.flow.completed(completed);
                self.durations.completed(completed);
            }
            Body::SynRefused(refused) if self.refused.len() < REFUSED => {
                self.refused.push(refused.as_ref().clone());
            }
            Body::SynRefused(refused) => self.refused_more += refused.count,
            Body::ConnectionReset(_) => self.resets += 1,
            Body::Lost(lost) if lost.of == Missed::Evicted => self.evicted += lost.events,
            Body::Problem(p) if self.goes_on && p.life.state == ProblemState::Closed => {
                self.closed.push_back(p.as_ref().clone());
                if self.closed.len() > CLOSED {
                    self.closed.pop_front();
                }
            }
            Body::End(_) => {
                self.reach(self.clock.realtime_ns(line.mono_ns));
            }
            _ => (),
        }
        self.ended = Some((line.mono_ns, clock));
    }

    fn begin(&mut self, at_ns: u64, clock: WallClock) {
        self.runs += 1;
        self.clock = clock;
        if self.axis.is_none() {
            self.began = Some((at_ns, clock));
            self.axis = Some(TimeAxis::new(clock.realtime_ns(at_ns)));
        } else {
            let interval = self.reach(clock.realtime_ns(at_ns));
            self.in_progress.next_run(interval);
            self.worst.next_run();
            self.rises.next_run();
        }
    }

    fn handshake(&mut self, h: &Handshake, line_ns: u64) {
        let ended_ns = match h.facts.ended_ns {
            0 => line_ns,
            ended_ns => ended_ns,
        };
        let began = self.clock.realtime_ns(h.facts.since_ns());
        let ended = self.clock.realtime_ns(ended_ns);
        self.reach(ended);
        let Some(axis) = self.axis else { return };
        // One that came by a SYN cookie was never a half-open, and others began nobody knows when.
        let is_placed = h.facts.began_ns.is_some() || h.facts.preexisting;
        match is_placed {
            true => {
                let end = (!h.is_still_open()).then_some(ended);
                self.in_progress.add(h, &axis, began, end);
            }
            false => self.not_placed += 1,
        }
        self.flow.add(h);
        self.durations.add(h);
        if HandshakeCause::of(h) != HandshakeCause::Well {
            let interval = axis.interval(if is_placed { began } else { ended });
            self.peers.add(h.connection.peer_addr, interval);
        }
        self.worst.handshake(h, ended_ns, began);
    }

    /// The interval of a moment, once the axis reaches it.
    fn reach(&mut self, at: i128) -> usize {
        let axis = self.axis.get_or_insert_with(|| TimeAxis::new(at));
        for _ in 0..axis.reach(at) {
            self.in_progress.halve();
            self.rises.halve();
            self.peers.halve();
            self.queues.halve();
        }
        axis.interval(at)
    }
}
