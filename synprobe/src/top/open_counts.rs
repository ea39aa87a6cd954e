//! What is counted of the handshakes in progress by network, once for each state.

use std::collections::HashMap;

use ipnet::IpNet;

use super::networks::network_of;
use crate::{
    engine::EngineSnapshot,
    model::{Role, UnderWay},
};

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct OpenCounts {
    by_network: HashMap<(IpNet, Role), u64>,
    /// There are namespaces beside the host's.
    pub has_netns: bool,
}

impl OpenCounts {
    pub fn of(snapshot: &EngineSnapshot) -> Self {
        let mut all = Self::default();
        for ((peer, role), open) in &snapshot.open_by_peer {
            *all.by_network
                .entry((network_of(*peer), *role))
                .or_default() += open;
        }
        let is_other = |name: Option<&str>| name != Some("host");
        let of_open = |h: &UnderWay| is_other(h.connection.netns_name.as_deref());
        let mut listeners = snapshot.listeners.iter();
        let mut problems = snapshot.problems.iter();
        all.has_netns = listeners.any(|l| is_other(l.netns_name.as_deref()))
            || problems.any(|p| is_other(p.netns_name.as_deref()))
            || snapshot.open.iter().any(of_open);
        all
    }

    /// Of a network, as [`network_of`] makes it.
    pub fn of_network(&self, net: IpNet, role: Role) -> u64 {
        self.by_network.get(&(net, role)).copied().unwrap_or(0)
    }
}
