//! What `diag` tells of ways and of ICMP errors, held against what the lab has set up.

use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use crate::diag::{
    icmp::{Buffer, IcmpError, IcmpErrors},
    route::Routes,
    route_info::RouteKind,
};
use synprobe_lab::{
    CLIENT_MAC, INTERFACE, Lab, RawSender, SocketFamily, find,
    net::{self, beyond_server, spoofed},
    ns::Ns,
    packet::{TcpSegment, checksum, flags},
    rtnl::{Netlink, NetlinkRequest},
};

#[test]
#[ignore = "needs root"]
fn the_way_to_a_neighbour_to_oneself_and_to_nowhere() {
    for family in [SocketFamily::V4, SocketFamily::V6] {
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
            SocketFamily::V6 => "2001:db8::1".parse().unwrap(),
            _ => "203.0.113.1".parse().unwrap(),
        };
        assert_eq!(routes.route(nowhere, None).unwrap(), None);
    }
}

#[test]
#[ignore = "needs root"]
fn a_source_that_is_not_local_is_no_reason_to_tell_of_no_route() {
    for family in [SocketFamily::V4, SocketFamily::V6] {
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
        let blackhole = net::RouteTarget::Nowhere(libc::RTN_BLACKHOLE);
        net::add_route(&lab.server, (to, whole), blackhole).unwrap();
        let nowhere: IpAddr = match family {
            SocketFamily::V6 => "2001:db8::1".parse().unwrap(),
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
    let rule =
        NetlinkRequest::new(libc::RTM_NEWRULE, libc::NLM_F_CREATE, &header).attr(FRA_SRC, &octets);
    ns.run(|| Ok(Netlink::open(libc::NETLINK_ROUTE, 0)?.request(rule)?))
        .unwrap();
}

#[test]
#[ignore = "needs root"]
fn the_address_of_the_router_is_reported() {
    for family in [SocketFamily::V4, SocketFamily::V6] {
        let lab = Lab::new(family).unwrap();
        let errors = IcmpErrors::open(&lab.client.netns()).unwrap();
        let made = find("unreachable")
            .unwrap()
            .run(&lab, &AtomicBool::new(false))
            .unwrap();
        let mut seen = Vec::new();
        errors.drain(&mut Buffer::default(), |error| seen.push(error));
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

/// Sends ICMP errors to the client from the server.
struct FakeRouter {
    sender: RawSender,
    from: IpAddr,
    to: IpAddr,
}

/// Something that can be wrong with an error.
#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    None,
    Checksum,
    AboutUdp,
}

impl FakeRouter {
    fn new(lab: &Lab) -> Self {
        Self {
            sender: RawSender::open(&lab.server, lab.family.wire_is_v6()).unwrap(),
            from: lab.server_ip(),
            to: lab.client_ip(),
        }
    }

    /// Port unreachable, about a SYN to `port` of the server.
    fn says(&self, port: u16, flaw: Flaw) {
        let syn = TcpSegment {
            source: SocketAddr::new(self.to, 40_000),
            destination: SocketAddr::new(self.from, port),
            seq: 1,
            ack: 0,
            flags: flags::SYN,
            payload_len: 0,
        };
        let mut inner = syn.to_ip().unwrap();
        let v6 = self.from.is_ipv6();
        if flaw == Flaw::AboutUdp {
            inner[if v6 { 6 } else { 9 }] = libc::IPPROTO_UDP as u8;
        }
        let mut icmp = match v6 {
            true => vec![1, 4, 0, 0, 0, 0, 0, 0],
            false => vec![3, 3, 0, 0, 0, 0, 0, 0],
        };
        icmp.extend(inner);
        let reply = TcpSegment {
            source: SocketAddr::new(self.from, 0),
            destination: SocketAddr::new(self.to, 0),
            ..syn
        };
        // The header of a TCP packet, made into one of ICMP.
        let mut packet = reply.to_ip().unwrap();
        let sum = if v6 {
            packet.truncate(40);
            packet[6] = libc::IPPROTO_ICMPV6 as u8;
            packet[4..6].copy_from_slice(&(icmp.len() as u16).to_be_bytes());
            let length = (icmp.len() as u16).to_be_bytes();
            checksum(&[&packet[8..40], &[0, packet[6]], &length, &icmp])
        } else {
            packet.truncate(20);
            packet[9] = libc::IPPROTO_ICMP as u8;
            checksum(&[&icmp])
        };
        let sum = if flaw == Flaw::Checksum { !sum } else { sum };
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        packet.extend(icmp);
        self.sender.packet(&packet, reply.destination).unwrap();
    }
}

/// Drains until an error about `last` came.
fn hear(errors: &IcmpErrors, last: u16) -> Vec<IcmpError> {
    let mut heard: Vec<IcmpError> = Vec::new();
    let mut buffer = Buffer::default();
    let deadline = Instant::now() + Duration::from_secs(10);
    while heard.last().is_none_or(|e| e.peer.port() != last) {
        assert!(Instant::now() < deadline, "{heard:?}");
        errors.drain(&mut buffer, |error| heard.push(error));
        std::thread::yield_now();
    }
    heard
}

#[test]
#[ignore = "needs root"]
fn errors_about_udp_and_damaged_ones_are_not_reported() {
    for family in [SocketFamily::V4, SocketFamily::V6] {
        let lab = Lab::new(family).unwrap();
        let errors = IcmpErrors::open(&lab.client.netns()).unwrap();
        let router = FakeRouter::new(&lab);
        router.says(1, Flaw::AboutUdp);
        router.says(2, Flaw::Checksum);
        router.says(3, Flaw::None);
        // They come in the order in which they were sent.
        let heard = hear(&errors, 3);
        let [error] = &heard[..] else {
            panic!("{heard:?}")
        };
        assert_eq!(error.from, lab.server_ip());
        assert_eq!(error.local, SocketAddr::new(lab.client_ip(), 40_000));
        assert_eq!(error.peer, SocketAddr::new(lab.server_ip(), 3));
        assert!(error.words().starts_with("port unreachable"));
        // A raw IPv6 socket looks at the checksum itself, and counts.
        assert_eq!(errors.drops(), u64::from(family.wire_is_v6()));
        assert_eq!(errors.drops(), 0);
    }
}

#[test]
#[ignore = "needs root"]
fn errors_about_udp_take_no_room_and_what_found_none_is_counted() {
    const SENT: u16 = 5_000;
    for family in [SocketFamily::V4, SocketFamily::V6] {
        let lab = Lab::new(family).unwrap();
        let errors = IcmpErrors::open(&lab.client.netns()).unwrap();
        let router = FakeRouter::new(&lab);
        for _ in 0..SENT {
            router.says(1, Flaw::AboutUdp);
        }
        router.says(2, Flaw::None);
        assert_eq!(hear(&errors, 2).len(), 1);
        assert_eq!(errors.drops(), 0);

        for _ in 0..SENT {
            router.says(3, Flaw::None);
        }
        let mut heard = 0;
        let mut lost = 0;
        let mut buffer = Buffer::default();
        let deadline = Instant::now() + Duration::from_secs(10);
        while heard + lost < u64::from(SENT) {
            assert!(Instant::now() < deadline, "{heard} and {lost}");
            lost += errors.drops();
            errors.drain(&mut buffer, |_| heard += 1);
            std::thread::yield_now();
        }
        assert_eq!(heard + lost + errors.drops(), u64::from(SENT));
        assert!(heard > 0 && lost > 0, "{heard} and {lost}");
    }
}
