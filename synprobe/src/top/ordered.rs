//! The rows of a pane, selected and in order. They are found once for each state and selection; a frame reads those
//! that it shows.

use std::sync::Arc;

use super::{
    TopEvent,
    item::{PaneItem, RowId},
    networks::PeerNetwork,
    query::RowQuery,
};
use crate::model::{Listener, Peer, Problem, Role, UnderWay};

/// All rows of a pane, as the state has them.
#[derive(Clone, Copy, Debug)]
pub(super) enum RowSource<'s> {
    Problems(&'s [Problem]),
    Listeners(&'s [Listener]),
    Handshakes(&'s [UnderWay]),
    Peers(&'s [Peer]),
    Networks(&'s [PeerNetwork]),
    Events(&'s [Arc<TopEvent>]),
}

impl<'s> RowSource<'s> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Problems(all) => all.len(),
            Self::Listeners(all) => all.len(),
            Self::Handshakes(all) => all.len(),
            Self::Peers(all) => all.len(),
            Self::Networks(all) => all.len(),
            Self::Events(all) => all.len(),
        }
    }

    /// One of them.
    pub fn get(&self, at: usize) -> Option<PaneItem<'s>> {
        match self {
            Self::Problems(all) => all.get(at).map(PaneItem::Problem),
            Self::Listeners(all) => all.get(at).map(PaneItem::Listener),
            Self::Handshakes(all) => all.get(at).map(PaneItem::Handshake),
            Self::Peers(all) => all.get(at).map(PaneItem::Peer),
            Self::Networks(all) => all.get(at).map(PaneItem::Network),
            Self::Events(all) => all.get(at).map(|event| PaneItem::Event(event)),
        }
    }
}

/// What the rows of a pane depend on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RowsOf {
    /// Counts the states, and what is added up of them.
    pub state: u64,
    pub query: RowQuery,
    pub role: Option<Role>,
    pub narrowed: Option<RowId>,
    pub has_networks: bool,
    pub order: usize,
}

/// The places of the selected rows in their source, in order.
#[derive(Clone, Debug)]
pub(super) struct OrderedRows {
    pub of: RowsOf,
    pub places: Arc<[u32]>,
}

/// See the module.
pub(super) struct PaneRows<'s> {
    source: RowSource<'s>,
    places: Arc<[u32]>,
}

impl<'s> PaneRows<'s> {
    pub fn new(source: RowSource<'s>, places: Arc<[u32]>) -> Self {
        Self { source, places }
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// The places of its rows among all.
    #[cfg(test)]
    pub fn places(&self) -> Arc<[u32]> {
        Arc::clone(&self.places)
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// A row by its place in the order.
    pub fn get(&self, at: usize) -> Option<PaneItem<'s>> {
        self.source.get(*self.places.get(at)? as usize)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = PaneItem<'s>> + '_ {
        (0..self.len()).filter_map(|at| self.get(at))
    }
}
