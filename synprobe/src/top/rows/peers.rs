//! Peers, by address and role.

use std::{cmp::Reverse, collections::BTreeMap};

use super::RowContext;
use crate::{
    model::{Peer, VerdictKind},
    top::{networks::PeerNetwork, table::TableColumn},
    util::format,
};

pub(super) fn columns(context: &RowContext<'_>) -> Vec<TableColumn> {
    let mut columns = vec![
        TableColumn::text("", 0).of_words(),
        TableColumn::text("WE ARE", 3).of_words(),
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
        verdicts(&p.verdicts),
    ]);
    cells
}

/// The same cells of a network: the median of its peers' handshakes is not known.
pub(super) fn cells_of_network(n: &PeerNetwork, context: &RowContext<'_>) -> Vec<String> {
    let peers = if n.peers == 1 { "peer" } else { "peers" };
    let mut cells = vec![
        format!("{} ({} {peers})", n.net, n.peers),
        n.role.name().to_owned(),
        context.open_counts.of_network(n.net, n.role).to_string(),
        n.failed.to_string(),
    ];
    if !context.is_quiet {
        cells.push(n.established.to_string());
    }
    cells.extend([
        n.again.to_string(),
        String::new(),
        n.longest_us.map_or_else(String::new, format::duration),
        verdicts(&n.verdicts),
    ]);
    cells
}

fn in_progress(p: &Peer, context: &RowContext<'_>) -> String {
    let open = context.snapshot.open_by_peer.get(&(p.peer_addr, p.role));
    open.copied().unwrap_or(0).to_string()
}

/// `synack-lost ×12, peer-reset`, the most frequent first.
fn verdicts(verdicts: &BTreeMap<VerdictKind, u64>) -> String {
    let mut counts: Vec<(&VerdictKind, &u64)> = verdicts.iter().collect();
    counts.sort_by_key(|(kind, n)| (Reverse(**n), kind.name()));
    let names = counts.into_iter().map(|(kind, n)| match n {
        1 => kind.name().to_owned(),
        n => format!("{kind} ×{n}"),
    });
    names.collect::<Vec<_>>().join(", ")
}
