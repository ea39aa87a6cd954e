//! What a packet was before address translation: by the entry of connection tracking that it holds.

use synprobe_ebpf::config::MISSING;

use crate::kread::{Kptr, ReadError, place};

/// The bits of `_nfct` that are no address (`NFCT_INFOMASK`).
const NFCT_INFO: u64 = 7;
/// DNAT changed the destination (`enum ip_conntrack_status`, uapi/linux/netfilter/nf_conntrack_common.h).
const IPS_DST_NAT: u64 = 1 << 5;

/// The port that the client called, where DNAT changed the destination; 0: it did not, or that is not known. The packet
/// holds its entry of conntrack, also where the RST that answered it has removed that from the table.
#[inline(always)]
pub(super) fn called_before_nat(skb: Kptr) -> Result<u16, ReadError> {
    let (entry, status, port) = (place!(skb_nfct), place!(ct_status), place!(tuple_port));
    let (tuples, ends) = (place!(ct_tuplehash), place!(hash_tuple));
    if entry == MISSING || status == MISSING || port == MISSING {
        return Ok(0);
    }
    if tuples == MISSING || ends == MISSING {
        return Ok(0);
    }
    let entry = Kptr::new(skb.read::<u64>(entry)? & !NFCT_INFO);
    if entry.address() == 0 || entry.read::<u64>(status)? & IPS_DST_NAT == 0 {
        return Ok(0);
    }
    let at = tuples.wrapping_add(ends).wrapping_add(port);
    Ok(u16::from_be(entry.read(at)?))
}
