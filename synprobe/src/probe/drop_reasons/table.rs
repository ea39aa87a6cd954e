//! The reasons that are recorded, with their meanings.

use super::kinds::OTHER_STATION;

/// A reason for which this host drops a packet of a handshake.
#[derive(Debug, PartialEq, Eq)]
pub struct Meaning {
    /// The kernel's name for it, without `SKB_DROP_REASON_`.
    pub name: &'static str,
    /// What on this host drops the packet, in words.
    pub words: &'static str,
    /// Commands that show or mend the cause, as a shell runs them: separated by `; `, a comment last.
    /// `<peer>`, `<local>` (addresses) and `<device>` are replaced by those of the packet.
    pub remedy: &'static str,
    /// When the reason is recorded.
    pub(super) record_when: RecordWhen,
}

/// When a reason shows that this host dropped a packet of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordWhen {
    /// Always.
    Always,
    /// Always, and only for incoming packets whose device the kernel has not set yet.
    ComingIn,
    /// Only if the kernel passes the receiving socket too (Linux 6.11): it drops copies for raw sockets for
    /// the same reason.
    WithReceiver,
}

const fn reason(name: &'static str, words: &'static str, remedy: &'static str) -> Meaning {
    Meaning {
        name,
        words,
        remedy,
        record_when: RecordWhen::Always,
    }
}

/// Commands for several reasons.
mod look {
    pub const NFT: &str = "nft list ruleset; iptables-save -c; ip6tables-save -c";
    pub const MARTIANS: &str = "sysctl -w net.ipv4.conf.all.log_martians=1; dmesg | grep -i martian; \
         ip -br address; ip route get <peer>";
    pub const ROUTE_ONWARD: &str = "ip route get <local>; ip rule; ip route show table all";
    pub const ROUTE_BACK: &str = "ip route get <peer>; ip rule; ip route show table all";
    pub const NEIGHBOURS: &str = "ip neighbour show <peer>; ip route get <peer>; ip -s link";
    pub const NEIGHBOUR_TABLE: &str = "ip neighbour | wc -l; sysctl net.ipv4.neigh.default.gc_thresh3 \
         net.ipv6.neigh.default.gc_thresh3; dmesg | grep -i neighbour";
    pub const QDISC: &str = "tc -s qdisc show; ip -s link";
    pub const TC: &str = "tc -s filter show dev <device> ingress; tc -s filter show dev <device> \
         egress; tc -s qdisc show; bpftool net";
    pub const AUTH: &str =
        "nstat -az 'TcpExtTCPMD5*' 'TcpExtTCPAO*' # compare the keys of both ends";
    pub const MEMORY: &str = "free -m; dmesg | grep -i -e oom -e 'allocation failure'";
    pub const DAMAGED: &str =
        "nstat -az TcpInCsumErrors IpExtInCsumErrors; ethtool -S <device>; ip -s link";
    pub const CHECKSUM: &str = "nstat -az TcpInCsumErrors; ethtool -k <device> # the checksum is the sender's: there, \
         ethtool -K DEVICE tx off for the device that the packet leaves by";
    pub const IPSEC: &str = "ip xfrm policy; ip xfrm state; cat /proc/net/xfrm_stat";
    pub const BRIDGE: &str = "bridge fdb show; bridge link; ip -d link show <device>";
}

/// The reasons that are recorded whatever socket the packet was for, with their meanings.
///
/// Left out are: packets for no socket here (NO_SOCKET but for SYNs), the protocol's own decisions
/// (TCP_FLAGS, TCP_INVALID_SYN, TCP_OLD_ACK, TCP_RFC7323_PAWS, ..., of which a listener's are found by the receiving
/// socket), NOT_SPECIFIED, copies (PACKET_SOCK_ERROR, TAP_TXFILTER, BRIDGE_INGRESS_STP_STATE, SOCKET_RCVBUFF), what a
/// TCP segment cannot meet (IP_NOPROTO, UDP_CSUM, the reasons of ARP, ICMP, fragments, CAN and VXLAN's outer headers),
/// and IP_OUTNOROUTES' first use in `ip_queue_xmit()`, where the packet has no IP header yet.
pub(super) static OWN_DOING: &[Meaning] = &[
    reason(
        "NETFILTER_DROP",
        "this host's netfilter rules (nftables, iptables)",
        look::NFT,
    ),
    reason(
        OTHER_STATION,
        "the frame is addressed to another station than the device by which it came: the sender's neighbour entry is \
         wrong or out of date, or a switch floods the frames of another host",
        "ip -br link show <device>; ip -br address # compare the sender's neighbour entry with it, and flush a wrong one \
         there",
    ),
    reason(
        "IP_RPFILTER",
        "the reverse-path filter (rp_filter): the route back to the sender does not use the interface \
         it came in on, the classic sign of an asymmetric route",
        "ip route get <peer>; sysctl net.ipv4.conf.all.rp_filter net.ipv4.conf.<device>.rp_filter \
         # 2 is loose",
    ),
    reason(
        "IP_INNOROUTES",
        "no route for a packet that came in (over IPv6 also: its destination is no address of this \
         host, and this host does not forward)",
        look::ROUTE_ONWARD,
    ),
    reason(
        "IP_OUTNOROUTES",
        "no route to the destination",
        look::ROUTE_BACK,
    ),
    reason(
        "IP_INADDRERRORS",
        "the destination is no address of this host (over IPv6 it may be a tentative one), and this host does not \
         forward; or a routing rule refuses it",
        "ip -br address; ip rule; ip route get <local>; sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding",
    ),
    reason(
        "IP_LOCAL_SOURCE",
        "the source address is one of this host's own: another machine uses it, or a packet came back",
        look::MARTIANS,
    ),
    reason(
        "IP_INVALID_SOURCE",
        "martian source address (multicast, broadcast, zero or loopback)",
        look::MARTIANS,
    ),
    reason(
        "IP_LOCALNET",
        "a loopback address on the way in from outside (route_localnet is off)",
        "sysctl net.ipv4.conf.<device>.route_localnet; iptables-save -t nat",
    ),
    reason(
        "IP_INVALID_DEST",
        "martian destination address",
        look::MARTIANS,
    ),
    reason(
        "UNICAST_IN_L2_MULTICAST",
        "a unicast packet in a link-layer broadcast (drop_unicast_in_l2_multicast is on)",
        "sysctl net.ipv4.conf.<device>.drop_unicast_in_l2_multicast; ip neighbour show <local>",
    ),
    reason(
        "IP_CSUM",
        "the IP header's checksum is wrong: damaged on the way",
        look::DAMAGED,
    ),
    reason(
        "IP_INHDR",
        "the IP header is malformed, or its hop limit ran out here (a routing loop, or a sender that sets a low one)",
        "ip route get <local>; ip route get <peer>; nstat -az IpInHdrErrors Ip6InHdrErrors",
    ),
    reason(
        "TCP_CSUM",
        "the TCP checksum is wrong: damaged on the way, or never computed (checksum offload of the sender)",
        look::CHECKSUM,
    ),
    reason(
        "IPV6DISABLED",
        "IPv6 is switched off on the interface",
        "sysctl net.ipv6.conf.<device>.disable_ipv6 net.ipv6.conf.all.disable_ipv6",
    ),
    reason(
        "XFRM_POLICY",
        "an IPsec policy refuses it: it must be encrypted, and is not, or the policy blocks it",
        look::IPSEC,
    ),
    Meaning {
        name: "SOCKET_FILTER",
        words: "a BPF filter on the socket, or one on its cgroup's way in",
        remedy: "ss -tlnb; bpftool cgroup tree",
        record_when: RecordWhen::WithReceiver,
    },
    reason(
        "BPF_CGROUP_EGRESS",
        "a BPF program on the cgroup's way out (container policy, systemd IPAddressDeny)",
        "bpftool cgroup tree; systemctl show -p Id,IPAddressDeny,IPAddressAllow '*.service'",
    ),
    reason(
        "SECURITY_HOOK",
        "a security module (SELinux, AppArmor, Smack)",
        "ausearch -m avc -ts recent; dmesg | grep -i -e denied -e avc",
    ),
    reason(
        "TC_INGRESS",
        "a tc classifier or BPF program on the way in",
        look::TC,
    ),
    reason(
        "TC_EGRESS",
        "a tc classifier or BPF program on the way out",
        look::TC,
    ),
    reason(
        "TC_COOKIE_ERROR",
        "a tc classifier that failed (cookie)",
        look::TC,
    ),
    reason(
        "TC_CHAIN_NOTFOUND",
        "a tc rule that leads to a chain which is not there",
        look::TC,
    ),
    reason(
        "TC_RECLASSIFY_LOOP",
        "tc rules that send a packet round in circles",
        look::TC,
    ),
    reason(
        "XDP",
        "an XDP program",
        "bpftool net; ip link show <device>",
    ),
    reason(
        "QDISC_DROP",
        "the queue of the way out takes nothing (qdisc): full, shaped, or of a device without a carrier",
        look::QDISC,
    ),
    reason(
        "QDISC_OVERLIMIT",
        "the queue of the way out is over its limit (qdisc)",
        look::QDISC,
    ),
    reason(
        "QDISC_CONGESTED",
        "the queue of the way out signals congestion (qdisc)",
        look::QDISC,
    ),
    reason(
        "CAKE_FLOOD",
        "the queue of the way out: cake takes it for a flood",
        look::QDISC,
    ),
    reason(
        "FQ_BAND_LIMIT",
        "the queue of the way out: a band of fq is full",
        look::QDISC,
    ),
    reason(
        "FQ_HORIZON_LIMIT",
        "the queue of the way out: its time to be sent is beyond fq's horizon",
        look::QDISC,
    ),
    reason(
        "FQ_FLOW_LIMIT",
        "the queue of the way out: fq's limit for one flow",
        look::QDISC,
    ),
    reason(
        "DUALPI2_STEP_DROP",
        "the queue of the way out: dualpi2's step limit",
        look::QDISC,
    ),
    reason(
        "NEIGH_CREATEFAIL",
        "no neighbour entry can be made: the table is full",
        look::NEIGHBOUR_TABLE,
    ),
    reason(
        "NEIGH_FAILED",
        "the next hop does not answer ARP or neighbour discovery",
        look::NEIGHBOURS,
    ),
    reason(
        "NEIGH_QUEUEFULL",
        "too many packets wait for the next hop to answer ARP or neighbour discovery",
        look::NEIGHBOURS,
    ),
    reason(
        "NEIGH_DEAD",
        "the next hop's neighbour entry is being removed",
        look::NEIGHBOURS,
    ),
    reason(
        "NEIGH_HH_FILLFAIL",
        "no link header can be made for the next hop",
        look::NEIGHBOURS,
    ),
    Meaning {
        name: "CPU_BACKLOG",
        words: "a CPU's receive backlog is full (netdev_max_backlog)",
        remedy: "cat /proc/net/softnet_stat; sysctl net.core.netdev_max_backlog; mpstat -P ALL 1 1 # the \
                 second column of softnet_stat counts the drops",
        record_when: RecordWhen::ComingIn,
    },
    reason(
        "SOCKET_BACKLOG",
        "the socket was in use and its backlog is full",
        "nstat -az TcpExtTCPBacklogDrop; ss -tmi; sysctl net.ipv4.tcp_rmem",
    ),
    reason("NOMEM", "no memory for it", look::MEMORY),
    reason(
        "PFMEMALLOC",
        "only the emergency reserve of memory is left",
        look::MEMORY,
    ),
    reason(
        "PROTO_MEM",
        "TCP is at its memory limit (tcp_mem)",
        "cat /proc/net/sockstat; sysctl net.ipv4.tcp_mem; dmesg | grep -i 'TCP: out of memory'",
    ),
    reason(
        "FULL_RING",
        "the ring of a tun or tap device is full: the virtual machine or VPN behind it is too slow",
        "ip -s link show; ip tuntap",
    ),
    reason(
        "DEV_READY",
        "the device is not ready: down, or nothing reads it",
        "ip -s link show; ip tuntap",
    ),
    reason(
        "RECURSION_LIMIT",
        "it went round through this host's own devices: a tunnel routed into itself",
        "ip route get <peer>; ip -d link",
    ),
    reason(
        "NO_TX_TARGET",
        "no port or tunnel end leads to the destination's MAC address",
        look::BRIDGE,
    ),
    reason(
        "MAC_INVALID_SOURCE",
        "the source MAC address is none that a machine may have",
        look::BRIDGE,
    ),
    reason(
        "LOCAL_MAC",
        "the source MAC address is one of this host's own (a loop, or a copied machine)",
        look::BRIDGE,
    ),
    reason(
        "TCP_MINTTL",
        "its hop limit is below what the socket asks for (IP_MINTTL)",
        "ss -tlnie; traceroute <peer>",
    ),
    reason(
        "TCP_AUTH_HDR",
        "its TCP MD5 or TCP-AO option is malformed",
        look::AUTH,
    ),
    reason(
        "TCP_MD5NOTFOUND",
        "it has no TCP MD5 signature where the socket asks for one",
        look::AUTH,
    ),
    reason(
        "TCP_MD5UNEXPECTED",
        "it has a TCP MD5 signature where the socket has no key",
        look::AUTH,
    ),
    reason(
        "TCP_MD5FAILURE",
        "its TCP MD5 signature is wrong: the two ends' keys differ",
        look::AUTH,
    ),
    reason(
        "TCP_AONOTFOUND",
        "it has no TCP-AO signature where the socket asks for one",
        look::AUTH,
    ),
    reason(
        "TCP_AOUNEXPECTED",
        "it has a TCP-AO signature where the socket has no key",
        look::AUTH,
    ),
    reason(
        "TCP_AOKEYNOTFOUND",
        "its TCP-AO key is none that the socket knows",
        look::AUTH,
    ),
    reason(
        "TCP_AOFAILURE",
        "its TCP-AO signature is wrong: the two ends' keys differ",
        look::AUTH,
    ),
];
