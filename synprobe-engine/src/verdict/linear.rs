//! What judging one handshake costs does not grow with what strangers have sent before it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use synprobe_ebpf::event::Flow;

use super::{Context, fixtures::*, judgement::judge};
use crate::{
    model::{Handshake, Outcome},
    sys::clock::CpuTimer,
    util::addresses::mapped,
};

/// Judged in one measurement.
const JUDGED: usize = 500;

/// CPU time of judging a handshake many times: the least of a few, for a host has other work too.
fn cost(h: &Handshake, context: &Context) -> Duration {
    let once = || {
        let timer = CpuTimer::begin();
        for _ in 0..JUDGED {
            judge(&mut h.clone(), context);
        }
        timer.took()
    };
    (0..5).map(|_| once()).min().unwrap()
}

fn address(n: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + n).into()
}

/// Many times as much was seen: it costs hardly more.
fn hardly_more(h: &Handshake, of: impl Fn(u32) -> Context) {
    let (few, many) = (cost(h, &of(100)), cost(h, &of(4000)));
    assert!(many < few * 4, "{few:?} after 100, {many:?} after 4000");
}

#[test]
fn issue20_closed_destinations_of_a_process() {
    hardly_more(&active(Outcome::Refused), |destinations| {
        let mut context = Context::default();
        for n in 0..destinations {
            context.note(&began(address(n), 9, T0 + u64::from(n)));
        }
        context
    });
}

#[test]
fn issue20_silent_and_completed_sources_of_a_port() {
    hardly_more(&half_open(Outcome::Expired), |sources| {
        let mut context = looked(&listener(0, 10), 0, 30);
        for n in 0..sources {
            let peer = address(n).to_string();
            context.note(&line(half_open_of(&peer, Outcome::Expired)));
            let mut fine = half_open_of(&address(n + 100_000).to_string(), Outcome::Established);
            fine.retransmits = 0;
            context.note(&line(fine));
        }
        context
    });
}

#[test]
fn issue15_addresses_whose_connections_are_handed_over() {
    hardly_more(&active(Outcome::TimedOut), |addresses| {
        let mut context = Context::default();
        for n in 0..addresses {
            context.note_listener_of(&Flow {
                local_addr: mapped(address(n)),
                local_port: 443,
                peer_port: 50_000,
                netns: NETNS,
                listener_port: 15_001,
                ..Flow::default()
            });
            context.note_taken_over(NETNS, SocketAddr::new(address(n), 8443));
        }
        context
    });
}
