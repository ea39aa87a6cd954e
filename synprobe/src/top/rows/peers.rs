//! Peers, by address and role.

use std::cmp::Reverse;

use super::RowContext;
use crate::{
    model::{Peer, VerdictKind},
    top::table::TableColumn,
    util::format,
};

pub(super) fn columns(context: &RowContext<'_>) -> Vec<TableColumn> {
    let mut columns = vec![
        TableColumn::text("", 0),
        TableColumn::text("WE ARE", 3),
        TableColumn::number("IN PROGRESS", 0),
        TableColumn::number("FAILED", 0),
    ];
    if !context.is_quiet {
        // The kernel counts healthy handshakes by port, not by peer.
        columns.push(TableColumn::number("OK", 2));
    }
    columns.extend([
        TableColumn::number("AGAIN", 1),
        TableColumn::number("MEDIAN", 5),
        TableColumn::number("LONGEST", 4),
        TableColumn::rest("VERDICTS", 12),
    ]);
    columns
}

pub(super) fn cells(p: &Peer, context: &RowContext<'_>) -> Vec<String> {
    let mut cells = vec![
        p.peer_addr.to_string(),
        p.role.name().to_owned(),
        in_progress(p, context),
        p.failed.to_string(),
    ];
    if !context.is_quiet {
        cells.push(p.established.to_string());
    }
    cells.extend([
        (p.syn_retransmits + p.synack_retransmits).to_string(),
        p.dwell_p50_us.map_or_else(String::new, format::duration),
        p.dwell_max_us.map_or_else(String::new, format::duration),
        verdicts(p),
    ]);
    cells
}

fn in_progress(p: &Peer, context: &RowContext<'_>) -> String {
    let listed = context.by_peer.get(&(p.peer_addr, p.role)).unwrap_or(&0);
    let at_least = if context.has_more_open { "≥" } else { "" };
    format!("{at_least}{listed}")
}

/// `synack-lost ×12, peer-reset`, the most frequent first.
fn verdicts(p: &Peer) -> String {
    let mut counts: Vec<(&VerdictKind, &u64)> = p.verdicts.iter().collect();
    counts.sort_by_key(|(kind, n)| (Reverse(**n), kind.name()));
    let names = counts.into_iter().map(|(kind, n)| match n {
        1 => kind.name().to_owned(),
        n => format!("{kind} ×{n}"),
    });
    names.collect::<Vec<_>>().join(", ")
}
