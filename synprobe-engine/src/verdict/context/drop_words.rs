//! What is said of packets that this host dropped, and the commands for them.

use std::net::{IpAddr, SocketAddr};

use super::{
    Context, DroppedPacket, Ends, Packet,
    forwarding::{answers_to, question},
};
use crate::{
    model::{Connection, Forward, Handshake, Hop, Role, RouteAnswer},
    verdict::{enter, enter_of},
};

/// Devices that have addresses, and by which no packet comes from outside.
const NOWHERE: [&str; 3] = ["lo", "dummy", "kube-ipvs"];

/// `eth0, to router 10.0.0.1`
fn way(hop: &Hop) -> String {
    match hop.gateway {
        Some(gateway) => format!("{}, to router {gateway}", hop.interface),
        None => format!("{}, to the address itself", hop.interface),
    }
}

impl Context {
    /// A dropped packet of a handshake, in one sentence.
    pub fn fact_of_drop(&self, d: &DroppedPacket, h: &Handshake) -> String {
        self.fact_of_drop_of(d, &h.connection)
    }

    /// The same of a connection.
    pub fn fact_of_drop_of(&self, d: &DroppedPacket, c: &Connection) -> String {
        let mut fact = d.fact();
        if let Some(forward) = self.forward(d) {
            let way = if self.refuses_to_forward(d) {
                "that it was asked to forward".to_owned()
            } else {
                format!("that it was to forward{}", between(&forward))
            };
            fact = fact.replacen("that came in", &way, 1);
        }
        if d.netns != c.netns {
            fact.push_str(&format!("; in namespace {}", self.name_of(d.netns)));
        }
        if let Some(nat) = translated(d, c) {
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
            let Some(back) = &answer.back else {
                return has_no_way_back(answer).then(|| {
                    format!(
                        "no route leads from {} to {}: loose mode (rp_filter 2) drops it too",
                        d.to.ip(),
                        d.from.ip()
                    )
                });
            };
            return (back.interface != *came_by).then(|| {
                format!(
                    "it came in by {came_by}; an answer from {} to {} leaves by {}",
                    d.to.ip(),
                    d.from.ip(),
                    way(back)
                )
            });
        }
        if d.is_of_neighbour() {
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
        let run = self.enter_netns(d.netns);
        let rule = || self.rule_of_drop(d).and_then(|rule| rule.show);
        self.remedy_by_route(d, &run)
            .unwrap_or_else(|| each_by(&run, &rule().unwrap_or_else(|| d.remedy())))
    }

    /// Commands, as they run in a namespace.
    pub fn each_in(&self, netns: u32, commands: &str) -> String {
        each_by(&self.enter_netns(netns), commands)
    }

    /// What a command begins with that is to run in a namespace. One whose name is not known has its number.
    fn enter_netns(&self, netns: u32) -> String {
        match self.netns_name(netns) {
            Some(name) => enter(Some(&name)),
            None => enter(Some(&format!("netns:[{netns}]"))),
        }
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
            let device = in_sysctl(came_by);
            return Some(match has_no_way_back(answer?) {
                true => format!(
                    "{get}; {run}ip rule; where a route to the sender is missing, add one; without one only rp_filter 0 \
                     of both lets it pass: {run}sysctl net.ipv4.conf.all.rp_filter net.ipv4.conf.{device}.rp_filter"
                ),
                false => {
                    format!(
                        "{get}; {run}ip rule; {run}sysctl -w net.ipv4.conf.{device}.rp_filter=2"
                    )
                }
            });
        }
        let forward = forward?;
        if self.refuses_to_forward(d) {
            if self.would_serve(d).is_some() {
                return Some(match to {
                    IpAddr::V4(_) => format!("{run}ip address add {to}/32 dev lo"),
                    IpAddr::V6(_) => format!(
                        "see whether the address is there and tentative (duplicate address detection): \
                         {run}ip -6 address show to {to}; where it is missing, add it: {run}ip address add {to}/128 dev lo"
                    ),
                });
            }
            let setting = match to {
                IpAddr::V4(_) => "net.ipv4.ip_forward",
                IpAddr::V6(_) => "net.ipv6.conf.all.forwarding",
            };
            if &*d.reason == "IP_INNOROUTES" {
                return Some(format!(
                    "see whether this host forwards: {run}sysctl {setting}; where it does not, and is to: {run}sysctl -w \
                     {setting}=1; where it does, see which route is missing, or of type unreachable or prohibit: {run}ip -6 \
                     route show table all"
                ));
            }
            return Some(format!("{run}sysctl -w {setting}=1"));
        }
        let Some(came_by) = &forward.from_interface else {
            // The template's peer is the sender: the wrong end of a forwarded packet.
            return d
                .is_of_neighbour()
                .then(|| format!("{run}ip route get {to}; {run}ip neighbour"));
        };
        let came_by = plain(came_by)?;
        let get = format!("{run}ip route get {to} from {from} iif {came_by}");
        let mend = match self.would_serve(d) {
            Some(_) => format!(
                "; {run}ip address add {to}/{} dev lo",
                if to.is_ipv4() { 32 } else { 128 }
            ),
            None => String::new(),
        };
        if d.is_of_neighbour() {
            let (hop, device) = (
                forward.gateway.unwrap_or(to),
                plain(forward.to_interface.as_ref()?)?,
            );
            return Some(format!(
                "{run}ip neighbour show {hop} dev {device}; {get}{mend}"
            ));
        }
        // `ip route get` fails there, as the packet did.
        if d.is_of_a_route() {
            return Some(match to {
                IpAddr::V4(_) => format!("{run}ip rule; {run}ip route show table all"),
                IpAddr::V6(_) => format!("{run}ip -6 rule; {run}ip -6 route show table all"),
            });
        }
        (&*d.reason == "IP_INNOROUTES" || &*d.reason == "IP_OUTNOROUTES").then(|| get + &mend)
    }

    /// How the way of the answers to a peer differs from that of a SYN to this address, by the address's
    /// device; `None`: no difference is known.
    pub fn answers_elsewhere(&self, c: &Connection) -> Option<String> {
        // The device itself was seen: no conclusion is needed. A SYN to another address may have come by another one.
        let seen = self.paths.came_by(c.netns, c.peer_addr);
        if seen.is_some_and(|(to, _)| to == c.local_addr) {
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
        format!(
            "{}ip route get {} from {}",
            enter_of(c),
            c.peer_addr,
            c.local_addr
        )
    }
}

/// Whether the way of a packet is known, and no route leads back to its sender.
fn has_no_way_back(answer: &RouteAnswer) -> bool {
    let is_known = answer.is_local == Some(true) || answer.onward.is_some();
    is_known && answer.back.is_none()
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

/// A device's name in the name of a setting: sysctl(8) takes a dot in it for a separator.
pub(super) fn in_sysctl(device: &str) -> String {
    device.replace('.', "/")
}

/// Each of several commands, run in a namespace. What is about the whole host, or has a namespace of its own,
/// stays as it is.
fn each_by(run: &str, commands: &str) -> String {
    const WHOLE_HOST: [&str; 10] = [
        "dmesg",
        "free ",
        "bpftool cgroup",
        "ausearch",
        "mpstat",
        "synprobe listeners",
        "systemctl",
        // One limit for all namespaces, which the host's alone can set.
        "sysctl -w net.netfilter.nf_conntrack_max=",
        "nsenter ",
        "ip netns exec ",
    ];
    let whole_host = |command: &str| WHOLE_HOST.iter().any(|name| command.starts_with(name));
    let step = |step: &str| {
        // Words before a command stay before it.
        let text = step.split(" # ").next().unwrap_or(step);
        let command_at = text.rfind(": ").map_or(0, |at| at + 2);
        let (words, command) = step.split_at(command_at);
        match whole_host(command) {
            true => step.to_owned(),
            false => format!("{words}{run}{command}"),
        }
    };
    let all: Vec<String> = commands.split("; ").map(step).collect();
    all.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Outcome, RouteAnswer, VerdictKind},
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
    fn a_neighbour_is_looked_for_on_the_way_out_where_nothing_is_known_of_the_way() {
        let d = DroppedPacket {
            remedy: "ip neighbour show <peer>".into(),
            device: Some("eth0".into()),
            ..forwarded(&active(Outcome::Abandoned), "NEIGH_FAILED")
        };
        assert_eq!(
            Context::default().remedy_of_drop(&d),
            format!("in netns:[{ROUTER}]: ip neighbour show 10.0.1.50")
        );
    }

    #[test]
    fn a_route_that_leads_nowhere_is_looked_for_among_the_rules_and_routes_of_its_family() {
        let d = DroppedPacket {
            place: Some("ip_error".into()),
            ..forwarded(&active(Outcome::Abandoned), "NOT_SPECIFIED")
        };
        assert_eq!(
            answered(&d).remedy_of_drop(&d),
            "ip netns exec node ip rule; ip netns exec node ip route show table all"
        );
    }

    #[test]
    fn a_rule_that_refuses_what_is_for_this_host_is_no_missing_address() {
        let h = active(Outcome::TimedOut);
        let words = |addresses: Vec<IpAddr>| {
            let mut context = Context::default();
            context.has_addresses(NETNS, addresses);
            let mut drop = discard(&h, Packet::Syn, 1);
            (drop.incoming, drop.reason) = (true, "IP_INADDRERRORS".into());
            context.tell_rule_from_address(&mut drop);
            (drop.words.into_owned(), drop.remedy.into_owned())
        };
        let (said, remedy) = words(vec![h.connection.peer_addr]);
        assert!(said.contains("a routing rule or route"), "{said}");
        assert!(remedy.contains("ip rule"), "{remedy}");
        let (said, _) = words(vec![h.connection.local_addr]);
        assert_eq!(said, "this host's netfilter rules");
        let mut context = Context::default();
        let mut drop = discard(&h, Packet::Syn, 1);
        drop.to = "[2001:db8::1]:80".parse().unwrap();
        (drop.incoming, drop.reason) = (true, "IP_INADDRERRORS".into());
        context.has_addresses(NETNS, vec![drop.to.ip()]);
        context.tell_rule_from_address(&mut drop);
        assert!(drop.words.contains("it is tentative"), "{}", drop.words);
        assert!(drop.remedy.contains("show tentative"), "{}", drop.remedy);
    }

    #[test]
    fn where_ipv6_is_switched_off_it_is_not_known_whom_a_packet_is_for() {
        let h = active(Outcome::TimedOut);
        let forwards = |reason: &'static str| {
            let mut context = Context::default();
            context.has_addresses(NETNS, vec![h.connection.local_addr]);
            let mut drop = discard(&h, Packet::Syn, 1);
            (drop.incoming, drop.reason) = (true, reason.into());
            context.forward(&drop).is_some()
        };
        assert!(!forwards("IPV6DISABLED"));
        assert!(forwards("NETFILTER_DROP"));
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
        assert_eq!(
            each_by(
                "ip netns exec red ",
                "bpftool net; cat /proc/net/xfrm_stat; dmesg | grep x; nsenter -t 1 -n ip rule"
            ),
            "ip netns exec red bpftool net; ip netns exec red cat /proc/net/xfrm_stat; dmesg | grep x; nsenter \
             -t 1 -n ip rule"
        );
        let steps = "see who listens: ss -ltn; ip rule # the device: its own";
        assert_eq!(
            each_by("ip netns exec red ", steps),
            "see who listens: ip netns exec red ss -ltn; ip netns exec red ip rule # the device: its own"
        );
    }
}
