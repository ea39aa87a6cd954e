//! The columns of each pane, and the cells of a row.

mod handshakes;
mod listeners;
mod peers;
mod problems;

pub(super) use handshakes::{next_transmission, remaining};

use super::{
    Observed,
    item::PaneItem,
    open_counts::OpenCounts,
    pane::Pane,
    style::Tone,
    table::{TableColumn, TableRow},
};
use crate::{
    engine::EngineSnapshot,
    lang::Lang,
    model::{HandshakeLines, WallClock},
};

/// Columns of the mark before a row.
const MARK: usize = 2;

/// What all rows of a screen share.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowContext<'s> {
    /// Handshakes in progress by network.
    pub open_counts: &'s OpenCounts,
    /// The state.
    pub snapshot: &'s EngineSnapshot,
    /// The moment that is shown, CLOCK_MONOTONIC nanoseconds.
    pub now_ns: u64,
    /// Where in wall-clock time that is.
    pub clock: WallClock,
    /// Healthy handshakes are only counted: there is no list of all.
    pub is_quiet: bool,
    /// There are namespaces beside the host's.
    pub has_netns: bool,
    /// Of the screen.
    pub wide: usize,
    /// The language of the screen.
    pub lang: Lang,
}

impl<'s> RowContext<'s> {
    /// Of one moment. `wide`: columns of the screen.
    pub fn new(
        observed: &'s Observed,
        open_counts: &'s OpenCounts,
        wide: usize,
        lang: Lang,
    ) -> Self {
        let status = &observed.status;
        let snapshot = &status.snapshot;
        Self {
            lang,
            open_counts,
            wide,
            snapshot,
            now_ns: status.at_ns,
            clock: status.clock,
            is_quiet: snapshot.start.handshake_lines == HandshakeLines::Trouble,
            has_netns: open_counts.has_netns,
        }
    }
}

/// The columns of a pane.
pub(super) fn columns(pane: Pane, context: &RowContext<'_>) -> Vec<TableColumn> {
    match pane {
        Pane::Problems => problems::columns(context),
        Pane::Listeners => listeners::columns(context),
        Pane::Handshakes => handshakes::columns(context),
        Pane::Peers => peers::columns(context),
        Pane::Events => vec![TableColumn::rest("", 20)],
    }
}

/// The cells of a row, as many as there are columns, and how it is drawn.
pub(super) fn row(item: &PaneItem<'_>, context: &RowContext<'_>) -> TableRow {
    let (cells, tone) = match item {
        PaneItem::Problem(p) => (problems::cells(p, context), problems::tone(p)),
        PaneItem::Listener(l) => (listeners::cells(l, context), listeners::tone(l)),
        PaneItem::Handshake(h) => (handshakes::cells(h, context), Tone::Plain),
        PaneItem::Peer(p) => (peers::cells(p, context), Tone::Plain),
        PaneItem::Event(e) => (vec![e.text(context.wide.saturating_sub(MARK))], Tone::Plain),
        PaneItem::Network(n) => (peers::cells_of_network(n, context), Tone::Plain),
    };
    TableRow {
        cells,
        tone,
        is_marked: false,
    }
}
