//! TCP checksums that were never computed.
//!
//! With checksum offload the kernel writes only the sum of the pseudo-header into the field (`tcp_v4_send_check()`,
//! CHECKSUM_PARTIAL) and leaves the rest to the device. A wire in software that hands the packet on as it is
//! delivers it so.

use std::net::IpAddr;

use synprobe_ebpf::event::DropRecord;

use super::DroppedPacket;
use crate::util::addresses::printable;

const NEVER_COMPUTED: &str = "the TCP checksum was never computed: the field holds the pseudo-header's sum, as the \
                              kernel leaves it to the sender's device (checksum offload)";

/// Says in words where the checksum of a dropped packet was left to a device that did not compute it.
pub fn tell_offload_from_damage(d: &mut DroppedPacket, r: &DropRecord) {
    if &*d.reason == "TCP_CSUM" && is_pseudo_header_sum(r) {
        d.words = NEVER_COMPUTED.into();
    }
}

/// Whether the field holds the sum of the pseudo-header (RFC 9293 section 3.1) alone.
fn is_pseudo_header_sum(r: &DropRecord) -> bool {
    // With data, or with a receiver, the length of the segment is not in the record.
    if r.payload != 0 || r.receiver != 0 || r.listener != 0 || r.ack_backlog < 20 {
        return false;
    }
    let words = |addr: [u8; 16]| -> u32 {
        let bytes = match printable(addr) {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let pairs = bytes.chunks_exact(2);
        pairs
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum()
    };
    let mut sum = words(r.flow.local_addr) + words(r.flow.peer_addr);
    sum += libc::IPPROTO_TCP as u32 + r.ack_backlog;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u32::from(r.check) == sum
}

#[cfg(test)]
mod tests {
    use synprobe_ebpf::event::Flow;

    use super::*;
    use crate::{
        model::Outcome,
        util::addresses::mapped,
        verdict::{context::Packet, fixtures::*},
    };

    fn words(local: &str, peer: &str, check: u16, change: impl Fn(&mut DropRecord)) -> String {
        let mut r = DropRecord {
            flow: Flow {
                local_addr: mapped(local.parse().unwrap()),
                peer_addr: mapped(peer.parse().unwrap()),
                ..Flow::default()
            },
            check,
            ack_backlog: 40,
            ..DropRecord::default()
        };
        change(&mut r);
        let mut d = discard(&half_open(Outcome::Open), Packet::Syn, 1);
        (d.reason, d.words) = ("TCP_CSUM".into(), "wrong".into());
        tell_offload_from_damage(&mut d, &r);
        d.words.into_owned()
    }

    #[test]
    fn the_pseudo_headers_sum_shows_an_offload_that_was_not_done() {
        // 10.79.0.1 + 10.79.0.2, protocol 6, 40 bytes: 0x0a4f * 2 + 1 + 2 + 6 + 40 = 0x14cf.
        let (local, peer) = ("10.79.0.1", "10.79.0.2");
        assert_eq!(words(local, peer, 0x14cf, |_| ()), NEVER_COMPUTED);
        assert_eq!(words(local, peer, 0x14ce, |_| ()), "wrong");
        // fd79::1, fd79::2: 0xfd79 * 2 = 0x1faf2, folded 0xfaf3; + 1 + 2 + 6 + 40 = 0xfb24.
        assert_eq!(words("fd79::1", "fd79::2", 0xfb24, |_| ()), NEVER_COMPUTED);
        // With data the length is not known. An old recording has neither field.
        assert_eq!(words(local, peer, 0x14cf, |r| r.payload = 1), "wrong");
        assert_eq!(words(local, peer, 0, |r| r.ack_backlog = 0), "wrong");
    }
}
