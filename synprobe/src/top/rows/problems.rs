//! Problems: in the engine's order, cause before symptom.

use super::RowContext;
use crate::{
    model::{Confidence, Problem, ProblemRole, VerdictKind},
    top::{
        item::is_of,
        style::Tone,
        table::TableColumn,
        wording::{netns, place, sure, time_of_day},
    },
};

pub(super) fn columns(context: &RowContext<'_>) -> Vec<TableColumn> {
    let mut columns = vec![
        TableColumn::text("", 0),
        TableColumn::text("SURE", 3).of_words(),
        TableColumn::rest("WHERE", 30).of_words(),
    ];
    if context.has_netns {
        columns.push(TableColumn::text("NETNS", 5));
    }
    columns.extend([
        TableColumn::number("NOW", 1),
        TableColumn::number("ALL", 2),
        TableColumn::number("SINCE", 4),
    ]);
    columns
}

pub(super) fn cells(p: &Problem, context: &RowContext<'_>) -> Vec<String> {
    let mut cells = vec![
        p.verdict_name().to_owned(),
        sure(p.confidence).to_owned(),
        place(p),
    ];
    if context.has_netns {
        cells.push(netns(p.netns_name.as_deref(), p.netns).into_owned());
    }
    let since = p.life.since_clock.unwrap_or(context.clock);
    cells.extend([
        now(p, context).to_string(),
        p.handshakes.to_string(),
        time_of_day(since, p.life.since_ns),
    ]);
    cells
}

/// Those of its handshakes that are in progress: as it was found last, without those that have ended since.
fn now(p: &Problem, context: &RowContext<'_>) -> u64 {
    let snapshot = context.snapshot;
    if snapshot.open.len() == snapshot.open_total {
        let still = snapshot.open.iter().filter(|h| is_of(h, p)).count();
        return p.open.min(still as u64);
    }
    // Of the same role, namespace and port.
    let port = match p.role {
        ProblemRole::Server => p.local_port,
        _ => p.peer_port,
    };
    let same = snapshot.ports.iter().filter(|of| {
        p.role == of.role && p.netns == of.netns && (port.is_none() || of.port == port)
    });
    p.open.min(same.map(|port| port.open).sum())
}

pub(super) fn tone(p: &Problem) -> Tone {
    match (p.verdict, p.confidence) {
        (None | Some(VerdictKind::DeferAccept), _) => Tone::Weak,
        (Some(VerdictKind::ResetAfterHandshake), _) if p.role == ProblemRole::Server => Tone::Weak,
        (_, Confidence::Certain) => Tone::Bad,
        _ => Tone::Doubtful,
    }
}
