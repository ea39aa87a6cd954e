//! Where the states come from: a run, or a recording.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};

use crate::{
    pipeline::{Player, PlayerMoment},
    status::{RunStatus, StatusRequest},
    top::{EventTail, Observed, ReplayPosition, ReplayedEvents},
};

/// See the module. Nothing of it waits.
pub(super) trait Feed {
    /// Asks for the state now. `since`: time that has passed since the last one was asked for.
    fn ask(&mut self, since: Duration);

    /// The state that was asked for, if it is there by now; `Break`: there will be none.
    fn poll(&mut self) -> ControlFlow<(), Option<Observed>>;

    /// Whether a state was asked for and is not there yet.
    fn is_waiting(&self) -> bool;

    /// The states that follow list all handshakes in progress, or the oldest alone.
    fn list_all(&mut self, _: bool) {}

    /// A recording of what comes begins, or the one that is being written ends: the next state shows it.
    fn switch_recording(&mut self) {}

    /// A replay stops, or goes on.
    fn pause(&mut self, _: bool) {}

    /// A replay goes that far on, microseconds; the ends stop it.
    fn skip(&mut self, _: i64) {}

    /// From the first state to the last, microseconds; `None`: there is no last one.
    fn length_us(&self) -> Option<u64> {
        None
    }
}

/// A run.
pub(super) struct LiveFeed {
    requests: mpsc::Sender<StatusRequest>,
    pending: Option<oneshot::Receiver<Arc<RunStatus>>>,
    /// The next request switches the recording.
    switches: bool,
    lists_all: bool,
    slow_us: Option<u64>,
    events: EventTail,
}

impl LiveFeed {
    /// `events`: what the run's output goes to.
    pub fn new(
        requests: mpsc::Sender<StatusRequest>,
        slow_us: Option<u64>,
        events: EventTail,
    ) -> Self {
        Self {
            requests,
            pending: None,
            switches: false,
            lists_all: false,
            slow_us,
            events,
        }
    }
}

impl Feed for LiveFeed {
    fn ask(&mut self, _: Duration) {
        if self.pending.is_some() {
            return;
        }
        let (mut request, answer) = StatusRequest::new();
        request.switches_recording = self.switches;
        request.lists_all = self.lists_all;
        // A run that is busy answers the next one; of one that is over, poll() learns nothing more.
        match self.requests.try_send(request) {
            Err(mpsc::error::TrySendError::Full(_)) => (),
            // The answer of a run that is over is lost with the request.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {
                self.pending = Some(answer);
                self.switches = false;
            }
        }
    }

    fn poll(&mut self) -> ControlFlow<(), Option<Observed>> {
        let Some(pending) = &mut self.pending else {
            return ControlFlow::Continue(None);
        };
        match pending.try_recv() {
            Err(oneshot::error::TryRecvError::Empty) => ControlFlow::Continue(None),
            Err(oneshot::error::TryRecvError::Closed) => ControlFlow::Break(()),
            Ok(status) => {
                self.pending = None;
                if self.switches || self.lists_all && status.snapshot.open_is_part {
                    self.ask(Duration::ZERO);
                }
                ControlFlow::Continue(Some(Observed {
                    status,
                    position: None,
                    slow_us: self.slow_us,
                    events: self.events.last(),
                    tail: self.events.clone(),
                    notes: Vec::new(),
                }))
            }
        }
    }

    fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }

    fn list_all(&mut self, all: bool) {
        let is_new = all && !self.lists_all;
        self.lists_all = all;
        if is_new {
            self.ask(Duration::ZERO);
        }
    }

    fn switch_recording(&mut self) {
        self.switches = !self.switches;
        self.ask(Duration::ZERO);
    }
}

/// A recording.
pub(super) struct ReplayFeed {
    player: Player,
    at_us: u64,
    is_paused: bool,
    /// It was moved, and is to be shown though it is paused.
    is_moved: bool,
    is_waiting: bool,
    slow_us: Option<u64>,
    events: ReplayedEvents,
    notes: Vec<String>,
}

impl ReplayFeed {
    pub fn new(
        player: Player,
        slow_us: Option<u64>,
        events: ReplayedEvents,
        notes: Vec<String>,
    ) -> Self {
        Self {
            events,
            player,
            at_us: 0,
            is_paused: false,
            is_moved: true,
            is_waiting: false,
            slow_us,
            notes,
        }
    }

    fn observed(&self, moment: PlayerMoment) -> Observed {
        let tail = self.events.tail();
        Observed {
            status: Arc::new(moment.status),
            position: Some(ReplayPosition {
                at_us: moment.at_us,
                length_us: self.player.length_us(),
                is_last: moment.is_last,
            }),
            slow_us: self.slow_us,
            events: tail.last(),
            tail,
            notes: self.notes.clone(),
        }
    }
}

impl Feed for ReplayFeed {
    fn ask(&mut self, since: Duration) {
        let length_us = self.player.length_us();
        let mut to_us = self.at_us;
        if !self.is_paused {
            to_us = to_us
                .saturating_add(since.as_micros() as u64)
                .min(length_us);
        }
        if self.is_waiting || to_us == self.at_us && !self.is_moved {
            return;
        }
        self.at_us = to_us;
        self.is_moved = false;
        // What cannot be read any more, poll() shows by its end.
        self.is_waiting = true;
        let _ = self.player.ask(to_us);
    }

    fn poll(&mut self) -> ControlFlow<(), Option<Observed>> {
        if !self.is_waiting {
            return ControlFlow::Continue(None);
        }
        match self.player.poll() {
            ControlFlow::Break(()) => ControlFlow::Break(()),
            ControlFlow::Continue(None) => ControlFlow::Continue(None),
            ControlFlow::Continue(Some(moment)) => {
                self.is_waiting = false;
                ControlFlow::Continue(Some(self.observed(moment)))
            }
        }
    }

    fn is_waiting(&self) -> bool {
        self.is_waiting
    }

    fn pause(&mut self, is_paused: bool) {
        self.is_paused = is_paused;
    }

    fn skip(&mut self, by_us: i64) {
        let to_us = self.at_us.saturating_add_signed(by_us);
        self.at_us = to_us.min(self.player.length_us());
        self.is_moved = true;
    }

    fn length_us(&self) -> Option<u64> {
        Some(self.player.length_us())
    }
}
