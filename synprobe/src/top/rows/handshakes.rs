//! Handshakes in progress: age, retransmissions, the next one, and the end.

use super::RowContext;
use crate::{
    model::{Role, UnderWay, who},
    top::{
        table::TableColumn,
        wording::{end, netns, span},
    },
    util::format,
};

/// A timer's turn may come so much later than its time, nanoseconds; an eighth of the time-out comes on top.
const LATE_NS: u64 = 200_000_000;

pub(super) fn columns(context: &RowContext<'_>) -> Vec<TableColumn> {
    let mut columns = vec![
        TableColumn::rest("PEER", 21),
        TableColumn::text("STATE", 1),
        TableColumn::number("PORT", 2),
    ];
    if context.has_netns {
        columns.push(TableColumn::text("NETNS", 7));
    }
    columns.extend([
        TableColumn::number("AGE", 0),
        TableColumn::number("AGAIN", 0),
        TableColumn::number("BY PEER", 5),
        TableColumn::number("NEXT", 3).of_words(),
        TableColumn::number("ENDS IN", 4).of_words(),
        TableColumn::text("GAPS", 8),
        TableColumn::text("PROCESS", 6),
    ]);
    columns
}

pub(super) fn cells(h: &UnderWay, context: &RowContext<'_>) -> Vec<String> {
    let c = &h.connection;
    let (port, by_peer) = match c.role {
        Role::Server => (c.local_port, h.retransmits_by_peer.to_string()),
        Role::Client => (c.peer_port, String::new()),
    };
    let mut cells = vec![
        end(c.peer_addr, c.peer_port),
        h.state.name().to_owned(),
        port.map_or_else(|| "?".to_owned(), |port| port.to_string()),
    ];
    if context.has_netns {
        cells.push(netns(c.netns_name.as_deref(), c.netns).into_owned());
    }
    cells.extend([
        age(h, context.now_ns),
        h.retransmits.to_string(),
        by_peer,
        next_transmission(h, context.now_ns),
        remaining(h.gives_up_ns, context.now_ns),
        ladder(h),
        who(c.comm.as_deref(), c.pid, &c.workload).into_owned(),
    ]);
    cells
}

/// `16.8 s`; `~` where its beginning is an estimate, `?` where it is not known.
fn age(h: &UnderWay, now_ns: u64) -> String {
    let Some(began_ns) = h.began_ns else {
        return "?".to_owned();
    };
    let mark = if h.began_error_us > 0 { "~" } else { "" };
    format!("{mark}{}", span(now_ns.saturating_sub(began_ns) / 1000))
}

/// When its next retransmission is due: `2.0 s`, `due`; `-`: none follows, or that is not known.
pub(in crate::top) fn next_transmission(h: &UnderWay, now_ns: u64) -> String {
    match h.next_ns {
        None => "-".to_owned(),
        Some(next_ns) if next_ns >= now_ns => span((next_ns - now_ns) / 1000),
        Some(next_ns) if now_ns - next_ns <= late(h, next_ns) => "due".to_owned(),
        // Its event did not come.
        Some(_) => "?".to_owned(),
    }
}

fn late(h: &UnderWay, next_ns: u64) -> u64 {
    let last_gap_ns = h.gaps_us.last().map_or(1_000_000, |us| us * 1000);
    let gap_ns = match h.began_ns {
        Some(began_ns) => next_ns.saturating_sub(began_ns).min(2 * last_gap_ns),
        None => last_gap_ns,
    };
    gap_ns / 8 + LATE_NS
}

/// Time left until the kernel gives it up: `46 s`, `due`, `?`.
pub(in crate::top) fn remaining(gives_up_ns: Option<u64>, now_ns: u64) -> String {
    match gives_up_ns {
        None => "?".to_owned(),
        Some(at_ns) if at_ns > now_ns => span((at_ns - now_ns) / 1000),
        Some(_) => "due".to_owned(),
    }
}

/// A bar for each gap between two transmissions.
fn ladder(h: &UnderWay) -> String {
    let whole = format::ladder(&h.gaps_us);
    whole.split(' ').next().unwrap_or_default().to_owned()
}
