//! Listeners with both queues and their limits.

use super::RowContext;
use crate::{
    model::{LimitedBy, Listener, who},
    top::{
        style::Tone,
        table::TableColumn,
        wording::{local, netns, number},
    },
};

pub(super) fn columns(context: &RowContext<'_>) -> Vec<TableColumn> {
    let mut columns = vec![TableColumn::text("", 0), TableColumn::rest("PROCESS", 14)];
    if context.has_netns {
        columns.push(TableColumn::text("NETNS", 5));
    }
    columns.extend([
        TableColumn::number("SYN-Q/MAX", 1),
        TableColumn::number("ACCEPT-Q/MAX", 0),
        TableColumn::text("", 0).of_words(),
        TableColumn::number("DROPS", 3),
        TableColumn::text("LIMITED BY", 4).of_words(),
    ]);
    columns
}

pub(super) fn cells(l: &Listener, context: &RowContext<'_>) -> Vec<String> {
    let process = match who(l.comm.as_deref(), l.pid, &l.workload) {
        known if known.is_empty() => "?".to_owned(),
        known => known.into_owned(),
    };
    let mut cells = vec![local(Some(l.local_addr), l.local_port), process];
    if context.has_netns {
        cells.push(netns(l.netns_name.as_deref(), l.netns).into_owned());
    }
    cells.extend([
        format!("{}/{}", number(l.syn_queue), number(l.syn_queue_max)),
        format!("{}/{}", number(l.accept_queue), number(l.accept_queue_max)),
        if is_full(l) { "FULL" } else { "" }.to_owned(),
        number(l.drops),
        limited_by(l).to_owned(),
    ]);
    cells
}

pub(super) fn tone(l: &Listener) -> Tone {
    match is_full(l) {
        true => Tone::Bad,
        false => Tone::Plain,
    }
}

/// One more than the limit fits (`sk_acceptq_is_full()`).
fn is_full(l: &Listener) -> bool {
    l.accept_queue > l.accept_queue_max
}

fn limited_by(l: &Listener) -> &'static str {
    match l.limited_by {
        Some(LimitedBy::ListenBacklog) => "listen backlog",
        Some(LimitedBy::Somaxconn) => "somaxconn",
        Some(LimitedBy::TcpMaxSynBacklog) => "tcp_max_syn_backlog",
        None => "?",
    }
}
