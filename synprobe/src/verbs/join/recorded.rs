//! A recording as facts: it is replayed, and its lines are taken as they are.

use std::{
    fs::File,
    io::{self, Seek},
    path::Path,
};

use super::{
    super::{FAILED, Failure, USAGE},
    fact_stream::{FactSink, ReadReport},
};
use crate::{
    filter::Selection,
    join::{
        context::QUOTED,
        fact::{JoinFact, RefusedAt, Repeat, SharedNames, SideHandshake, SideStart},
        judge::is_quoted,
    },
    model::{
        Body, Handshake, HandshakeLines, Line, Missed, Retransmit, RetransmitKind, Start,
        SynRefused, Trigger, WallClock,
    },
    pipeline::{self, Recording, ReplayError, ReplayOptions},
    util::table_bounds::TableBounds,
    verdict::Mode,
    view::View,
};

/// What a replay may take, bytes, whatever the recorded run could: two of them run at once.
const REPLAY_MEMORY: u64 = 80 << 20;

/// Replays a recording into facts. It is read twice: addresses may come after what they are needed for.
pub(super) fn read(mut file: File, name: &str, sink: &mut FactSink) -> Result<ReadReport, Failure> {
    let path = Path::new(name);
    let failure = |error: ReplayError| Failure(error.to_string(), USAGE);
    let unread = |error: io::Error| Failure(format!("{name}: {error}"), FAILED);
    let recording = Recording::of(file.try_clone().map_err(unread)?, path).map_err(failure)?;
    for address in pipeline::recorded_addresses(recording) {
        sink.push(JoinFact::Address(address));
    }
    file.rewind().map_err(unread)?;
    let recording = Recording::of(file, path).map_err(failure)?;
    let options = ReplayOptions {
        file: path.to_owned(),
        selection: Selection::default(),
        netns: None,
        mode: Mode::AtOnce,
        duration: None,
        count: None,
        tables: Some(TableBounds::within(REPLAY_MEMORY, 0)),
    };
    let mut view = FactView {
        sink,
        names: SharedNames::default(),
    };
    let replayed = pipeline::replay(recording, &options, &mut view).map_err(failure)?;
    Ok(replayed.damage)
}

/// Takes lines as facts.
struct FactView<'s> {
    sink: &'s mut FactSink,
    names: SharedNames,
}

impl View for FactView<'_> {
    fn show(&mut self, lines: &[Line], clock: WallClock) -> io::Result<()> {
        for line in lines {
            if let Some(fact) = fact(line, clock, &mut self.names)
                && !self.sink.push(fact)
            {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn fact(line: &Line, clock: WallClock, names: &mut SharedNames) -> Option<JoinFact> {
    let wall = |mono_ns: u64| i64::try_from(clock.realtime_ns(mono_ns)).unwrap_or(i64::MAX);
    let at_ns = wall(line.mono_ns);
    Some(match &line.body {
        Body::Start(start) => JoinFact::Start(Box::new(side_start(start, at_ns))),
        Body::End(end) => JoinFact::End {
            at_ns,
            listen_drops: end.listen_drops,
            syn_cookies: end.syn_cookies,
        },
        Body::Lost(lost) if matches!(lost.of, Missed::Data(_) | Missed::Evicted) => {
            JoinFact::Seen { at_ns }
        }
        Body::Lost(lost) => JoinFact::Missing {
            at_ns,
            events: lost.events,
        },
        Body::Retransmit(r) => repeat(r, at_ns)?,
        Body::Handshake(h) => {
            JoinFact::Handshake(Box::new(side_handshake(h, (line.mono_ns, at_ns), names)))
        }
        Body::SynRefused(refused) => {
            JoinFact::Refused(Box::new(refused_at(refused, wall(refused.since), at_ns)))
        }
        _ => return None,
    })
}

fn side_start(start: &Start, at_ns: i64) -> SideStart {
    SideStart {
        at_ns,
        hostname: start.host.hostname.clone(),
        boot_id: start.host.boot_id.clone(),
        filters: start.filters.clone(),
        reports_all: Some(start.handshake_lines == HandshakeLines::All),
    }
}

fn repeat(r: &Retransmit, at_ns: i64) -> Option<JoinFact> {
    let handshakes = matches!(r.kind, RetransmitKind::Syn | RetransmitKind::Synack);
    handshakes.then_some(JoinFact::Repeat {
        id: r.connection.id,
        repeat: Repeat {
            at_ns,
            by_peer: r.trigger == Some(Trigger::Peer),
            failed: r.failed,
        },
    })
}

fn refused_at(refused: &SynRefused, first_ns: i64, last_ns: i64) -> RefusedAt {
    RefusedAt {
        peer: refused.peer_addr,
        local: refused.local_addr,
        local_port: refused.local_port,
        what: refused.what.as_str().into(),
        count: refused.count,
        first_ns,
        last_ns,
    }
}

fn side_handshake(
    h: &Handshake,
    (mono_ns, at_ns): (u64, i64),
    names: &mut SharedNames,
) -> SideHandshake {
    let c = &h.connection;
    let quoted = h.verdict.is_some_and(|v| is_quoted(v.name(), h.outcome));
    SideHandshake {
        id: c.id,
        role: c.role,
        at_ns,
        mono_ns,
        local_addr: c.local_addr,
        local_port: c.local_port,
        peer_addr: c.peer_addr,
        peer_port: c.peer_port,
        netns: c.netns,
        pid: c.pid,
        comm: c.comm.clone(),
        outcome: h.outcome,
        open_reason: h.open_reason,
        dwell_us: h.dwell_us,
        dwell_error_us: h.dwell_error_us,
        retransmits: h.retransmits,
        by_peer: h.retransmits_by_peer,
        error: h.error.as_deref().map(|error| names.of(error)),
        verdict: h.verdict.map(|v| names.of(v.name())),
        confidence: h.confidence,
        evidence: match quoted {
            true => h
                .evidence
                .iter()
                .filter(|e| e.supports)
                .take(QUOTED)
                .map(|e| e.fact.clone())
                .collect(),
            false => Vec::new(),
        },
        remedy: h.remedy.as_deref().filter(|_| quoted).map(Into::into),
        syn_seq: h.facts.syn_seq,
        syn_ack_seq: h.facts.syn_ack_seq,
        called_too: h.facts.peer_called_too,
        repeats: Vec::new(),
    }
}
