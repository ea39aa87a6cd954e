//! NDJSON: docs/events.md to the letter.
//!
//! The lines that come by the hundred thousand a second (`state`, `handshake`) are written field by
//! field: a general serializer looks at every byte of every field name, and that was half of what the
//! agent cost. A test holds the two against each other.

use std::{
    fmt::{self, Write as _},
    io::{self, Write},
    net::IpAddr,
};

use bytes::{BufMut, BytesMut};
use serde::Serialize;
use serde_json::{Serializer, ser::Formatter};

use super::{View, WallClock};
use crate::{
    human::is_hazardous,
    model::{Body, Connection, Family, Handshake, Line, State},
};

/// What every line starts with.
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
    /// Lines on their way: they are made of small pieces, and a file wants large ones.
    lines: BytesMut,
}

/// Lines are handed on when there are so many bytes.
const CHUNK: usize = 64 * 1024;

impl<W: Write> JsonView<W> {
    /// Writes to `out`, in large pieces.
    pub fn new(out: W) -> Self {
        Self {
            out,
            lines: BytesMut::with_capacity(2 * CHUNK),
        }
    }

    /// What was written to.
    pub fn into_inner(self) -> W {
        self.out
    }

    fn hand_on(&mut self) -> io::Result<()> {
        let result = self.out.write_all(&self.lines);
        self.lines.clear();
        result
    }
}

impl<W: Write> View for JsonView<W> {
    fn show(&mut self, lines: &[Line], clock: WallClock) -> io::Result<()> {
        for line in lines {
            let time = clock.rfc3339(line.mono_ns);
            match &line.body {
                Body::State(b) => Fields::begin(&mut self.lines, "state", line, &time).state(b)?,
                Body::Handshake(b) => {
                    Fields::begin(&mut self.lines, "handshake", line, &time).handshake(b)?;
                }
                _ => general(&mut self.lines, line, &time)?,
            }
            self.lines.put_u8(b'\n');
            if self.lines.len() >= CHUNK {
                self.hand_on()?;
            }
        }
        self.hand_on()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Any line, by serde.
fn general(out: &mut BytesMut, line: &Line, time: &str) -> io::Result<()> {
    match &line.body {
        Body::Start(b) => envelope(out, "start", line, time, b),
        Body::State(b) => envelope(out, "state", line, time, b),
        Body::Retransmit(b) => envelope(out, "retransmit", line, time, b),
        Body::Handshake(b) => envelope(out, "handshake", line, time, b),
        Body::Peer(b) => envelope(out, "peer", line, time, b),
        Body::Listener(b) => envelope(out, "listener", line, time, b),
        Body::Completed(b) => envelope(out, "completed", line, time, b),
        Body::Problem(b) => envelope(out, "problem", line, time, b),
        Body::Connect(b) => envelope(out, "connect", line, time, b),
        Body::Lost(b) => envelope(out, "lost", line, time, b),
        Body::End(b) => envelope(out, "end", line, time, b),
    }
}

fn envelope<B: Serialize>(
    out: &mut BytesMut,
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

fn write(out: &mut BytesMut, value: &impl Serialize) -> io::Result<()> {
    value.serialize(&mut Serializer::with_formatter(out.writer(), Harmless))?;
    Ok(())
}

/// One value as a line of its own, without the end of line.
///
/// # Errors
///
/// When it is no JSON.
pub fn to_json(value: &impl Serialize) -> io::Result<String> {
    let mut out = BytesMut::new();
    write(&mut out, value)?;
    String::from_utf8(out.to_vec()).map_err(io::Error::other)
}

/// Compact JSON that is harmless on a terminal too: beyond what JSON asks for, every character that does
/// something there is escaped.
struct Harmless;

impl Formatter for Harmless {
    fn write_string_fragment<W: Write + ?Sized>(
        &mut self,
        out: &mut W,
        text: &str,
    ) -> io::Result<()> {
        // What is below a space has been escaped already.
        if text.is_ascii() && !text.contains('\x7f') {
            return out.write_all(text.as_bytes());
        }

        for part in text.split_inclusive(is_hazardous) {
            let last = part.chars().next_back().filter(|c| is_hazardous(*c));
            let plain = last.map_or(part, |c| &part[..part.len() - c.len_utf8()]);
            out.write_all(plain.as_bytes())?;
            if let Some(c) = last {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

/// A line under way. Field names are given with their punctuation: `,"name":`.
struct Fields<'a> {
    out: &'a mut BytesMut,
}

impl<'a> Fields<'a> {
    fn begin(out: &'a mut BytesMut, kind: &str, line: &Line, time: &str) -> Self {
        out.put_slice(b"{\"v\":1,\"type\":\"");
        out.put_slice(kind.as_bytes());
        out.put_slice(b"\",\"time\":\"");
        out.put_slice(time.as_bytes());
        out.put_u8(b'"');
        Self { out }.number(",\"mono_ns\":", line.mono_ns)
    }

    fn raw(self, name: &str, value: &str) -> Self {
        self.out.put_slice(name.as_bytes());
        self.out.put_slice(value.as_bytes());
        self
    }

    fn number(self, name: &str, value: impl Into<u64>) -> Self {
        self.out.put_slice(name.as_bytes());
        let (mut digits, mut left, mut at) = ([0; 20], value.into(), 20);
        loop {
            at -= 1;
            digits[at] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        self.out.put_slice(&digits[at..]);
        self
    }

    fn maybe(self, name: &str, value: Option<impl Into<u64>>) -> Self {
        match value {
            Some(value) => self.number(name, value),
            None => self.raw(name, "null"),
        }
    }

    /// A word of ours, which needs no escapes.
    fn word(self, name: &str, value: &str) -> Self {
        self.raw(name, "\"").raw(value, "\"")
    }

    fn addr(self, name: &str, value: IpAddr) -> Result<Self, fmt::Error> {
        self.out.put_slice(name.as_bytes());
        write!(self.out, "\"{value}\"")?;
        Ok(self)
    }

    /// Somebody else's text, or anything with a structure.
    fn value(self, name: &str, value: &impl Serialize) -> io::Result<Self> {
        self.out.put_slice(name.as_bytes());
        write(self.out, value)?;
        Ok(self)
    }

    fn connection(self, c: &Connection) -> io::Result<Self> {
        let family = match c.family {
            Family::Ipv4 => "ipv4",
            Family::Ipv6 => "ipv6",
        };
        let named = self
            .number(",\"id\":", c.id)
            .word(",\"role\":", c.role.name())
            .word(",\"family\":", family)
            .raw(
                if c.v4_mapped {
                    ",\"v4_mapped\":true"
                } else {
                    ""
                },
                "",
            );
        let placed = named
            .addr(",\"local_addr\":", c.local_addr)
            .map_err(io::Error::other)?
            .maybe(",\"local_port\":", c.local_port)
            .addr(",\"peer_addr\":", c.peer_addr)
            .map_err(io::Error::other)?
            .maybe(",\"peer_port\":", c.peer_port)
            .number(",\"netns\":", c.netns);
        placed
            .value(",\"netns_name\":", &c.netns_name)?
            .maybe(",\"pid\":", c.pid)
            .value(",\"comm\":", &c.comm)?
            .value(",\"cgroup\":", &c.cgroup)
    }

    fn state(self, s: &State) -> io::Result<()> {
        self.connection(&s.connection)?
            .word(",\"old\":", s.old.name())
            .word(",\"new\":", s.new.name())
            .maybe(",\"dwell_us\":", s.dwell_us)
            .raw("}", "");
        Ok(())
    }

    fn handshake(self, h: &Handshake) -> io::Result<()> {
        self.connection(&h.connection)?
            .word(",\"outcome\":", h.outcome.name())
            .maybe(",\"dwell_us\":", h.dwell_us)
            .value(",\"dwell_source\":", &h.dwell_source)?
            .maybe(",\"dwell_error_us\":", h.dwell_error_us)
            .number(",\"retransmits\":", h.retransmits)
            .number(",\"retransmits_by_peer\":", h.retransmits_by_peer)
            .value(",\"error\":", &h.error)?
            .value(",\"verdict\":", &h.verdict)?
            .value(",\"confidence\":", &h.confidence)?
            .value(",\"evidence\":", &h.evidence)?
            .value(",\"remedy\":", &h.remedy)?
            .raw("}", "");
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod held_against_serde {
    use super::*;

    /// Writes a line both ways; byte for byte the same.
    pub fn assert_same(line: &Line) {
        let time = WallClock::default().rfc3339(line.mono_ns);
        let mut view = JsonView::new(Vec::new());
        view.show(std::slice::from_ref(line), WallClock::default())
            .unwrap();
        let by_hand = String::from_utf8(view.into_inner()).unwrap();
        let mut by_serde = BytesMut::new();
        general(&mut by_serde, line, &time).unwrap();
        assert_eq!(by_hand.trim_end(), std::str::from_utf8(&by_serde).unwrap());
    }
}
