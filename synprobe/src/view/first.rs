//! The first handshakes of a run, and what is said of all at its end.

use std::io;

use super::{View, WallClock};
use crate::model::{Body, Line, QueueSample};

/// Shows a number of handshakes. A run ends when that many have ended, but several may end at one moment, and others
/// are open then.
pub struct FirstHandshakes<V> {
    view: V,
    left: Option<u64>,
    most: u64,
}

impl<V: View> FirstHandshakes<V> {
    /// `most`: how many are shown; `None`: all.
    pub fn new(view: V, most: Option<u64>) -> Self {
        Self {
            view,
            left: most,
            most: most.unwrap_or(u64::MAX),
        }
    }

    /// Returns the view.
    pub fn into_inner(self) -> V {
        self.view
    }

    /// Whether the line is shown, as it is or changed.
    fn shown(&mut self, line: &Line) -> Option<Line> {
        let Some(left) = &mut self.left else {
            return Some(line.clone());
        };
        match &line.body {
            Body::Handshake(_) => {
                *left = left.checked_sub(1)?;
                Some(line.clone())
            }
            // What comes after the last one is not of the handshakes that were asked for.
            Body::State(_) | Body::Retransmit(_) | Body::ConnectionReset(_) => {
                (*left > 0).then(|| line.clone())
            }
            Body::End(end) => {
                let mut end = end.clone();
                end.handshakes = end.handshakes.min(self.most);
                Some(Line {
                    body: Body::End(end),
                    ..*line
                })
            }
            _ => Some(line.clone()),
        }
    }
}

impl<V: View> View for FirstHandshakes<V> {
    fn show(&mut self, lines: &[Line], clock: WallClock) -> io::Result<()> {
        if self.left.is_none() {
            return self.view.show(lines, clock);
        }
        let shown: Vec<Line> = lines.iter().filter_map(|line| self.shown(line)).collect();
        self.view.show(&shown, clock)
    }

    fn queues(&mut self, queues: &QueueSample) {
        self.view.queues(queues);
    }

    fn waits(&self) -> bool {
        self.view.waits()
    }

    fn rest(&mut self) -> io::Result<()> {
        self.view.rest()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.view.flush()
    }
}
