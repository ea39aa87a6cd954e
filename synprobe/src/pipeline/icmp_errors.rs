//! ICMP errors, read from the sockets that the poller opened.

use std::sync::Weak;

use super::run::Run;
use crate::{
    decode::Event,
    diag::icmp::{Buffer, IcmpErrors},
    engine::Input,
    model::TcpState,
    sys::clock::monotonic_ns,
};

/// Whether an ICMP error may have caused what an event says.
pub(super) fn has_failed(event: &Event) -> bool {
    matches!(
        event,
        Event::Error(..) | Event::State(_, TcpState::SynSent, TcpState::Close)
    )
}

impl Run {
    /// Feeds the errors of all namespaces.
    pub(super) fn drain_icmp(&mut self) {
        let (core, buffer) = (&mut self.core, &mut self.icmp_buffer);
        for errors in self.icmp.values() {
            drain(errors, buffer, &mut |input| core.feed(input));
        }
    }

    /// The same, of one namespace: what a failure costs does not grow with the namespaces in which nothing happens.
    pub(super) fn drain_icmp_of(&mut self, netns: u32) {
        let (core, buffer) = (&mut self.core, &mut self.icmp_buffer);
        if let Some(errors) = self.icmp.get(&netns) {
            drain(errors, buffer, &mut |input| core.feed(input));
        }
    }
}

fn drain(errors: &Weak<IcmpErrors>, buffer: &mut Buffer, feed: &mut impl FnMut(Input)) {
    let Some(errors) = errors.upgrade() else {
        return;
    };
    errors.drain(buffer, |error| {
        feed(Input::IcmpError {
            netns: errors.netns(),
            at_ns: monotonic_ns(),
            seq: error.seq,
            local: error.local,
            peer: error.peer,
            from: error.from,
            what: error.words(),
        });
    });
}
