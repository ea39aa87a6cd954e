//! Where this host's NAT sends the connections of its clients.

use std::net::SocketAddr;

use super::Context;
use crate::{
    model::{Connection, DestinationQuestion, Role, Tuple},
    util::{addresses::printable, bounded::Bounded},
};

/// Destinations remembered.
const KEPT: usize = 4096;
/// Those that are asked for at a time.
const ASKED: usize = 64;

/// By namespace and called address: the real destination of the connections to it.
pub struct Destinations(Bounded<(u32, SocketAddr), DestinationState>);

enum DestinationState {
    Wanted(DestinationQuestion),
    Asked,
    Known(SocketAddr),
}

impl Default for Destinations {
    fn default() -> Self {
        Self(Bounded::new(KEPT))
    }
}

impl Destinations {
    /// A client repeated its SYN: a healthy connection is not asked about.
    pub fn repeats_syn(&mut self, of: &Tuple) {
        let peer = SocketAddr::new(printable(of.peer_addr), of.peer_port);
        if of.local_port == 0 || self.0.get(&(of.netns, peer)).is_some() {
            return;
        }
        let question = DestinationQuestion {
            netns: of.netns,
            local: SocketAddr::new(printable(of.local_addr), of.local_port),
            peer,
        };
        let wanted = DestinationState::Wanted(question);
        self.0.insert((of.netns, peer), wanted);
    }

    /// Those that should be looked up. Each is returned once.
    pub fn wanted(&mut self) -> Vec<DestinationQuestion> {
        let wanted = |(_, state): (&(u32, SocketAddr), &DestinationState)| match state {
            DestinationState::Wanted(question) => Some(*question),
            _ => None,
        };
        let wanted: Vec<_> = self.0.iter().filter_map(wanted).take(ASKED).collect();
        for question in &wanted {
            if let Some(state) = self.0.get_mut(&(question.netns, question.peer)) {
                *state = DestinationState::Asked;
            }
        }
        wanted
    }

    /// Takes in an answer.
    pub fn found(&mut self, question: &DestinationQuestion, to: SocketAddr) {
        if let Some(state) = self.0.get_mut(&(question.netns, question.peer)) {
            *state = DestinationState::Known(to);
        }
    }
}

impl Context {
    /// Where this host's NAT sends a client's connection, where that is not the address that it calls.
    pub fn redirected_to(&self, c: &Connection) -> Option<SocketAddr> {
        let called = SocketAddr::new(c.peer_addr, c.peer_port?);
        match self.destinations.0.get(&(c.netns, called))? {
            DestinationState::Known(to) if *to != called && c.role == Role::Client => Some(*to),
            _ => None,
        }
    }

    /// The same in words, with the process that listens there, where that is on this host.
    pub fn redirect_fact(&self, c: &Connection) -> Option<String> {
        let Some(to) = self.redirected_to(c) else {
            return self.handed_over_fact(c);
        };
        let who = match self.called_listener(c) {
            Some(listener) => format!(", where {} listens", listener.name()),
            None => String::new(),
        };
        Some(format!(
            "this host's NAT sends connections to {} on to {to}{who}",
            SocketAddr::new(c.peer_addr, c.peer_port?)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Outcome, SocketDump, VerdictKind},
        verdict::fixtures::*,
    };

    fn redirected(to: &str) -> (crate::model::Handshake, Context) {
        let mut h = active(Outcome::TimedOut);
        h.retransmits = 2;
        let c = &h.connection;
        // Its listener on port 8080 is full.
        let mut context = looked(&listener(129, 0), 4, 0);
        // The event of its repeated SYN did not come; a dump shows it.
        context.repeats(&SocketDump {
            syn_sent: Some(vec![repeated_once(c)]),
            ..SocketDump::default()
        });
        let wanted = context.destinations.wanted();
        assert_eq!(wanted.len(), 1);
        assert!(context.destinations.wanted().is_empty(), "asked for once");
        context.destinations.found(&wanted[0], to.parse().unwrap());
        (h, context)
    }

    #[test]
    fn a_redirected_connection_meets_the_listener_there() {
        let (h, context) = redirected("127.0.0.1:8080");
        let judgement = judged(&h, context);
        assert_eq!(judgement.verdict, Some(VerdictKind::ServerQueueFull));
        assert!(
            judgement.evidence.iter().any(|e| e.fact
                == "this host's NAT sends connections to 10.0.0.9:5432 on to 127.0.0.1:8080, where \
                    0.0.0.0:8080 (app/77) listens"),
            "{judgement:?}"
        );
    }

    #[test]
    fn a_connection_that_goes_where_it_is_meant_to_is_not_redirected() {
        let (h, context) = redirected("10.0.0.9:5432");
        assert_eq!(context.redirect_fact(&h.connection), None);
        let (verdict, _) = verdict_of(&h, context);
        assert_ne!(verdict, Some(VerdictKind::ServerQueueFull));
    }
}
