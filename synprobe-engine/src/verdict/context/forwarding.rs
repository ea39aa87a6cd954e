//! Packets that this host forwards: between which devices, and where the answers go. `drop_words.rs` has the
//! sentences and commands.

use std::{net::IpAddr, sync::Arc};

use super::{Context, DropIsOf, DroppedPacket, Ends, RefusedSyn};
use crate::{
    model::{
        Connection, Forward, HalfOpenRow, Handshake, RouteAnswer, RouteQuestion, SocketDump, Tuple,
    },
    util::{addresses::printable, bounded::Bounded, format},
};

/// Routes remembered.
const KEPT: usize = 4096;
/// Routes that are asked for at a time.
const ASKED: usize = 64;
/// Rounds of the poller after which a question is not answered any more.
const ROUNDS: u8 = 2;
/// The beginning of a handshake is known to within this time, nanoseconds, and its packets may be dropped a
/// moment after its end.
const AFTER_ITS_END_NS: u64 = 4_000_000_000;
/// Names of namespaces remembered.
const NAMES: usize = 8192;

/// See the module.
pub struct Forwarding {
    routes: Bounded<RouteQuestion, RouteState>,
    names: Bounded<u32, Arc<str>>,
    /// Namespace, peer and called address of handshakes that this host accepted.
    accepted: Bounded<(u32, IpAddr, IpAddr), ()>,
}

enum RouteState {
    Wanted,
    /// Rounds of the poller that have ended since.
    Asked(u8),
    Known(Box<RouteAnswer>),
}

impl Default for Forwarding {
    fn default() -> Self {
        Self {
            routes: Bounded::new(KEPT),
            names: Bounded::new(NAMES),
            accepted: Bounded::new(KEPT),
        }
    }
}

impl Forwarding {
    fn want(&mut self, question: RouteQuestion) {
        if self.routes.get(&question).is_none() {
            self.routes.insert(question, RouteState::Wanted);
        }
    }

    /// A peer's handshake completed: the ways there and back work.
    pub(super) fn accepted(&mut self, c: &Connection) {
        let key = (c.netns, c.peer_addr, c.local_addr);
        if self.accepted.get(&key).is_none() {
            self.accepted.insert(key, ());
        }
    }

    pub(super) fn known(&self, question: &RouteQuestion) -> Option<&RouteAnswer> {
        match self.routes.get(question)? {
            RouteState::Known(answer) => Some(answer),
            RouteState::Wanted | RouteState::Asked(_) => None,
        }
    }
}

/// A packet to an address that the namespace has, or had in this run. A rule that refuses it has the reason of a missing
/// address (`ip_route_input_slow()` and `ip_error()`, net/ipv4/route.c).
const REFUSED_BY_RULE: &str = "its destination is an address of this host, or was in this run: the address has been \
     removed, or a routing rule or route (blackhole, prohibit, unreachable) refuses the packet";
/// Over IPv6 an address that duplicate address detection has not let pass is in no table of local addresses.
const REFUSED_OR_TENTATIVE: &str = "its destination is an address of this host, or was in this run: it is tentative \
     (duplicate address detection runs or has failed), the address has been removed, or a routing rule or route \
     (blackhole, prohibit, unreachable) refuses the packet";
const SHOW_TENTATIVE: &str =
    "ip -6 address show tentative; ip -br address; ip -6 rule; ip -6 route show table all";
const SHOW_RULES: &str = "ip -br address; ip rule; ip route show table all";

/// What a verdict must not rest on, where the way of the answers is not known.
const WAY_BACK_OPEN: &str = "by which way the answers leave was not known when this was judged: one that passes by \
     the way of the SYN looks the same";

pub(super) fn question(d: &DroppedPacket) -> RouteQuestion {
    RouteQuestion {
        netns: d.netns,
        from: d.from.ip(),
        to: d.to.ip(),
        came_by: d.came_by,
    }
}

/// The way of an answer, without one that came by.
pub(super) fn answers_to(c: &Connection) -> RouteQuestion {
    RouteQuestion {
        netns: c.netns,
        from: c.peer_addr,
        to: c.local_addr,
        came_by: 0,
    }
}

impl Context {
    /// Packets of a handshake that this host dropped; and, where the client's initial sequence number is known, those under
    /// addresses or ports that this host's NAT gave it.
    pub fn drops_of_handshake(&self, h: &Handshake) -> Vec<&DroppedPacket> {
        let since_ns = h.facts.since_ns();
        let mut found = self.drops_of(&h.connection, since_ns);
        found.retain(|d| d.is_of(h) != DropIsOf::Another);
        let (Some(syn_seq), Some(own)) = (h.facts.syn_seq, Ends::of(&h.connection)) else {
            return found;
        };
        let began = h.facts.began_ns.zip(h.dwell_us);
        let until_ns = began.map_or(u64::MAX, |(at, us)| {
            at.saturating_add(us.saturating_mul(1000))
                .saturating_add(AFTER_ITS_END_NS)
        });
        let translated = self.drops.translated(syn_seq, &own, since_ns..=until_ns);
        // Another SYN-ACK may acknowledge the same number.
        found.extend(
            translated
                .into_iter()
                .filter(|d| d.is_of(h) != DropIsOf::Another),
        );
        found.sort_by_key(|d| std::cmp::Reverse(d.count));
        found
    }

    /// Whether a handshake of the same peer to the same address completed in this run.
    pub fn accepted_before(&self, c: &Connection) -> bool {
        self.has_accepted(c.netns, c.peer_addr, c.local_addr)
    }

    /// Whether a handshake of a client to an address completed in this run, at a server in this namespace.
    pub(super) fn has_accepted(&self, netns: u32, client: IpAddr, called: IpAddr) -> bool {
        self.forwarding
            .accepted
            .get(&(netns, client, called))
            .is_some()
    }

    /// Whether an address is known to be none of a namespace's.
    pub fn lacks_address(&self, netns: u32, address: IpAddr) -> bool {
        self.histories.has_address(netns, address) == Some(false)
    }

    /// Whether an address is known to be one of a namespace's.
    pub fn has_address(&self, netns: u32, address: IpAddr) -> bool {
        self.histories.has_address(netns, address) == Some(true)
    }

    /// Changes the words of a packet that was dropped for want of an address or a route, where its namespace is known
    /// to have the address.
    pub fn tell_rule_from_address(&self, drop: &mut DroppedPacket) {
        let wanting = ["IP_INADDRERRORS", "IP_INNOROUTES"].contains(&&*drop.reason);
        let has_it = || self.histories.has_address(drop.netns, drop.to.ip()) == Some(true);
        if drop.incoming && wanting && has_it() {
            (drop.words, drop.remedy) = match drop.to.is_ipv6() {
                true => (REFUSED_OR_TENTATIVE.into(), SHOW_TENTATIVE.into()),
                false => (REFUSED_BY_RULE.into(), SHOW_RULES.into()),
            };
        }
    }

    /// Takes in the name of a namespace.
    pub fn set_netns_name(&mut self, netns: u32, name: Option<Arc<str>>) {
        match name {
            Some(name) => drop(self.forwarding.names.insert(netns, name)),
            None => drop(self.forwarding.names.remove(&netns)),
        }
    }

    /// What people call a namespace.
    pub fn netns_name(&self, netns: u32) -> Option<Arc<str>> {
        self.forwarding.names.get(&netns).cloned()
    }

    /// Namespaces in which packets were dropped or refused, and whose name is not known: the page may name them.
    pub fn unnamed(&self) -> Vec<u32> {
        let refusing = self.no_socket_namespaces();
        let mut unnamed: Vec<u32> = (self.drops.iter().map(|d| d.netns))
            .chain(refusing)
            .filter(|netns| self.forwarding.names.get(netns).is_none())
            .collect();
        unnamed.sort_unstable();
        unnamed.dedup();
        unnamed
    }

    /// Its name, or its number.
    pub fn name_of(&self, netns: u32) -> String {
        self.netns_name(netns)
            .map_or_else(|| netns.to_string(), |name| format::safe(&name).into())
    }

    /// Takes in that a half-open had its SYN-ACK repeated.
    pub fn repeats_syn_ack(&mut self, half_open: &Tuple) {
        let peer = printable(half_open.peer_addr);
        let local = printable(half_open.local_addr);
        if !local.is_loopback() {
            self.forwarding.want(RouteQuestion {
                netns: half_open.netns,
                from: peer,
                to: local,
                came_by: 0,
            });
        }
    }

    /// Takes in the repeated SYN-ACKs and SYNs of a dump: the event of a retransmission may not have come.
    pub fn repeats(&mut self, dump: &SocketDump) {
        let repeated = |row: &&HalfOpenRow| row.retrans > 0;
        for row in dump.rows.iter().filter(repeated).take(KEPT) {
            self.repeats_syn_ack(&row.tuple);
        }
        let syn_sent = dump.syn_sent.as_deref().unwrap_or_default();
        for row in syn_sent.iter().filter(repeated).take(KEPT) {
            self.destinations.repeats_syn(&row.tuple);
        }
    }

    /// Asks for the route of a packet that may be forwarded, or whose source check failed.
    pub(super) fn want_route_of(&mut self, d: &DroppedPacket) {
        let is_own = self.histories.has_address(d.netns, d.to.ip()) == Some(true);
        if d.came_by != 0 && d.incoming && (!is_own || &*d.reason == "IP_RPFILTER") {
            self.forwarding.want(question(d));
        }
    }

    /// Asks for the name of the device by which a SYN to this namespace came.
    pub(super) fn want_device(&mut self, netns: u32, from: IpAddr, to: IpAddr, came_by: u32) {
        let question = RouteQuestion {
            netns,
            from,
            to,
            came_by,
        };
        self.forwarding.want(question);
    }

    /// How the path of the peer's SYNs and that of the answers differ, in words; `None`: no difference is
    /// known.
    pub fn asymmetric_path(&self, c: &Connection) -> Option<String> {
        let came_by = self.name_of_its_device(c);
        self.paths.asymmetric(c.netns, c.peer_addr, came_by)
    }

    /// Whether an old or wrong entry for the peer in the neighbour table explains the difference as well.
    pub fn may_be_a_wrong_neighbour(&self, c: &Connection) -> bool {
        self.paths.differs_by_entry(c.netns, c.peer_addr)
    }

    /// Says that the way of the answers to a peer was asked for, and is not known yet.
    pub fn way_back_is_open(&self, c: &Connection) -> Option<String> {
        let route = self.forwarding.routes.get(&answers_to(c));
        let is_asked = matches!(route, Some(RouteState::Wanted | RouteState::Asked(_)));
        let is_open = is_asked || self.paths.is_open(c.netns, c.peer_addr);
        is_open.then(|| WAY_BACK_OPEN.to_owned())
    }

    /// The name of the device by which a peer's repeated SYN came.
    pub(super) fn name_of_its_device(&self, c: &Connection) -> Option<&str> {
        let (to, came_by) = self.paths.came_by(c.netns, c.peer_addr)?;
        let question = RouteQuestion {
            netns: c.netns,
            from: c.peer_addr,
            to,
            came_by,
        };
        self.forwarding.known(&question)?.came_by.as_deref()
    }

    /// Routes that should be looked up. Each is returned once.
    pub fn wanted_routes(&mut self) -> Vec<RouteQuestion> {
        let routes = &mut self.forwarding.routes;
        let wanted = |(key, state): (&RouteQuestion, &RouteState)| {
            matches!(state, RouteState::Wanted).then_some(*key)
        };
        let wanted: Vec<_> = routes.iter().filter_map(wanted).take(ASKED).collect();
        for question in &wanted {
            if let Some(state) = routes.get_mut(question) {
                *state = RouteState::Asked(0);
            }
        }
        wanted
    }

    /// A round of the poller has ended: what was asked for before it is answered, or will not be.
    pub fn routes_are_answered(&mut self) {
        let routes = &mut self.forwarding.routes;
        let open = |(key, state): (&RouteQuestion, &RouteState)| match state {
            RouteState::Asked(rounds) if *rounds < ROUNDS => Some(*key),
            _ => None,
        };
        let open: Vec<_> = routes.iter().filter_map(open).collect();
        for question in open {
            if let Some(RouteState::Asked(rounds)) = routes.get_mut(&question) {
                *rounds += 1;
            }
        }
    }

    /// Whether the route of a refused SYN may become known in a moment.
    pub fn awaits_route(&self, refused: &RefusedSyn) -> bool {
        let state = self
            .drop_of_refused(refused)
            .and_then(|d| self.forwarding.routes.get(&question(d)));
        match state {
            Some(RouteState::Wanted) => true,
            Some(RouteState::Asked(rounds)) => *rounds < ROUNDS,
            _ => false,
        }
    }

    /// Takes in the answer to a [`RouteQuestion`].
    pub fn route(&mut self, question: RouteQuestion, answer: RouteAnswer) {
        if let Some(state) = self.forwarding.routes.get_mut(&question) {
            *state = RouteState::Known(Box::new(answer));
            self.refused_syns.ask_again();
        }
    }

    /// What its namespace does with a packet that is not for it; `None`: it is for it, or that is not known.
    pub fn forward(&self, d: &DroppedPacket) -> Option<Forward> {
        // Only a packet that is delivered here reaches TCP or a socket.
        let delivered = d.reason.starts_with("TCP_") || d.reason.starts_with("SOCKET_");
        // To switch IPv6 off takes the addresses away: whether it was for this host is not known.
        let unknown = &*d.reason == "IPV6DISABLED";
        if !d.incoming || delivered || unknown || d.to.ip().is_loopback() {
            return None;
        }
        let answer = self.forwarding.known(&question(d));
        // What came in and is on its way out again.
        let leaving = ["QDISC_", "TC_EGRESS"];
        let is_leaving =
            d.is_of_neighbour() || leaving.iter().any(|name| d.reason.starts_with(name));
        let is_local = match answer.and_then(|answer| answer.is_local) {
            Some(is_local) => is_local,
            None if is_leaving => false,
            None => self.histories.has_address(d.netns, d.to.ip())?,
        };
        // What does not forward sends it nowhere, whatever its routes say.
        let onward = answer.and_then(|answer| answer.onward.as_ref());
        let onward = onward.filter(|_| !asked_in_vain(d));
        (!is_local).then(|| Forward {
            to_addr: d.to.ip(),
            to_port: d.to.port(),
            from_interface: answer
                .and_then(|answer| answer.came_by.clone())
                .or_else(|| d.device.as_deref().map(str::to_owned)),
            to_interface: onward.map(|hop| hop.interface.clone()),
            gateway: onward.and_then(|hop| hop.gateway),
        })
    }

    /// The drop of a SYN that was refused, where there is a record of it.
    pub fn drop_of_refused(&self, refused: &RefusedSyn) -> Option<&DroppedPacket> {
        let ends = Ends::between(refused.local?, refused.peer?);
        let reason = refused.reason.as_deref()?;
        self.drops
            .of(&ends, 0)
            .into_iter()
            .find(|d| d.netns == refused.netns && d.incoming && &*d.reason == reason)
    }

    /// Whether its namespace was asked to forward the packet, and does not forward.
    pub fn refuses_to_forward(&self, d: &DroppedPacket) -> bool {
        asked_in_vain(d) && self.forward(d).is_some()
    }
}

/// Whether the reason is that the packet is not for this host and that it does not forward. Over IPv6 that is one
/// with a missing route.
pub(super) fn asked_in_vain(d: &DroppedPacket) -> bool {
    &*d.reason == "IP_INADDRERRORS" || d.to.is_ipv6() && &*d.reason == "IP_INNOROUTES"
}
