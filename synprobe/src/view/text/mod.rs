//! Text: one aligned line an event, then the peers, those with most problems first.

mod events;
mod summary;

use std::{
    collections::HashSet,
    io::{self, Write},
};

use super::{View, WallClock, rfc3339};
use crate::{
    model::{Body, Line, TcpState},
    util::format,
};

/// Initial width of the endpoints' column; it grows with the longest pair.
const ENDPOINTS: usize = 40;

#[derive(Clone, Copy)]
enum Colour {
    Plain,
    Dim,
    Green,
    Yellow,
    Red,
}

/// Prints lines as text.
pub struct TextView<W> {
    out: W,
    colour: bool,
    namespaces: bool,
    endpoints: usize,
    peers: usize,
    /// The mode and what is not seen in it, for the end.
    mode: Option<String>,
}

impl<W: Write> TextView<W> {
    /// Writes to `out`, which should be buffered. `colour`: for a terminal whose user did not set
    /// NO_COLOR. `namespaces`: print the namespace of each line, unless it is the host's own.
    pub fn new(out: W, colour: bool, namespaces: bool) -> Self {
        Self {
            out,
            colour,
            namespaces,
            endpoints: ENDPOINTS,
            peers: 0,
            mode: None,
        }
    }

    /// Returns the output.
    pub fn into_inner(self) -> W {
        self.out
    }

    fn paint(&self, colour: Colour, text: &str) -> String {
        let code = match colour {
            _ if !self.colour => return text.to_owned(),
            Colour::Plain => return text.to_owned(),
            Colour::Dim => "2",
            Colour::Green => "32",
            Colour::Yellow => "33",
            Colour::Red => "31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    fn line(&mut self, line: &Line, clock: WallClock, over: &HashSet<u64>) -> io::Result<()> {
        let full = rfc3339(clock, line.mono_ns);
        // 2026-01-02T03:04:05.678901Z → 03:04:05.678
        let time = full.get(11..23).unwrap_or(&full).to_owned();
        match &line.body {
            Body::Start(s) => self.start(s),
            Body::State(s) => {
                let leaves = s.old.is_handshake();
                let begins = s.new.is_handshake() && !leaves;
                // The handshake line reports the end, and also a handshake that ended at once.
                if leaves && s.new != TcpState::SynRecv || begins && over.contains(&s.connection.id)
                {
                    return Ok(());
                }
                self.state(&time, s)
            }
            Body::Retransmit(r) => self.retransmit(&time, r),
            Body::Handshake(h) => self.handshake(&time, h),
            Body::SynRefused(r) => self.syn_refused(&time, r),
            Body::ConnectionReset(r) => self.connection_reset(&time, r),
            Body::Peer(p) => self.peer(p),
            Body::Completed(c) => self.completed(c),
            Body::Problem(p) => self.problem(p),
            // The verbs that have them print a page or a table.
            Body::Listener(_) | Body::Connect(_) => Ok(()),
            Body::Lost(l) => {
                let text = format!("{time}  LOST {}: {}", l.events, format::safe(&l.reason));
                writeln!(self.out, "{}", self.paint(Colour::Red, &text))
            }
            Body::End(e) => self.end(e),
        }
    }
}

impl<W: Write> View for TextView<W> {
    fn show(&mut self, lines: &[Line], clock: WallClock) -> io::Result<()> {
        let over: HashSet<u64> = lines
            .iter()
            .filter_map(|line| match &line.body {
                Body::Handshake(h) => Some(h.connection.id),
                _ => None,
            })
            .collect();
        lines
            .iter()
            .try_for_each(|line| self.line(line, clock, &over))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn join(parts: &[&str]) -> String {
    let parts: Vec<_> = parts.iter().filter(|p| !p.is_empty()).copied().collect();
    parts.join(", ")
}
