//! No SYN left this host.

use std::net::SocketAddr;

use crate::{
    model::{Handshake, Outcome, SynSent, TcpState, VerdictKind},
    util::format,
    verdict::{
        Context, Explanation, Finding, Verdict,
        context::{Ends, kill},
        enter_of,
    },
};

/// `not-sent`
pub(in crate::verdict) struct NotSent;

impl Verdict for NotSent {
    fn kind(&self) -> VerdictKind {
        VerdictKind::NotSent
    }

    fn check(&self, h: &Handshake, context: &Context) -> Option<Finding> {
        if !super::failed(h) || h.facts.unbound {
            return None;
        }
        match h.facts.syn {
            SynSent::NoTuple if h.outcome == Outcome::Unreachable => Some(in_use(h, context)),
            SynSent::NotBuilt => Some(not_built(h)),
            _ => None,
        }
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "no SYN left: connect() failed, or was deferred, before there was one",
            meaning: "Nothing was sent, so nothing can have answered. Mostly the application binds a local port \
                      and connects to an end with which this host already has a connection of that port: \
                      connect() fails with EADDRNOTAVAIL. In TIME_WAIT the old connection may be replaced only \
                      where both ends use TCP timestamps (tcp_tw_reuse). Or the application \
                      used TCP_FASTOPEN_CONNECT and closed the socket before it wrote: such a connect() sends \
                      nothing, and is no failure.",
            detection: "SYN_SENT→CLOSE on a socket for which tcp_connect() never ran (retrans_stamp is 0): \
                      certain that no SYN was sent. With sock_diag: which socket and process hold the addresses \
                      and ports. A SYN that was built and dropped on its way out is dropped-here; \
                      no local port at all is ports-exhausted.",
            remedy: "Do not bind a fixed local port, or end the old connection.\n    ss -tanp src \
                     <local>:<port> dst <peer>:<port>",
            reproduce: "synprobe lab tuple-in-use",
        }
    }
}

fn in_use(h: &Handshake, context: &Context) -> Finding {
    let c = &h.connection;
    let (local, peer) = (
        SocketAddr::new(c.local_addr, c.local_port.unwrap_or(0)),
        SocketAddr::new(c.peer_addr, c.peer_port.unwrap_or(0)),
    );
    let holder = Ends::of(c)
        .and_then(|ends| context.holder_of(c.netns, &ends))
        .flatten();
    let failed = format!(
        "connect() failed after {} without a SYN: local port {} is in use for {peer}",
        super::took(h),
        local.port(),
    );
    let Some(holder) = holder else {
        return Finding::likely()
            .pro(format!("{failed}, or its route does not take these ports"))
            .contra("the socket that holds them was not found: it may be gone by now")
            .remedy(format!(
                "{}ss -tanp src {local} dst {peer}; let the kernel choose the local port",
                enter_of(c)
            ));
    };
    let state = TcpState::from_kernel(holder.state);
    let is_time_wait = state == Some(TcpState::TimeWait);
    let mut finding = Finding::certain()
        .accounts_for_outcome()
        .pro(format!("{failed} (EADDRNOTAVAIL)"));
    let name = state.map_or("in an unknown state", TcpState::name);
    finding = match &holder.process {
        Some(process) => finding.pro(format!(
            "a connection in {name} holds them: of {} (pid {}){}",
            format::name(&process.comm),
            process.pid,
            if c.pid == Some(process.pid) {
                ", the same process"
            } else {
                ""
            }
        )),
        None if is_time_wait => finding.pro(format!(
            "an earlier connection in TIME_WAIT holds them{}: without TCP timestamps, or within a second, it \
             may not be replaced",
            match holder.expires_ms {
                Some(ms) => format!(", for another {}", format::duration(u64::from(ms) * 1000)),
                None => String::new(),
            }
        )),
        None => finding
            .pro(format!("a connection in {name} holds them"))
            .maybe_contra(
                holder
                    .inode
                    .map(|_| "the process that holds it was not found".to_owned()),
            ),
    };
    let end = kill(c.netns_name.as_deref(), local, peer);
    finding.remedy(format!(
        "let the kernel choose the local port, or wait for the old connection to end; end it now: {end}"
    ))
}

fn not_built(h: &Handshake) -> Finding {
    Finding::certain()
        .accounts_for_outcome()
        .pro(format!("no SYN was sent: the socket was closed after {} without one", super::took(h)))
        .pro(
            "connect() was deferred to the first write (TCP_FASTOPEN_CONNECT), and there was none; or it failed \
             at once",
        )
        .remedy(
            "nothing has to be done where the application meant it: ActiveOpens does not count such a connect",
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Confidence, Process, TupleHolder},
        verdict::fixtures::*,
    };

    fn failed_at_once(syn: SynSent) -> Handshake {
        let mut h = active(Outcome::Unreachable);
        (h.dwell_us, h.facts.syn) = (Some(40), syn);
        h
    }

    fn held_by(state: u8, pid: Option<u32>) -> Context {
        let mut context = Context::default();
        let holder = TupleHolder {
            state,
            expires_ms: (state == 6).then_some(42_000),
            inode: pid,
            process: pid.map(|pid| Process {
                pid,
                comm: "proftpd".into(),
            }),
        };
        let ends = Ends::of(&failed_at_once(SynSent::NoTuple).connection).unwrap();
        context.note_holder(NETNS, ends, Some(holder));
        context
    }

    #[test]
    fn the_process_that_holds_the_tuple_is_named() {
        let got = judged(&failed_at_once(SynSent::NoTuple), held_by(1, Some(77)));
        assert_eq!(
            (got.verdict, got.confidence),
            (Some(VerdictKind::NotSent), Confidence::Certain)
        );
        assert_eq!(
            got.evidence[1].fact,
            "a connection in ESTABLISHED holds them: of proftpd (pid 77), the same process"
        );
        let got = judged(&failed_at_once(SynSent::NoTuple), held_by(6, None));
        assert!(got.evidence[1].fact.contains("for another 42.0 s"));
    }

    #[test]
    fn a_holder_that_was_not_found_is_likely() {
        assert_eq!(
            verdict_of(&failed_at_once(SynSent::NoTuple), Context::default()),
            (Some(VerdictKind::NotSent), Confidence::Likely)
        );
    }

    #[test]
    fn a_deferred_connect_had_no_answer_to_wait_for() {
        let mut h = failed_at_once(SynSent::NotBuilt);
        (h.outcome, h.dwell_us) = (Outcome::Abandoned, Some(3_000_000));
        let got = judged(&h, Context::default());
        assert_eq!(
            (got.verdict, got.confidence),
            (Some(VerdictKind::NotSent), Confidence::Certain)
        );
    }

    #[test]
    fn a_syn_that_was_built_and_a_lack_of_ports_are_other_causes() {
        let mut h = active(Outcome::TimedOut);
        h.facts.syn = SynSent::Built;
        assert_eq!(
            verdict_of(&h, Context::default()).0,
            Some(VerdictKind::Filtered)
        );
        let mut h = failed_at_once(SynSent::NoTuple);
        (h.facts.unbound, h.error) = (true, Some("EADDRNOTAVAIL".into()));
        assert_eq!(
            verdict_of(&h, Context::default()).0,
            Some(VerdictKind::PortsExhausted)
        );
    }
}
