//! NDJSON: docs/events.md to the letter.

use std::io::{self, Write};

use serde::Serialize;

use super::{View, WallClock};
use crate::model::{Body, Line};

/// What every line starts with.
#[derive(Serialize)]
struct Envelope<'a, B> {
    v: u32,
    r#type: &'static str,
    time: String,
    mono_ns: u64,
    #[serde(flatten)]
    body: &'a B,
}

/// One JSON object a line.
pub struct JsonView<W> {
    out: W,
    /// Lines on their way: a serializer writes in small pieces, a file wants large ones.
    lines: Vec<u8>,
}

/// Lines are handed on when there are so many bytes.
const CHUNK: usize = 64 * 1024;

impl<W: Write> JsonView<W> {
    /// Writes to `out`, in large pieces.
    pub fn new(out: W) -> Self {
        Self {
            out,
            lines: Vec::with_capacity(2 * CHUNK),
        }
    }

    /// What was written to.
    pub fn into_inner(self) -> W {
        self.out
    }

    fn line<B: Serialize>(
        &mut self,
        kind: &'static str,
        line: &Line,
        clock: WallClock,
        body: &B,
    ) -> io::Result<()> {
        let time = clock.rfc3339(line.mono_ns);
        let envelope = Envelope {
            v: 1,
            r#type: kind,
            time,
            mono_ns: line.mono_ns,
            body,
        };
        serde_json::to_writer(&mut self.lines, &envelope)?;
        self.lines.push(b'\n');
        if self.lines.len() >= CHUNK {
            self.hand_on()?;
        }
        Ok(())
    }
}

impl<W: Write> JsonView<W> {
    fn hand_on(&mut self) -> io::Result<()> {
        let result = self.out.write_all(&self.lines);
        self.lines.clear();
        result
    }
}

impl<W: Write> View for JsonView<W> {
    fn show(&mut self, lines: &[Line], clock: WallClock) -> io::Result<()> {
        for line in lines {
            match &line.body {
                Body::Start(b) => self.line("start", line, clock, b),
                Body::State(b) => self.line("state", line, clock, b),
                Body::Retransmit(b) => self.line("retransmit", line, clock, b),
                Body::Handshake(b) => self.line("handshake", line, clock, b),
                Body::Peer(b) => self.line("peer", line, clock, b),
                Body::Lost(b) => self.line("lost", line, clock, b),
                Body::End(b) => self.line("end", line, clock, b),
            }?;
        }
        self.hand_on()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
