//! What `diag` tells of ways and of ICMP errors, held against what the lab has set up.

use std::{net::IpAddr, sync::atomic::AtomicBool};

use super::{CLIENT_MAC, Family, INTERFACE, Lab, find, net::spoofed};
use crate::diag::{
    icmp::IcmpErrors,
    route::{RouteKind, Routes},
};

#[test]
#[ignore = "needs root"]
fn the_way_to_a_neighbour_to_oneself_and_to_nowhere() {
    for family in [Family::V4, Family::V6] {
        let lab = Lab::new(family).unwrap();
        let mut routes = Routes::open(&lab.server.netns()).unwrap();
        let client = lab.client_ip();
        let route = routes
            .route(client, Some(lab.server_ip()))
            .unwrap()
            .unwrap();
        assert_eq!(route.kind, RouteKind::Unicast);
        assert_eq!(route.interface.as_deref(), Some(INTERFACE));
        assert_eq!(route.gateway, None);
        assert_eq!(routes.next_hop(&route, client).unwrap(), Some(CLIENT_MAC));

        // Beyond the client: through it.
        let beyond = spoofed(family.wire_is_v6(), 3);
        let route = routes.route(beyond, None).unwrap().unwrap();
        assert_eq!(route.gateway, Some(client));
        assert_eq!(routes.next_hop(&route, beyond).unwrap(), Some(CLIENT_MAC));

        let own = routes.route(lab.server_ip(), None).unwrap().unwrap();
        assert_eq!(own.kind, RouteKind::Local);
        assert_eq!(routes.next_hop(&own, lab.server_ip()).unwrap(), None);

        let nowhere: IpAddr = match family {
            Family::V6 => "2001:db8::1".parse().unwrap(),
            _ => "203.0.113.1".parse().unwrap(),
        };
        assert_eq!(routes.route(nowhere, None).unwrap(), None);
    }
}

#[test]
#[ignore = "needs root"]
fn the_router_s_own_address_is_told() {
    for family in [Family::V4, Family::V6] {
        let lab = Lab::new(family).unwrap();
        let errors = IcmpErrors::open(&lab.client.netns()).unwrap();
        let made = find("unreachable")
            .unwrap()
            .run(&lab, &AtomicBool::new(false))
            .unwrap();
        let mut seen = Vec::new();
        errors.drain(|error| seen.push(error));
        for client in &made.handshakes {
            let of_it: Vec<_> = seen
                .iter()
                .filter(|e| e.peer.ip() == client.peer_addr)
                .collect();
            assert!(!of_it.is_empty(), "{client:?} in {seen:?}");
            for error in of_it {
                assert_eq!(error.from, lab.server_ip());
                assert_eq!(Some(error.local.port()), client.local_port);
                assert_eq!(Some(error.peer.port()), client.peer_port);
            }
        }
    }
}
