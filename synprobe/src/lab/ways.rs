//! What `diag` tells of ways and of ICMP errors, held against what the lab has set up.

use std::{net::IpAddr, sync::atomic::AtomicBool};

use super::{
    CLIENT_MAC, Family, INTERFACE, Lab, find,
    net::{self, beyond_server, spoofed},
    ns::Ns,
    rtnl::{Message, Netlink},
};
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
fn a_source_that_is_not_local_is_no_reason_to_tell_of_no_route() {
    for family in [Family::V4, Family::V6] {
        let lab = Lab::new(family).unwrap();
        let mut routes = Routes::open(&lab.server.netns()).unwrap();
        let (client, server) = (lab.client_ip(), lab.server_ip());
        let foreign = beyond_server(family.wire_is_v6(), 0);
        let from_own = routes.route(client, Some(server)).unwrap().unwrap();
        let from_foreign = routes.route(client, Some(foreign)).unwrap().unwrap();
        assert_eq!(from_foreign.kind, RouteKind::Unicast);
        assert_eq!(
            (from_foreign.ifindex, from_foreign.gateway),
            (from_own.ifindex, from_own.gateway)
        );

        // What is true for every source stays so.
        let to = spoofed(family.wire_is_v6(), 7);
        let whole = if family.wire_is_v6() { 128 } else { 32 };
        let blackhole = net::Route::Nowhere(libc::RTN_BLACKHOLE);
        net::add_route(&lab.server, (to, whole), blackhole).unwrap();
        let nowhere: IpAddr = match family {
            Family::V6 => "2001:db8::1".parse().unwrap(),
            _ => "203.0.113.1".parse().unwrap(),
        };
        for source in [None, Some(server), Some(foreign)] {
            let route = routes.route(to, source).unwrap().unwrap();
            assert_eq!(route.kind, RouteKind::Blackhole, "{source:?}");
            assert_eq!(routes.route(nowhere, source).unwrap(), None, "{source:?}");
        }

        // What a rule says of one source, too.
        no_way_from(&lab.server, server);
        let route = routes.route(client, Some(server)).unwrap().unwrap();
        assert_eq!(route.kind, RouteKind::Blackhole);
        let route = routes.route(client, Some(foreign)).unwrap().unwrap();
        assert_eq!(route.kind, RouteKind::Unicast);
    }
}

/// `ip rule add from SOURCE blackhole`.
fn no_way_from(ns: &Ns, source: IpAddr) {
    // Of linux/fib_rules.h, which libc lacks.
    const FRA_SRC: u16 = 2;
    const FR_ACT_BLACKHOLE: u8 = 6;
    let (family, len, octets) = match source {
        IpAddr::V4(v4) => (libc::AF_INET, 32, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6, 128, v6.octets().to_vec()),
    };
    let mut header = [0; 12];
    (header[0], header[2], header[7]) = (family as u8, len, FR_ACT_BLACKHOLE);
    let rule = Message::new(libc::RTM_NEWRULE, libc::NLM_F_CREATE, &header).attr(FRA_SRC, &octets);
    ns.run(|| Ok(Netlink::open(libc::NETLINK_ROUTE, 0)?.request(rule)?))
        .unwrap();
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
