//! One listening socket, sampled repeatedly.

use std::collections::VecDeque;

use super::window::STEPS;
use crate::model::{LimitedBy, Listener, OwnerState, Queue, who};

/// Sockets of a group that are listed.
const GROUP_SHOWN: usize = 4;

/// One listening socket in this run.
#[derive(Clone, Debug)]
pub struct ListenerHistory {
    /// The last sample.
    pub last: Listener,
    /// How many samples there are.
    pub samples: u64,
    /// Samples in which its accept queue was full.
    pub full: u64,
    /// The longest that its accept queue was.
    pub longest: u32,
    /// The longest that its SYN queue was.
    pub syn_longest: u32,
    /// Handshakes whose events found its accept queue full.
    pub full_at_events: u64,
    /// When a sample no longer showed it: it was closed, CLOCK_MONOTONIC nanoseconds.
    pub closed_ns: Option<u64>,
    /// Where it was opened in this run: the first check that showed it, CLOCK_MONOTONIC nanoseconds.
    pub opened_by_ns: Option<u64>,
    /// `OutRsts` of its namespace at the check before.
    pub(super) rsts_before_close: Option<u64>,
    /// What its owner did while connections waited in the queue: the first and the last reading, and when.
    pub(super) owner: Option<[(u64, OwnerState); 2]>,
    /// Its `drops` when the run began, or 0 where it was opened later.
    first_drops: Option<u64>,
    /// Sums of each step of the window, the present one last. Empty: there is no window.
    steps: VecDeque<ListenerStep>,
}

/// What was seen of a listener in one step of a window: as in [`ListenerHistory`].
#[derive(Clone, Debug, Default)]
struct ListenerStep {
    samples: u64,
    full: u64,
    longest: u32,
    syn_longest: u32,
    full_at_events: u64,
    /// When it began.
    drops: Option<u64>,
}

impl ListenerHistory {
    pub(super) fn new(l: &Listener, opened_in_run: bool) -> Self {
        Self {
            last: l.clone(),
            samples: 0,
            full: 0,
            longest: 0,
            syn_longest: 0,
            full_at_events: 0,
            closed_ns: None,
            opened_by_ns: None,
            rsts_before_close: None,
            owner: None,
            steps: VecDeque::new(),
            first_drops: match opened_in_run {
                true => l.drops.map(|_| 0),
                false => l.drops,
            },
        }
    }

    pub(super) fn sample(&mut self, at_ns: u64, l: &Listener) {
        let queue = Queue {
            accept_queue: l.accept_queue.unwrap_or(0),
            max: l.accept_queue_max.unwrap_or(u32::MAX),
            ..Queue::default()
        };
        // `sk_drops` never falls: another socket has its place, and an old recording does not tell them apart.
        if l.drops < self.last.drops {
            self.first_drops = l.drops.map(|_| 0);
        }
        let seen = ListenerStep {
            samples: 1,
            full: u64::from(queue.accept_queue_is_full()),
            longest: queue.accept_queue,
            syn_longest: l.syn_queue.unwrap_or(0),
            ..ListenerStep::default()
        };
        self.add(&seen);
        if let Some(state) = &l.owner_state {
            let now = (at_ns, state.clone());
            match &mut self.owner {
                Some([_, last]) => *last = now,
                none => *none = Some([now.clone(), now]),
            }
        }
        self.last = l.clone();
    }

    /// An event found its accept queue full, with this length.
    pub(super) fn full_at_event(&mut self, length: u32) {
        self.add(&ListenerStep {
            full_at_events: 1,
            longest: length,
            ..ListenerStep::default()
        });
    }

    fn add(&mut self, seen: &ListenerStep) {
        self.sum(seen);
        if let Some(step) = self.steps.back_mut() {
            step.samples += seen.samples;
            step.full += seen.full;
            step.full_at_events += seen.full_at_events;
            step.longest = step.longest.max(seen.longest);
            step.syn_longest = step.syn_longest.max(seen.syn_longest);
        }
    }

    fn sum(&mut self, step: &ListenerStep) {
        self.samples += step.samples;
        self.full += step.full;
        self.full_at_events += step.full_at_events;
        self.longest = self.longest.max(step.longest);
        self.syn_longest = self.syn_longest.max(step.syn_longest);
    }

    /// A step of the window begins: what is older than the window is forgotten.
    pub(super) fn step(&mut self, cutoff_ns: u64) {
        if self.steps.is_empty() {
            // What was seen before the first step is of a step of its own.
            self.steps.push_back(ListenerStep {
                samples: self.samples,
                full: self.full,
                longest: self.longest,
                syn_longest: self.syn_longest,
                full_at_events: self.full_at_events,
                drops: self.first_drops,
            });
        }
        self.steps.push_back(ListenerStep {
            drops: self.last.drops,
            ..ListenerStep::default()
        });
        while self.steps.len() as u64 > STEPS + 1 {
            self.steps.pop_front();
        }
        (self.samples, self.full, self.full_at_events) = (0, 0, 0);
        (self.longest, self.syn_longest) = (0, 0);
        for step in std::mem::take(&mut self.steps) {
            self.sum(&step);
            self.steps.push_back(step);
        }
        let before = self.steps.front().and_then(|step| step.drops);
        // Another socket may have its place.
        self.first_drops = before.filter(|before| Some(*before) <= self.last.drops);
        if let Some([first, last]) = &mut self.owner
            && first.0 < cutoff_ns
        {
            *first = last.clone();
        }
        if self
            .owner
            .as_ref()
            .is_some_and(|[_, last]| last.0 < cutoff_ns)
        {
            self.owner = None;
        }
    }

    /// Whether its accept queue was ever seen to be full.
    pub fn was_full(&self) -> bool {
        self.full > 0 || self.full_at_events > 0
    }

    /// In which samples and events, in words.
    pub fn how_full(&self) -> String {
        let max = self.last.accept_queue_max.unwrap_or(0);
        let events = match self.full_at_events {
            0 => String::new(),
            n => format!(", and at events of {n} handshakes"),
        };
        format!(
            "listener {}: accept queue full in {} of {} checks{events}, up to {} of {max}",
            self.name(),
            self.full,
            self.samples,
            self.longest
        )
    }

    /// That it was closed, and what it held at the last check before.
    pub fn how_closed(&self) -> String {
        format!(
            "listener {} was closed in this run; at the last check before, {} connections waited in its accept queue",
            self.name(),
            self.last.accept_queue.unwrap_or(0)
        )
    }

    /// Half-opens that may have been its own at the last check.
    pub fn half_opens(&self) -> u32 {
        let own = self.last.syn_queue.unwrap_or(0);
        own.max(self.last.syn_queue_group.unwrap_or(0))
    }

    /// Why its owner does not accept(), where that was read: stopped, out of descriptors, busy or asleep.
    pub fn why_not_accepted(&self) -> Option<String> {
        let [(first_ns, first), (last_ns, last)] = self.owner.as_ref()?;
        let who = self.owner_name()?;
        if last.is_stopped() {
            let by = match last.state {
                't' => "a debugger holds it (state t)",
                _ => "a signal has stopped it (state T)",
            };
            return Some(format!("{who} does not run: {by}"));
        }
        if last.is_frozen() {
            return Some(format!(
                "{who} does not run: its cgroup is frozen (docker pause, cgroup.freeze)"
            ));
        }
        if let (true, Some(open), Some(max)) =
            (last.is_out_of_descriptors(), last.open_fds, last.max_fds)
        {
            return Some(format!(
                "{who} has {open} descriptors open and may have {max} (RLIMIT_NOFILE): accept() fails with EMFILE"
            ));
        }
        let asleep = match (&last.waits_in, last.state) {
            (Some(place), 'S' | 'D') => format!("its main thread sleeps in {place}"),
            (_, 'R') => "its main thread runs, or waits for a CPU (state R)".to_owned(),
            (_, state) => format!("its main thread is in state {state}"),
        };
        let span_ms = last_ns.saturating_sub(*first_ns) / 1_000_000;
        if span_ms < 500 || last.cpu_ms < first.cpu_ms {
            return Some(format!("{who}: {asleep}"));
        }
        let percent = (last.cpu_ms - first.cpu_ms) * 100 / span_ms;
        Some(format!(
            "{who} used {percent} % of a CPU while connections waited for accept(); {asleep}"
        ))
    }

    /// The other sockets of its SO_REUSEPORT group, in words; `None`: there are none.
    pub fn others_of(&self, group: &[&Self]) -> Option<String> {
        let others: Vec<&&Self> = group
            .iter()
            .filter(|h| h.last.inode != self.last.inode)
            .collect();
        others.first()?;
        let each = |h: &&&Self| {
            let owner = h.owner_name().unwrap_or_else(|| "?".to_owned());
            let max = h.last.accept_queue_max.unwrap_or(0);
            match h.full {
                0 => format!("{owner} up to {} of {max}", h.longest),
                n => format!("{owner} full in {n} of {} checks", h.samples),
            }
        };
        let shown: Vec<String> = others.iter().take(GROUP_SHOWN).map(each).collect();
        let more = match others.len().saturating_sub(GROUP_SHOWN) {
            0 => String::new(),
            n => format!(", and {n} more"),
        };
        let what = match others.len() {
            1 => "the other socket".to_owned(),
            n => format!("the other {n} sockets"),
        };
        let full = match others.iter().any(|h| h.was_full()) {
            true => "",
            false => " had room",
        };
        Some(format!(
            "{what} of its SO_REUSEPORT group{full}, accept queues: {}{more}",
            shown.join(", ")
        ))
    }

    /// By how much its `drops` rose in this run; `None`: not known. Repeated SYNs of its half-opens are in
    /// it, so it is no number of losses.
    pub fn dropped(&self) -> Option<u64> {
        Some(self.last.drops?.saturating_sub(self.first_drops?))
    }

    /// Its name: `0.0.0.0:8080 (java/1234)`.
    pub fn name(&self) -> String {
        let l = &self.last;
        let at = std::net::SocketAddr::new(l.local_addr, l.local_port);
        match self.owner_name() {
            Some(owner) => format!("{at} ({owner})"),
            None => at.to_string(),
        }
    }

    /// `java/1234`, or its pod or unit where that is known.
    pub fn owner_name(&self) -> Option<String> {
        let l = &self.last;
        let who = who(l.comm.as_deref(), l.pid, &l.workload);
        (!who.is_empty()).then(|| who.into_owned())
    }

    /// How full the SYN queue was at its fullest, of what fits.
    pub fn syn_fill(&self) -> Option<f64> {
        // It is full above its limit: one more fits.
        let room = self.last.syn_queue_max.filter(|max| *max > 0)? + 1;
        Some(f64::from(self.syn_longest) / f64::from(room))
    }

    /// Whether a check or an event found its SYN queue at its limit, which holds without SYN cookies.
    pub fn syn_queue_was_full(&self) -> bool {
        let max = self.last.syn_queue_max;
        max.is_some_and(|max| self.syn_longest >= max)
    }

    /// What is known of a SYN queue that refused SYNs.
    pub fn syn_queue_facts(&self, refused: u64) -> Vec<String> {
        let mut facts = Vec::new();
        if let Some(max) = self.last.syn_queue_max {
            let by = match self.last.limited_by {
                Some(LimitedBy::TcpMaxSynBacklog) => " (3/4 of net.ipv4.tcp_max_syn_backlog)",
                _ => "",
            };
            facts.push(format!(
                "listener {}: SYN queue up to {} of {max}{by}",
                self.name(),
                self.syn_longest
            ));
        }
        facts.push(format!(
            "{refused} SYNs of its namespace were refused by a full SYN queue: SYN cookies are off \
             (TCPReqQFullDrop, or ListenDrops beyond all other counters)"
        ));
        facts
    }

    /// How bad it looks: of a SO_REUSEPORT group the worst socket is shown.
    pub fn trouble(&self) -> impl Ord + use<> {
        let full = self.last.accept_queue > self.last.accept_queue_max;
        let inode = std::cmp::Reverse(self.last.inode);
        (
            self.was_full(),
            self.closed_ns.is_none(),
            full,
            self.longest,
            self.dropped(),
            inode,
        )
    }
}
