//! The listener went away, and its half-opens with it.

use crate::{
    model::{Handshake, Outcome, Role, VerdictKind},
    verdict::{Context, CounterRise, Explanation, Finding, Verdict, enter_of, who_listens},
};

/// `listener-closed`
pub(in crate::verdict) struct ListenerClosed;

impl Verdict for ListenerClosed {
    fn kind(&self) -> VerdictKind {
        VerdictKind::ListenerClosed
    }

    fn check(&self, h: &Handshake, context: &Context) -> Option<Finding> {
        let f = &h.facts;
        f.listener_closed_ns?;
        if h.connection.role != Role::Server || h.outcome != Outcome::Dropped {
            return None;
        }
        let migrates = context.migrates(h.connection.netns);
        // Another socket of the group took it over: it did not end with its listener.
        if f.others_listen && migrates == Some(true) {
            return None;
        }
        // The tracker's own fact says what was seen.
        let finding = match f.others_listen {
            false => Finding::certain().accounts_for_outcome(),
            true => Finding::likely().contra(
                "the kernel does not tell which socket of the group a half-open belongs to",
            ),
        };
        let held_up = context.drops_of_handshake(h);
        let finding = finding
            .maybe_pro(held_up.first().map(|d| context.fact_of_drop(d, h)))
            .maybe_pro(context.closed_listeners(&h.connection))
            .maybe_pro(
                (f.others_listen && migrates == Some(false)).then(|| NO_MIGRATION.to_owned()),
            );
        Some(finding.remedy(remedy(
            h.connection.local_port,
            f.others_listen,
            &enter_of(&h.connection),
        )))
    }

    fn explains(&self) -> &'static [CounterRise] {
        &[CounterRise::ClosedListener]
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "the listener was closed or replaced, and its half-opens and accept queue ended with it",
            meaning: "A reload or a restart closes a listening socket while handshakes are under way. Its \
                      half-opens belong to that socket alone: the final ACK is answered with a RST, although \
                      another socket listens on the same port. Connections that waited for accept() are \
                      reset. The client sees a connection that is reset at once.",
            detection: "The listener's transition to CLOSE while the half-open was open, and the half-open gone \
                      before its schedule ended without a RST of the peer. No other listener at the \
                      address: certain. Others of a SO_REUSEPORT group still listen: likely, for the \
                      kernel does not tell whose a half-open is. With net.ipv4.tcp_migrate_req 1 the \
                      group takes half-opens over (Linux 5.14).",
            remedy: "Let the group take them over, or hand the listening socket over to the new process.\n    \
                     sysctl -w net.ipv4.tcp_migrate_req=1",
            reproduce: "synprobe lab listener-reload",
        }
    }
}

/// Why another socket of the group did not take them over.
pub(in crate::verdict) const NO_MIGRATION: &str =
    "net.ipv4.tcp_migrate_req is 0: another socket of the group does not take half-opens over";

/// What to do about it. `enter`: what a command in the listener's namespace begins with.
pub(in crate::verdict) fn remedy(port: Option<u16>, others_listen: bool, enter: &str) -> String {
    let port = port.unwrap_or(0);
    match others_listen {
        true => format!("{enter}sysctl -w net.ipv4.tcp_migrate_req=1"),
        false => format!(
            "see who listens now: {enter}{}; where the new listener is there before the \
             old one is closed (SO_REUSEPORT), let it take half-opens over: {enter}sysctl -w \
             net.ipv4.tcp_migrate_req=1; else hand the listening socket over at a restart",
            who_listens(port)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Confidence, ListenCounters},
        verdict::{context::Packet, fixtures::*},
    };

    const BEGAN: u64 = 1_000_000_000_000;

    fn dropped(others_listen: bool) -> Handshake {
        let mut h = half_open(Outcome::Dropped);
        h.facts.began_ns = Some(BEGAN);
        h.facts.listener_closed_ns = Some(BEGAN + 1_000_000_000);
        h.facts.others_listen = others_listen;
        h
    }

    fn with_migration(migrate_req: u64) -> Context {
        let mut context = Context::default();
        let counters = ListenCounters {
            netns: NETNS,
            migrate_req: Some(migrate_req),
            ..ListenCounters::default()
        };
        context.sample(&[], &[counters]);
        context
    }

    #[test]
    fn a_listener_that_is_gone_makes_it() {
        let got = verdict_of(&dropped(false), Context::default());
        assert_eq!(
            got,
            (Some(VerdictKind::ListenerClosed), Confidence::Certain)
        );
    }

    #[test]
    fn of_a_group_it_is_likely_and_not_where_half_opens_migrate() {
        let got = verdict_of(&dropped(true), with_migration(0));
        assert_eq!(got, (Some(VerdictKind::ListenerClosed), Confidence::Likely));
        let (verdict, _) = verdict_of(&dropped(true), with_migration(1));
        assert_ne!(verdict, Some(VerdictKind::ListenerClosed));
    }

    /// The ACK that was lost before does not end it; a SYN-ACK that cannot be sent does.
    #[test]
    fn a_dropped_final_ack_only_holds_it_up() {
        let with = |packet| {
            let mut context = with_migration(0);
            let h = dropped(true);
            let mut drop = discard(&h, packet, 1);
            drop.last_ns = BEGAN + 1;
            context.note_drop(drop);
            judged(&h, context)
        };
        let held_up = with(Packet::Ack);
        assert_eq!(held_up.verdict, Some(VerdictKind::ListenerClosed));
        let has_fact = |e: &crate::model::Evidence| e.fact.starts_with("this host dropped the ACK");
        assert!(held_up.evidence.iter().any(has_fact), "{held_up:?}");
        assert_eq!(with(Packet::SynAck).verdict, Some(VerdictKind::DroppedHere));
    }

    #[test]
    fn a_reset_and_an_expired_half_open_are_not_it() {
        for outcome in [Outcome::Reset, Outcome::Expired, Outcome::Established] {
            let mut h = dropped(false);
            h.outcome = outcome;
            let (verdict, _) = verdict_of(&h, Context::default());
            assert_ne!(verdict, Some(VerdictKind::ListenerClosed), "{outcome:?}");
        }
    }
}
