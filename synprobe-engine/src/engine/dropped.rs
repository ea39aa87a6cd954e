//! Dropped packets: from the kernel's records to what is known around a handshake.

use std::net::SocketAddr;

use synprobe_ebpf::event::DropRecord;

use super::{DropMeaning, Engine};
use crate::{
    model::Tuple,
    track::{Observation, Treatment},
    util::addresses::printable,
    verdict::context::{DroppedPacket, Ends, Packet, tell_offload_from_damage},
};

impl Engine {
    /// Namespaces whose rules of the packet filter are to be read and fed ([`Input::Rules`](super::Input::Rules)).
    /// Each is returned once. `is_last`: the run ends, and packets were dropped since the last reading.
    pub fn wanted_rules(&mut self, is_last: bool) -> Vec<u32> {
        self.judge.context.wanted_rules(is_last)
    }

    /// A packet was dropped: by this host itself, or by a half-open that has processed it.
    pub(super) fn dropped(&mut self, r: DropRecord, meaning: Option<&DropMeaning>) {
        let local = SocketAddr::new(printable(r.flow.local_addr), r.flow.local_port);
        let peer = SocketAddr::new(printable(r.flow.peer_addr), r.flow.peer_port);
        let packet = Packet::of(r.flags);
        let incoming = r.ifindex != 0;
        let treatment = treatment(&r, meaning);
        self.judge.context.note_listener_of(&r.flow);
        if self.freed_by_socket(&r, meaning) {
            self.tracker.observe(Observation::Drop(r, treatment));
            return;
        }
        let context = &mut self.judge.context;
        if r.sender != 0
            && let Some(meaning) = meaning.filter(|meaning| !meaning.is_own_doing())
        {
            let (ends, at_ns) = (Ends::between(local, peer), r.header.ts_ns);
            context.note_freed_syn(r.flow.netns, ends, meaning.place.clone(), at_ns);
        }
        if let Some(meaning) = meaning.filter(|meaning| meaning.is_own_doing()) {
            let is_selected = context.selection.selects_drop(&r);
            let (from, to) = if incoming {
                (peer, local)
            } else {
                (local, peer)
            };
            let mut drop = DroppedPacket {
                device: context.device(r.flow.netns, r.ifindex),
                netns: r.flow.netns,
                from,
                to,
                packet,
                incoming,
                reason: meaning.reason.clone(),
                words: meaning.words.clone(),
                remedy: meaning.remedy.clone(),
                place: meaning.place.clone(),
                count: 1,
                last_ns: r.header.ts_ns,
                came_by: r.ifindex,
                syn_seq: packet.syn_seq(r.seq, r.ack),
                flags: r.flags,
                called_port: r.called_port(),
                invalid: None,
                seqs: vec![r.seq],
            };
            if drop.is_for_other_station() && !context.has_address(drop.netns, drop.to.ip()) {
                // A device in promiscuous mode sees what is others' business.
                return;
            }
            if is_selected {
                self.host_counts.drop(meaning.reason.clone(), incoming);
            }
            let context = &mut self.judge.context;
            context.tell_filter_from_conntrack(&mut drop);
            context.tell_rule_from_address(&mut drop);
            tell_offload_from_damage(&mut drop, &r);
            context.note_drop(drop.clone());
            // One that has a half-open is a repeated SYN.
            if is_selected && !self.tracker.has_half_open(&Tuple::from(&r.flow)) {
                self.note_dropped_syn(&drop);
            }
        } else if r.listener != 0
            && packet == Packet::Syn
            && r.has_mac != 0
            && incoming
            && treatment != Treatment::Ignored
        {
            let from = (r.ifindex, r.source_mac);
            context.note_syn_path(r.flow.netns, peer.ip(), local.ip(), from, r.header.ts_ns);
        }
        self.tracker.observe(Observation::Drop(r, treatment));
    }
}

/// What a half-open made of the packet, by the kernel's name for the reason.
fn treatment(r: &DropRecord, meaning: Option<&DropMeaning>) -> Treatment {
    match meaning {
        Some(meaning) if meaning.is_own_doing() => Treatment::Ignored,
        Some(meaning) if r.listener != 0 => match &*meaning.reason {
            "NOT_SPECIFIED" => Treatment::Taken,
            "TCP_LISTEN_OVERFLOW" => Treatment::Overflow,
            _ => Treatment::Ignored,
        },
        _ => Treatment::Untold,
    }
}
