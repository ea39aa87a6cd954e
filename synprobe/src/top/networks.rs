//! Peers added up by network: what one subnet, or one NAT gateway, does is one row.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::model::{Peer, Role, VerdictKind};

/// Prefix lengths of the networks: what a site mostly has one of.
const PREFIXES: (u8, u8) = (24, 64);

/// The peers of one network, in one role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PeerNetwork {
    pub net: IpNet,
    pub role: Role,
    /// Peers of it that are listed.
    pub peers: u64,
    pub failed: u64,
    pub established: u64,
    /// SYNs and SYN-ACKs that were retransmitted.
    pub again: u64,
    /// The longest handshake, microseconds.
    pub longest_us: Option<u64>,
    pub verdicts: BTreeMap<VerdictKind, u64>,
}

/// The network of an address.
pub(super) fn network_of(address: IpAddr) -> IpNet {
    // The lengths are valid for their families.
    match address {
        IpAddr::V4(v4) => Ipv4Net::new(v4, PREFIXES.0).map(|net| IpNet::V4(net.trunc())),
        IpAddr::V6(v6) => Ipv6Net::new(v6, PREFIXES.1).map(|net| IpNet::V6(net.trunc())),
    }
    .unwrap_or_else(|_| IpNet::from(address))
}

/// The networks of these peers. Each stands where the first of its peers does: those in most trouble come first.
pub(super) fn networks<'p>(peers: impl Iterator<Item = &'p Peer>) -> Vec<PeerNetwork> {
    let mut places: BTreeMap<(IpNet, bool), usize> = BTreeMap::new();
    let mut networks: Vec<PeerNetwork> = Vec::new();
    for peer in peers {
        let net = network_of(peer.peer_addr);
        let key = (net, peer.role == Role::Server);
        let place = *places.entry(key).or_insert_with(|| {
            networks.push(PeerNetwork {
                net,
                role: peer.role,
                peers: 0,
                failed: 0,
                established: 0,
                again: 0,
                longest_us: None,
                verdicts: BTreeMap::new(),
            });
            networks.len() - 1
        });
        let Some(network) = networks.get_mut(place) else {
            continue;
        };
        network.peers += 1;
        network.failed += peer.failed;
        network.established += peer.established;
        network.again += peer.syn_retransmits + peer.synack_retransmits;
        network.longest_us = network.longest_us.max(peer.dwell_max_us);
        for (kind, count) in &peer.verdicts {
            *network.verdicts.entry(*kind).or_default() += count;
        }
    }
    networks
}
