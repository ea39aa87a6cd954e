//! A half-open that ended without an event: what ended it, and when.

use super::{Tracker, facts::RESET_HERE, handshake::OpenHandshake, handshake_end::HandshakeEnd};
use crate::model::{DwellSource, Fate, Outcome, TcpState};

/// Its listener was restarted.
const REOPENED: &str = "its listener was closed while it was open, and another has been opened since; it vanished \
                        before its schedule ended";
/// Others listened at the address meanwhile, as a SO_REUSEPORT group does.
const ONE_CLOSED: &str = "one of several listeners of its address was closed while it was open, and it vanished before \
                          its schedule ended";

impl Tracker {
    /// A half-open ended without an event, between its last sighting and `latest_ns`.
    pub(super) fn gone(&mut self, mut open: OpenHandshake, fate: Fate, latest_ns: u64) {
        self.count_unreported_end(&open, fate, latest_ns);
        if let Some(rst_ns) = open.rst_ns.filter(|at| *at >= open.alive_ns)
            && fate == Fate::Gone
            // One that may have missed the window ended it only if the namespace counted one.
            && (!open.facts.reset_untold
                || self.killed_by_rst(open.connection.netns) == Some(true))
        {
            open.facts.reset_seen = !open.facts.reset_untold;
            let fact = match open.facts.reset_untold {
                true => "a RST came for it, and it is gone",
                false => "its RST was seen, and it is gone",
            };
            let end = HandshakeEnd::new(Outcome::Reset, rst_ns).fact(fact);
            return self.end(open, TcpState::Close, &end);
        }
        if let Some(at_ns) = open.moved_ns.filter(|at| *at >= open.alive_ns)
            && fate == Fate::Gone
        {
            let close = self.owners.closed_meanwhile(&open, latest_ns);
            let closed_ns = close.map(|close| close.at_ns);
            open.facts.listener_closed_ns = closed_ns.or(Some(at_ns));
            let end = HandshakeEnd::new(Outcome::Dropped, at_ns).fact("its listener is closed");
            return self.end(open, TcpState::Close, &end);
        }
        if self.may_have_completed(&open) {
            return;
        }
        let mut earliest_ns = open.alive_ns;
        let (outcome, fact) = if fate == Fate::Connected {
            (
                Outcome::Established,
                "sock_diag shows it connected: the event was lost".to_owned(),
            )
        } else if let Some(nominal_ns) = expiry_within(&open, latest_ns) {
            earliest_ns = earliest_ns.max(nominal_ns);
            (
                Outcome::Expired,
                "it vanished when its last SYN-ACK time-out ended".to_owned(),
            )
        } else {
            match self.killed_by_rst(open.connection.netns) {
                Some(true) if self.reset_here(&open) => {
                    // The ACK itself was not seen to be refused.
                    open.facts.ack_untold |= !open.facts.acked;
                    (Outcome::Dropped, RESET_HERE.to_owned())
                }
                Some(true) => {
                    let fact = "EmbryonicRsts rose between the last sighting and its absence";
                    (Outcome::Reset, fact.to_owned())
                }
                _ if !self.owners.listens(&open) => {
                    let close = self.owners.closed_meanwhile(&open, latest_ns);
                    open.facts.listener_closed_ns = close.map(|close| close.at_ns);
                    (Outcome::Dropped, "its listener is closed".to_owned())
                }
                _ if let Some(close) = self.owners.closed_meanwhile(&open, latest_ns) => {
                    open.facts.listener_closed_ns = Some(close.at_ns);
                    open.facts.others_listen = !close.was_last;
                    let fact = match close.was_last {
                        true => REOPENED,
                        false => ONE_CLOSED,
                    };
                    (Outcome::Dropped, fact.to_owned())
                }
                Some(false) => {
                    // reqsk_timer_handler() drops a request whose SYN-ACK cannot be retransmitted.
                    let fact = "it vanished before its schedule ended, and EmbryonicRsts did not rise: \
                                pruned, ended by ICMP or a tool (ss -K), or its SYN-ACK could not be retransmitted";
                    (Outcome::Dropped, fact.to_owned())
                }
                None => {
                    let fact = "it vanished before EmbryonicRsts was first read: RST, pruning and \
                                ICMP cannot be told apart";
                    (Outcome::Dropped, fact.to_owned())
                }
            }
        };
        let new = match outcome {
            Outcome::Established => TcpState::Established,
            _ => TcpState::Close,
        };
        let mut end = HandshakeEnd::new(outcome, latest_ns).fact(fact);
        end.source = Some(DwellSource::SockDiag);
        end.error_us = latest_ns.saturating_sub(earliest_ns) / 1000;
        self.end(open, new, &end);
    }

    /// Whether the namespace counted a RST that is not attributed to a half-open yet; `None` where there is
    /// no earlier reading.
    pub(super) fn killed_by_rst(&mut self, netns: u32) -> Option<bool> {
        let now = self.host.counters(netns)?.embryonic_rsts?;
        let accounted = self.reconcile.embryonic.get_mut(&netns)?;
        let rose = now > *accounted;
        *accounted += u64::from(rose);
        Some(rose)
    }
}

/// When the kernel's schedule ends it, if that lies between the last sighting and `now_ns`. The wheel
/// is never early and up to an eighth of the time-out late.
fn expiry_within(open: &OpenHandshake, now_ns: u64) -> Option<u64> {
    let (nominal_ns, gap_us) = open.gives_up?;
    let late_ns = gap_us * 1000 / 8 + 100_000_000;
    (nominal_ns <= now_ns && open.alive_ns <= nominal_ns + late_ns).then_some(nominal_ns)
}
