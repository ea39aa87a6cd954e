//! Packets that this host forwards: between which devices, and where the answers go.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use synprobe_ebpf::event::SynAckRecord;

use super::{Context, DroppedPacket, Ends, Packet, RefusedSyn};
use crate::{
    model::{Connection, Forward, Handshake, Hop, Role, RouteAnswer, RouteQuestion},
    util::{addresses::printable, bounded::Bounded, format},
};

/// Routes remembered.
const KEPT: usize = 4096;
/// Routes that are asked for at a time.
const ASKED: usize = 64;
/// Rounds of the poller after which a question is not answered any more.
const ROUNDS: u8 = 2;
/// Names of namespaces remembered.
const NAMES: usize = 8192;
/// Devices that have addresses, and by which no packet comes from outside.
const NOWHERE: [&str; 3] = ["lo", "dummy", "kube-ipvs"];

/// See the module.
pub struct Forwarding {
    routes: Bounded<RouteQuestion, RouteState>,
    names: Bounded<u32, Arc<str>>,
}

enum RouteState {
    Wanted,
    /// In so many rounds of the poller that have ended since.
    Asked(u8),
    Known(Box<RouteAnswer>),
}

impl Default for Forwarding {
    fn default() -> Self {
        Self {
            routes: Bounded::new(KEPT),
            names: Bounded::new(NAMES),
        }
    }
}

impl Forwarding {
    fn want(&mut self, question: RouteQuestion) {
        if self.routes.get(&question).is_none() {
            self.routes.insert(question, RouteState::Wanted);
        }
    }

    fn known(&self, question: &RouteQuestion) -> Option<&RouteAnswer> {
        match self.routes.get(question)? {
            RouteState::Known(answer) => Some(answer),
            RouteState::Wanted | RouteState::Asked(_) => None,
        }
    }
}

/// The prefix of a command that is to run in a namespace of this name, with a space at its end; empty for the
/// host's own. `None`: the name leads to no command.
pub fn in_netns(name: &str) -> Option<String> {
    let plain = |s: &str| {
        let ok = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        !s.is_empty() && s.bytes().all(ok)
    };
    if name == "host" {
        return Some(String::new());
    }
    if let Some(pid) = name.strip_prefix("pid ") {
        let pid = pid.split(' ').next().unwrap_or_default();
        let is_pid = !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit());
        return is_pid.then(|| format!("nsenter -t {pid} -n "));
    }
    if let Some(docker) = name.strip_prefix("docker ") {
        return plain(docker).then(|| format!("nsenter --net=/run/docker/netns/{docker} "));
    }
    plain(name).then(|| format!("ip netns exec {name} "))
}

fn question(d: &DroppedPacket) -> RouteQuestion {
    RouteQuestion {
        netns: d.netns,
        from: d.from.ip(),
        to: d.to.ip(),
        came_by: d.came_by,
    }
}

/// The way of an answer, without one that came by.
fn answers_to(c: &Connection) -> RouteQuestion {
    RouteQuestion {
        netns: c.netns,
        from: c.peer_addr,
        to: c.local_addr,
        came_by: 0,
    }
}

/// `eth0, to router 10.0.0.1`
fn way(hop: &Hop) -> String {
    match hop.gateway {
        Some(gateway) => format!("{}, to router {gateway}", hop.interface),
        None => format!("{}, to the address itself", hop.interface),
    }
}

impl Context {
    /// Takes in the name of a namespace.
    pub fn set_netns_name(&mut self, netns: u32, name: Option<Arc<str>>) {
        if let Some(name) = name {
            self.forwarding.names.insert(netns, name);
        }
    }

    /// What people call a namespace.
    pub fn netns_name(&self, netns: u32) -> Option<Arc<str>> {
        self.forwarding.names.get(&netns).cloned()
    }

    /// Its name, or its number.
    pub fn name_of(&self, netns: u32) -> String {
        self.netns_name(netns)
            .map_or_else(|| netns.to_string(), |name| format::safe(&name).into())
    }

    /// Takes in that a half-open had its SYN-ACK repeated.
    pub fn repeats_syn_ack(&mut self, r: &SynAckRecord) {
        let (peer, local) = (printable(r.flow.peer_addr), printable(r.flow.local_addr));
        if !local.is_loopback() {
            self.forwarding.want(RouteQuestion {
                netns: r.flow.netns,
                from: peer,
                to: local,
                came_by: 0,
            });
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
        }
    }

    /// What its namespace does with a packet that is not for it; `None`: it is for it, or that is not known.
    pub fn forward(&self, d: &DroppedPacket) -> Option<Forward> {
        // Only a packet that is delivered here reaches TCP or a socket.
        let delivered = d.reason.starts_with("TCP_") || d.reason.starts_with("SOCKET_");
        if !d.incoming || delivered || d.to.ip().is_loopback() {
            return None;
        }
        let answer = self.forwarding.known(&question(d));
        // What came in and is on its way out again.
        let leaving = ["NEIGH_", "QDISC_", "TC_EGRESS"];
        let is_leaving = leaving.iter().any(|name| d.reason.starts_with(name));
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
        let flat = |a: SocketAddr| (crate::util::addresses::mapped(a.ip()), a.port());
        let ends = Ends::new(flat(refused.local?), flat(refused.peer?));
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

    /// A dropped packet of a handshake, in one sentence.
    pub fn fact_of_drop(&self, d: &DroppedPacket, h: &Handshake) -> String {
        let mut fact = d.fact();
        if let Some(forward) = self.forward(d) {
            let way = if self.refuses_to_forward(d) {
                "that it was asked to forward".to_owned()
            } else {
                format!("that it was to forward{}", between(&forward))
            };
            fact = fact.replacen("that came in", &way, 1);
        }
        if d.netns != h.connection.netns {
            fact.push_str(&format!("; in namespace {}", self.name_of(d.netns)));
        }
        if let Some(nat) = translated(d, &h.connection) {
            fact.push_str(&format!(
                "; {nat}: its sequence number is that of this handshake"
            ));
        }
        fact
    }

    /// On which way a connection's packets were dropped, of several: `that came in`.
    pub fn way_of_drop(&self, d: &DroppedPacket, c: &Connection) -> String {
        let mut way = match self.forward(d) {
            Some(_) if self.refuses_to_forward(d) => "that it was asked to forward".to_owned(),
            Some(forward) => format!("that it was to forward{}", between(&forward)),
            None if d.incoming => "that came in".to_owned(),
            None => "on their way out".to_owned(),
        };
        if let Some(nat) = translated(d, c) {
            way.push_str(&format!(
                ", {nat} (their sequence numbers are those of the handshakes)"
            ));
        }
        way
    }

    /// What the routing decides about a dropped packet, where that explains the drop.
    pub fn route_of_drop(&self, d: &DroppedPacket) -> Option<String> {
        let answer = self.forwarding.known(&question(d))?;
        if &*d.reason == "IP_RPFILTER" {
            let came_by = answer.came_by.as_ref()?;
            let back = answer.back.as_ref()?;
            return (back.interface != *came_by).then(|| {
                format!(
                    "it came in by {came_by}; an answer from {} to {} leaves by {}",
                    d.to.ip(),
                    d.from.ip(),
                    way(back)
                )
            });
        }
        if d.reason.starts_with("NEIGH_") {
            let onward = answer.onward.as_ref()?;
            let hop = onward.gateway.unwrap_or(d.to.ip());
            return Some(format!(
                "the next hop toward {} is {hop} on {}",
                d.to.ip(),
                onward.interface
            ));
        }
        None
    }

    /// A listener of the namespace that would take the packet, if the namespace had its destination's address.
    pub fn would_serve(&self, d: &DroppedPacket) -> Option<String> {
        self.forward(d)?;
        let serves = self.listeners().find(|l| {
            (l.last.netns, l.last.local_port) == (d.netns, d.to.port())
                && l.last.local_addr.is_unspecified()
        })?;
        Some(serves.name())
    }

    /// Commands for a dropped packet, which run as they are printed.
    pub fn remedy_of_drop(&self, d: &DroppedPacket) -> String {
        let name = self.netns_name(d.netns);
        let Some(run) = in_netns(name.as_deref().unwrap_or_default()) else {
            return d.remedy();
        };
        self.remedy_by_route(d, &run)
            .unwrap_or_else(|| each_by(&run, &d.remedy()))
    }

    fn remedy_by_route(&self, d: &DroppedPacket, run: &str) -> Option<String> {
        let (from, to) = (d.from.ip(), d.to.ip());
        let forward = self.forward(d);
        let answer = self.forwarding.known(&question(d));
        if &*d.reason == "IP_RPFILTER" {
            let came_by = plain(answer?.came_by.as_ref()?)?;
            let get = match &forward {
                None => format!("{run}ip route get {from} from {to}"),
                Some(forward) => {
                    let onward = plain(forward.to_interface.as_ref()?)?;
                    format!("{run}ip route get {from} from {to} iif {onward}")
                }
            };
            return Some(format!(
                "{get}; {run}ip rule; {run}sysctl -w net.ipv4.conf.{came_by}.rp_filter=2"
            ));
        }
        let forward = forward?;
        if self.refuses_to_forward(d) {
            if self.would_serve(d).is_some() {
                let len = if to.is_ipv4() { 32 } else { 128 };
                return Some(format!("{run}ip address add {to}/{len} dev lo"));
            }
            let setting = match to {
                IpAddr::V4(_) => "net.ipv4.ip_forward",
                IpAddr::V6(_) => "net.ipv6.conf.all.forwarding",
            };
            return Some(format!("{run}sysctl -w {setting}=1"));
        }
        let Some(came_by) = &forward.from_interface else {
            // The template's peer is the sender: the wrong end of a forwarded packet.
            return d
                .reason
                .starts_with("NEIGH_")
                .then(|| format!("{run}ip route get {to}; {run}ip neighbour"));
        };
        let came_by = plain(came_by)?;
        let get = format!("{run}ip route get {to} from {from} iif {came_by}");
        if d.reason.starts_with("NEIGH_") {
            let (hop, device) = (
                forward.gateway.unwrap_or(to),
                plain(forward.to_interface.as_ref()?)?,
            );
            let mend = match self.would_serve(d) {
                Some(_) => format!(
                    "; {run}ip address add {to}/{} dev lo",
                    if to.is_ipv4() { 32 } else { 128 }
                ),
                None => String::new(),
            };
            return Some(format!(
                "{run}ip neighbour show {hop} dev {device}; {get}{mend}"
            ));
        }
        (&*d.reason == "IP_INNOROUTES" || &*d.reason == "IP_OUTNOROUTES").then_some(get)
    }

    /// How the way of the answers to a peer differs from that of a SYN to this address, by the address's
    /// device; `None`: no difference is known.
    pub fn answers_elsewhere(&self, c: &Connection) -> Option<String> {
        // The device itself was seen: no conclusion is needed.
        if self.paths.came_by(c.netns, c.peer_addr).is_some() {
            return None;
        }
        let answer = self.forwarding.known(&answers_to(c))?;
        let (device, back) = (answer.address_of.as_ref()?, answer.back.as_ref()?);
        let nowhere = NOWHERE.iter().any(|name| device.starts_with(name));
        (back.interface != *device && !nowhere).then(|| {
            format!(
                "{} is an address of {device}, and the answer to {} leaves by {}: a SYN that comes by \
                 {device} is answered by another way",
                c.local_addr,
                c.peer_addr,
                way(back)
            )
        })
    }

    /// What the ways of a half-open have to do with a packet of it that was dropped elsewhere on this host.
    pub fn way_of_refused_ack(&self, d: &DroppedPacket, h: &Handshake) -> Option<String> {
        let c = &h.connection;
        let refused = c.role == Role::Server
            && d.netns != c.netns
            && d.packet == Packet::Ack
            && &*d.reason == "NETFILTER_DROP";
        let ways = || {
            self.asymmetric_path(c)
                .or_else(|| self.answers_elsewhere(c))
        };
        Some(format!(
            "{}. A rule that drops what conntrack finds INVALID drops the ACK of a SYN-ACK that it has not seen",
            refused.then(ways)??
        ))
    }

    /// The command that shows the way of the answers to a peer.
    pub fn show_way_back(&self, c: &Connection) -> String {
        let run = c.netns_name.as_deref().and_then(in_netns);
        format!(
            "{}ip route get {} from {}",
            run.unwrap_or_default(),
            c.peer_addr,
            c.local_addr
        )
    }
}

/// Whether the reason is that the packet is not for this host and that it does not forward. Over IPv6 that is one
/// with a missing route.
fn asked_in_vain(d: &DroppedPacket) -> bool {
    &*d.reason == "IP_INADDRERRORS" || d.to.is_ipv6() && &*d.reason == "IP_INNOROUTES"
}

/// What NAT has made of a connection's ends in a dropped packet of it: `after DNAT to 10.0.1.50:8080`.
fn translated(d: &DroppedPacket, c: &Connection) -> Option<String> {
    let own = Ends::of(c)?;
    if own == d.ends() {
        return None;
    }
    let (local, peer) = (
        SocketAddr::new(c.local_addr, c.local_port?),
        SocketAddr::new(c.peer_addr, c.peer_port?),
    );
    // As the client's SYN has them; a SYN-ACK has them the other way round.
    let (client, server) = match d.packet {
        Packet::SynAck => (d.to, d.from),
        _ => (d.from, d.to),
    };
    let (client_was, server_was) = match c.role {
        Role::Client => (local, peer),
        Role::Server => (peer, local),
    };
    Some(match (client == client_was, server == server_was) {
        (true, _) => format!("after DNAT to {server}"),
        (false, true) => format!("after SNAT to {}", client.ip()),
        (false, false) => format!("after NAT to {client} and {server}"),
    })
}

/// ` from eth0 to eth1`
fn between(forward: &Forward) -> String {
    let from = forward.from_interface.as_ref();
    let to = forward.to_interface.as_ref();
    format!(
        "{}{}",
        from.map_or(String::new(), |from| format!(" from {from}")),
        to.map_or(String::new(), |to| format!(" to {to}"))
    )
}

/// A name that a shell takes as it is; `None`: it is none.
fn plain(name: &str) -> Option<&str> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b"._-@".contains(&b);
    (!name.is_empty() && !name.starts_with('-') && name.bytes().all(ok)).then_some(name)
}

/// Each of several commands, run in a namespace. What is about the whole host, or has a namespace of its own,
/// stays as it is.
fn each_by(run: &str, commands: &str) -> String {
    const WHOLE_HOST: [&str; 7] = [
        "dmesg",
        "cat ",
        "free ",
        "bpftool",
        "ausearch",
        "nsenter ",
        "ip netns exec ",
    ];
    let whole_host = |command: &str| WHOLE_HOST.iter().any(|name| command.starts_with(name));
    let command = |command: &str| match whole_host(command) {
        true => command.to_owned(),
        false => format!("{run}{command}"),
    };
    let all: Vec<String> = commands.split("; ").map(command).collect();
    all.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Outcome, VerdictKind},
        verdict::fixtures::*,
    };

    const ROUTER: u32 = NETNS + 1;

    /// A SYN of the client, as a router drops it after DNAT.
    fn forwarded(h: &Handshake, reason: &'static str) -> DroppedPacket {
        DroppedPacket {
            netns: ROUTER,
            to: "10.0.1.50:8080".parse().unwrap(),
            incoming: true,
            reason: reason.into(),
            came_by: 2,
            syn_seq: Some(7),
            ..discard(h, Packet::Syn, 3)
        }
    }

    fn hop(interface: &str, gateway: Option<&str>) -> Hop {
        Hop {
            ifindex: 3,
            interface: interface.into(),
            gateway: gateway.map(|g| g.parse().unwrap()),
        }
    }

    fn answered(d: &DroppedPacket) -> Context {
        let mut context = Context::default();
        context.set_netns_name(ROUTER, Some("node".into()));
        context.note_drop(d.clone());
        let wanted = context.wanted_routes();
        assert_eq!(wanted, [question(d)]);
        assert!(context.wanted_routes().is_empty(), "asked for once");
        context.route(
            wanted[0],
            RouteAnswer {
                came_by: Some("eth0".into()),
                is_local: Some(false),
                address_of: None,
                onward: Some(hop("eni1", None)),
                back: Some(hop("eth1", Some("10.0.1.1"))),
            },
        );
        context
    }

    fn waiting() -> Handshake {
        let mut h = active(Outcome::Abandoned);
        (h.retransmits, h.facts.syn_seq) = (2, Some(7));
        h.gaps_us = vec![1_000_000; 2];
        h
    }

    #[test]
    fn a_drop_after_nat_belongs_to_the_handshake_of_its_sequence_number() {
        let h = waiting();
        let d = forwarded(&h, "IP_RPFILTER");
        let judgement = judged(&h, answered(&d));
        assert_eq!(judgement.verdict, Some(VerdictKind::DroppedHere));
        let facts: Vec<&str> = judgement.evidence.iter().map(|e| &*e.fact).collect();
        assert!(
            facts[0].contains("the SYN that it was to forward from eth0 to eni1")
                && facts[0].contains("; in namespace node")
                && facts[0].contains("after DNAT to 10.0.1.50:8080"),
            "{facts:?}"
        );
        assert_eq!(
            facts[1],
            "it came in by eth0; an answer from 10.0.1.50 to 10.0.0.1 leaves by eth1, to router 10.0.1.1"
        );
        assert_eq!(
            judgement.remedy.as_deref(),
            Some(
                "ip netns exec node ip route get 10.0.0.1 from 10.0.1.50 iif eni1; ip netns exec node ip \
                 rule; ip netns exec node sysctl -w net.ipv4.conf.eth0.rp_filter=2"
            )
        );
    }

    #[test]
    fn another_sequence_number_or_another_time_is_another_handshake() {
        let h = waiting();
        let d = forwarded(&h, "NETFILTER_DROP");
        let mut another = h.clone();
        another.facts.syn_seq = Some(8);
        let mut unknown = h.clone();
        unknown.facts.syn_seq = None;
        let mut later = h.clone();
        later.facts.began_ns = Some(2_000 * SEC);
        for h in [another, unknown, later] {
            let (verdict, _) = verdict_of(&h, answered(&d));
            assert_ne!(verdict, Some(VerdictKind::DroppedHere));
        }
    }

    #[test]
    fn what_is_for_this_host_is_not_forwarded() {
        let h = active(Outcome::Abandoned);
        let d = forwarded(&h, "NETFILTER_DROP");
        let mut context = Context::default();
        context.note_drop(d.clone());
        assert_eq!(context.forward(&d), None, "nothing is known");
        context.has_addresses(ROUTER, vec![d.from.ip()]);
        assert!(context.forward(&d).is_some());
        context.has_addresses(ROUTER, vec![d.to.ip()]);
        assert_eq!(context.forward(&d), None);
        // The look-up knows more than the addresses: transparent proxies.
        let mut context = answered(&d);
        assert!(context.forward(&d).is_some());
        let local = RouteAnswer {
            is_local: Some(true),
            ..RouteAnswer::default()
        };
        context.route(question(&d), local);
        assert_eq!(context.forward(&d), None);
        // What TCP itself refused was delivered.
        let refused = forwarded(&h, "TCP_MD5FAILURE");
        assert_eq!(answered(&refused).forward(&refused), None);
    }

    #[test]
    fn the_silent_neighbour_is_the_next_hop_and_not_the_client() {
        let h = active(Outcome::Abandoned);
        let d = forwarded(&h, "NEIGH_FAILED");
        let remedy = answered(&d).remedy_of_drop(&d);
        assert!(
            remedy.starts_with("ip netns exec node ip neighbour show 10.0.1.50 dev eni1"),
            "{remedy}"
        );
        let mut context = Context::default();
        context.set_netns_name(ROUTER, Some("host".into()));
        assert_eq!(
            context.remedy_of_drop(&d),
            "ip route get 10.0.1.50; ip neighbour"
        );
    }

    #[test]
    fn what_does_not_forward_sends_it_nowhere() {
        let h = active(Outcome::Abandoned);
        let d = forwarded(&h, "IP_INADDRERRORS");
        let context = answered(&d);
        let forward = context.forward(&d).unwrap();
        assert_eq!(forward.from_interface.as_deref(), Some("eth0"));
        assert_eq!(forward.to_interface, None);
        assert_eq!(
            context.remedy_of_drop(&d),
            "ip netns exec node sysctl -w net.ipv4.ip_forward=1"
        );
    }

    #[test]
    fn a_device_whose_name_is_a_command_is_in_no_command() {
        let h = active(Outcome::Abandoned);
        let d = forwarded(&h, "IP_RPFILTER");
        let mut context = answered(&d);
        let answer = RouteAnswer {
            came_by: Some("e;reboot".into()),
            is_local: Some(false),
            address_of: None,
            onward: Some(hop("eni1", None)),
            back: None,
        };
        context.route(question(&d), answer);
        assert!(!context.remedy_of_drop(&d).contains("reboot"));
    }

    #[test]
    fn a_command_is_run_where_its_namespace_is() {
        for (name, prefix) in [
            ("host", Some("")),
            ("red", Some("ip netns exec red ")),
            ("pid 42 (nginx)", Some("nsenter -t 42 -n ")),
            ("docker 1a2b", Some("nsenter --net=/run/docker/netns/1a2b ")),
            ("netns:[4026531833]", None),
            ("a b; reboot", None),
            ("pid 4;reboot", None),
        ] {
            assert_eq!(in_netns(name).as_deref(), prefix, "{name}");
        }
        assert_eq!(
            each_by(
                "ip netns exec red ",
                "nft list ruleset; dmesg | grep x; nsenter -t 1 -n ip rule"
            ),
            "ip netns exec red nft list ruleset; dmesg | grep x; nsenter -t 1 -n ip rule"
        );
    }
}
