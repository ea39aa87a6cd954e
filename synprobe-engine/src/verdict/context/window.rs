//! Facts of a window: a run that lasts judges by what it saw lately. What is older is forgotten, in steps of a
//! quarter of the window.

use std::{collections::VecDeque, time::Duration};

use super::Context;
use crate::util::format;

/// Steps of a window.
pub const STEPS: u64 = 4;

/// A value that only rises, as it was at the beginning of each step: by how much it rose in the window.
#[derive(Debug, Default)]
pub struct Marks<T>(VecDeque<(u64, T)>);

impl<T> Marks<T> {
    /// The value at a moment, CLOCK_MONOTONIC nanoseconds; and forgets those that a later one from before
    /// `cutoff_ns` replaces.
    pub fn mark(&mut self, at_ns: u64, cutoff_ns: u64, value: T) {
        self.0.push_back((at_ns, value));
        while self.0.get(1).is_some_and(|(at, _)| *at <= cutoff_ns) {
            self.0.pop_front();
        }
    }

    /// The value where the window begins, and when that was; `None`: there is no window.
    pub fn first(&self) -> Option<(u64, &T)> {
        self.0.front().map(|(at, value)| (*at, value))
    }
}

/// The window of a [`Context`].
#[derive(Debug, Default)]
pub struct Window {
    length_ns: u64,
    /// `in the last 60 s`, `of the last 60 s`
    words: (String, String),
    /// When the present step began.
    step_ns: u64,
    counted_clients: Marks<u64>,
}

impl Window {
    /// A window of this length.
    pub fn new(length: Duration) -> Self {
        let shown = format::duration(u64::try_from(length.as_micros()).unwrap_or(u64::MAX));
        Self {
            length_ns: u64::try_from(length.as_nanos()).unwrap_or(u64::MAX),
            words: (
                format!("in the last {shown}"),
                format!("of the last {shown}"),
            ),
            ..Self::default()
        }
    }

    /// Its length, nanoseconds.
    pub fn length_ns(&self) -> u64 {
        self.length_ns
    }
}

impl Context {
    /// The time from which facts are, in words.
    pub fn during(&self) -> &str {
        match &self.window {
            Some(window) => &window.words.0,
            None => "in this run",
        }
    }

    /// The same after a noun.
    pub fn of_span(&self) -> &str {
        match &self.window {
            Some(window) => &window.words.1,
            None => "of this run",
        }
    }

    /// Time has passed. `counted_clients`: successful active opens that the kernel has only counted so far,
    /// where that is known. Returns whether a step began.
    pub fn passes(&mut self, at_ns: u64, counted_clients: Option<u64>) -> bool {
        let Some(window) = &mut self.window else {
            return false;
        };
        let cutoff_ns = at_ns.saturating_sub(window.length_ns);
        if let Some(counted) = counted_clients {
            let (_, first) = window.counted_clients.first().unwrap_or((0, &0));
            self.counted_clients = counted.saturating_sub(*first);
        }
        if at_ns.saturating_sub(window.step_ns) < window.length_ns / STEPS {
            return false;
        }
        window.step_ns = at_ns;
        if let Some(counted) = counted_clients {
            window.counted_clients.mark(at_ns, cutoff_ns, counted);
        }
        let length_ns = window.length_ns;
        self.forget_before(at_ns, cutoff_ns, length_ns);
        true
    }

    fn forget_before(&mut self, at_ns: u64, cutoff_ns: u64, length_ns: u64) {
        self.losses.window_begins(cutoff_ns);
        self.drops.forget_before(cutoff_ns);
        self.answers.forget_before(cutoff_ns);
        self.freed_syns.forget_before(cutoff_ns);
        self.existing.forget_before(cutoff_ns);
        self.repeated_synacks.forget_before(cutoff_ns);
        self.no_socket.forget_before(cutoff_ns);
        self.stuck.forget_before(at_ns, length_ns);
        self.unanswered.forget_before(cutoff_ns);
        self.refused_syns.forget_before(cutoff_ns);
        self.histories.step(at_ns, cutoff_ns);
        self.conntrack.step(at_ns, cutoff_ns);
        self.ports.step();
        self.fanouts.step();
        self.icmp.step();
        let began = cutoff_ns.saturating_sub(super::ONE_CONNECT_NS);
        self.failed_half_opens
            .retain(|_, all| all.iter().any(|at| *at >= began));
    }
}
