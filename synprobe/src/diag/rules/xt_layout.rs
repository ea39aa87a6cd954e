//! Where x_tables keeps what, for IPv4 and IPv6 (include/uapi/linux/netfilter_ipv4/ip_tables.h).

use crate::model::FilterHook;

/// By number (`enum nf_inet_hooks`).
pub(super) const HOOKS: [FilterHook; 6] = [
    FilterHook::Prerouting,
    FilterHook::Input,
    FilterHook::Forward,
    FilterHook::Output,
    FilterHook::Postrouting,
    FilterHook::Ingress,
];
/// Names of the chains of hooks.
pub(super) const CHAINS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// What differs between IPv4 and IPv6.
pub(super) struct EntryLayout {
    pub v6: bool,
    /// Where tables are listed that exist.
    pub names: &'static str,
    pub domain: libc::c_int,
    pub level: libc::c_int,
    /// Bytes of an address, and where the interfaces, the protocol, the flags and the inversions stand.
    pub address: usize,
    pub devices: usize,
    pub protocol: usize,
    pub flags: usize,
    pub inverted: usize,
    /// Where the offset of the target stands, and the counters.
    pub target_offset: usize,
    pub counters: usize,
    pub entry: usize,
    /// The flag of a goto (`IPT_F_GOTO`, `IP6T_F_GOTO`).
    pub goto: u8,
    pub command: &'static str,
}

/// `struct ipt_entry` with `struct ipt_ip`, `struct ip6t_entry` with `struct ip6t_ip6`.
pub(super) const LAYOUTS: [EntryLayout; 2] = [
    EntryLayout {
        v6: false,
        names: "/proc/thread-self/net/ip_tables_names",
        domain: libc::AF_INET,
        level: libc::IPPROTO_IP,
        address: 4,
        devices: 16,
        protocol: 80,
        flags: 82,
        inverted: 83,
        target_offset: 88,
        counters: 96,
        entry: 112,
        goto: 2,
        command: "iptables",
    },
    EntryLayout {
        v6: true,
        names: "/proc/thread-self/net/ip6_tables_names",
        domain: libc::AF_INET6,
        level: libc::IPPROTO_IPV6,
        address: 16,
        devices: 64,
        protocol: 128,
        flags: 131,
        inverted: 132,
        target_offset: 140,
        counters: 152,
        entry: 168,
        goto: 4,
        command: "ip6tables",
    },
];

/// Where a hook's chain begins, and the entry of its policy.
pub(super) struct HookPlace {
    pub hook: usize,
    pub entry: usize,
    pub policy: usize,
}
