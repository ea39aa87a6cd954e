//! The user's selection: parsed once, applied by the kernel side, and again by the agent for what does not
//! come through the ring (sock_diag).

mod drops;

use std::{collections::BTreeMap, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use synprobe_ebpf::config::{
    BY_EITHER_PORT, BY_LOCAL_PORT, BY_PEER_PORT, Filter, PORT_WORDS, ROLE_ANY, ROLE_CLIENT,
    ROLE_SERVER,
};
use thiserror::Error;

pub use crate::model::Detail;
use crate::model::Role;

/// What is wrong with an argument, in one line.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FilterError {
    /// Not a port.
    #[error("\"{0}\" is not a port: give 1 to 65535, a range such as 8000-8100, or a list of them")]
    Port(String),
    /// A service's name.
    #[error(
        "\"{0}\" is the name of a service: give the port as a number (see: getent services {0})"
    )]
    Service(String),
    /// An entry of the list is empty.
    #[error("\"{0}\" has an empty entry: give a list such as 80,443")]
    EmptyEntry(String),
    /// One end of a range is missing.
    #[error("\"{0}\" is a range without its {1} port: give both, such as 8000-8100")]
    OpenRange(String, &'static str),
    /// First above last.
    #[error("port range {0}-{1} is reversed: did you mean {1}-{0}?")]
    Range(u16, u16),
    /// The prefix has more bits than the address.
    #[error("\"{0}\": the prefix of this CIDR is too long, at most /{1}")]
    Prefix(String, u8),
    /// Not a network.
    #[error("\"{0}\" is not an address or a CIDR: give one such as 10.0.0.0/8 or 2001:db8::/32")]
    Cidr(String),
}

/// A set of ports: a list of ports and ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSet {
    ranges: Vec<(u16, u16)>,
}

impl PortSet {
    /// Whether it names no port at all.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether `port` is in it.
    pub fn contains(&self, port: u16) -> bool {
        self.ranges
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&port))
    }

    /// Whether it has a port in common with `first..=last`.
    pub fn intersects(&self, first: u16, last: u16) -> bool {
        self.ranges.iter().any(|(a, b)| *a <= last && first <= *b)
    }

    /// The ports that are in both sets.
    pub fn intersection(&self, other: &Self) -> Self {
        let both = |(a, b): &(u16, u16)| {
            let (a, b) = (*a, *b);
            other
                .ranges
                .iter()
                .map(move |(c, d)| (a.max(*c), b.min(*d)))
                .filter(|(first, last)| first <= last)
        };
        Self {
            ranges: self.ranges.iter().flat_map(both).collect(),
        }
    }

    /// Adds another set's ports.
    pub fn extend(&mut self, other: &Self) {
        self.ranges.extend_from_slice(&other.ranges);
    }

    fn fill(&self, words: &mut [u64]) {
        for (first, last) in &self.ranges {
            for port in *first..=*last {
                if let Some(word) = words.get_mut(usize::from(port) / 64) {
                    *word |= 1 << (port % 64);
                }
            }
        }
    }
}

impl FromStr for PortSet {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let port = |s: &str| match s.trim().parse::<u16>() {
            Ok(0) | Err(_) if is_service(s.trim()) => {
                Err(FilterError::Service(s.trim().to_owned()))
            }
            Ok(0) | Err(_) => Err(FilterError::Port(s.trim().to_owned())),
            Ok(port) => Ok(port),
        };
        let mut ranges = Vec::new();
        for part in text.split(',') {
            if part.trim().is_empty() && !text.trim().is_empty() {
                return Err(FilterError::EmptyEntry(text.trim().to_owned()));
            }
            // The name of a service may contain a hyphen.
            let range = match part.split_once('-').filter(|_| !is_service(part.trim())) {
                Some((first, last)) if first.trim().is_empty() != last.trim().is_empty() => {
                    let missing = if first.trim().is_empty() {
                        "first"
                    } else {
                        "last"
                    };
                    return Err(FilterError::OpenRange(part.trim().to_owned(), missing));
                }
                Some((first, last)) => (port(first)?, port(last)?),
                None => (port(part)?, port(part)?),
            };
            if range.0 > range.1 {
                return Err(FilterError::Range(range.0, range.1));
            }
            ranges.push(range);
        }
        Ok(Self { ranges })
    }
}

/// Whether it looks like the name of a service: letters, digits and hyphens, and a letter first.
fn is_service(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// Parses an address or a CIDR; host bits are cleared.
///
/// # Errors
///
/// [`FilterError::Cidr`] and [`FilterError::Prefix`].
pub fn parse_cidr(text: &str) -> Result<IpNet, FilterError> {
    let text = text.trim();
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map(|net| net.trunc())
        .map_err(|_| {
            let wrong = || FilterError::Cidr(text.to_owned());
            let Some((addr, prefix)) = text.split_once('/') else {
                return wrong();
            };
            match (addr.parse::<IpAddr>(), prefix.parse::<u32>()) {
                (Ok(IpAddr::V4(_)), Ok(33..)) => FilterError::Prefix(text.to_owned(), 32),
                (Ok(IpAddr::V6(_)), Ok(129..)) => FilterError::Prefix(text.to_owned(), 128),
                _ => wrong(),
            }
        })
}

/// What is watched; the default is everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Selection {
    /// Either end's port.
    pub ports: PortSet,
    /// This host's port.
    pub local_ports: PortSet,
    /// The peer's port.
    pub peer_ports: PortSet,
    /// The peer's address.
    pub peers: Vec<IpNet>,
    /// This host's role.
    pub role: Option<Role>,
    /// The network namespace, by inode. The lab has two, the most that the kernel side can select.
    pub netns: Option<[u32; 2]>,
}

/// The selection in the kernel side's form.
pub struct KernelFilter {
    /// The scalar settings.
    pub filter: Filter,
    /// Three port bitmaps, one after the other.
    pub ports: Vec<u64>,
    /// Keys of the peer trie: prefix length and address, IPv4 mapped.
    pub peers: Vec<(u32, [u8; 16])>,
}

impl Selection {
    /// Whether a connection is selected. `local` is `None` while the local port is unknown: the connection
    /// passes if it could still match.
    pub fn matches(&self, local: Option<u16>, peer: Option<u16>, addr: IpAddr, netns: u32) -> bool {
        let could = |set: &PortSet, port: Option<u16>| port.is_none_or(|p| set.contains(p));
        let is = |set: &PortSet, port: Option<u16>| port.is_some_and(|p| set.contains(p));
        (self.ports.is_empty() || is(&self.ports, peer) || could(&self.ports, local))
            && (self.local_ports.is_empty() || could(&self.local_ports, local))
            && (self.peer_ports.is_empty() || is(&self.peer_ports, peer))
            && (self.peers.is_empty() || self.peers.iter().any(|net| net.contains(&addr)))
            && self.netns.is_none_or(|wanted| wanted.contains(&netns))
    }

    /// Whether a listener is one that was asked for; `None`: only its peers can tell, for it has none of
    /// its own.
    pub fn selects_listener(&self, port: u16, netns: u32) -> Option<bool> {
        let out = !self.wants(Role::Server)
            || self.netns.is_some_and(|wanted| !wanted.contains(&netns))
            || !(self.local_ports.is_empty() || self.local_ports.contains(port));
        if out {
            return Some(false);
        }
        let by_peer = !self.peers.is_empty()
            || !self.peer_ports.is_empty()
            || !(self.ports.is_empty() || self.ports.contains(port));
        (!by_peer).then_some(true)
    }

    /// Whether it selects everything, at least within a namespace.
    pub fn is_whole(&self) -> bool {
        let sets = [&self.ports, &self.local_ports, &self.peer_ports];
        sets.iter().all(|set| set.is_empty()) && self.peers.is_empty() && self.role.is_none()
    }

    /// Whether a role is selected.
    pub fn wants(&self, role: Role) -> bool {
        self.role.is_none_or(|wanted| wanted == role)
    }

    /// The kernel side's form. `ephemeral`: `net.ipv4.ip_local_port_range`. Clients without a local port
    /// pass only if a selected local port lies in that range.
    pub fn to_kernel(&self, detail: Detail, ephemeral: (u16, u16)) -> KernelFilter {
        let mut ports = vec![0; 3 * PORT_WORDS];
        let mut by = 0;
        let sets = [
            (&self.ports, BY_EITHER_PORT),
            (&self.local_ports, BY_LOCAL_PORT),
            (&self.peer_ports, BY_PEER_PORT),
        ];
        for ((set, bit), words) in sets.into_iter().zip(ports.chunks_mut(PORT_WORDS)) {
            if !set.is_empty() {
                by |= bit;
                set.fill(words);
            }
        }
        let unbound = [&self.ports, &self.local_ports]
            .iter()
            .any(|set| set.intersects(ephemeral.0, ephemeral.1));
        let peers = self.peers.iter().map(trie_key).collect();
        let filter = Filter {
            netns: self.netns.map_or(0, |n| n[0]),
            netns_too: self.netns.map_or(0, |n| n[1]),
            role: match self.role {
                None => ROLE_ANY,
                Some(Role::Client) => ROLE_CLIENT,
                Some(Role::Server) => ROLE_SERVER,
            },
            ports: by,
            peers: u32::from(!self.peers.is_empty()),
            all_states: u32::from(detail == Detail::AllStates),
            unbound: u32::from(unbound),
            slow_us: detail.slow_us().unwrap_or(0),
            // Not in the quiet mode: counting a connection is so short that events hardly ever arrive
            // meanwhile.
            stand_in: u32::from(detail.slow_us().is_none()),
        };
        KernelFilter {
            filter,
            ports,
            peers,
        }
    }

    /// The filters as text, for the `start` line.
    pub fn describe(&self) -> BTreeMap<String, String> {
        let mut words = BTreeMap::new();
        let ports = |set: &PortSet| {
            let part = |(a, b): &(u16, u16)| {
                if a == b {
                    a.to_string()
                } else {
                    format!("{a}-{b}")
                }
            };
            set.ranges.iter().map(part).collect::<Vec<_>>().join(",")
        };
        for (name, set) in [
            ("port", &self.ports),
            ("local_port", &self.local_ports),
            ("peer_port", &self.peer_ports),
        ] {
            if !set.is_empty() {
                words.insert(name.to_owned(), ports(set));
            }
        }
        if !self.peers.is_empty() {
            let peers: Vec<_> = self.peers.iter().map(IpNet::to_string).collect();
            words.insert("peer".to_owned(), peers.join(","));
        }
        if let Some(role) = self.role {
            words.insert("role".to_owned(), role.name().to_owned());
        }
        if let Some(netns) = self.netns {
            let mut names = netns.map(|n| n.to_string()).to_vec();
            names.dedup();
            words.insert("netns".to_owned(), names.join(","));
        }
        words
    }
}

fn trie_key(net: &IpNet) -> (u32, [u8; 16]) {
    match net {
        IpNet::V4(net) => (
            96 + u32::from(net.prefix_len()),
            net.addr().to_ipv6_mapped().octets(),
        ),
        IpNet::V6(net) => (u32::from(net.prefix_len()), net.addr().octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::addresses::mapped;

    #[test]
    fn ports_are_lists_and_ranges() {
        let set: PortSet = "80, 443,8000-8100".parse().unwrap();
        assert!(set.contains(80) && set.contains(443) && set.contains(8000) && set.contains(8100));
        assert!(!set.contains(81) && !set.contains(7999) && !set.contains(8101));
        assert_eq!("0".parse::<PortSet>(), Err(FilterError::Port("0".into())));
        assert_eq!(
            "70000".parse::<PortSet>(),
            Err(FilterError::Port("70000".into()))
        );
        assert_eq!("".parse::<PortSet>(), Err(FilterError::Port("".into())));
        assert_eq!("90-80".parse::<PortSet>(), Err(FilterError::Range(90, 80)));
        let wrong = |text: &str| text.parse::<PortSet>().unwrap_err().to_string();
        assert!(wrong("80-").starts_with("\"80-\" is a range without its last port"));
        assert!(wrong("80,-90").starts_with("\"-90\" is a range without its first port"));
        assert!(wrong("80,,443").starts_with("\"80,,443\" has an empty entry"));
        assert!(wrong("80,").contains("empty entry"));
        for name in ["http", "ftp-data"] {
            assert!(wrong(name).ends_with(&format!("(see: getent services {name})")));
        }
    }

    #[test]
    fn the_bitmap_holds_what_the_set_holds() {
        let selection = Selection {
            ports: "1,63,64,8080,65535".parse().unwrap(),
            ..Default::default()
        };
        let kernel = selection.to_kernel(Detail::default(), (32768, 60999));
        for port in 1..=u16::MAX {
            let bit = kernel.ports[usize::from(port) / 64] >> (port % 64) & 1;
            assert_eq!(bit == 1, selection.ports.contains(port), "port {port}");
        }
        assert_eq!(kernel.filter.ports, BY_EITHER_PORT);
        assert_eq!(kernel.filter.unbound, 0);
    }

    #[test]
    fn an_ephemeral_local_port_lets_unbound_clients_through() {
        let selection = Selection {
            local_ports: "40000".parse().unwrap(),
            ..Default::default()
        };
        assert_eq!(
            selection
                .to_kernel(Detail::default(), (32768, 60999))
                .filter
                .unbound,
            1
        );
        assert!(selection.matches(None, Some(80), "10.0.0.1".parse().unwrap(), 1));
        assert!(!selection.matches(Some(40001), Some(80), "10.0.0.1".parse().unwrap(), 1));
    }

    #[test]
    fn a_v4_network_is_a_mapped_one_in_the_trie() {
        let net = parse_cidr("10.1.2.3/8").unwrap();
        assert_eq!(trie_key(&net), (104, mapped("10.0.0.0".parse().unwrap())));
        assert_eq!(parse_cidr("::1").unwrap().to_string(), "::1/128");
        assert_eq!(
            parse_cidr("10.0.0.0/33"),
            Err(FilterError::Prefix("10.0.0.0/33".into(), 32))
        );
        assert_eq!(
            parse_cidr("::/129").unwrap_err().to_string(),
            "\"::/129\": the prefix of this CIDR is too long, at most /128"
        );
        assert_eq!(
            parse_cidr("10.0.0/8"),
            Err(FilterError::Cidr("10.0.0/8".into()))
        );
    }
}
