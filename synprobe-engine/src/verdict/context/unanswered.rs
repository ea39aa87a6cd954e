//! SYNs of this host's clients that got no answer, by the address that they called. The drops and overflows
//! of a listener explain at most as many.

use std::net::IpAddr;

use crate::{
    model::{Handshake, Outcome},
    util::bounded::Bounded,
};

/// Called addresses remembered.
const CALLED: usize = 1024;
/// SYNs whose times are remembered of each.
const TIMES: usize = 512;
/// The most SYNs that a socket repeats: MAX_TCP_SYNCNT (include/net/tcp.h). A recording may claim more.
const RETRIES: u32 = 127;

/// Of one called address and port.
#[derive(Default)]
struct Called {
    /// When they were sent, CLOCK_MONOTONIC nanoseconds; 0: not known.
    times: Vec<u64>,
    /// Those whose times have no place.
    more: u64,
    /// When the last of those was sent; 0: not known.
    more_ns: u64,
}

/// See the module.
pub(super) struct UnansweredSyns {
    called: Bounded<(IpAddr, u16), Called>,
}

/// When the SYNs of a handshake that got no answer were sent, as far as the run saw them.
fn unanswered(h: &Handshake) -> Vec<u64> {
    let mut at_ns = h.facts.since_ns();
    let mut times: Vec<u64> = Vec::new();
    if !h.facts.preexisting {
        times.push(at_ns);
    }
    for n in 0..h.retransmits.min(RETRIES) {
        let gap_us = h.gaps_us.get(n as usize);
        match gap_us {
            Some(gap_us) if at_ns != 0 => at_ns = at_ns.saturating_add(gap_us.saturating_mul(1000)),
            _ => at_ns = 0,
        }
        if !h.facts.preexisting || gap_us.is_some() {
            times.push(at_ns);
        }
    }
    let answered = matches!(
        h.outcome,
        Outcome::Established | Outcome::Refused | Outcome::Unreachable
    );
    if answered {
        times.pop();
    }
    times
}

impl UnansweredSyns {
    /// Takes in an active open. `dropped`: its SYNs that this host was seen to drop.
    pub(super) fn note(&mut self, h: &Handshake, dropped: u64) {
        let c = &h.connection;
        let Some(port) = c.peer_port else { return };
        let mut times = unanswered(h);
        times.truncate(times.len().saturating_sub(dropped as usize));
        if times.is_empty() {
            return;
        }
        let key = (c.peer_addr, port);
        if self.called.get(&key).is_none() {
            self.called.insert(key, Called::default());
        }
        if let Some(called) = self.called.get_mut(&key) {
            let room = TIMES.saturating_sub(called.times.len()).min(times.len());
            called.more += (times.len() - room) as u64;
            if let Some(last) = times[room..].iter().max() {
                called.more_ns = called.more_ns.max(*last);
            }
            called.times.extend(&times[..room]);
        }
    }

    /// Forgets those that are older, CLOCK_MONOTONIC nanoseconds, and those whose time is not known.
    pub(super) fn forget_before(&mut self, cutoff_ns: u64) {
        self.called.retain(|_, called| {
            called.times.retain(|at| *at >= cutoff_ns);
            if called.more_ns < cutoff_ns {
                called.more = 0;
            }
            !called.times.is_empty() || called.more > 0
        });
    }

    /// How many were sent to this address in a time; those whose own time is not known count.
    pub(super) fn between(&self, addr: IpAddr, port: u16, (first, last): (u64, u64)) -> u64 {
        self.called.get(&(addr, port)).map_or(0, |called| {
            let within = |t: &&u64| last == 0 || **t == 0 || (first..=last).contains(*t);
            let sent = called.times.iter().filter(within);
            sent.count() as u64 + called.more
        })
    }
}

impl Default for UnansweredSyns {
    fn default() -> Self {
        Self {
            called: Bounded::new(CALLED),
        }
    }
}
