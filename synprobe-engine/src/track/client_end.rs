//! How an active open ended, and what its last record tells.

use synprobe_ebpf::event::StateRecord;

use super::{Tracker, handshake::OpenHandshake, handshake_end::HandshakeEnd};
use crate::{
    model::{DwellSource, Outcome, SynSent, TcpState, Tuple},
    util::errno,
};

/// An application that closes so soon after an ICMP error closes because of it.
const AT_ONCE_NS: u64 = 10_000_000;

impl Tracker {
    /// `sk_err` has the reason (docs/kernel-facts.md, section 1).
    pub(super) fn closed_while_open(&self, r: &StateRecord, open: &OpenHandshake) -> HandshakeEnd {
        let sk_err = i32::try_from(r.sk_err).unwrap_or(0);
        let unsent = open.connection.local_port.is_none() && open.retransmits == 0;
        let (outcome, error) = match sk_err {
            // tcp_v4_connect() failed after the transition: no local port was left.
            0 if unsent => (
                Outcome::Unreachable,
                Some(errno::name(libc::EADDRNOTAVAIL as u32)),
            ),
            // The tuple was chosen, and found to be in use. A route that does not take the ports ends the same
            // way, with another error.
            0 if open.facts.syn == SynSent::NoTuple => {
                let held = self.tuples_in_use.get(&Tuple::from(&r.flow)).is_some();
                let error = held.then(|| errno::name(libc::EADDRNOTAVAIL as u32));
                (Outcome::Unreachable, error)
            }
            // An ICMP error was reported and the socket closed at once: because of it. Reading SO_ERROR takes
            // `sk_err` away, even between tcp_done_with_error() setting it and the transition.
            0 if open
                .error_ns
                .is_some_and(|told| r.header.ts_ns - told.min(r.header.ts_ns) < AT_ONCE_NS) =>
            {
                let number = open.soft_error;
                (
                    Outcome::Unreachable,
                    (number != 0).then(|| errno::name(number)),
                )
            }
            0 => {
                // The application closed it. An ICMP error may have been noted and not acted on.
                let soft = if r.sk_err_soft != 0 {
                    r.sk_err_soft
                } else {
                    open.soft_error
                };
                (Outcome::Abandoned, (soft != 0).then(|| errno::name(soft)))
            }
            libc::ECONNREFUSED if open.reset_seen || !self.config.sees_resets => {
                (Outcome::Refused, Some(errno::name(r.sk_err)))
            }
            libc::ECONNRESET => (Outcome::Refused, Some(errno::name(r.sk_err))),
            libc::ETIMEDOUT => (Outcome::TimedOut, Some(errno::name(r.sk_err))),
            libc::ECONNABORTED => (Outcome::Abandoned, Some(errno::name(r.sk_err))),
            _ => (Outcome::Unreachable, Some(errno::name(r.sk_err))),
        };
        HandshakeEnd::new(outcome, r.header.ts_ns).error(error)
    }
}

/// ESTABLISHED: without a retransmission the connection's own first RTT sample is the time from the
/// SYN's transmission, also where the SYN was sent long after connect() (TCP_FASTOPEN_CONNECT).
pub(super) fn established(r: &StateRecord, open: &OpenHandshake) -> HandshakeEnd {
    let end = HandshakeEnd::new(Outcome::Established, r.header.ts_ns);
    match sample_us(r, open) {
        Some(us) => end.dwell(us, DwellSource::RttSample),
        None => end,
    }
}

/// The time from the SYN to its answer, microseconds, where no retransmission makes it doubtful.
pub(super) fn sample_us(r: &StateRecord, open: &OpenHandshake) -> Option<u64> {
    let sampled = r.total_retrans == 0 && r.srtt_us != 0 && open.state == TcpState::SynSent;
    sampled.then_some(u64::from(r.srtt_us >> 3))
}
