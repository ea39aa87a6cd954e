//! One handshake's life, from observations to lines.
//!
//! [`Tracker`] takes [`Observation`]s, from whichever source, and makes [`Line`]s. It does no I/O and
//! has no clock: time comes with the observations. Its table is bounded.

mod callers;
mod client;
mod client_end;
mod config;
mod data_retransmits;
mod early_resets;
mod facts;
mod gone;
mod half_open_age;
mod half_opens;
mod handshake;
mod handshake_end;
mod host_facts;
mod lines;
mod local_ends;
mod mib_audit;
mod observation;
mod orphaned;
mod owners;
pub mod peers;
mod quiet;
mod reconcile;
mod request_sock;
pub mod schedule;
mod server;
mod state_now;
mod stored_half_open;
mod syn_sent_gone;
mod syn_too_large;
#[cfg(test)]
mod tests;
mod unreported;

use std::{collections::HashMap, sync::Arc};

pub use config::TrackConfig;
pub use host_facts::REMEMBERED_NAMES;
pub use observation::{Observation, Totals, Treatment};
pub use owners::Owners;
pub use reconcile::Fates;
pub use state_now::OpenSurvey;

use half_opens::HalfOpens;
use handshake::OpenHandshake;
use handshake_end::HandshakeEnd;
use orphaned::Deferrals;
use peers::Peers;

use crate::{
    decode::Event,
    model::{
        Body, ByRole, ClientOwner, Connection, Detail, HalfOpenSource, Line, Missed, OpenReason,
        Role, TcpState, Tuple,
    },
    util::bounded::Bounded,
};

/// See the module.
pub struct Tracker {
    config: TrackConfig,
    host: host_facts::HostFacts,
    next_id: u64,
    /// Active opens by `struct sock`.
    clients: Bounded<u64, OpenHandshake>,
    /// Active opens that are older than the run, by tuple: sock_diag does not show their socket's address.
    preexisting: Bounded<Tuple, OpenHandshake>,
    /// Callers of those that the dump of this round will show.
    callers: HashMap<Tuple, ClientOwner>,
    /// Passive opens by tuple: their request_sock has another address than the child.
    half_opens: HalfOpens,
    /// Children in SYN_RECV (Fast Open, simultaneous open) by `struct sock`.
    children: Bounded<u64, server::Child>,
    /// Connections after their handshake, for later retransmissions.
    established: Bounded<u64, Arc<Connection>>,
    /// Connections whose addresses and ports were found to be held by a socket.
    tuples_in_use: Bounded<Tuple, ()>,
    segments: Bounded<(u64, u32), data_retransmits::RetransmittedSegment>,
    /// When a socket entered its present state (`--states all`).
    entered: Bounded<u64, u64>,
    owners: Owners,
    peers: Peers,
    reconcile: reconcile::Reconcile,
    early_hints: Bounded<u64, quiet::EarlyHint>,
    deferrals: Deferrals,
    tallies: quiet::Tallies,
    already_counted: unreported::AlreadyCounted,
    evictions: unreported::Evictions,
    mib_audit: mib_audit::MibAudit,
    totals: Totals,
    lines: Vec<Line>,
}

/// Connections remembered after their handshake.
const REMEMBERED: usize = 16_384;

impl Tracker {
    /// An empty table.
    pub fn new(config: TrackConfig) -> Self {
        Self {
            next_id: 1,
            clients: Bounded::new(config.tables.clients),
            preexisting: Bounded::new(config.tables.clients),
            callers: HashMap::new(),
            half_opens: HalfOpens::new(config.tables.half_opens),
            children: Bounded::new(config.tables.clients),
            established: Bounded::new(REMEMBERED),
            tuples_in_use: Bounded::new(REMEMBERED),
            segments: Bounded::new(REMEMBERED),
            entered: Bounded::new(REMEMBERED),
            owners: Owners::default(),
            peers: Peers::new(&config.tables, config.hash_seed)
                .with_syn_refusals(config.source == HalfOpenSource::Fentry),
            reconcile: reconcile::Reconcile::default(),
            early_hints: Bounded::new(REMEMBERED),
            deferrals: Deferrals::default(),
            tallies: quiet::Tallies::default(),
            already_counted: unreported::AlreadyCounted::default(),
            evictions: unreported::Evictions::default(),
            mib_audit: mib_audit::MibAudit::default(),
            totals: Totals::default(),
            lines: Vec::new(),
            host: host_facts::HostFacts::default(),
            config,
        }
    }

    /// Takes in one observation.
    pub fn observe(&mut self, observation: Observation) {
        match observation {
            Observation::Event(event) => {
                self.totals.events += 1;
                self.on_event(&event);
            }
            Observation::Drop(record, treatment) => {
                self.totals.events += 1;
                self.audit_event(&Event::Drop(record));
                self.packet_dropped(&record, treatment);
            }
            Observation::Dump(dump, fates) => self.on_dump(&dump, &fates),
            Observation::Listeners(listeners) => self.owners.add(listeners),
            Observation::Lost { at_ns, lost } => {
                let (of, events) = (lost.of, lost.events);
                self.totals.lost += events;
                if matches!(of, Missed::States | Missed::Any) {
                    self.already_counted.states += events;
                }
                if matches!(of, Missed::Requests | Missed::Any) {
                    self.already_counted.requests += events;
                }
                if matches!(of, Missed::Retransmissions | Missed::Any) {
                    self.already_counted.retransmissions += events;
                }
                self.lines.push(Line {
                    mono_ns: at_ns,
                    body: Body::Lost(lost),
                });
            }
        }
    }

    /// The lines since the last call.
    pub fn take_lines(&mut self) -> Vec<Line> {
        // Under load the next batch is as large.
        let room = Vec::with_capacity(self.lines.len());
        std::mem::replace(&mut self.lines, room)
    }

    /// The running totals.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Handshakes in the table.
    pub fn open(&self) -> usize {
        self.clients.len() + self.preexisting.len() + self.half_opens.len()
    }

    /// Ends what is still open, with a line each, at most `most`: in a flood all lines would not fit into
    /// memory. Returns whether there were any.
    pub fn end_open(&mut self, at_ns: u64, most: usize) -> bool {
        let mut still = Vec::new();
        while still.len() < most
            && let Some(open) = self
                .clients
                .pop()
                .map(|(_, open)| open)
                .or_else(|| self.preexisting.pop().map(|(_, open)| open))
                .or_else(|| self.half_opens.pop())
        {
            still.push(open);
        }
        still.sort_by_key(|open| open.connection.id);
        let any = !still.is_empty();
        for open in still.into_iter().filter(|open| !open.awaits_port) {
            self.announce_if_due(&open);
            let end = HandshakeEnd::open(OpenReason::RunEnded, at_ns);
            self.emit_handshake(open, &end);
        }
        any
    }

    /// Ends the run: a line for each handshake that is still open, then the peers.
    pub fn finish(&mut self, at_ns: u64) {
        while self.end_open(at_ns, usize::MAX) {}
        self.report_evictions(at_ns);
        self.totals.peers_unlisted = self.peers.unlisted();
        self.totals.peers_distinct = ByRole {
            client: self.peers.distinct(Role::Client),
            server: self.peers.distinct(Role::Server),
        };
        self.totals.counted = self.tallies.by_kernel();
        for completed in self.tallies.lines() {
            self.lines.push(Line {
                mono_ns: at_ns,
                body: Body::Completed(Box::new(completed)),
            });
        }
        for peer in self.peers.table() {
            self.lines.push(Line {
                mono_ns: at_ns,
                body: Body::Peer(Box::new(peer)),
            });
        }
    }

    fn on_event(&mut self, event: &Event) {
        self.audit_event(event);
        match event {
            Event::State(r, old, new) => match (*old, *new) {
                (_, TcpState::SynSent) => self.syn_sent(r, *old),
                (TcpState::SynSent, TcpState::SynRecv) => self.simultaneous(r),
                (TcpState::SynSent, _) => self.client_left(r, *new),
                (TcpState::Listen, TcpState::SynRecv) => self.child_created(r),
                (TcpState::SynRecv, _) => self.syn_recv_left(r, *new),
                (_, TcpState::Listen) | (TcpState::Listen, _) => self.listener(r, *old, *new),
                (old, new) => self.other_transition(r, old, new),
            },
            Event::Retransmit(r, TcpState::SynSent) if r.no_syn == 0 => self.syn_retransmitted(r),
            Event::Retransmit(r, state) => self.segment_retransmitted(r, *state),
            Event::SynAck(r, trigger) => self.synack_retransmitted(r, *trigger),
            Event::Reset(r, state) => {
                if let Some(open) = self.clients.get_mut(&r.sock) {
                    open.reset_seen = true;
                } else if *state == TcpState::SynSent {
                    self.early_hint(r.sock, &r.flow, |early_hint| early_hint.reset_seen = true);
                }
            }
            Event::EarlyReset(r, state) => self.reset_early(r, *state),
            Event::Drop(r) => self.packet_dropped(r, Treatment::Untold),
            Event::Request(r, moment) => self.request(r, *moment),
            Event::Error(r, state) => {
                let error = if r.sk_err != 0 {
                    r.sk_err
                } else {
                    r.sk_err_soft
                };
                // Without a number: while connect() still holds the socket, `ip_icmp_error()` tells before
                // `tcp_v4_err()` has stored it.
                let at_ns = r.header.ts_ns;
                if let Some(open) = self.clients.get_mut(&r.sock) {
                    open.soft_error = if error != 0 { error } else { open.soft_error };
                    open.error_ns = Some(at_ns);
                } else if *state == TcpState::SynSent {
                    self.early_hint(r.sock, &r.flow, |hint| hint.error = Some((error, at_ns)));
                }
            }
        }
    }

    /// A connection under a new id.
    fn new_connection(&mut self, tuple: &Tuple, role: Role, family: u16) -> Connection {
        let mut connection = tuple.connection(self.new_id(), role, family);
        connection.netns_name = self.host.netns_name(tuple.netns);
        connection
    }

    fn new_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// Keeps the connection of a socket, for later retransmissions.
    fn remember(&mut self, sock: u64, connection: &Connection, at_ns: u64) {
        if self.config.detail == Detail::AllStates {
            self.entered.insert(sock, at_ns);
        }
        self.established.insert(sock, Arc::new(connection.clone()));
    }
}
