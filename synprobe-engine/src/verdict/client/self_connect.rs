//! A socket is connected to itself.

use std::net::SocketAddr;

use crate::{
    model::{Handshake, Outcome, Role, VerdictKind},
    verdict::{Context, Explanation, Finding, Verdict, context::kill, enter_of},
};

/// `self-connect`
pub(in crate::verdict) struct SelfConnect;

impl Verdict for SelfConnect {
    fn kind(&self) -> VerdictKind {
        VerdictKind::SelfConnect
    }

    fn check(&self, h: &Handshake, _: &Context) -> Option<Finding> {
        let c = &h.connection;
        let itself = c.local_addr == c.peer_addr
            && c.local_port.is_some()
            && c.local_port == c.peer_port
            && c.role == Role::Client;
        if !itself || h.outcome != Outcome::Established {
            return None;
        }
        let port = c.peer_port.unwrap_or(0);
        let end = SocketAddr::new(c.peer_addr, port);
        Some(
            Finding::certain()
                .accounts_for_outcome()
                .pro(format!(
                    "both ends are {}: the socket is connected to itself, and no server is there",
                    super::peer(h)
                ))
                .pro(format!(
                    "port {port} was the local port of the connect too, chosen by the kernel (ip_local_port_range) or \
                     bound by the application: both SYNs met (simultaneous open)"
                ))
                .pro(format!(
                    "as long as it lasts, a service cannot listen on port {port}: EADDRINUSE"
                ))
                .remedy(format!(
                    "end the connection: {}; keep the kernel from choosing the port (this replaces the list of \
                     reserved ports): {}sysctl -w net.ipv4.ip_local_reserved_ports={port}; start the \
                     service before its clients",
                    kill(c.netns_name.as_deref(), end, end),
                    enter_of(c)
                )),
        )
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "a socket is connected to itself: the service that it called is not there",
            meaning: "A client called a port of its own host on which nothing listened, again and again, and one \
                      day the kernel chose that very port as its local one. The SYN then reaches the socket \
                      that sent it: a simultaneous open with itself, which completes. The client reads what it \
                      writes, and the service cannot bind its port.",
            detection: "SYN_SENT→SYN_RECV→ESTABLISHED of a socket whose two ends are the same: certain.",
            remedy: "Keep ports of services out of the ephemeral range.\n    sysctl \
                     net.ipv4.ip_local_port_range net.ipv4.ip_local_reserved_ports",
            reproduce: "synprobe lab self-connect",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Confidence, verdict::fixtures::*};

    #[test]
    fn the_same_ends_make_it_and_one_that_differs_does_not() {
        let mut h = active(Outcome::Established);
        h.connection.peer_addr = h.connection.local_addr;
        assert_eq!(verdict_of(&h, Context::default()).0, None);
        h.connection.peer_port = h.connection.local_port;
        assert_eq!(
            verdict_of(&h, Context::default()),
            (Some(VerdictKind::SelfConnect), Confidence::Certain)
        );
        h.outcome = Outcome::Refused;
        h.facts.reset_seen = true;
        assert_eq!(
            verdict_of(&h, Context::default()).0,
            Some(VerdictKind::Refused)
        );
    }
}
