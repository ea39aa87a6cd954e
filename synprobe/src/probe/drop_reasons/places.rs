//! Where a packet that is on its way out is freed: before it was sent, or after.
//!
//! A driver frees what its device has sent. Most do it by `consume_skb()`, which raises no event. Some do it as they
//! free what they drop, by `dev_kfree_skb_any()` or `dev_kfree_skb_irq()`: `skb:kfree_skb` with the reason
//! NOT_SPECIFIED, within microseconds, while the socket still waits in SYN_SENT. `vmxnet3_unmap_pkt()`
//! (drivers/net/vmxnet3/vmxnet3_drv.c, up to 7.2) is one of them.

/// Functions between TCP and a driver, and those of devices that are software alone: what they free without a
/// reason was not sent. Functions of drivers for hardware are not among them, nor is `net_tx_action()`, which frees
/// what drivers have sent as well.
const BEFORE_THE_DEVICE: &[&str] = &[
    // IP and netfilter.
    "__ip_finish_output",
    "__ip_local_out",
    "__ip_queue_xmit",
    "__nf_queue",
    "ip6_finish_output",
    "ip6_finish_output2",
    "ip6_forward",
    "ip6_fragment",
    "ip6_output",
    "ip6_xmit",
    "ip_do_fragment",
    "ip_finish_output",
    "ip_finish_output2",
    "ip_forward",
    "ip_forward_finish",
    "ip_fragment",
    "ip_output",
    "nf_hook_slow",
    "nf_queue",
    "nf_reinject",
    "nfqnl_flush",
    "nfqnl_recv_verdict",
    "nfqnl_recv_verdict_batch",
    "nfqnl_reinject",
    // Routes that lead nowhere, or into another layer.
    "bpf_output",
    "bpf_xmit",
    "dst_discard_out",
    "ila_output",
    "ioam6_output",
    "lwtunnel_output",
    "lwtunnel_xmit",
    "mpls_output",
    "mpls_xmit",
    "rpl_output",
    "seg6_local_output",
    "seg6_output",
    // IPsec.
    "__xfrm4_output",
    "__xfrm6_output",
    "xdst_queue_output",
    "xfrm4_output",
    "xfrm6_output",
    "xfrm_output",
    "xfrm_output2",
    "xfrm_output_one",
    "xfrm_output_resume",
    // Neighbours.
    "arp_error_report",
    "ndisc_error_report",
    "neigh_invalidate",
    "neigh_probe",
    "neigh_resolve_output",
    // Traffic control, and the way to a driver.
    "__dev_direct_xmit",
    "__dev_queue_xmit",
    "__dev_xmit_skb",
    "dev_hard_start_xmit",
    "dev_queue_xmit",
    "sch_direct_xmit",
    "validate_xmit_skb",
    "validate_xmit_skb_list",
    // Devices that are software alone.
    "____dev_forward_skb",
    "__bond_start_xmit",
    "__br_forward",
    "__dev_forward_skb",
    "__gre_xmit",
    "blackhole_netdev_xmit",
    "bond_start_xmit",
    "br_dev_queue_push_xmit",
    "br_dev_xmit",
    "br_flood",
    "br_forward",
    "dev_forward_skb",
    "erspan_xmit",
    "geneve_xmit",
    "gre_tap_xmit",
    "internal_dev_xmit",
    "ip6_tnl_start_xmit",
    "ip6_tnl_xmit",
    "ip6erspan_tunnel_xmit",
    "ip6gre_tunnel_xmit",
    "ip_md_tunnel_xmit",
    "ip_tunnel_xmit",
    "ipgre_xmit",
    "ipip_tunnel_xmit",
    "ipvlan_process_v4_outbound",
    "ipvlan_process_v6_outbound",
    "ipvlan_queue_xmit",
    "ipvlan_start_xmit",
    "macsec_start_xmit",
    "macvlan_start_xmit",
    "ppp_start_xmit",
    "sit_tunnel_xmit",
    "tun_net_xmit",
    "veth_xmit",
    "vlan_dev_hard_start_xmit",
    "vrf_ip6_out_direct",
    "vrf_ip_out_direct",
    "vrf_xmit",
    "vti6_tnl_xmit",
    "vti_tunnel_xmit",
    "vxlan_xmit",
    "vxlan_xmit_one",
    "wg_xmit",
    "xfrmi_xmit",
];

/// Whether a packet that this function freed, on its way out and without a reason, was not sent. False: it may have
/// been.
pub fn is_before_the_device(function: &str) -> bool {
    BEFORE_THE_DEVICE.contains(&function)
}

/// What a function of [`REFUSING_FUNCTIONS`](synprobe_ebpf::config::REFUSING_FUNCTIONS) means by freeing a packet
/// without a reason: words and commands, as of a [`Meaning`](super::Meaning).
pub fn refusal(function: &str) -> Option<(&'static str, &'static str)> {
    match function {
        "nf_queue" => Some((
            "a rule hands it to a program by NFQUEUE, and no program reads that queue, or it is full",
            "cat /proc/net/netfilter/nfnetlink_queue; nft list ruleset; iptables-save -c; ip6tables-save -c \
             # the option bypass lets packets pass while no program reads the queue",
        )),
        "br_handle_frame_finish" => Some((
            "the bridge does not pass it on: it would leave by the port by which it came (hairpin mode is off), or a \
             port is isolated, locked, blocked or in another VLAN",
            "bridge -d link; bridge vlan show; bridge fdb show",
        )),
        // Over IPv4 `ip_error()`, over IPv6 the others. Of an outgoing SYN the reason is another: `enrich.rs`.
        "ip_error" | "dst_discard" | "dst_discard_out" => Some((
            "a route or rule of type blackhole, prohibit or unreachable discards it",
            "ip rule; ip -6 rule; ip route show table all; ip -6 route show table all",
        )),
        // Over IPv6 what waits for its neighbour is freed without a reason.
        "neigh_invalidate" | "ndisc_error_report" => Some((
            "the next hop does not answer ARP or neighbour discovery",
            "ip neighbour show <peer>; ip route get <peer>; ip -s link",
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_driver_frees_may_have_been_sent() {
        for function in ["dst_discard_out", "veth_xmit", "xfrm_output_resume"] {
            assert!(is_before_the_device(function), "{function}");
        }
        for function in [
            "vmxnet3_tq_tx_complete",
            "net_tx_action",
            "e1000_xmit_frame",
        ] {
            assert!(!is_before_the_device(function), "{function}");
        }
    }
}
