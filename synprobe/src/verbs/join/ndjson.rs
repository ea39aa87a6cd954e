//! JSON lines (docs/events.md) as facts.

use std::{
    borrow::Cow,
    fs::File,
    io::{BufRead, BufReader},
};

use super::{
    super::{Failure, USAGE},
    line_types::{
        EndLine, HandshakeLine, LineKind, LostLine, ProblemLine, RefusedLine, RetransmitLine,
        StartLine, Timed,
    },
    source::{FactSink, ReadReport},
    wall_time::wall_ns,
};
use crate::{
    join::fact::{JoinFact, RefusedAt, Repeat, SideHandshake, SideStart},
    model::{Confidence, OpenReason, Outcome, Role},
};

/// Bytes that are read at a time.
const CHUNK: usize = 1 << 20;
/// Longest line that is read, bytes.
const LONGEST: usize = 4 << 20;
/// The version of the contract.
const VERSION: u64 = 1;

/// Lines of which nothing is needed.
const PASSED_OVER: [&str; 5] = ["state", "peer", "listener", "completed", "connect"];

/// Reads lines into facts. A line that is none is passed over, and counts as lost.
pub(super) fn read(file: File, name: &str, sink: &mut FactSink) -> Result<ReadReport, Failure> {
    let mut input = BufReader::with_capacity(CHUNK, file);
    let (mut line, mut number, mut bad) = (Vec::new(), 0_u64, 0_u64);
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
        match parse(&line) {
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
    let mut any = false;
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let part = &buffer[..end.unwrap_or(buffer.len())];
        if line.len() < LONGEST {
            line.extend_from_slice(part);
        }
        let used = part.len() + usize::from(end.is_some());
        input.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
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

fn parse(line: &[u8]) -> Result<Option<JoinFact>, LineError> {
    let kind = kind_of(line)?;
    Ok(Some(match &*kind {
        kind if PASSED_OVER.contains(&kind) => return Ok(None),
        "handshake" => handshake(serde_json::from_slice(line)?)?,
        "retransmit" => {
            let l: RetransmitLine<'_> = serde_json::from_slice(line)?;
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
            let l: StartLine<'_> = serde_json::from_slice(line)?;
            JoinFact::Start(Box::new(SideStart {
                at_ns: wall_ns(&l.time).ok_or(LineError::NotOne)?,
                hostname: l.host.hostname,
                boot_id: l.host.boot_id,
                filters: l.filters,
                reports_all: l.handshake_lines.map(|lines| lines == "all"),
            }))
        }
        "lost" => {
            let l: LostLine<'_> = serde_json::from_slice(line)?;
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
            let l: RefusedLine<'_> = serde_json::from_slice(line)?;
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
        "problem" => return problem(serde_json::from_slice(line)?),
        "end" => {
            let l: EndLine<'_> = serde_json::from_slice(line)?;
            JoinFact::End {
                at_ns: wall_ns(&l.time).ok_or(LineError::NotOne)?,
                listen_drops: l.listen_drops,
                syn_cookies: l.syn_cookies,
            }
        }
        _ => {
            let l: Timed<'_> = serde_json::from_slice(line)?;
            JoinFact::Seen {
                at_ns: wall_ns(&l.time).ok_or(LineError::NotOne)?,
            }
        }
    }))
}

/// The type of a line: as synprobe writes it, or in any order.
fn kind_of(line: &[u8]) -> Result<Cow<'_, str>, LineError> {
    if let Some(rest) = line.strip_prefix(b"{\"v\":1,\"type\":\"")
        && let Some(end) = rest.iter().position(|byte| *byte == b'"')
        && let Ok(kind) = std::str::from_utf8(&rest[..end])
    {
        return Ok(Cow::Borrowed(kind));
    }
    let kind: LineKind<'_> = serde_json::from_slice(line)?;
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

fn handshake(l: HandshakeLine<'_>) -> Result<JoinFact, LineError> {
    let role = match &*l.role {
        "client" => Role::Client,
        "server" => Role::Server,
        _ => return Err(LineError::NotOne),
    };
    let outcome = Outcome::ALL.into_iter().find(|o| o.name() == l.outcome);
    let open = [
        OpenReason::RunEnded,
        OpenReason::Evicted,
        OpenReason::EndNotSeen,
    ];
    let facts = l.evidence.into_iter().filter(|e| e.r#for).map(|e| e.fact);
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
        comm: l.comm,
        outcome: outcome.ok_or(LineError::NotOne)?,
        open_reason: l
            .open_reason
            .and_then(|name| open.into_iter().find(|o| o.name() == name)),
        dwell_us: l.dwell_us,
        dwell_error_us: l.dwell_error_us,
        retransmits: l.retransmits,
        by_peer: l.retransmits_by_peer,
        error: l.error,
        confidence: match &*l.confidence {
            "certain" => Confidence::Certain,
            "likely" => Confidence::Likely,
            _ => Confidence::Insufficient,
        },
        evidence: match l.verdict.is_some() {
            true => facts.collect(),
            false => Vec::new(),
        },
        verdict: l.verdict,
        remedy: l.remedy,
        syn_seq: l.syn_seq,
        syn_ack_seq: l.syn_ack_seq,
        repeats: Vec::new(),
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_may_come_in_any_order_and_another_version_is_refused() {
        let line = br#"{"type":"end","mono_ns":1,"time":"1970-01-01T00:00:01.000000Z","v":1}"#;
        let fact = parse(line).ok().flatten();
        assert_eq!(
            fact,
            Some(JoinFact::End {
                at_ns: 1_000_000_000,
                listen_drops: None,
                syn_cookies: None
            })
        );
        let line = br#"{"v":2,"type":"end","mono_ns":1,"time":"1970-01-01T00:00:01.000000Z"}"#;
        assert!(matches!(parse(line), Err(LineError::Version(2))));
        assert!(matches!(
            parse(b"{\"v\":1,\"type\":\"end\","),
            Err(LineError::NotOne)
        ));
    }
}
