//! The last events of the run, in the words of `watch`.

use std::{
    collections::VecDeque,
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
};

use super::{page_text::PageText, query::RowFacts, style::Tone};
use crate::{
    model::{Body, Connection, Line, RetransmitKind, Trigger, WallClock, who},
    util::bounded::Bounded,
    view::{Style, TextOptions, TextView, View, has_row, line_to_json, needs_two_lines},
};

/// Events that are kept.
const KEPT: usize = 500;
/// Handshakes in progress whose retransmissions are kept, and how many of each.
const LADDERS: usize = 16_384;
const RUNGS: usize = 16;

/// A retransmission of a handshake in progress.
#[derive(Clone, Copy, Debug)]
pub(super) struct SeenAgain {
    /// 1 for the first.
    pub attempt: Option<u32>,
    /// Since the transmission before, microseconds.
    pub gap_us: Option<u64>,
    /// That gap by the kernel's schedule; `None`: the peer caused it, or the schedule is not known.
    pub due_us: Option<u64>,
    /// The peer's repeated SYN caused it.
    pub is_by_peer: bool,
}

/// One line that `watch` has a row for.
#[derive(Debug)]
pub struct TopEvent {
    /// Counts the events of the run.
    pub(super) serial: u64,
    clock: WallClock,
    line: Line,
    /// Its row, as wide as it was drawn last: the same in the next frame.
    row: Mutex<Option<(usize, String)>>,
}

struct KeptEvents {
    /// The newest first.
    events: VecDeque<Arc<TopEvent>>,
    count: u64,
    ladders: Bounded<u64, Vec<SeenAgain>>,
}

impl fmt::Debug for KeptEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptEvents").finish_non_exhaustive()
    }
}

impl Default for KeptEvents {
    fn default() -> Self {
        Self {
            events: VecDeque::new(),
            count: 0,
            ladders: Bounded::new(LADDERS),
        }
    }
}

impl KeptEvents {
    fn climb(&mut self, body: &Body) {
        match body {
            Body::Retransmit(r)
                if matches!(r.kind, RetransmitKind::Syn | RetransmitKind::Synack) =>
            {
                let id = r.connection.id;
                if self.ladders.get(&id).is_none() {
                    self.ladders.insert(id, Vec::new());
                }
                let rungs = self.ladders.get_mut(&id);
                let Some(rungs) = rungs.filter(|rungs| rungs.len() < RUNGS) else {
                    return;
                };
                rungs.push(SeenAgain {
                    attempt: r.attempt,
                    gap_us: r.gap_us,
                    due_us: r.expected_gap_us,
                    is_by_peer: r.trigger == Some(Trigger::Peer),
                });
            }
            Body::Handshake(h) => drop(self.ladders.remove(&h.connection.id)),
            _ => (),
        }
    }
}

/// An output that keeps the last events for the screen.
#[derive(Clone, Debug, Default)]
pub struct EventTail(Arc<Mutex<KeptEvents>>);

impl EventTail {
    /// The events that are kept, the newest first.
    pub fn last(&self) -> Vec<Arc<TopEvent>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.events.iter().cloned().collect()
    }

    /// The retransmissions of a handshake in progress, as far as they are kept.
    pub(super) fn ladder(&self, id: u64) -> Vec<SeenAgain> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.ladders.get(&id).cloned().unwrap_or_default()
    }
}

/// The events of a replay. One that goes back begins anew, and its events with it.
#[derive(Clone, Debug, Default)]
pub struct ReplayedEvents(Arc<Mutex<EventTail>>);

impl ReplayedEvents {
    fn begin(&self) -> EventTail {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *tail = EventTail::default();
        tail.clone()
    }

    /// The output of a replay that begins now, as often as it begins.
    pub fn outputs(&self) -> Box<dyn Fn() -> Box<dyn View + Send> + Send> {
        let events = self.clone();
        Box::new(move || Box::new(events.begin()))
    }

    /// Of the replay that began last.
    pub fn tail(&self) -> EventTail {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl View for EventTail {
    fn show(&mut self, lines: &[Line], clock: WallClock) -> io::Result<()> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for line in lines.iter().filter(|line| has_row(&line.body)) {
            kept.climb(&line.body);
            kept.count += 1;
            let serial = kept.count;
            let line = line.clone();
            kept.events.push_front(Arc::new(TopEvent {
                serial,
                clock,
                line,
                row: Mutex::default(),
            }));
            kept.events.truncate(KEPT);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TopEvent {
    /// Its row, at most so many columns wide.
    pub(super) fn text(&self, columns: usize) -> String {
        let mut row = self.row.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, text)) = row.as_ref().filter(|(wide, _)| *wide == columns) {
            return text.clone();
        }
        let text = self.laid_out(columns);
        *row = Some((columns, text.clone()));
        text
    }

    fn laid_out(&self, columns: usize) -> String {
        let options = TextOptions {
            style: Style::plain(columns),
            ..TextOptions::default()
        };
        let mut view = TextView::new(Vec::new(), options);
        // Memory takes everything.
        let _ = view.show(std::slice::from_ref(&self.line), self.clock);
        let text = String::from_utf8_lossy(&view.into_inner()).into_owned();
        // A cause that has no room in the row is in a line of its own.
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        match lines.split_first() {
            // There is room for one line, and the event says more than the peer.
            Some((first, event)) if needs_two_lines(columns) && !event.is_empty() => {
                let (time, peer) = first.split_once(' ').unwrap_or_default();
                let time = time.split('.').next().unwrap_or_default();
                format!("{time} {} {}", event.join(" "), peer.trim_start())
            }
            _ => lines.join(" "),
        }
    }

    /// The event as `watch` prints it, and its line in JSON (docs/events.md), one member a line.
    pub(super) fn page(&self, page: &mut PageText) {
        page.within(0, "", &self.laid_out(usize::MAX / 2), Tone::Strong);
        page.heading("Its line (--format json)");
        // A quotation mark within a text is escaped: it follows no comma.
        let json = line_to_json(&self.line, self.clock).unwrap_or_default();
        let members = String::from_utf8_lossy(&json).replace(",\"", ",\n\"");
        for member in members.lines() {
            page.within(0, "", member, Tone::Plain);
        }
    }

    fn connection(&self) -> Option<&Connection> {
        match &self.line.body {
            Body::State(s) => Some(&s.connection),
            Body::Retransmit(r) => Some(&r.connection),
            Body::Handshake(h) => Some(&h.connection),
            Body::ConnectionReset(r) => Some(&r.connection),
            _ => None,
        }
    }

    /// The handshake that it is of.
    pub(super) fn handshake(&self) -> Option<u64> {
        self.connection().map(|c| c.id)
    }

    /// What a filter can ask of it.
    pub(super) fn facts(&self) -> RowFacts<'_> {
        let Some(c) = self.connection() else {
            return RowFacts::default();
        };
        RowFacts {
            ports: Some(c.local_port.into_iter().chain(c.peer_port).collect()),
            netns: Some((c.netns, c.netns_name.as_deref())),
            verdicts: match &self.line.body {
                Body::Handshake(h) => Some(h.verdict.iter().map(|kind| kind.name()).collect()),
                _ => None,
            },
            process: Some(who(c.comm.as_deref(), c.pid, &c.workload).into_owned()),
            peers: Some(vec![c.peer_addr]),
            role: Some(Some(c.role)),
            ..RowFacts::default()
        }
    }
}
