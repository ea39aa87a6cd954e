//! The state of the screen.

use std::{cell::RefCell, collections::VecDeque, time::Duration};

use super::{
    Look, Observed,
    cursor::RowCursor,
    item::{PaneItem, RowId, is_of},
    networks::{PeerNetwork, networks},
    open_counts::OpenCounts,
    order,
    ordered::{OrderedRows, PaneRows, RowSource, RowsOf},
    pane::Pane,
    query::RowQuery,
};
use crate::{
    engine::EngineSnapshot,
    model::{Peer, Problem, Role},
    status::PartState,
};

/// Values of the small diagrams.
const TREND: usize = 60;

/// What a page is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PageKind {
    Row(RowId),
    Explanation(RowId),
    BlindSpots,
    Keys,
}

/// A page over the panes.
#[derive(Clone, Debug)]
pub(super) struct OpenPage {
    pub kind: PageKind,
    /// Lines above the first one that is shown.
    pub scroll: usize,
}

/// What is typed into the line of the filter.
#[derive(Clone, Debug, Default)]
pub(super) struct Typing {
    pub text: String,
    /// What is wrong with it.
    pub complaint: Option<String>,
}

/// See the module.
#[derive(Default)]
pub struct App {
    pub(super) look: Look,
    pub(super) interval: Duration,
    pub(super) observed: Option<Observed>,
    pub(super) pane: Pane,
    pub(super) cursors: [RowCursor; 5],
    pub(super) orders: [usize; 5],
    /// The last one is shown.
    pub(super) pages: Vec<OpenPage>,
    /// Only the handshakes of this problem.
    pub(super) narrowed: Option<RowId>,
    pub(super) query: RowQuery,
    pub(super) typing: Option<Typing>,
    pub(super) role: Option<Role>,
    pub(super) is_paused: bool,
    pub(super) is_zoomed: bool,
    /// Of the handshakes in progress that are listed.
    pub(super) open_counts: OpenCounts,
    /// The rows of each pane, as a frame last found them.
    ordered: RefCell<[Option<OrderedRows>; 5]>,
    /// Counts the states, and what is added up of them.
    states: u64,
    /// Peers are added up by network.
    pub(super) has_networks: bool,
    /// The networks of the selected peers, where they are shown.
    pub(super) networks: Vec<PeerNetwork>,
    /// What the last key did, where the screen does not show it otherwise.
    pub(super) notice: Option<String>,
    /// The last recording that the key `R` has begun.
    pub(super) part: Option<PartState>,
    /// It has begun, ended or failed since the last key.
    pub(super) part_is_news: bool,
    /// Half-opens and active opens in progress, of the last frames.
    pub(super) trend: VecDeque<(u64, u64)>,
}

impl App {
    /// An empty screen. `interval`: how often there is a new state.
    pub fn new(look: Look, interval: Duration) -> Self {
        Self {
            look,
            interval,
            ..Self::default()
        }
    }

    /// Takes in the state at a new moment. While the screen of a run is paused, it is not shown.
    pub fn observe(&mut self, observed: Observed) {
        let is_replay = observed.position.is_some();
        // Also while the screen is paused.
        let part = observed.status.part.clone();
        let kind = |part: &Option<PartState>| part.as_ref().map(std::mem::discriminant);
        self.part_is_news |= kind(&part) != kind(&self.part);
        self.part = part;
        if self.is_paused && !is_replay && self.observed.is_some() {
            return;
        }
        let before_ns = self.observed.as_ref().map(|o| o.status.at_ns);
        if before_ns == Some(observed.status.at_ns) {
            // The run has nothing newer; of events there may be.
            self.observed = Some(observed);
            self.states += 1;
            return;
        }
        if before_ns > Some(observed.status.at_ns) {
            // Back in a replay.
            self.trend.clear();
        }
        self.trend.push_back(in_progress(&observed.status.snapshot));
        if self.trend.len() > TREND {
            self.trend.pop_front();
        }
        self.open_counts = OpenCounts::of(&observed.status.snapshot);
        self.observed = Some(observed);
        self.add_up_networks();
        for pane in Pane::ALL {
            let mut cursor = std::mem::take(&mut self.cursors[pane.index()]);
            cursor.follow(&self.rows(pane));
            self.cursors[pane.index()] = cursor;
        }
    }

    /// Whether all handshakes in progress are needed: the oldest alone are shown unless somebody looks for others.
    pub fn needs_all_open(&self) -> bool {
        let pane = Pane::Handshakes;
        self.pane == pane
            || !self.pages.is_empty()
            || self.narrowed.is_some()
            || self.role.is_some()
            || !self.query.is_empty()
            || self.orders[pane.index()] != 0
            || self.cursors[pane.index()].is_moved()
    }

    /// Adds up the selected peers by network, where that is asked for.
    pub(super) fn add_up_networks(&mut self) {
        self.states += 1;
        self.networks.clear();
        if self.has_networks
            && let Some(observed) = &self.observed
        {
            let peers = observed.status.snapshot.peers.iter();
            let selected = peers.filter(|p| self.is_selected(&PaneItem::Peer(p)));
            self.networks = networks(selected);
        }
    }

    /// Whether the filter and the role let a row through.
    fn is_selected(&self, item: &PaneItem<'_>) -> bool {
        if self.role.is_none() && self.query.is_empty() {
            return true;
        }
        let facts = item.facts();
        let wanted = |role| facts.role.is_none_or(|of| of == Some(role));
        self.role.is_none_or(wanted) && self.query.matches(&facts)
    }

    /// The rows of a pane: selected and in order.
    pub(super) fn rows(&self, pane: Pane) -> PaneRows<'_> {
        let Some(source) = self.source(pane) else {
            return PaneRows::new(RowSource::Problems(&[]), [].into());
        };
        let of = RowsOf {
            state: self.states,
            query: self.query.clone(),
            role: self.role,
            narrowed: self.narrowed.clone(),
            has_networks: self.has_networks,
            order: self.orders[pane.index()],
        };
        let mut ordered = self.ordered.borrow_mut();
        let known = &mut ordered[pane.index()];
        if let Some(known) = known
            && known.of == of
        {
            return PaneRows::new(source, known.places.clone());
        }
        let places = self.ordered(pane, source);
        *known = Some(OrderedRows {
            of,
            places: places.clone(),
        });
        PaneRows::new(source, places)
    }

    /// All rows of a pane.
    fn source(&self, pane: Pane) -> Option<RowSource<'_>> {
        let observed = self.observed.as_ref()?;
        let snapshot = &observed.status.snapshot;
        Some(match pane {
            Pane::Problems => RowSource::Problems(&snapshot.problems),
            Pane::Listeners => RowSource::Listeners(&snapshot.listeners),
            Pane::Peers if self.has_networks => RowSource::Networks(&self.networks),
            Pane::Peers => RowSource::Peers(&snapshot.peers),
            Pane::Events => RowSource::Events(&observed.events),
            Pane::Handshakes => RowSource::Handshakes(&snapshot.open),
        })
    }

    fn ordered(&self, pane: Pane, source: RowSource<'_>) -> std::sync::Arc<[u32]> {
        let of = self.narrowed.as_ref().and_then(|id| self.problem(id));
        let is_own = |item: &PaneItem<'_>| match (item, of) {
            (PaneItem::Handshake(h), Some(p)) => is_of(h, p),
            _ => true,
        };
        let mut items: Vec<(u32, PaneItem<'_>)> = (0..source.len())
            .filter_map(|at| Some((at as u32, source.get(at)?)))
            .filter(|(_, item)| is_own(item) && self.is_selected(item))
            .collect();
        let counts = self
            .observed
            .as_ref()
            .map(|o| &o.status.snapshot.open_by_peer);
        let open_of = |peer: &Peer| {
            let count = counts.and_then(|counts| counts.get(&(peer.peer_addr, peer.role)));
            count.copied().unwrap_or(0)
        };
        order::sort(pane, self.orders[pane.index()], &mut items, open_of);
        items.into_iter().map(|(at, _)| at).collect()
    }

    fn problem(&self, id: &RowId) -> Option<&Problem> {
        let observed = self.observed.as_ref()?;
        let mut problems = observed.status.snapshot.problems.iter();
        problems.find(|p| PaneItem::Problem(p).is(id))
    }

    /// The problem whose handshakes alone are listed, where it is open still.
    pub(super) fn narrowed_to(&self) -> Option<&Problem> {
        self.problem(self.narrowed.as_ref()?)
    }

    /// Whether the page of such a row is shown.
    pub(super) fn has_page_of(&self, is_such: impl Fn(&RowId) -> bool) -> bool {
        let kind = self.pages.last().map(|page| &page.kind);
        matches!(kind, Some(PageKind::Row(id)) if is_such(id))
    }

    /// The selected problem.
    pub(super) fn chosen_problem(&self) -> Option<&Problem> {
        let rows = self.rows(Pane::Problems);
        let place = self.cursors[Pane::Problems.index()].place(&rows);
        match rows.get(place) {
            Some(PaneItem::Problem(p)) => Some(p),
            _ => None,
        }
    }

    /// The row with that identity, whatever the filter.
    pub(super) fn find(&self, id: &RowId) -> Option<PaneItem<'_>> {
        let observed = self.observed.as_ref()?;
        let snapshot = &observed.status.snapshot;
        let mut problems = snapshot.problems.iter().map(PaneItem::Problem);
        let mut listeners = snapshot.listeners.iter().map(PaneItem::Listener);
        let mut open = snapshot.open.iter().map(PaneItem::Handshake);
        let mut peers = snapshot.peers.iter().map(PaneItem::Peer);
        let is = |item: &PaneItem<'_>| item.is(id);
        match id {
            RowId::Problem(_) => problems.find(is),
            RowId::Listener(..) => listeners.find(is),
            RowId::Handshake(_) => open.find(is),
            RowId::Peer(..) => peers.find(is),
            RowId::Event(_) => observed.events.iter().map(|e| PaneItem::Event(e)).find(is),
            RowId::Network(..) => self.networks.iter().map(PaneItem::Network).find(is),
        }
    }
}

/// Half-opens and active opens in progress.
pub(super) fn in_progress(snapshot: &EngineSnapshot) -> (u64, u64) {
    let of = |role| {
        let ports = snapshot.ports.iter().filter(move |port| port.role == role);
        ports.map(|port| port.open).sum()
    };
    (of(Role::Server), of(Role::Client))
}
