//! JSON lines (docs/events.md) as facts.

use std::{
    borrow::Cow,
    collections::HashSet,
    fs::File,
    io::{BufRead, BufReader, Read},
};

use super::{
    super::{Failure, USAGE},
    fact_stream::{FactSink, ReadReport},
    line_types::{
        EndLine, HandshakeLine, LineKind, LostLine, ProblemLine, RefusedLine, RetransmitLine,
        StartLine, StateLine, Timed,
    },
    wall_time::wall_ns,
};
use crate::{
    join::{
        context::QUOTED,
        fact::{JoinFact, RefusedAt, Repeat, SharedNames, SideHandshake, SideStart},
        judge::is_quoted,
    },
    model::{Confidence, OpenReason, Outcome, Role},
};

/// Bytes that are read at a time.
const CHUNK: usize = 1 << 20;
/// Longest line that is read, bytes.
const LONGEST: u64 = 4 << 20;
/// What is kept of a text of a handshake, bytes: synprobe's own are shorter.
const TEXT: usize = 2048;
/// The version of the contract.
const VERSION: u64 = 1;

/// Lines of which nothing is needed.
const PASSED_OVER: [&str; 4] = ["peer", "listener", "completed", "connect"];

/// Reads lines into facts. A line that is none is passed over, and counts as lost.
pub(super) fn read(file: File, name: &str, sink: &mut FactSink) -> Result<ReadReport, Failure> {
    let mut input = BufReader::with_capacity(CHUNK, file);
    let (mut line, mut number, mut bad) = (Vec::new(), 0_u64, 0_u64);
    let mut memory = LineMemory::default();
    let mut last_ns = None;
    loop {
        line.clear();
        let read =
            read_line(&mut input, &mut line).map_err(|e| Failure(format!("{name}: {e}"), USAGE))?;
        if !read {
            break;
        }
        number += 1;
        if line.trim_ascii().is_empty() {
            continue;
        }
        // As a whole: text by text it takes longer.
        let parsed = match std::str::from_utf8(&line) {
            Ok(line) => parse(line, &mut memory),
            Err(_) => Err(LineError::NotOne),
        };
        match parsed {
            Ok(Some(fact)) => {
                last_ns = fact.at_ns().or(last_ns);
                if !sink.push(fact) {
                    return Ok(None);
                }
            }
            Ok(None) => (),
            Err(LineError::Version(v)) => {
                let line = format!(
                    "{name}: line {number} is of version {v} of the contract; this synprobe reads version {VERSION}"
                );
                return Err(Failure(line, USAGE));
            }
            Err(LineError::NotOne) => {
                bad += 1;
                if let Some(at_ns) = last_ns {
                    sink.push(JoinFact::Missing { at_ns, events: 1 });
                }
            }
        }
    }
    let lines = if bad == 1 { "line" } else { "lines" };
    Ok((bad > 0).then(|| {
        format!("{bad} {lines} of {number} cannot be read: truncated, damaged, or not synprobe's")
    }))
}

/// The next line; one that is too long is cut off, and so cannot be read.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<bool> {
    let read = input.by_ref().take(LONGEST).read_until(b'\n', line)?;
    if line.pop_if(|byte| *byte == b'\n').is_none() && read as u64 == LONGEST {
        input.skip_until(b'\n')?;
    }
    Ok(read > 0)
}

/// Why a line gives nothing.
enum LineError {
    NotOne,
    Version(u64),
}

impl From<serde_json::Error> for LineError {
    fn from(_: serde_json::Error) -> Self {
        Self::NotOne
    }
}

/// What one line leaves for later ones.
#[derive(Default)]
struct LineMemory {
    names: SharedNames,
    /// Active opens that met the SYN of whom they called, by `id`.
    called_too: HashSet<u64>,
}

/// How many of them are kept.
const CALLED_TOO: usize = 65_536;

impl LineMemory {
    /// A state line is read only where it tells that.
    fn state(&mut self, line: &str) -> Result<(), LineError> {
        if line.contains("\"SYN_RECV\"") && line.contains("\"SYN_SENT\"") {
            let l: StateLine<'_> = serde_json::from_str(line)?;
            let is_it = (&*l.old, &*l.new) == ("SYN_SENT", "SYN_RECV");
            if is_it && self.called_too.len() < CALLED_TOO {
                self.called_too.insert(l.id);
            }
        }
        Ok(())
    }
}

fn parse(line: &str, memory: &mut LineMemory) -> Result<Option<JoinFact>, LineError> {
    let kind = kind_of(line)?;
    Ok(Some(match &*kind {
        "state" => {
            memory.state(line)?;
            return Ok(None);
        }
        kind if PASSED_OVER.contains(&kind) => return Ok(None),
        "handshake" => handshake(serde_json::from_str(line)?, memory)?,
        "retransmit" => {
            let l: RetransmitLine<'_> = serde_json::from_str(line)?;
            if !matches!(&*l.kind, "syn" | "synack") {
                return Ok(None);
            }
            let repeat = Repeat {
                at_ns: wall_ns(&l.time).ok_or(LineError::NotOne)?,
                by_peer: l.trigger.as_deref() == Some("peer"),
                failed: l.failed,
            };
            JoinFact::Repeat { id: l.id, repeat }
        }
        "start" => {
            let l: StartLine<'_> = serde_json::from_str(line)?;
            memory.called_too.clear();
            JoinFact::Start(Box::new(SideStart {
                at_ns: wall_ns(&l.time).ok_or(LineError::NotOne)?,
                hostname: l.host.hostname,
                boot_id: l.host.boot_id,
                filters: l.filters,
                reports_all: l.handshake_lines.map(|lines| lines == "all"),
            }))
        }
        "lost" => {
            let l: LostLine<'_> = serde_json::from_str(line)?;
            let at_ns = wall_ns(&l.time).ok_or(LineError::NotOne)?;
            let other = ["segments retransmitted", "handshakes evicted"];
            match other.iter().any(|other| l.reason.starts_with(other)) {
                true => JoinFact::Seen { at_ns },
                false => JoinFact::Missing {
                    at_ns,
                    events: l.events,
                },
            }
        }
        "syn_refused" => {
            let l: RefusedLine<'_> = serde_json::from_str(line)?;
            let last_ns = wall_ns(&l.time).ok_or(LineError::NotOne)?;
            let ago = i64::try_from(l.mono_ns.saturating_sub(l.since)).unwrap_or(0);
            JoinFact::Refused(Box::new(RefusedAt {
                peer: l.peer_addr,
                local: l.local_addr,
                local_port: l.local_port,
                what: l.what.into(),
                count: l.count,
                first_ns: last_ns - ago,
                last_ns,
            }))
        }
        "problem" => return problem(serde_json::from_str(line)?),
        "end" => {
            let l: EndLine<'_> = serde_json::from_str(line)?;
            JoinFact::End {
                at_ns: wall_ns(&l.time).ok_or(LineError::NotOne)?,
                listen_drops: l.listen_drops,
                syn_cookies: l.syn_cookies,
            }
        }
        _ => {
            let l: Timed<'_> = serde_json::from_str(line)?;
            JoinFact::Seen {
                at_ns: wall_ns(&l.time).ok_or(LineError::NotOne)?,
            }
        }
    }))
}

/// The type of a line: as synprobe writes it, or in any order.
fn kind_of(line: &str) -> Result<Cow<'_, str>, LineError> {
    if let Some(rest) = line.strip_prefix("{\"v\":1,\"type\":\"")
        && let Some((kind, _)) = rest.split_once('"')
    {
        return Ok(Cow::Borrowed(kind));
    }
    let kind: LineKind<'_> = serde_json::from_str(line)?;
    match kind.v {
        VERSION => Ok(kind.r#type),
        other => Err(LineError::Version(other)),
    }
}

/// What diagnose says in place of `syn_refused` lines: SYNs that its host refused at some time of the run.
fn problem(l: ProblemLine<'_>) -> Result<Option<JoinFact>, LineError> {
    let own = [
        "dropped-here",
        "accept-queue-full",
        "syn-queue-full",
        "existing-connection",
    ];
    let last_ns = wall_ns(&l.time).ok_or(LineError::NotOne)?;
    Ok((l.role == "server" && own.contains(&&*l.verdict)).then(|| {
        JoinFact::Refused(Box::new(RefusedAt {
            peer: None,
            local: None,
            local_port: l.local_port,
            what: format!("its problem {}", l.verdict).into(),
            count: l.handshakes,
            first_ns: i64::MIN,
            last_ns,
        }))
    }))
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT)]
}

fn handshake(l: HandshakeLine<'_>, memory: &mut LineMemory) -> Result<JoinFact, LineError> {
    let role = match &*l.role {
        "client" => Role::Client,
        "server" => Role::Server,
        _ => return Err(LineError::NotOne),
    };
    let outcome = Outcome::ALL.into_iter().find(|o| o.name() == l.outcome);
    let outcome = outcome.ok_or(LineError::NotOne)?;
    let quoted = matches!(&l.verdict, Some(verdict) if is_quoted(verdict, outcome));
    let facts = match quoted {
        true => l.evidence.as_slice(),
        false => &[],
    };
    let open = [
        OpenReason::RunEnded,
        OpenReason::Evicted,
        OpenReason::EndNotSeen,
    ];
    let called_too = memory.called_too.remove(&l.id);
    let mut shared = |name: Option<Cow<'_, str>>| name.map(|name| memory.names.of(cut(&name)));
    Ok(JoinFact::Handshake(Box::new(SideHandshake {
        id: l.id,
        role,
        at_ns: wall_ns(&l.time).ok_or(LineError::NotOne)?,
        mono_ns: l.mono_ns,
        local_addr: l.local_addr,
        local_port: l.local_port,
        peer_addr: l.peer_addr,
        peer_port: l.peer_port,
        netns: l.netns,
        pid: l.pid,
        comm: shared(l.comm),
        outcome,
        open_reason: l
            .open_reason
            .and_then(|name| open.into_iter().find(|o| o.name() == name)),
        dwell_us: l.dwell_us,
        dwell_error_us: l.dwell_error_us,
        retransmits: l.retransmits,
        by_peer: l.retransmits_by_peer,
        error: shared(l.error),
        confidence: match &*l.confidence {
            "certain" => Confidence::Certain,
            "likely" => Confidence::Likely,
            _ => Confidence::Insufficient,
        },
        evidence: facts
            .iter()
            .filter(|e| e.r#for)
            .take(QUOTED)
            .map(|e| cut(&e.fact).to_owned())
            .collect(),
        verdict: shared(l.verdict),
        remedy: l
            .remedy
            .filter(|_| quoted)
            .map(|remedy| cut(&remedy).into()),
        syn_seq: l.syn_seq,
        syn_ack_seq: l.syn_ack_seq,
        called_too,
        repeats: Vec::new(),
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_cut_off_and_the_next_one_is_read() {
        let longest = usize::try_from(LONGEST).unwrap();
        for (length, cut) in [
            (longest - 1, longest - 1),
            (longest, longest),
            (3 * longest, longest),
        ] {
            let text = format!("{}\nnext\nlast", "x".repeat(length));
            // The bytes come in pieces.
            let mut input = BufReader::with_capacity(1 << 16, text.as_bytes());
            let mut lengths = Vec::new();
            loop {
                let mut line = Vec::new();
                if !read_line(&mut input, &mut line).unwrap() {
                    break;
                }
                lengths.push(line.len());
            }
            assert_eq!(lengths, [cut, 4, 4]);
        }
    }

    #[test]
    fn members_may_come_in_any_order_and_another_version_is_refused() {
        let line = r#"{"type":"end","mono_ns":1,"time":"1970-01-01T00:00:01.000000Z","v":1}"#;
        let parse = |line: &str| super::parse(line, &mut LineMemory::default());
        let fact = parse(line).ok().flatten();
        assert_eq!(
            fact,
            Some(JoinFact::End {
                at_ns: 1_000_000_000,
                listen_drops: None,
                syn_cookies: None
            })
        );
        let line = r#"{"v":2,"type":"end","mono_ns":1,"time":"1970-01-01T00:00:01.000000Z"}"#;
        assert!(matches!(parse(line), Err(LineError::Version(2))));
        assert!(matches!(
            parse("{\"v\":1,\"type\":\"end\","),
            Err(LineError::NotOne)
        ));
    }
}
