//! A SYN with data (Fast Open) that is too large for the path: ICMP says so, and the kernel sends it again.

use synprobe_ebpf::event::RetransmitRecord;

use super::{Tracker, data_retransmits::CA_LOSS, handshake::OpenHandshake, lines::retransmit_line};
use crate::{model::RetransmitKind, util::errno};

/// Whether a SYN is repeated for ICMP fragmentation-needed. `tcp_simple_retransmit()` marks the SYN and its
/// data as lost, and `tcp_xmit_retransmit_queue()` sends the SYN alone at once, while its timer stays armed.
/// The kernel counts it in `TCPSlowStartRetrans` and in `TCPSynRetrans`. A time-out has counted in
/// `icsk_retransmits` by then.
pub(super) fn too_large_for_path(r: &RetransmitRecord) -> bool {
    r.ca_state == CA_LOSS && r.pending != 0 && r.retransmits == 0
}

impl Tracker {
    /// Takes in such a repetition: no time-out has passed.
    pub(super) fn syn_sent_without_data(&mut self, r: &RetransmitRecord, mut open: OpenHandshake) {
        let at_ns = r.header.ts_ns;
        let missed = self.count(&mut open, r.total_retrans).saturating_sub(1);
        self.missed(r.flow.netns, at_ns, missed);
        open.facts.syn_too_large = true;
        let since_us = open.dwell_us(at_ns);
        let gap_us = open.transmitted(at_ns).or(since_us);
        open.retransmits = open.retransmits.saturating_add(u32::from(r.err == 0));
        let kind = RetransmitKind::Recovery;
        let mut line = retransmit_line(open.connection.clone(), kind, r.segs);
        line.attempt = Some(open.retransmits.max(1));
        line.gap_us = gap_us;
        line.failed = r.err != 0;
        line.error = (r.err != 0).then(|| errno::transmit_error(r.err));
        self.emit_retransmit(at_ns, line, 1);
        let (_, evicted) = self.clients.insert(r.sock, open);
        self.evicted(evicted.map(|(_, open)| open), at_ns);
    }
}
