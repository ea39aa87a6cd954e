//! Whose packet a dropped one is: by the reason, and the state of the socket that received or sent it.

use synprobe_ebpf::{
    config::{
        MISSING, NO_SOCKET_REASON, OTHER_STATION_REASON, REASON_WORDS, REASONS_ANSWER,
        REASONS_EXISTING, REASONS_HALF_OPEN, REFUSING_WORDS, ROLE_CLIENT, ROLE_SERVER,
    },
    event::state,
};

use super::{
    IPPROTO_TCP,
    tcp_flags::{ACK, RST, SYN},
};
use crate::{
    kread::{Kptr, ReadError, netns, netns_of_device, place},
    maps::{REASONS, REFUSING},
};

/// The reasons with which some receiver frees a packet that concerns a handshake.
#[inline(always)]
pub(super) fn for_receiver(reason: u32) -> bool {
    listed(REASONS_HALF_OPEN, reason)
        || listed(REASONS_ANSWER, reason)
        || listed(REASONS_EXISTING, reason)
}

/// Whether a packet that this receiver frees concerns a handshake. Copies for raw sockets do not, nor do the
/// packets of established connections but for a SYN.
#[inline(always)]
pub(super) fn counts(
    skb: Kptr,
    sk: Kptr,
    receiver_state: u8,
    reason: u32,
    wanted: bool,
) -> Result<bool, ReadError> {
    match receiver_state {
        state::LISTEN => Ok(wanted || listed(REASONS_HALF_OPEN, reason)),
        state::SYN_SENT => Ok(wanted || listed(REASONS_ANSWER, reason)),
        state::SYN_RECV => Ok(wanted),
        other if state::is_existing(other) && listed(REASONS_EXISTING, reason) => {
            // TCP has parsed the header: one read rejects the packets of normal connections.
            let flags = place!(cb_flags);
            if flags == MISSING {
                return Ok(false);
            }
            let flags: u8 = skb.read(place!(skb_cb).wrapping_add(flags))?;
            // A SYN, or a SYN-ACK that the peer repeats.
            if flags & (SYN | RST) != SYN {
                return Ok(false);
            }
            // A TIME_WAIT socket has no such member. Connected raw and UDP sockets are in ESTABLISHED.
            Ok(other == state::TIME_WAIT || sk.read::<u16>(place!(protocol))? == IPPROTO_TCP)
        }
        _ => Ok(false),
    }
}

/// The socket that sent the packet, where it is in SYN_SENT. A clone that goes to a packet socket has none.
#[inline(always)]
pub(super) fn sender_in_syn_sent(skb: Kptr) -> Result<Option<Kptr>, ReadError> {
    let sk = Kptr::new(skb.read(place!(skb_sk))?);
    if sk.address() == 0 || sk.read::<u8>(place!(state))? != state::SYN_SENT {
        return Ok(None);
    }
    Ok(Some(sk))
}

/// Whether a bitmap has the reason.
#[inline(always)]
pub(super) fn listed(bitmap: usize, reason: u32) -> bool {
    let word = reason as usize >> 6;
    if word >= REASON_WORDS {
        return false;
    }
    let words: *const u64 = (&raw const REASONS).cast();
    // SAFETY: the bitmap is one of the six, and the word was checked: it is inside the global.
    let word = unsafe { words.add(bitmap * REASON_WORDS + word).read_volatile() };
    word & (1 << (reason & 63)) != 0
}

/// Whether it is the reason with which a SYN is freed that found no socket.
#[inline(always)]
pub(super) fn is_no_socket(reason: u32) -> bool {
    is_number(NO_SOCKET_REASON, reason)
}

/// Whether it is the reason with which a frame for another station is freed.
#[inline(always)]
pub(super) fn is_other_station(reason: u32) -> bool {
    is_number(OTHER_STATION_REASON, reason)
}

#[inline(always)]
fn is_number(index: usize, reason: u32) -> bool {
    let words: *const u64 = (&raw const REASONS).cast();
    // SAFETY: the index is one of the two behind the bitmaps: the word is inside the global.
    unsafe { words.add(index).read_volatile() == u64::from(reason) }
}

/// Whether a function freed the packet that frees without a reason what this host does not deliver.
#[inline(always)]
pub(super) fn refused_at(location: u64) -> bool {
    let words: *const u64 = (&raw const REFUSING).cast();
    let mut at = 0;
    while at < REFUSING_WORDS {
        // SAFETY: both words are inside the global.
        let (begin, end) = unsafe {
            (
                words.add(at).read_volatile(),
                words.add(at + 1).read_volatile(),
            )
        };
        if location >= begin && location < end {
            return true;
        }
        at += 2;
    }
    false
}

/// Namespace of a packet without a receiving socket; 0 where it is unknown.
///
/// A packet that crosses namespaces keeps its sender's socket until the IP layer (`skb_scrub_packet()` since
/// 4.19), so on ingress the device decides. On egress there may be no device yet.
#[inline(always)]
pub(super) fn netns_of(skb: Kptr, device: Kptr, incoming: bool) -> Result<u32, ReadError> {
    if incoming && device.address() != 0 {
        return netns_of_device(device);
    }
    let sk = Kptr::new(skb.read(place!(skb_sk))?);
    if sk.address() != 0 {
        return netns(sk);
    }
    if device.address() != 0 {
        return netns_of_device(device);
    }
    Ok(0)
}

/// The role of this host's end, where the packet implies it.
#[inline(always)]
pub(super) fn role(flags: u8, incoming: bool, to_listener: bool) -> Option<u32> {
    match flags & (SYN | ACK) {
        _ if to_listener => Some(ROLE_SERVER),
        SYN if incoming => Some(ROLE_SERVER),
        SYN => Some(ROLE_CLIENT),
        both if both == SYN | ACK && incoming => Some(ROLE_CLIENT),
        both if both == SYN | ACK => Some(ROLE_SERVER),
        _ => None,
    }
}
