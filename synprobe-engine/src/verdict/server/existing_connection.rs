//! A SYN meets a connection that exists.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{
    model::{
        Confidence, Evidence, Handshake, Problem, ProblemRole, TcpState, TupleHolder, VerdictKind,
    },
    util::format,
    verdict::{
        Context, Explanation, Finding, Verdict,
        context::{Ends, SynAtExisting, times},
        parts::{
            found::{Found, pro},
            peer_counts::PeerCounts,
        },
    },
};

/// `existing-connection`
pub(in crate::verdict) struct ExistingConnection;

/// Connections that are described each.
const DESCRIBED: usize = 3;

impl Verdict for ExistingConnection {
    fn kind(&self) -> VerdictKind {
        VerdictKind::ExistingConnection
    }

    fn check(&self, _: &Handshake, _: &Context) -> Option<Finding> {
        // Such a SYN makes no half-open: only a problem has it.
        None
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "a SYN met a connection that exists: the client's port is used again",
            meaning: "This host still has a connection with the same addresses and ports, so a SYN opens none. In \
                      ESTABLISHED and the states of closing the kernel answers with a challenge ACK (RFC 5961, \
                      at most one in 500 ms); a client that lives answers that with a RST, which ends the old \
                      connection. In TIME_WAIT a SYN that looks old gets an ACK too. The listener sees \
                      nothing of it. The client crashed and used its port again, has a fixed source port, or \
                      a NAT or load balancer gave the port to another client.",
            detection: "skb:kfree_skb of a SYN whose receiving socket is a connection (Linux 6.11): certain.",
            remedy: "End the old connection; let RSTs of the client through; keepalives find dead ones.\n    \
                     ss -K -t state connected src <local>:<port> dst <peer>:<port>",
            reproduce: "synprobe lab stale-established",
        }
    }
}

/// Problems of SYNs that met connections, by the end that they called.
pub(in crate::verdict) fn problems(context: &Context) -> Vec<Found> {
    let mut ends: BTreeMap<(u32, IpAddr, u16), Vec<&SynAtExisting>> = BTreeMap::new();
    for syn in context.syns_at_existing() {
        let key = (syn.netns, syn.local.ip(), syn.local.port());
        ends.entry(key).or_default().push(syn);
    }
    ends.into_iter()
        .map(|((netns, addr, port), mut syns)| {
            syns.sort_by_key(|syn| (std::cmp::Reverse(syn.count), syn.peer));
            let listener = context.listeners_of_port(netns, port).next();
            let name = listener
                .and_then(|l| l.last.netns_name.clone())
                .or_else(|| context.netns_name(netns));
            let mut peers = PeerCounts::default();
            for syn in &syns {
                peers.add(syn.peer.ip(), 1, usize::MAX);
            }
            let (peers, peers_more) = peers.most();
            let holder = holder(syns[0], context).flatten();
            let process = holder.and_then(|h| h.process.clone());
            let owner_is_known = process.is_some();
            let problem = Problem {
                rank: 0,
                verdict: Some(VerdictKind::ExistingConnection),
                confidence: Confidence::Certain,
                role: ProblemRole::Server,
                forward: None,
                netns,
                netns_name: name.clone(),
                local_addr: Some(addr),
                local_port: Some(port),
                peer_port: None,
                pid: process
                    .as_ref()
                    .map(|p| p.pid)
                    .or(listener.and_then(|l| l.last.pid)),
                comm: process
                    .map(|p| p.comm)
                    .or(listener.and_then(|l| l.last.comm.clone())),
                workload: listener
                    .filter(|_| !owner_is_known)
                    .map_or_else(Default::default, |l| l.last.workload.clone()),
                handshakes: syns.len() as u64,
                open: 0,
                peers,
                peers_more,
                evidence: evidence(&syns, context),
                remedy: Some(syns[0].remedy(name.as_deref())),
                effects: Vec::new(),
                life: Default::default(),
            };
            Found::of(problem, syns.iter().map(|syn| ends_of(syn)))
        })
        .collect()
}

/// The kernel's name for a SYN whose timestamp is older than that of the connection in TIME_WAIT.
const OLD_TIMESTAMP: &str = "TCP_RFC7323_TW_PAWS";

fn holder<'c>(syn: &SynAtExisting, context: &'c Context) -> Option<Option<&'c TupleHolder>> {
    context.holder_of(syn.netns, &ends_of(syn))
}

fn ends_of(syn: &SynAtExisting) -> Ends {
    Ends::between(syn.local, syn.peer)
}

fn evidence(syns: &[&SynAtExisting], context: &Context) -> Vec<Evidence> {
    let mut facts: Vec<Evidence> = syns
        .iter()
        .take(DESCRIBED)
        .map(|syn| pro(described(syn, holder(syn, context))))
        .collect();
    if syns.len() > DESCRIBED {
        facts.push(pro(format!(
            "so did SYNs of {} further connections",
            syns.len() - DESCRIBED
        )));
    }
    let challenged = syns.iter().any(|syn| syn.reason == "TCP_INVALID_SYN");
    facts.push(pro(if challenged {
        "the kernel answers such a SYN with a challenge ACK (RFC 5961) and opens nothing; a RST of the client \
         would end the old connection"
            .to_owned()
    } else {
        "the kernel answers such a SYN with an ACK and opens nothing: its sequence number or its timestamp is \
         older than the connection's; a RST of the client would end the old connection, unless \
         net.ipv4.tcp_rfc1337 is 1"
            .to_owned()
    }));
    if syns.iter().any(|syn| syn.reason == OLD_TIMESTAMP) {
        facts.push(pro(
            "each SYN with an older timestamp begins the 60 s of TIME_WAIT anew".to_owned(),
        ));
    }
    facts.push(pro(
        "the client used its port again (a fixed source port, a restart), or a NAT or load balancer gave the \
         port to another client"
            .to_owned(),
    ));
    facts
}

/// `7 SYNs from 10.0.0.2:40001 met the connection …`
fn described(syn: &SynAtExisting, holder: Option<Option<&TupleHolder>>) -> String {
    let state = syn.state.map_or("an unknown state", TcpState::name);
    let mut text = format!(
        "a SYN from {} met a connection in {state}, {}: {} ← {}",
        syn.peer,
        times(syn.count),
        syn.local,
        syn.peer
    );
    if let Some(idle_us) = syn.idle_us {
        text.push_str(&format!(
            ", which had last received an ACK {} before",
            format::duration(idle_us)
        ));
    }
    match holder {
        Some(Some(h)) => {
            if let Some(process) = &h.process {
                text.push_str(&format!(
                    ", of {} (pid {})",
                    format::name(&process.comm),
                    process.pid
                ));
            } else if let Some(ms) = h.expires_ms.filter(|_| h.state == TcpState::TimeWait as u8) {
                text.push_str(&format!(
                    ", which ends in {}",
                    format::duration(u64::from(ms) * 1000)
                ));
            }
        }
        Some(None) => text.push_str("; it was gone right after"),
        None => (),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Process,
        verdict::fixtures::{NETNS, SEC},
    };

    fn met(state: TcpState, reason: &'static str) -> SynAtExisting {
        SynAtExisting {
            netns: NETNS,
            local: "10.0.0.1:8080".parse().unwrap(),
            peer: "10.0.0.9:40001".parse().unwrap(),
            state: Some(state),
            reason: reason.into(),
            idle_us: (state != TcpState::TimeWait).then_some(12_000_000),
            count: 7,
            first_ns: SEC,
            last_ns: 8 * SEC,
        }
    }

    fn noted(syn: &SynAtExisting, holder: Option<Option<TupleHolder>>) -> Context {
        let mut context = Context::default();
        let ends = ends_of(syn);
        context.note_syn_at_existing(ends, syn.clone());
        if let Some(holder) = holder {
            context.note_holder(NETNS, ends, holder);
        }
        context
    }

    fn problems_of(context: &Context) -> Vec<Problem> {
        problems(context).into_iter().map(|f| f.problem).collect()
    }

    #[test]
    fn the_connection_its_owner_and_what_ends_it_are_named() {
        let holder = TupleHolder {
            state: 1,
            expires_ms: None,
            inode: Some(5),
            process: Some(Process {
                pid: 77,
                comm: "app".into(),
            }),
        };
        let mut context = noted(
            &met(TcpState::Established, "TCP_INVALID_SYN"),
            Some(Some(holder)),
        );
        context.set_netns_name(NETNS, Some("blue".into()));
        let found = problems_of(&context);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].pid, Some(77));
        assert_eq!(
            found[0].evidence[0].fact,
            "a SYN from 10.0.0.9:40001 met a connection in ESTABLISHED, 7 times: 10.0.0.1:8080 ← \
             10.0.0.9:40001, which had last received an ACK 12.0 s before, of app (pid 77)"
        );
        assert!(found[0].evidence[1].fact.contains("challenge ACK"));
        assert_eq!(
            found[0].remedy.as_deref(),
            Some(
                "ip netns exec blue ss -K -t state connected src 10.0.0.1:8080 dst 10.0.0.9:40001"
            )
        );
    }

    #[test]
    fn time_wait_says_how_long_it_lasts() {
        let holder = TupleHolder {
            state: 6,
            expires_ms: Some(42_000),
            inode: None,
            process: None,
        };
        let context = noted(
            &met(TcpState::TimeWait, "TCP_RFC7323_TW_PAWS"),
            Some(Some(holder)),
        );
        let found = problems_of(&context);
        assert!(found[0].evidence[0].fact.ends_with("which ends in 42.0 s"));
        assert!(!found[0].evidence[1].fact.contains("challenge"));
    }

    #[test]
    fn what_is_not_selected_is_no_problem() {
        let mut context = noted(&met(TcpState::Established, "TCP_INVALID_SYN"), None);
        context.selection.local_ports = "9000".parse().unwrap();
        assert!(problems_of(&context).is_empty());
    }
}
