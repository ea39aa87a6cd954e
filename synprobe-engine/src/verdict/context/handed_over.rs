//! Connections whose listener has another port than the one called: TPROXY or a BPF `sk_lookup` program chose it.
//! REDIRECT and DNAT are not among them: they change the packet, and its socket has the listener's own port.

use std::net::SocketAddr;

use synprobe_ebpf::event::Flow;

use super::{Context, Ends, listening::worst_off};
use crate::{
    model::{Connection, Role},
    util::{addresses::printable, bounded::Bounded},
};

/// Connections, and called addresses, that are remembered.
const KEPT: usize = 4096;
/// Namespaces remembered of one address: tenants may have the same ones.
const NAMESPACES: usize = 16;

/// What is known of a called address in one namespace.
struct CalledIn {
    netns: u32,
    /// The listener's port, where records have it; in it `None`: not all of its connections have the same one.
    recorded: Option<Option<u16>>,
    /// The namespace has a transparent listener, and connections at this address.
    served: bool,
}

/// See the module.
pub(super) struct HandedOver {
    /// The listener's port, by namespace and connection.
    connections: Bounded<(u32, Ends), u16>,
    /// By called address, then by namespace: each handshake of a client asks for its address.
    called: Bounded<SocketAddr, Vec<CalledIn>>,
}

impl Default for HandedOver {
    fn default() -> Self {
        Self {
            connections: Bounded::new(KEPT),
            called: Bounded::new(KEPT),
        }
    }
}

impl HandedOver {
    fn at(&self, netns: u32, called: &SocketAddr) -> Option<&CalledIn> {
        let all = self.called.get(called)?;
        all.iter().find(|known| known.netns == netns)
    }

    /// Changes what is known of an address.
    fn change(&mut self, netns: u32, called: SocketAddr, change: impl FnOnce(&mut CalledIn)) {
        let mut new = CalledIn {
            netns,
            recorded: None,
            served: false,
        };
        let Some(all) = self.called.get_mut(&called) else {
            change(&mut new);
            self.called.insert(called, vec![new]);
            return;
        };
        match all.iter_mut().find(|known| known.netns == netns) {
            Some(known) => change(known),
            None => {
                change(&mut new);
                if all.len() == NAMESPACES {
                    all.remove(0);
                }
                all.push(new);
            }
        }
    }

    /// Takes in the flow of a half-open.
    fn note(&mut self, flow: &Flow) {
        let (netns, listener, port) = (flow.netns, flow.listener_port, flow.local_port);
        if listener == 0 || listener == port && self.called.is_empty() {
            return;
        }
        let called = SocketAddr::new(printable(flow.local_addr), port);
        let known = self.at(netns, &called).and_then(|known| known.recorded);
        if known.is_none() && listener == port {
            return;
        }
        let is_same = known.is_none_or(|known| known == Some(listener));
        let recorded = Some(Some(listener).filter(|_| is_same));
        if known != recorded {
            self.change(netns, called, |known| known.recorded = recorded);
        }
        let ends = Ends::new((flow.local_addr, port), (flow.peer_addr, flow.peer_port));
        self.connections.insert((netns, ends), listener);
    }

    /// The port of the listener of a connection, as its records, or those of others to the same address, have it.
    fn recorded(&self, netns: u32, ends: Option<Ends>, called: &SocketAddr) -> Option<u16> {
        let of_it = ends.and_then(|ends| self.connections.get(&(netns, ends)).copied());
        of_it.or_else(|| self.at(netns, called)?.recorded?)
    }

    /// The one namespace in which connections to an address were handed over, or served though nothing listens;
    /// `None`: there is none, or several.
    fn only_namespace(&self, called: &SocketAddr) -> Option<u32> {
        match self.called.get(called)?.as_slice() {
            [only] => Some(only.netns),
            _ => None,
        }
    }
}

impl Context {
    /// Takes in the flow of a half-open.
    pub fn note_listener_of(&mut self, flow: &Flow) {
        self.handed_over.note(flow);
    }

    /// A namespace with a transparent listener has connections at this address.
    pub fn note_taken_over(&mut self, netns: u32, called: SocketAddr) {
        self.handed_over
            .change(netns, called, |known| known.served = true);
    }

    /// A handshake of this host's server completed.
    pub(super) fn note_served(&mut self, c: &Connection) {
        let Some(port) = c.local_port else { return };
        let listeners = &self.histories;
        if listeners.transparent(c.netns).is_some()
            && listeners.group(c.netns, c.local_addr, port).is_empty()
        {
            self.note_taken_over(c.netns, SocketAddr::new(c.local_addr, port));
        }
    }

    /// The port of the listener that serves a connection of this host's server.
    pub(super) fn serving_port(&self, c: &Connection) -> Option<u16> {
        let called = SocketAddr::new(c.local_addr, c.local_port?);
        self.serving_at(c.netns, Ends::of(c), called)
            .or(c.local_port)
    }

    /// The port of the listener to which connections to an address are handed.
    fn serving_at(&self, netns: u32, ends: Option<Ends>, called: SocketAddr) -> Option<u16> {
        let handed = &self.handed_over;
        let inferred = || {
            handed.at(netns, &called).filter(|known| known.served)?;
            let own = self.histories.group(netns, called.ip(), called.port());
            // Nothing listens on that port itself, and one listener alone can take its connections.
            let only = self.histories.transparent(netns);
            own.is_empty().then_some(only).flatten()
        };
        handed.recorded(netns, ends, &called).or_else(inferred)
    }

    /// Namespace and port of the listener to which connections to this address are handed; `None`: none, or in
    /// several namespaces.
    pub(super) fn handed_over_to(&self, called: SocketAddr) -> Option<(u32, u16)> {
        let only = self.handed_over.only_namespace(&called)?;
        let port = self.serving_at(only, None, called)?;
        (port != called.port()).then_some((only, port))
    }

    /// Says that a connection is not served by the port that it called.
    pub(super) fn handed_over_fact(&self, c: &Connection) -> Option<String> {
        let (called, netns, port) = match c.role {
            Role::Server => {
                let called = SocketAddr::new(c.local_addr, c.local_port?);
                let port = self.serving_port(c).filter(|port| *port != called.port())?;
                (called, c.netns, port)
            }
            Role::Client => {
                let called = SocketAddr::new(c.peer_addr, c.peer_port?);
                let (netns, port) = self.handed_over_to(called)?;
                (called, netns, port)
            }
        };
        let who = match worst_off(self.histories.handed(netns, called.ip(), port)) {
            Some(listener) => format!("listener {}", listener.name()),
            None => format!("a listener on port {port}"),
        };
        let place = match netns == c.netns {
            true => String::new(),
            false => format!(" in namespace {}", self.name_of(netns)),
        };
        Some(format!(
            "this host hands connections to {called} to {who}{place}: TPROXY, or a BPF program (sk_lookup)"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Confidence, Outcome, VerdictKind},
        util::addresses::mapped,
        verdict::fixtures::*,
    };

    /// The flow of a half-open: its listener has `listener_port`.
    fn flow(c: &Connection, listener_port: u16) -> Flow {
        Flow {
            local_addr: mapped(c.local_addr),
            peer_addr: mapped(c.peer_addr),
            local_port: c.local_port.unwrap(),
            peer_port: c.peer_port.unwrap(),
            netns: c.netns,
            listener_port,
            ..Flow::default()
        }
    }

    #[test]
    fn a_half_open_is_of_the_listener_that_has_it() {
        let mut h = half_open(Outcome::Open);
        h.connection.local_port = Some(443);
        h.facts.acked = true;
        h.facts.queue_was_full = true;
        // The listener on port 8080 is full; none is on 443.
        let mut context = looked(&listener(129, 0), 4, 0);
        assert!(context.listener(&h.connection).is_none());
        context.note_listener_of(&flow(&h.connection, 8080));
        let judgement = judged(&h, context);
        let due = (Some(VerdictKind::AcceptQueueFull), Confidence::Certain);
        assert_eq!((judgement.verdict, judgement.confidence), due);
        let facts: Vec<_> = judgement.evidence.iter().map(|e| e.fact.as_str()).collect();
        for fact in [
            "this host hands connections to 10.0.0.1:443 to listener 0.0.0.0:8080 (app/77): TPROXY, or a BPF \
             program (sk_lookup)",
            "listener 0.0.0.0:8080 (app/77): accept queue full in 3 of 3 checks, up to 129 of 128",
        ] {
            assert!(facts.contains(&fact), "{facts:#?}");
        }
    }

    #[test]
    fn one_that_called_its_own_listener_is_not_handed_over() {
        let h = half_open(Outcome::Open);
        let mut context = Context::default();
        context.note_listener_of(&flow(&h.connection, h.connection.local_port.unwrap()));
        assert_eq!(context.handed_over_fact(&h.connection), None);
        // A record of an earlier version does not have it.
        context.note_listener_of(&flow(&h.connection, 0));
        assert_eq!(context.serving_port(&h.connection), h.connection.local_port);
    }

    #[test]
    fn an_address_of_which_some_are_handed_over_decides_nothing_of_others() {
        let [mut one, mut two, mut three] = [(); 3].map(|()| half_open(Outcome::Open).connection);
        one.peer_port = Some(1);
        two.peer_port = Some(2);
        three.peer_port = Some(3);
        let own = one.local_port;
        let mut context = Context::default();
        context.note_listener_of(&flow(&one, 15001));
        assert_eq!(context.serving_port(&three), Some(15001), "all so far");
        context.note_listener_of(&flow(&two, own.unwrap()));
        assert_eq!(context.serving_port(&one), Some(15001));
        assert_eq!(context.serving_port(&two), own);
        assert_eq!(context.serving_port(&three), own);
    }

    #[test]
    fn an_address_of_several_namespaces_is_handed_over_in_none() {
        let [one, mut two] = [(); 2].map(|()| half_open(Outcome::Open).connection);
        two.netns += 1;
        let called = SocketAddr::new(one.local_addr, one.local_port.unwrap());
        let mut context = Context::default();
        context.note_listener_of(&flow(&one, 15001));
        assert_eq!(context.handed_over_to(called), Some((one.netns, 15001)));
        context.note_listener_of(&flow(&two, 15001));
        assert_eq!(context.handed_over_to(called), None);
        // Each still knows its own.
        for c in [&one, &two] {
            assert_eq!(context.serving_port(c), Some(15001));
        }
        for n in 0..100 {
            two.netns += n;
            context.note_listener_of(&flow(&two, 15001));
        }
        let kept = context.handed_over.called.get(&called).unwrap();
        assert_eq!(kept.len(), NAMESPACES);
    }
}
