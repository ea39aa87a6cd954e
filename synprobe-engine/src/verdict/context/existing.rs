//! SYNs that met a connection which exists (`skb:kfree_skb` with the receiving socket, Linux 6.11), and the
//! sockets that hold a connection's addresses and ports.

use std::{borrow::Cow, net::SocketAddr};

use super::Ends;
use crate::{
    model::{TcpState, TupleHolder},
    util::bounded::Bounded,
    verdict::run_in,
};

/// Existing connections that are counted individually.
const CONNECTIONS: usize = 4096;

/// SYNs of one peer that met a connection of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SynAtExisting {
    /// Namespace of the connection.
    pub netns: u32,
    /// This host's end.
    pub local: SocketAddr,
    /// The end that sent the SYN.
    pub peer: SocketAddr,
    /// State of the connection when the last SYN met it.
    pub state: Option<TcpState>,
    /// The kernel's name for the reason, such as `TCP_INVALID_SYN`.
    pub reason: Cow<'static, str>,
    /// How long before the first SYN it had last received an ACK, microseconds.
    pub idle_us: Option<u64>,
    /// How many SYNs.
    pub count: u64,
    /// The first of them, CLOCK_MONOTONIC nanoseconds.
    pub first_ns: u64,
    /// The last of them.
    pub last_ns: u64,
}

impl SynAtExisting {
    /// The command that ends the connection, with its addresses.
    pub fn remedy(&self, netns_name: Option<&str>) -> String {
        kill(netns_name, self.local, self.peer)
    }
}

/// The command that ends a connection of this host. `connected`: ss leaves TIME_WAIT out by default.
pub fn kill(netns_name: Option<&str>, local: SocketAddr, peer: SocketAddr) -> String {
    let command = format!("ss -K -t state connected src {local} dst {peer}");
    run_in(netns_name, &command)
}

/// See the module.
pub(super) struct Existing {
    met: Bounded<(u32, Ends), SynAtExisting>,
    holders: Bounded<(u32, Ends), Option<TupleHolder>>,
}

impl Default for Existing {
    fn default() -> Self {
        Self {
            met: Bounded::new(CONNECTIONS),
            holders: Bounded::new(CONNECTIONS),
        }
    }
}

impl Existing {
    /// One more SYN.
    pub fn note(&mut self, ends: Ends, syn: SynAtExisting) {
        let key = (syn.netns, ends);
        match self.met.get_mut(&key) {
            Some(known) => {
                known.count += syn.count;
                known.last_ns = known.last_ns.max(syn.last_ns);
                known.state = syn.state;
                known.reason = syn.reason;
            }
            None => {
                self.met.insert(key, syn);
            }
        }
    }

    /// Forgets those whose last SYN is older, CLOCK_MONOTONIC nanoseconds.
    pub fn forget_before(&mut self, cutoff_ns: u64) {
        self.met.retain(|_, syn| syn.last_ns >= cutoff_ns);
    }

    /// Which socket holds these ends now; `None`: none does.
    pub fn note_holder(&mut self, netns: u32, ends: Ends, holder: Option<TupleHolder>) {
        self.holders.insert((netns, ends), holder);
    }

    /// The last answer to that; `None`: it was not asked for, or could not be read.
    pub fn holder(&self, netns: u32, ends: &Ends) -> Option<Option<&TupleHolder>> {
        self.holders.get(&(netns, *ends)).map(Option::as_ref)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &SynAtExisting> {
        self.met.iter().map(|(_, syn)| syn)
    }
}
