//! The paths of SYNs and of answers: from which neighbour a peer's SYN came, and to which one the answer
//! goes.

use std::{fmt, net::IpAddr};

use crate::{
    model::{PathQuestion, ReturnPath},
    util::bounded::Bounded,
};

/// Peers remembered.
const KEPT: usize = 4096;
/// Paths that are asked for at a time.
const ASKED: usize = 64;

/// A way back is looked up anew for a SYN that comes later than this, seconds.
const FRESH_S: u64 = 10;
const FRESH_NS: u64 = FRESH_S * 1_000_000_000;

/// A neighbour's Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[derive(Clone, Debug)]
struct PeerPath {
    local: IpAddr,
    ifindex: u32,
    mac: [u8; 6],
    /// The last SYN, CLOCK_MONOTONIC nanoseconds.
    at_ns: u64,
    /// The last SYN when the way back was asked for; `None`: it is to be asked for.
    asked_ns: Option<u64>,
    /// The answer, and the last SYN when it came. A replay does not ask, so the time of the question does not count.
    back: Option<(ReturnPath, u64)>,
}

/// See the module.
pub struct Paths(Bounded<(u32, IpAddr), PeerPath>);

impl Default for Paths {
    fn default() -> Self {
        Self(Bounded::new(KEPT))
    }
}

impl Paths {
    pub(super) fn note_syn_path(
        &mut self,
        netns: u32,
        peer: IpAddr,
        local: IpAddr,
        (ifindex, mac): (u32, [u8; 6]),
        at_ns: u64,
    ) {
        match self.0.get_mut(&(netns, peer)) {
            Some(way) => {
                let differs = (way.ifindex, way.mac) != (ifindex, mac);
                let old = |asked_ns: &u64| at_ns.saturating_sub(*asked_ns) >= FRESH_NS;
                // A route, or a gateway, may have changed meanwhile.
                if differs || way.asked_ns.as_ref().is_some_and(old) {
                    way.asked_ns = None;
                }
                (way.ifindex, way.mac, way.at_ns) = (ifindex, mac, at_ns);
            }
            None => {
                let way = PeerPath {
                    local,
                    ifindex,
                    mac,
                    at_ns,
                    asked_ns: None,
                    back: None,
                };
                self.0.insert((netns, peer), way);
            }
        }
    }

    /// To which address, and by which device, a peer's SYN came.
    pub(super) fn came_by(&self, netns: u32, peer: IpAddr) -> Option<(IpAddr, u32)> {
        let way = self.0.get(&(netns, peer))?;
        Some((way.local, way.ifindex))
    }

    pub(super) fn wanted(&mut self) -> Vec<PathQuestion> {
        let open: Vec<(u32, IpAddr)> = self
            .0
            .iter()
            .filter(|(_, way)| way.asked_ns.is_none())
            .map(|(key, _)| *key)
            .take(ASKED)
            .collect();
        let mut wanted = Vec::new();
        for key in open {
            if let Some(way) = self.0.get_mut(&key) {
                way.asked_ns = Some(way.at_ns);
                wanted.push(PathQuestion {
                    netns: key.0,
                    peer: key.1,
                    local: way.local,
                });
            }
        }
        wanted
    }

    pub(super) fn found(&mut self, wanted: &PathQuestion, path: ReturnPath) {
        if let Some(way) = self.0.get_mut(&(wanted.netns, wanted.peer)) {
            way.back = Some((path, way.at_ns));
        }
    }

    /// Whether the way back to a peer, by which its SYN came being seen, is not known yet.
    pub(super) fn is_open(&self, netns: u32, peer: IpAddr) -> bool {
        let way = self.0.get(&(netns, peer));
        way.is_some_and(|way| way.back.is_none())
    }

    /// Whether only the neighbour's Ethernet address differs, and the answer goes to the peer itself: then an entry of
    /// the neighbour table that is old or wrong looks the same as an address that a router translated.
    pub(super) fn differs_by_entry(&self, netns: u32, peer: IpAddr) -> bool {
        let back = |way: &PeerPath| {
            let (back, _) = way.back.as_ref()?;
            let other = back.mac.is_some_and(|mac| mac != way.mac);
            Some(other && back.ifindex == way.ifindex && back.gateway.is_none())
        };
        self.0.get(&(netns, peer)).and_then(back) == Some(true)
    }

    /// How the two differ, in words.
    /// `came_by`: the name of the device by which the SYN came.
    pub(super) fn asymmetric(
        &self,
        netns: u32,
        peer: IpAddr,
        came_by: Option<&str>,
    ) -> Option<String> {
        let way = self.0.get(&(netns, peer))?;
        let (back, back_ns) = way.back.as_ref()?;
        let age_s = way.at_ns.saturating_sub(*back_ns) / 1_000_000_000;
        let age = match age_s {
            0..FRESH_S => String::new(),
            _ => format!(", as looked up {age_s} s before its last SYN"),
        };
        let via = match back.gateway {
            Some(gateway) => format!("router {gateway}"),
            None => "the peer directly".to_owned(),
        };
        if back.ifindex != way.ifindex {
            return Some(match came_by {
                Some(came_by) => format!(
                    "its SYN came in by {came_by}, the answer leaves by {}, to {via}{age}",
                    back.interface
                ),
                None => format!(
                    "its SYN came in on interface {}, the answer leaves on {} ({}), to {via}{age}",
                    way.ifindex, back.ifindex, back.interface
                ),
            });
        }
        let to = back.mac.filter(|mac| *mac != way.mac)?;
        Some(format!(
            "its SYN came from the neighbour {}, the answer goes to {} on {}, {via}{age}",
            Mac(way.mac),
            Mac(to),
            back.interface
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9));
    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    /// A SYN 0 s and 11 s after the first, the answer to the first question after both.
    fn late_answer(asks: bool) -> Option<String> {
        let mut paths = Paths::default();
        let syn = |at_s: u64, paths: &mut Paths| {
            paths.note_syn_path(1, PEER, LOCAL, (2, [1; 6]), at_s * 1_000_000_000);
        };
        syn(0, &mut paths);
        if asks {
            assert_eq!(paths.wanted().len(), 1);
        }
        syn(FRESH_S + 1, &mut paths);
        let wanted = PathQuestion {
            netns: 1,
            peer: PEER,
            local: LOCAL,
        };
        let back = ReturnPath {
            ifindex: 3,
            interface: "eth1".into(),
            gateway: None,
            mac: None,
        };
        paths.found(&wanted, back);
        syn(2 * FRESH_S + 1, &mut paths);
        paths.asymmetric(1, PEER, None)
    }

    #[test]
    fn a_replay_which_asks_nothing_says_the_same_age() {
        let said = late_answer(true);
        assert!(
            said.as_ref()
                .is_some_and(|said| said.ends_with("10 s before its last SYN")),
            "{said:?}"
        );
        assert_eq!(said, late_answer(false));
    }
}
