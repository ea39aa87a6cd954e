//! The handshake completed, and then data is not acknowledged.

use std::collections::BTreeMap;

use super::{
    Context, Explanation, Finding, Verdict,
    context::{Ends, StuckConnection},
    enter_of,
    problems::{Caller, Callers, Found, PeerCounts, contra, pro},
};
use crate::{
    model::{Confidence, Handshake, Problem, Role, VerdictKind},
    util::format,
};

/// `data-unacknowledged`
///
/// It concerns connections and not handshakes, so no handshake gets it: [`problems`] makes its problems.
pub(super) struct DataUnacknowledged;

impl Verdict for DataUnacknowledged {
    fn kind(&self) -> VerdictKind {
        VerdictKind::DataUnacknowledged
    }

    fn check(&self, _: &Handshake, _: &Context) -> Option<Finding> {
        None
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "the handshake completed, and then a data segment is never acknowledged",
            meaning: "SYN and SYN-ACK are small and passed; at the server the ACK did too. A data segment was then retransmitted \
                      again and again. Mostly the path drops large packets and the ICMP messages that \
                      would say so (an MTU black hole: tunnel, overlay, VPN), or it works in one \
                      direction only, or a stateful firewall sees one direction only. The application sees a connection that hangs.",
            detection: "The same segment (socket and sequence number) retransmitted at least three times, \
                      the retransmission timer among them. Likely at most: whether the data or its \
                      acknowledgment is lost is not seen from this end, nor is the size at which \
                      packets are lost.",
            remedy: "Measure the path's MTU, then lower the device's, or let TCP probe for it.\n    \
                     tracepath -n <peer>\n    sysctl -w net.ipv4.tcp_mtu_probing=1",
            reproduce: "synprobe lab data-unacknowledged",
        }
    }
}

/// One problem for each caller of a port, and for each port that was called.
pub(super) fn problems(context: &Context) -> Vec<Found> {
    type Place = (u32, Role, Option<u16>, Caller);
    let mut callers = Callers::default();
    let mut places: BTreeMap<Place, Vec<&StuckConnection>> = BTreeMap::new();
    for stuck in context.stuck_connections() {
        let c = &stuck.connection;
        let port = match c.role {
            Role::Server => c.local_port,
            Role::Client => c.peer_port,
        };
        callers.note(c);
        places
            .entry((c.netns, c.role, port, callers.of(c)))
            .or_default()
            .push(stuck);
    }
    let found = |stuck: &Vec<&StuckConnection>| {
        let ends = stuck.iter().filter_map(|s| Ends::of(&s.connection));
        Found::of(problem(stuck), ends)
    };
    places.values().map(found).collect()
}

fn problem(stuck: &[&StuckConnection]) -> Problem {
    let c = &stuck[0].connection;
    let mut counts = PeerCounts::default();
    for s in stuck {
        counts.add(s.connection.peer_addr, 1, usize::MAX);
    }
    let (peers, peers_more) = counts.most();
    let attempts = stuck.iter().map(|s| s.attempts);
    let (least, most) = (attempts.clone().min(), attempts.max());
    let (least, most) = (least.unwrap_or(0), most.unwrap_or(0));
    let times = match least == most {
        true => format!("{least} times"),
        false => format!("{least} to {most} times"),
    };
    let lasted = stuck.iter().map(|s| s.lasted_us).max().unwrap_or(0);
    let (peer, run) = (c.peer_addr, enter_of(c));
    let is_client = c.role == Role::Client;
    let connections = match stuck.len() {
        1 => "1 connection".to_owned(),
        n => format!("{n} connections"),
    };
    let one_process = !is_client || stuck.iter().all(|s| s.connection.pid == c.pid);
    Problem {
        rank: 0,
        verdict: Some(VerdictKind::DataUnacknowledged),
        confidence: Confidence::Likely,
        role: c.role.into(),
        forward: None,
        netns: c.netns,
        netns_name: c.netns_name.clone(),
        local_addr: (!is_client).then_some(c.local_addr),
        local_port: c.local_port.filter(|_| !is_client),
        peer_port: c.peer_port.filter(|_| is_client),
        pid: c.pid.filter(|_| one_process),
        comm: c.comm.clone(),
        workload: c.workload.clone(),
        handshakes: stuck.len() as u64,
        open: 0,
        peers,
        peers_more,
        evidence: vec![
            pro(format!(
                "{connections} completed the handshake. Then one data segment was retransmitted {times}, for \
                 up to {}, and no acknowledgment came meanwhile",
                format::duration(lasted)
            )),
            pro(match is_client {
                // The ACK is this end's own: only its sending is known.
                true => {
                    "SYN and SYN-ACK are small and passed: a path that drops large packets (MTU) fits, and so \
                     does a firewall that sees one direction only (an asymmetric route) and drops the ACK"
                }
                false => "SYN, SYN-ACK and ACK are small and passed: a path that drops large packets (MTU) fits",
            }
            .to_owned()),
            contra(
                "whether the data or its acknowledgment was lost cannot be seen from this end, nor the size of \
                 the lost packets"
                    .to_owned(),
            ),
        ],
        remedy: Some(format!(
            "{run}tracepath -n {peer}; see the MTU of each device: {run}ip link; let TCP find a size that passes: \
             {run}sysctl -w net.ipv4.tcp_mtu_probing=1"
        )),
        effects: Vec::new(),
        life: Default::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Body, Line, Retransmit, RetransmitKind},
        verdict::fixtures::*,
    };

    fn retransmitted(context: &mut Context, id: u64, kind: RetransmitKind, attempts: &[u32]) {
        for (n, attempt) in (0..).zip(attempts) {
            let mut connection = connection(Role::Client, "10.0.0.9", 5432);
            connection.id = id;
            let body = Body::Retransmit(Retransmit {
                connection,
                kind,
                trigger: None,
                attempt: Some(*attempt),
                gap_us: None,
                expected_gap_us: None,
                next_us: None,
                gives_up_us: None,
                segs: 1,
                failed: false,
                error: None,
            });
            context.note(&Line {
                mono_ns: T0 + n * SEC,
                body,
            });
        }
    }

    #[test]
    fn a_segment_that_is_retransmitted_again_and_again_makes_it() {
        let mut context = Context::default();
        retransmitted(&mut context, 7, RetransmitKind::Rto, &[1, 2, 3, 4]);
        retransmitted(&mut context, 8, RetransmitKind::Rto, &[1, 2, 3]);
        let found = problems(&context);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].problem.handshakes, 2);
        assert_eq!(found[0].problem.confidence, Confidence::Likely);
        assert_eq!(
            found[0].problem.evidence[0].fact,
            "2 connections completed the handshake. Then one data segment was retransmitted 3 to 4 times, \
             for up to 3.00 s, and no acknowledgment came meanwhile"
        );
    }

    #[test]
    fn segments_that_got_through_and_handshakes_are_not_it() {
        let mut context = Context::default();
        retransmitted(&mut context, 7, RetransmitKind::Rto, &[1, 2, 1, 2, 1]);
        retransmitted(&mut context, 8, RetransmitKind::Syn, &[1, 2, 3, 4]);
        assert!(problems(&context).is_empty());
    }
}
