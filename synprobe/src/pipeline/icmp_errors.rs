//! ICMP errors, read from the sockets that the poller opened.

use std::sync::Weak;

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

/// Feeds what came since the last time.
pub(super) fn drain(errors: &Weak<IcmpErrors>, buffer: &mut Buffer, feed: &mut impl FnMut(Input)) {
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
