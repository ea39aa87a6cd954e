//! From what the kernel and ICMP say in numbers to what the verdicts are drawn from.

use std::{net::SocketAddr, sync::Arc};

use synprobe_ebpf::event::DropRecord;

use crate::{
    diag::icmp::{Buffer, IcmpErrors},
    probe::{drop_reasons::Reasons, kallsyms::Kallsyms},
    util::addresses::{mapped, printable},
    verdict::context::{Context, DroppedPacket, Ends, IcmpReport, Packet},
};

/// Names for the numbers of this kernel.
pub struct Enricher {
    reasons: Arc<Reasons>,
    symbols: Kallsyms,
    icmp: Buffer,
}

impl Enricher {
    /// With the kernel's reasons; its symbols are read when the first is asked for.
    pub fn new(reasons: Arc<Reasons>) -> Self {
        Self {
            reasons,
            symbols: Kallsyms::open(),
            icmp: Buffer::default(),
        }
    }

    /// A packet was thrown away: by this host itself, or by a half-open that has dealt with it.
    pub fn discarded(&self, r: &DropRecord, context: &mut Context) {
        let local = SocketAddr::new(printable(r.flow.local_addr), r.flow.local_port);
        let peer = SocketAddr::new(printable(r.flow.peer_addr), r.flow.peer_port);
        let packet = Packet::of(r.flags);
        let incoming = r.ifindex != 0;
        if let Some(meaning) = self.reasons.own_doing(r.reason) {
            let (from, to) = if incoming {
                (peer, local)
            } else {
                (local, peer)
            };
            context.note_drop(DroppedPacket {
                netns: r.flow.netns,
                from,
                to,
                packet,
                incoming,
                reason: meaning.name,
                words: meaning.words,
                remedy: meaning.remedy,
                place: self.symbols.name(r.location).map(Arc::from),
                count: 1,
                last_ns: r.header.ts_ns,
            });
        } else if r.listener != 0 && packet == Packet::Syn && r.has_mac != 0 && incoming {
            context.note_syn_path(r.flow.netns, peer.ip(), local.ip(), r.ifindex, r.source_mac);
        }
    }

    /// Takes in the ICMP errors that came since the last time.
    pub fn listen(&mut self, icmp: &IcmpErrors, context: &mut Context) {
        let flat = |a: SocketAddr| (mapped(a.ip()), a.port());
        icmp.drain(&mut self.icmp, |error| {
            let word = IcmpReport {
                from: error.from,
                what: error.words(),
                count: 1,
            };
            context.note_icmp(Ends::new(flat(error.local), flat(error.peer)), word);
        });
    }
}
