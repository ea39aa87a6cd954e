//! NDJSON, as documented in docs/events.md.
//!
//! The most frequent lines (`state`, `handshake`: hundreds of thousands a second) are written field by
//! field. A general serializer checks every byte of every field name for escapes, which was half of the
//! agent's CPU time ([`synprobe_engine::line_json`]). A test compares both ways of writing.

use std::io::{self, Write};

use serde::Serialize;
use synprobe_engine::line_json::{Fields, LastConnection, write};

use super::{Stamps, View, WallClock, rfc3339};
use crate::model::{AcceptWait, Body, Line, Listener, Problem, ProblemState, Workload};

/// The fields that every line starts with.
#[derive(Serialize)]
struct Envelope<'a, B> {
    v: u32,
    r#type: &'static str,
    time: &'a str,
    mono_ns: u64,
    #[serde(flatten)]
    body: &'a B,
}

/// One JSON object a line.
pub struct JsonView<W> {
    out: W,
    /// Lines not yet written: they are formatted in small pieces and written in large ones.
    lines: Vec<u8>,
}

/// Lines are written when there are this many bytes.
const CHUNK: usize = 64 * 1024;

impl<W: Write> JsonView<W> {
    /// Writes to `out`, in large pieces.
    pub fn new(out: W) -> Self {
        Self {
            out,
            lines: Vec::with_capacity(2 * CHUNK),
        }
    }

    /// Returns the output.
    pub fn into_inner(self) -> W {
        self.out
    }

    fn write_out(&mut self) -> io::Result<()> {
        let result = self.out.write_all(&self.lines);
        self.lines.clear();
        result
    }
}

impl<W: Write> View for JsonView<W> {
    fn show(&mut self, lines: &[Line], clock: WallClock) -> io::Result<()> {
        let mut stamps = Stamps::new(clock);
        let mut said = LastConnection::default();
        for line in lines {
            let (out, mono_ns) = (&mut self.lines, line.mono_ns);
            let time = stamps.rfc3339(mono_ns);
            match &line.body {
                Body::State(b) => Fields::begin(out, "state", time, mono_ns).state(b, &mut said)?,
                Body::Handshake(b) => {
                    Fields::begin(out, "handshake", time, mono_ns).handshake(b, &mut said)?
                }
                _ => general(out, line, time, clock)?,
            }
            out.push(b'\n');
            if self.lines.len() >= CHUNK {
                said = LastConnection::default();
                self.write_out()?;
            }
        }
        self.write_out()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A listener as a line has it: with what is in no recording.
#[derive(Serialize)]
struct WithFindings<'a> {
    #[serde(flatten)]
    listener: &'a Listener,
    #[serde(flatten)]
    workload: &'a Workload,
    accept_wait: &'a Option<AcceptWait>,
}

/// A problem as a line has it.
#[derive(Serialize)]
pub struct WithLife<'a> {
    #[serde(flatten)]
    problem: &'a Problem,
    id: &'a str,
    state: ProblemState,
    since: String,
    until: Option<String>,
}

impl<'a> WithLife<'a> {
    /// Its times are on this clock.
    pub fn new(problem: &'a Problem, clock: WallClock) -> Self {
        let life = &problem.life;
        Self {
            problem,
            id: &life.id,
            state: life.state,
            since: rfc3339(life.since_clock.unwrap_or(clock), life.since_ns),
            until: life.until_ns.map(|ns| rfc3339(clock, ns)),
        }
    }
}

/// Writes any line, by serde.
fn general(out: &mut Vec<u8>, line: &Line, time: &str, clock: WallClock) -> io::Result<()> {
    match &line.body {
        Body::Start(b) => envelope(out, "start", line, time, b),
        Body::State(b) => envelope(out, "state", line, time, b),
        Body::Retransmit(b) => envelope(out, "retransmit", line, time, b),
        Body::Handshake(b) => envelope(out, "handshake", line, time, b),
        Body::Peer(b) => envelope(out, "peer", line, time, b),
        Body::Listener(listener) => {
            let workload = &listener.workload;
            let accept_wait = &listener.accept_wait;
            let whole = WithFindings {
                listener,
                workload,
                accept_wait,
            };
            envelope(out, "listener", line, time, &whole)
        }
        Body::Completed(b) => envelope(out, "completed", line, time, b),
        Body::Problem(b) => envelope(out, "problem", line, time, &WithLife::new(b, clock)),
        Body::Connect(b) => envelope(out, "connect", line, time, b),
        Body::SynRefused(b) => envelope(out, "syn_refused", line, time, b),
        Body::ConnectionReset(b) => envelope(out, "connection_reset", line, time, b),
        Body::Lost(b) => envelope(out, "lost", line, time, b),
        Body::End(b) => envelope(out, "end", line, time, b),
    }
}

fn envelope<B: Serialize>(
    out: &mut Vec<u8>,
    kind: &'static str,
    line: &Line,
    time: &str,
    body: &B,
) -> io::Result<()> {
    let envelope = Envelope {
        v: 1,
        r#type: kind,
        time,
        mono_ns: line.mono_ns,
        body,
    };
    write(out, &envelope)
}

/// One line as JSON, with its end.
///
/// # Errors
///
/// The line has no JSON form.
pub fn line_to_json(line: &Line, clock: WallClock) -> io::Result<Vec<u8>> {
    let mut view = JsonView::new(Vec::new());
    view.show(std::slice::from_ref(line), clock)?;
    Ok(view.into_inner())
}

/// One value as JSON, without the end of line.
///
/// # Errors
///
/// The value has no JSON form.
pub fn to_json(value: &impl Serialize) -> io::Result<String> {
    let mut out = Vec::new();
    write(&mut out, value)?;
    String::from_utf8(out).map_err(io::Error::other)
}

#[cfg(test)]
pub(super) mod held_against_serde {
    use super::*;

    /// Writes lines both ways, one by one and in one batch, and compares the bytes.
    pub fn assert_same(lines: &[Line]) {
        let by_serde = |line: &Line| {
            let mut written = Vec::new();
            let time = crate::view::rfc3339(WallClock::default(), line.mono_ns);
            general(&mut written, line, &time, WallClock::default()).unwrap();
            String::from_utf8(written).unwrap() + "\n"
        };
        let by_hand = |lines: &[Line]| {
            let mut view = JsonView::new(Vec::new());
            view.show(lines, WallClock::default()).unwrap();
            String::from_utf8(view.into_inner()).unwrap()
        };
        for line in lines {
            assert_eq!(by_hand(std::slice::from_ref(line)), by_serde(line));
        }
        // Enough for several chunks.
        let many: Vec<_> = lines.iter().cycle().take(2000).cloned().collect();
        let written = by_hand(&many);
        assert!(written.len() > 3 * CHUNK);
        for (written, line) in written.split_inclusive('\n').zip(&many) {
            assert_eq!(written, by_serde(line));
        }
    }
}
