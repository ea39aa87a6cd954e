//! Rows of one kind, listener and second, beyond the first few: they become one row with their number.

use std::{
    collections::{BTreeMap, HashSet},
    mem,
    net::IpAddr,
};

use super::row::{EventRow, RowPeer, Weight};
use crate::model::Role;

/// Rows of one kind that a second prints each.
const EACH: u64 = 3;
/// Peers of a kind that are told apart within a second.
const PEERS: usize = 16_384;
/// Kinds that are told apart within a second; the rows of others are printed each.
const KINDS: usize = 1024;

/// What is one kind: the network namespace, the listener, and the event, with its cause after a `/`.
type Kind = (u32, Option<Role>, Option<u16>, String);

/// See the module.
#[derive(Default)]
pub(super) struct Fold {
    second: String,
    kinds: BTreeMap<Kind, Folded>,
}

#[derive(Default)]
struct Folded {
    rows: u64,
    peers: HashSet<IpAddr>,
    /// The first row that was not printed.
    first: Option<EventRow>,
}

impl Fold {
    /// Whether rows wait for the end of their second.
    pub fn waits(&self) -> bool {
        self.kinds.values().any(|folded| folded.first.is_some())
    }

    /// Takes a row in. Returns the sums of the second before, where the row begins another, and the row where it is to
    /// be printed. `kind`: the event without what differs from row to row.
    pub fn take(
        &mut self,
        netns: u32,
        kind: &str,
        row: EventRow,
    ) -> (Vec<EventRow>, Option<EventRow>) {
        // `03:04:05.678`: rows that are found later belong to the second that they are printed in.
        let second = row.time.get(..8).unwrap_or_default();
        let mut before = Vec::new();
        if second > self.second.as_str() || !is_same_day(second, &self.second) {
            before = self.sums();
            self.second = second.to_owned();
        }
        let key = (netns, row.role, row.port, kind.to_owned());
        if self.kinds.len() >= KINDS && !self.kinds.contains_key(&key) {
            return (before, Some(row));
        }
        let folded = self.kinds.entry(key).or_default();
        folded.rows += 1;
        if folded.rows <= EACH {
            return (before, Some(row));
        }
        if let RowPeer::One(addr, _) = row.peer
            && folded.peers.len() < PEERS
        {
            folded.peers.insert(addr);
        }
        folded.first.get_or_insert(row);
        (before, None)
    }

    /// The sums of what waits, one row each, in the order in which they began. One row alone keeps its details.
    pub fn sums(&mut self) -> Vec<EventRow> {
        let kinds = mem::take(&mut self.kinds).into_iter();
        let mut waiting: Vec<_> = kinds
            .filter_map(|((.., kind), mut folded)| Some((folded.first.take()?, kind, folded)))
            .collect();
        waiting.sort_by(|(a, ..), (b, ..)| a.time.cmp(&b.time));
        let rows = waiting.into_iter().map(|(mut row, kind, folded)| {
            row.time = self.second.clone();
            if folded.rows == EACH + 1 {
                return row;
            }
            row.id = None;
            if folded.peers.len() != 1 {
                row.peer = RowPeer::Several(format!("{} peers", folded.peers.len()));
            }
            sum(row, &kind, folded.rows - EACH)
        });
        rows.collect()
    }
}

fn sum(mut row: EventRow, kind: &str, rows: u64) -> EventRow {
    if let RowPeer::One(_, port) = &mut row.peer {
        *port = None;
    }
    let (event, has_cause) = match kind.split_once('/') {
        Some((event, _)) => (event, true),
        None => (kind, false),
    };
    row.event.0 = event.to_owned();
    row.gap = format!("×{rows}");
    let is_kept = |weight: Weight| match weight {
        Weight::Cause => has_cause,
        weight => weight == Weight::Netns,
    };
    row.details.retain(|(weight, _)| is_kept(*weight));
    row
}

/// Whether the clock has not passed midnight between them.
fn is_same_day(a: &str, b: &str) -> bool {
    !(a.starts_with("00") && b.starts_with("23"))
}
