//! How long a peer's handshakes typically take.

use std::net::IpAddr;

use crate::{
    model::{Connection, Role},
    util::bounded::Bounded,
};

/// Peers remembered.
const KEPT: usize = 8_192;
/// Dwells remembered of each.
const SAMPLES: usize = 16;
/// With fewer, there is no median.
const ENOUGH: usize = 8;

#[derive(Default)]
struct Samples {
    dwells_us: [u32; SAMPLES],
    count: usize,
}

/// The peer, this host's role, and the port that a client calls: each may have another path, or another fate.
type Key = (IpAddr, Role, Option<u16>);

fn key(c: &Connection) -> Key {
    let called = c.peer_port.filter(|_| c.role == Role::Client);
    (c.peer_addr, c.role, called)
}

pub(super) struct Baseline(Bounded<Key, Samples>);

impl Default for Baseline {
    fn default() -> Self {
        Self(Bounded::new(KEPT))
    }
}

impl Baseline {
    pub(super) fn note(&mut self, c: &Connection, dwell_us: u64) {
        let key = key(c);
        if self.0.get(&key).is_none() {
            self.0.insert(key, Samples::default());
        }
        if let Some(samples) = self.0.get_mut(&key) {
            samples.dwells_us[samples.count % SAMPLES] =
                u32::try_from(dwell_us).unwrap_or(u32::MAX);
            samples.count += 1;
        }
    }

    pub(super) fn median_us(&self, c: &Connection) -> Option<(u64, usize)> {
        let samples = self.0.get(&key(c))?;
        let n = samples.count.min(SAMPLES);
        if n < ENOUGH {
            return None;
        }
        let mut sorted = samples.dwells_us;
        sorted[..n].sort_unstable();
        Some((u64::from(sorted[n / 2]), n))
    }
}
