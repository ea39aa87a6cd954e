//! Listeners that were closed in this run, with what waited in their accept queues at that moment.

use std::{collections::BTreeMap, net::IpAddr};

use super::{Context, ListenerHistory};
use crate::{
    model::{Connection, Listener},
    util::addresses::{is_wildcard, mapped},
};

/// Addresses that are remembered; more are not.
const ADDRESSES: usize = 1024;

/// A listening socket that was closed, or several of one address.
#[derive(Clone, Debug)]
pub struct ClosedListener {
    /// The last one.
    pub listener: Listener,
    /// Connections in the accept queues when they were closed (`sk_ack_backlog` at LISTEN→CLOSE).
    pub waiting: u64,
    /// Their half-opens when they were closed (`icsk_accept_queue.qlen`); `None`: not known.
    pub half_opens: Option<u64>,
    /// Whether another socket listened at the address after one of these closes.
    pub others_listen: bool,
}

impl ClosedListener {
    /// What ended with them.
    pub fn held(&self) -> u64 {
        self.waiting + self.half_opens.unwrap_or(0)
    }
}

/// By namespace, port and address.
#[derive(Default)]
pub(super) struct ClosedListeners(BTreeMap<(u32, u16, [u8; 16]), ClosedListener>);

impl ClosedListeners {
    fn note(&mut self, closed: ClosedListener) {
        let l = &closed.listener;
        let key = (l.netns, l.local_port, mapped(l.local_addr));
        let room = self.0.len() < ADDRESSES;
        match self.0.get_mut(&key) {
            // With empty queues nothing was taken along.
            Some(_) if closed.held() == 0 => (),
            Some(known) => {
                let others_listen = known.held() > 0 && known.others_listen;
                let half_opens = known.half_opens.zip(closed.half_opens);
                *known = ClosedListener {
                    waiting: known.waiting + closed.waiting,
                    half_opens: half_opens.map(|(before, now)| before + now),
                    others_listen: others_listen || closed.others_listen,
                    ..closed
                };
            }
            None if room => {
                self.0.insert(key, closed);
            }
            None => (),
        }
    }

    fn at(&self, netns: u32, addr: IpAddr, port: u16) -> Option<&ClosedListener> {
        let exact = self.0.get(&(netns, port, mapped(addr)));
        exact.or_else(|| {
            let range = (netns, port, [0; 16])..=(netns, port, [u8::MAX; 16]);
            let mut all = self.0.range(range);
            all.find(|((.., bound), _)| is_wildcard(*bound))
                .map(|(_, closed)| closed)
        })
    }
}

impl Context {
    /// Takes in that a listener was closed.
    pub fn note_closed_listener(&mut self, closed: ClosedListener) {
        self.closed_listeners.note(closed);
    }

    /// Listeners of the selection that were closed with connections or half-opens in their queues.
    pub fn closed_with_queue(&self) -> impl Iterator<Item = &ClosedListener> {
        let all = self.closed_listeners.0.values();
        all.filter(|closed| closed.held() > 0 && self.selects_listener(&closed.listener))
    }

    /// What was seen as the sockets of a listener's address were closed; `None`: nothing.
    pub fn seen_closing(&self, l: &Listener) -> Option<&ClosedListener> {
        self.closed_listeners
            .at(l.netns, l.local_addr, l.local_port)
    }

    /// The listener that a client calls, where that is on this host, in a known namespace, and was closed with so
    /// many connections in its queue, or more: namespace and port.
    pub fn called_closed_listener(&self, c: &Connection, waiting: u64) -> Option<(u32, u16)> {
        let (addr, port) = match self.redirected_to(c) {
            Some(to) => (to.ip(), to.port()),
            None => (c.peer_addr, c.peer_port?),
        };
        let closed = |netns: &u32| {
            let at = self.closed_listeners.at(*netns, addr, port);
            at.is_some_and(|closed| closed.waiting >= waiting)
        };
        let netns = self.histories.which_has(c.netns, addr, None, closed)?;
        Some((netns, port))
    }

    /// Sockets of a connection's address that were closed in this run, in words.
    pub fn closed_listeners(&self, c: &Connection) -> Option<String> {
        let port = c.local_port?;
        let mut closed: Vec<String> = self
            .histories
            .closed(c.netns, c.local_addr, port)
            .map(ListenerHistory::how_closed)
            .collect();
        // A listener that was opened and closed twice is one to the reader.
        closed.dedup();
        let at_close = self.closed_listeners.at(c.netns, c.local_addr, port);
        if let Some(at_close) = at_close.filter(|at_close| at_close.waiting > 0) {
            closed.push(format!(
                "{} connections were in its accept queue as it was closed, and were reset with it",
                at_close.waiting
            ));
        }
        (!closed.is_empty()).then(|| closed.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Role, verdict::fixtures::*};

    #[test]
    fn a_client_is_tied_to_a_closed_listener_that_held_enough() {
        let mut context = Context::default();
        let c = connection(Role::Client, "10.0.0.9", 8080);
        let close = |waiting| ClosedListener {
            listener: listener(0, 0),
            waiting,
            half_opens: Some(0),
            others_listen: false,
        };
        context.note_closed_listener(close(2));
        assert_eq!(context.called_closed_listener(&c, 2), None, "whose is it?");
        context.has_addresses(NETNS, vec![c.peer_addr]);
        assert_eq!(context.called_closed_listener(&c, 2), Some((NETNS, 8080)));
        assert_eq!(context.called_closed_listener(&c, 3), None);
        context.note_closed_listener(close(0));
        context.note_closed_listener(close(1));
        assert_eq!(context.called_closed_listener(&c, 3), Some((NETNS, 8080)));
        let other = connection(Role::Client, "10.0.0.9", 8081);
        assert_eq!(context.called_closed_listener(&other, 0), None);
        let c = Connection {
            netns: NETNS + 7,
            ..c
        };
        assert_eq!(context.called_closed_listener(&c, 3), Some((NETNS, 8080)));
        context.has_addresses(NETNS + 2, vec![c.peer_addr]);
        assert_eq!(context.called_closed_listener(&c, 3), None, "two have it");
    }

    #[test]
    fn half_opens_of_several_closes_add_up_where_all_are_known() {
        let close = |half_opens, others_listen| ClosedListener {
            listener: listener(0, 0),
            waiting: 0,
            half_opens,
            others_listen,
        };
        let held = |closes: &[ClosedListener]| {
            let mut context = Context::default();
            for closed in closes {
                context.note_closed_listener(closed.clone());
            }
            let seen = context.seen_closing(&listener(0, 0)).unwrap().clone();
            (seen.half_opens, seen.held(), seen.others_listen)
        };
        let two = held(&[close(Some(2), true), close(Some(3), false)]);
        assert_eq!(two, (Some(5), 5, true));
        let empty_first = held(&[close(Some(0), true), close(Some(3), false)]);
        assert_eq!(empty_first, (Some(3), 3, false));
        assert_eq!(held(&[close(None, true)]), (None, 0, true));
    }
}
