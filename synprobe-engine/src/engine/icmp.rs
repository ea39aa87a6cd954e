//! ICMP errors: from the input, of today or of an earlier recording, to what is known around a handshake.

use super::{Engine, Input};
use crate::verdict::context::{Ends, IcmpReport};

impl Engine {
    /// Takes in an ICMP error; other inputs are no matter of this.
    pub(super) fn icmp_error(&mut self, input: Input) {
        let (local, peer, report) = match input {
            Input::IcmpError {
                netns,
                at_ns,
                local,
                peer,
                from,
                what,
                seq,
            } => {
                let report = IcmpReport {
                    from,
                    what,
                    count: 1,
                    netns: Some(netns),
                    seq: Some(seq),
                    last_ns: Some(at_ns),
                    local_port: local.port(),
                };
                (local, peer, report)
            }
            Input::Icmp {
                local,
                peer,
                from,
                what,
            } => {
                let report = IcmpReport {
                    from,
                    what,
                    count: 1,
                    netns: None,
                    seq: None,
                    last_ns: None,
                    local_port: local.port(),
                };
                (local, peer, report)
            }
            _ => return,
        };
        let ends = Ends::between(local, peer);
        self.judge.context.note_icmp(ends, report);
    }
}
