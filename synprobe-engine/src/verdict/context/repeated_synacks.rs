//! SYN-ACKs that the peer of a connected client repeats (`skb:kfree_skb` with the receiving socket, Linux 6.11): it has
//! not taken the final ACK.

use super::{Context, Ends};
use crate::{
    model::{Connection, Role},
    util::bounded::Bounded,
};

/// Connections that are counted individually.
const CONNECTIONS: usize = 4096;
/// Repetitions from which on the peer lacks more than one lost ACK.
const ENOUGH: u64 = 2;

/// Of one connection.
#[derive(Clone, Copy, Debug)]
struct Repeated {
    count: u64,
    /// The port that the client called.
    port: u16,
    last_ns: u64,
}

/// See the module.
pub(super) struct RepeatedSynAcks(Bounded<(u32, Ends), Repeated>);

impl Default for RepeatedSynAcks {
    fn default() -> Self {
        Self(Bounded::new(CONNECTIONS))
    }
}

impl RepeatedSynAcks {
    /// Forgets connections whose last one is older, CLOCK_MONOTONIC nanoseconds.
    pub(super) fn forget_before(&mut self, cutoff_ns: u64) {
        self.0.retain(|_, repeated| repeated.last_ns >= cutoff_ns);
    }
}

impl Context {
    /// The server at `port` repeated its SYN-ACK to a client of this host that is connected.
    pub fn note_repeated_synack(&mut self, netns: u32, ends: Ends, port: u16, at_ns: u64) {
        let all = &mut self.repeated_synacks.0;
        let key = (netns, ends);
        match all.get_mut(&key) {
            Some(known) => {
                known.count += 1;
                known.last_ns = at_ns;
            }
            None => {
                let first = Repeated {
                    count: 1,
                    port,
                    last_ns: at_ns,
                };
                all.insert(key, first);
            }
        }
    }

    /// How often the server repeated its SYN-ACK after this host's client was connected.
    pub fn repeated_synacks(&self, c: &Connection) -> u64 {
        let ends = Ends::of(c).filter(|_| c.role == Role::Client);
        let repeated = ends.and_then(|ends| self.repeated_synacks.0.get(&(c.netns, ends)));
        repeated.map_or(0, |repeated| repeated.count)
    }

    /// Connections whose server did so more than once, by namespace and port: how many, and how often in all.
    pub fn servers_without_ack(&self) -> Vec<((u32, u16), (u64, u64))> {
        let mut places = std::collections::BTreeMap::<(u32, u16), (u64, u64)>::new();
        let all = self.repeated_synacks.0.iter();
        for ((netns, _), repeated) in all.filter(|(_, repeated)| repeated.count >= ENOUGH) {
            let (connections, times) = places.entry((*netns, repeated.port)).or_default();
            *connections += 1;
            *times += repeated.count;
        }
        places.into_iter().collect()
    }
}
