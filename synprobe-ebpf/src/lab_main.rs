//! The lab's fault injector: a classifier on the ingress of an interface that loses chosen TCP segments.
//!
//! It parses Ethernet, IPv4, IPv6 without extension headers, and TCP: the lab's namespaces exchange nothing
//! else. It passes what it cannot parse or look up.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::{TC_ACT_OK, TC_ACT_SHOT},
    btf_maps::{Array, HashMap, PerCpuArray},
    helpers::bpf_skb_change_type,
    macros::{btf_map, classifier},
    programs::TcContext,
};
use synprobe_ebpf::lab_config::{
    FAULT_ALWAYS, FAULT_FIRST, FAULT_OFF, FAULT_ORDINALS, FAULT_RULES, FaultCount, FaultFlow,
    FaultRule, PAYLOAD_NONE, PAYLOAD_ONLY,
};

/// The rules. Userspace changes them while the program runs.
#[btf_map]
static RULES: Array<FaultRule, FAULT_RULES> = Array::new();

/// Counts of each rule. Separate from [`RULES`], so that changing a rule loses no count. Per CPU, so that the
/// sum is exact.
#[btf_map]
static COUNTS: PerCpuArray<FaultCount, FAULT_RULES> = PerCpuArray::new();

/// Matching segments of each flow and rule. Each of several concurrent handshakes loses its own first SYN.
#[btf_map]
static ORDINALS: HashMap<FaultFlow, u64, 4096> = HashMap::new();

/// Of `linux/if_packet.h`: addressed to another host's MAC address.
const PACKET_OTHERHOST: u32 = 3;
const ETH_LEN: usize = 14;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const IPPROTO_TCP: u8 = 6;

struct ParsedPacket {
    flow: FaultFlow,
    flags: u8,
    payload: bool,
}

#[classifier]
pub fn lose(ctx: TcContext) -> i32 {
    let lost = parse(&ctx).and_then(|mut segment| fate(&mut segment));
    if lost == Some(true) {
        return TC_ACT_SHOT;
    }
    if lost == Some(false) {
        // The segment must appear lost on the network. TC_ACT_SHOT would report a drop by this host. The IP
        // layer silently drops packets for other hosts (ip_rcv_core() and ip6_rcv_core():
        // SKB_DROP_REASON_OTHERHOST), as behind a hub.
        // SAFETY: the program's own packet. The call fails only for a type above OTHERHOST, which neither
        // the packet nor the call has.
        unsafe { bpf_skb_change_type(ctx.skb.skb, PACKET_OTHERHOST) };
    }
    TC_ACT_OK
}

#[inline(always)]
fn parse(ctx: &TcContext) -> Option<ParsedPacket> {
    let mut flow = FaultFlow::default();
    let (tcp, ip_payload) = match u16::from_be(ctx.load::<u16>(12).ok()?) {
        ETH_P_IP => {
            if ctx.load::<u8>(ETH_LEN + 9).ok()? != IPPROTO_TCP {
                return None;
            }
            let header = usize::from(ctx.load::<u8>(ETH_LEN).ok()? & 0xf) * 4;
            let total = usize::from(u16::from_be(ctx.load::<u16>(ETH_LEN + 2).ok()?));
            let source = ctx.load::<[u8; 4]>(ETH_LEN + 12).ok()?;
            let destination = ctx.load::<[u8; 4]>(ETH_LEN + 16).ok()?;
            flow.source = mapped(source);
            flow.destination = mapped(destination);
            (ETH_LEN + header, total.wrapping_sub(header))
        }
        ETH_P_IPV6 => {
            if ctx.load::<u8>(ETH_LEN + 6).ok()? != IPPROTO_TCP {
                return None;
            }
            flow.source = ctx.load::<[u8; 16]>(ETH_LEN + 8).ok()?;
            flow.destination = ctx.load::<[u8; 16]>(ETH_LEN + 24).ok()?;
            let payload = usize::from(u16::from_be(ctx.load::<u16>(ETH_LEN + 4).ok()?));
            (ETH_LEN + 40, payload)
        }
        _ => return None,
    };
    flow.source_port = u16::from_be(ctx.load::<u16>(tcp).ok()?);
    flow.destination_port = u16::from_be(ctx.load::<u16>(tcp + 2).ok()?);
    let tcp_header = usize::from(ctx.load::<u8>(tcp + 12).ok()? >> 4) * 4;
    let flags = ctx.load::<u8>(tcp + 13).ok()?;
    Some(ParsedPacket {
        flow,
        flags,
        payload: ip_payload > tcp_header,
    })
}

#[inline(always)]
fn mapped(v4: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = v4;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// Whether this host drops it visibly; `None`: it is not lost.
#[inline(always)]
fn fate(segment: &mut ParsedPacket) -> Option<bool> {
    for index in 0..FAULT_RULES as u32 {
        let rule = RULES.get(index)?;
        if !matches(rule, segment) {
            continue;
        }
        let lost = match rule.action {
            FAULT_ALWAYS => true,
            FAULT_FIRST => ordinal(rule, index, segment).is_some_and(|n| n < rule.which),
            FAULT_ORDINALS => {
                ordinal(rule, index, segment).is_some_and(|n| n < 64 && (rule.which >> n) & 1 == 1)
            }
            _ => false,
        };
        count(index, lost);
        return lost.then_some(rule.dropped_here != 0);
    }
    None
}

#[inline(always)]
fn matches(rule: &FaultRule, segment: &ParsedPacket) -> bool {
    rule.action != FAULT_OFF
        && segment.flags & rule.flags_mask == rule.flags_value
        && (rule.source_port == 0 || rule.source_port == segment.flow.source_port)
        && (rule.destination_port == 0 || rule.destination_port == segment.flow.destination_port)
        && !(rule.payload == PAYLOAD_ONLY && !segment.payload)
        && !(rule.payload == PAYLOAD_NONE && segment.payload)
}

/// Number of earlier segments of this flow that matched the rule.
///
/// The kernel processes segments of one direction of a flow one by one, so a plain read and write is
/// sufficient. A fetch-and-add would need Linux 5.12.
#[inline(always)]
fn ordinal(rule: &FaultRule, index: u32, segment: &mut ParsedPacket) -> Option<u64> {
    segment.flow.rule = index;
    segment.flow.generation = rule.generation;
    if let Some(next) = ORDINALS.get_ptr_mut(&segment.flow) {
        // SAFETY: the pointer is to a live value of the map; entries are never deleted.
        let n = unsafe { *next };
        // SAFETY: as above.
        unsafe { *next = n + 1 };
        return Some(n);
    }
    ORDINALS.insert(&segment.flow, 1u64, 0).ok()?;
    Some(0)
}

#[inline(always)]
fn count(index: u32, lost: bool) {
    let Some(counts) = COUNTS.get_ptr_mut(index) else {
        return;
    };
    // SAFETY: the pointer is to a live value of the map of this CPU. Receive processing on one CPU does not
    // interrupt itself.
    let counts = unsafe { &mut *counts };
    counts.seen += 1;
    counts.dropped += u64::from(lost);
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

// bpf_skb_load_bytes needs no licence, but the loader passes one with every program.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
