//! The handshake completed, and the peer reset the connection at once.

use super::{
    Context, Explanation, Finding, Verdict,
    context::EarlyResetSum,
    parts::found::{Found, contra, pro},
    who_listens,
};
use crate::{
    model::{Confidence, Evidence, Handshake, Problem, Role, VerdictKind},
    util::format,
};

/// `reset-after-handshake`
///
/// It concerns connections and not handshakes, so no handshake gets it: [`problems`] makes its problems.
pub(super) struct ResetAfterHandshake;

impl Verdict for ResetAfterHandshake {
    fn kind(&self) -> VerdictKind {
        VerdictKind::ResetAfterHandshake
    }

    fn check(&self, _: &Handshake, _: &Context) -> Option<Finding> {
        None
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "the handshake completed, and less than a second later the peer reset the connection",
            meaning: "At a client: the host that answered accepted the connection, and something behind it \
                      refused. Mostly that is a proxy or load balancer whose upstream is down, or a listener \
                      that was closed or replaced with connections in its accept queue. An application that \
                      refuses by itself looks the same: an access list, a limit, another protocol than the \
                      client's (TLS). So does a full accept queue with tcp_abort_on_overflow, and a device \
                      on the path that sends RSTs. At a server: the peer opened the connection and reset it \
                      without a byte. TCP health checks and port scans do so; it is no fault of this host.",
            detection: "A RST for a connection that is less than a second old and has received no data; a FIN \
                        of the peer may have come first. A RST that this host sends is not it. Nor is one \
                        after this host has closed the connection. Likely at most: who behind the peer's \
                        address refused is not seen from this end.",
            remedy: "At a client: ask the host that answered. Its proxy's log names the upstream; a restart or \
                     a reload closes listeners.\n    \
                     synprobe diagnose    (on that host: listener-closed, refused)\n\
                     At a server: see whether the peers are health checks.",
            reproduce: "synprobe lab reset-after-handshake",
        }
    }
}

/// Whether a problem is what health checks and scans make, and no fault of this host.
pub(super) fn is_usual(p: &Problem) -> bool {
    p.verdict == Some(VerdictKind::ResetAfterHandshake) && p.role == Role::Server
}

/// One problem for each end that this host's clients called, and for each of its own ends that was called.
pub(super) fn problems(context: &Context) -> Vec<Found> {
    let found = |sum: &EarlyResetSum| {
        // Its half-opens answer the first data with a RST; in its queue were no more than it says.
        let waiting = if sum.at_first_data { 0 } else { sum.count };
        let closed = match sum.first.role {
            Role::Client => context.called_closed_listener(&sum.first, waiting),
            Role::Server => None,
        };
        Found {
            called: closed,
            ..Found::of(problem(sum, context), sum.ends.iter().copied())
        }
    };
    context.early_resets().map(found).collect()
}

fn problem(sum: &EarlyResetSum, context: &Context) -> Problem {
    let c = &sum.first;
    let is_client = c.role == Role::Client;
    let (peers, peers_more) = sum.peers.most();
    let mut evidence = vec![pro(how_many(sum, context.completed_at_port_of(c)))];
    let (facts, remedy) = match is_client {
        true => of_client(sum, context),
        false => of_server(sum),
    };
    evidence.extend(facts);
    evidence.extend(sum.peers.left_out().map(pro));
    // A process may have threads with names of their own.
    let named = sum.one_process || sum.one_command;
    Problem {
        rank: 0,
        verdict: Some(VerdictKind::ResetAfterHandshake),
        confidence: Confidence::Likely,
        role: c.role.into(),
        forward: None,
        netns: c.netns,
        netns_name: c.netns_name.clone(),
        local_addr: (!is_client).then_some(c.local_addr),
        local_port: c.local_port.filter(|_| !is_client),
        peer_port: c.peer_port.filter(|_| is_client),
        pid: c.pid.filter(|_| sum.one_process),
        comm: c.comm.clone().filter(|_| named),
        workload: match named {
            true => c.workload.clone(),
            false => Default::default(),
        },
        handshakes: sum.count,
        open: 0,
        peers,
        peers_more,
        evidence,
        remedy: Some(remedy),
        effects: Vec::new(),
        life: Default::default(),
    }
}

/// `12 of the 43 connections to port 443 … were reset 1.20 ms after it …`
fn how_many(sum: &EarlyResetSum, completed: u64) -> String {
    let c = &sum.first;
    let port = match c.role {
        Role::Client => c.peer_port,
        Role::Server => c.local_port,
    }
    .unwrap_or(0);
    let (one, of) = (sum.count == 1, completed >= sum.count);
    let was = if one { "was" } else { "were" };
    if sum.at_first_data {
        return format!(
            "{} to port {port} {was} established for more than a second when a RST answered the first data, {} \
             after that was sent; no data had come",
            match one {
                true => "1 connection".to_owned(),
                false => format!("{} connections", sum.count),
            },
            when(sum)
        );
    }
    let which = match (of, one) {
        (true, _) => format!(
            "{} of the {completed} connections to port {port} that completed the handshake in this run",
            sum.count
        ),
        (false, true) => format!("1 connection to port {port} completed the handshake and"),
        (false, false) => format!(
            "{} connections to port {port} completed the handshake and",
            sum.count
        ),
    };
    format!(
        "{which} {was} reset {} after it: a RST came, and no data before it",
        when(sum)
    )
}

fn when(sum: &EarlyResetSum) -> String {
    let (least, most) = sum.range_us;
    match sum.count {
        1 => format::duration(least),
        _ => format!(
            "{} (median; {} to {})",
            format::duration(sum.median_us()),
            format::duration(least),
            format::duration(most)
        ),
    }
}

/// `each time`, `in 3 of 5`
fn in_how_many(n: u64, sum: &EarlyResetSum) -> String {
    match n {
        n if n == sum.count => "each time".to_owned(),
        n => format!("in {n} of {}", sum.count),
    }
}

const REFUSED_BEHIND: &str = "the host that answered accepted the connection, and something behind it refused: a proxy \
    or load balancer whose upstream is down, or a listener that was closed or replaced with connections in its \
    accept queue";
const ALIKE: &str = "an application that refuses by itself (an access list, a limit, another protocol), a device on \
    the path that sends RSTs, and a second host that has the same address look the same from this end";
const CLOSED_AT_ONCE: &str = "whoever accepted the connection closed it at once and did not read what came after: an \
    application that refuses (an access list, a limit, another protocol), or a proxy whose upstream is down";
const ALIKE_CLOSED: &str = "which of them it was cannot be seen from this end";
const NOT_KNOWN_THERE: &str = "the end that answered the handshake did not have the connection any more: its listener \
    was closed or replaced before the final ACK came, or a NAT, firewall or load balancer on the path has \
    forgotten it";

fn of_client(sum: &EarlyResetSum, context: &Context) -> (Vec<Evidence>, String) {
    let c = &sum.first;
    let mut facts = vec![pro(match sum.with_data {
        0 => "nothing had been sent to the peer either: what the client asks for is not the reason"
            .to_owned(),
        n => format!(
            "the client had sent data before the RST {}",
            in_how_many(n, sum)
        ),
    })];
    if sum.unacknowledged > 0 {
        facts.push(pro(format!(
            "nothing of it was acknowledged {}: the RST answered it",
            in_how_many(sum.unacknowledged, sum)
        )));
    }
    if sum.after_fin > 0 {
        facts.push(pro(format!(
            "the peer had closed its side first (FIN) {}",
            in_how_many(sum.after_fin, sum)
        )));
    }
    let closed_each = sum.after_fin == sum.count;
    let (meaning, alike) = match sum.at_first_data {
        false if closed_each => (CLOSED_AT_ONCE, ALIKE_CLOSED),
        true => (
            NOT_KNOWN_THERE,
            "a peer that has restarted looks the same from this end",
        ),
        false => (REFUSED_BEHIND, ALIKE),
    };
    facts.push(pro(meaning.to_owned()));
    let called = context.called_listener(c);
    facts.extend(called.map(|l| pro(format!("listener {} of this host was called", l.name()))));
    facts.push(contra(alike.to_owned()));
    let port = c.peer_port.unwrap_or(0);
    let closed_there = format!(
        "on the peer, see whether a listener was closed: synprobe diagnose --port {port} --duration 10s"
    );
    let remedy = match called {
        _ if sum.at_first_data => {
            format!("{closed_there}; see the time-outs of NAT and firewalls on the path")
        }
        Some(l) => format!(
            "see the log of whoever listens there, and its upstream: {}{}",
            l.in_its_netns(),
            who_listens(l.last.local_port)
        ),
        None => format!(
            "on the peer, see who listens, then its log and its upstream: {}; {closed_there}",
            who_listens(port)
        ),
    };
    (facts, remedy)
}

fn of_server(sum: &EarlyResetSum) -> (Vec<Evidence>, String) {
    let mut facts = vec![pro(
        "the peer opens the connection and resets it without a byte: TCP health checks and port scans do so"
            .to_owned(),
    )];
    if sum.with_data > 0 {
        facts.push(pro(format!(
            "this host had sent data before the RST {}",
            in_how_many(sum.with_data, sum)
        )));
    }
    facts.push(contra(
        "a client that gives up or crashes right after its handshake looks the same".to_owned(),
    ));
    let remedy = "nothing on this host, if the peers are health checks or scanners".to_owned();
    (facts, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Body, ConnectionReset, Line, Outcome},
        verdict::fixtures::*,
    };

    fn reset(role: Role, age_us: u64, bytes_sent: u64) -> ConnectionReset {
        ConnectionReset {
            connection: connection(role, "10.0.0.9", 5432),
            age_us,
            bytes_sent,
            unacknowledged_us: None,
            fin_received: false,
        }
    }

    fn note(context: &mut Context, r: ConnectionReset) {
        context.note(&Line {
            mono_ns: T0,
            body: Body::ConnectionReset(Box::new(r)),
        });
    }

    fn completed(context: &mut Context, times: u64) {
        for _ in 0..times {
            context.note(&line(active(Outcome::Established)));
        }
    }

    #[test]
    fn resets_of_one_end_are_one_problem_with_its_numbers() {
        let mut context = Context::default();
        completed(&mut context, 5);
        context.counted(Role::Client, 5432, 30);
        context.counted(Role::Client, 5432, 38);
        context.counted(Role::Server, 5432, 1000);
        for (age_us, sent) in [(900, 0), (100, 20), (300, 0)] {
            note(&mut context, reset(Role::Client, age_us, sent));
        }
        let found = problems(&context);
        assert_eq!(found.len(), 1);
        let p = &found[0].problem;
        assert_eq!((p.handshakes, p.peer_port), (3, Some(5432)));
        assert_eq!(p.confidence, Confidence::Likely);
        assert_eq!(p.pid, Some(77));
        assert!(!is_usual(p));
        let facts: Vec<&str> = p.evidence.iter().map(|e| &*e.fact).collect();
        assert_eq!(
            facts[0],
            "3 of the 43 connections to port 5432 that completed the handshake in this run were reset 300 µs \
             (median; 100 µs to 900 µs) after it: a RST came, and no data before it"
        );
        assert_eq!(
            facts[1],
            "the client had sent data before the RST in 1 of 3"
        );
        assert!(facts[2].contains("a proxy or load balancer whose upstream is down"));
    }

    #[test]
    fn what_was_not_counted_is_not_stated() {
        let mut context = Context::default();
        let mut other = reset(Role::Client, 5, 0);
        other.connection.pid = Some(78);
        other.fin_received = true;
        note(&mut context, reset(Role::Client, 5, 7));
        note(&mut context, other.clone());
        let p = &problems(&context)[0].problem;
        // Its handshake's record was lost, say.
        assert_eq!(
            p.evidence[0].fact,
            "2 connections to port 5432 completed the handshake and were reset 5 µs (median; 5 µs to 5 µs) after \
             it: a RST came, and no data before it"
        );
        assert_eq!(p.pid, None, "of two processes");
        let comm = reset(Role::Client, 5, 7).connection.comm;
        assert!(comm.is_some());
        assert_eq!(p.comm, comm, "of one command");
        let facts: Vec<&str> = p.evidence.iter().map(|e| &*e.fact).collect();
        assert!(facts.contains(&"the peer had closed its side first (FIN) in 1 of 2"));
        other.connection.comm = Some("another".into());
        note(&mut context, other);
        let p = &problems(&context)[0].problem;
        assert_eq!((p.pid, &p.comm), (None, &None), "of two commands");
    }

    #[test]
    fn a_rst_at_the_first_data_of_an_older_connection_is_another_problem() {
        let mut context = Context::default();
        note(&mut context, reset(Role::Client, 800, 5));
        let late = ConnectionReset {
            unacknowledged_us: Some(40),
            ..reset(Role::Client, 2_500_000, 5)
        };
        note(&mut context, late);
        let found = problems(&context);
        assert_eq!(found.len(), 2);
        let facts: Vec<&str> = found[1].problem.evidence.iter().map(|e| &*e.fact).collect();
        assert_eq!(
            facts[0],
            "1 connection to port 5432 was established for more than a second when a RST answered the first data, \
             40 µs after that was sent; no data had come"
        );
        assert_eq!(
            facts[2],
            "nothing of it was acknowledged each time: the RST answered it"
        );
        assert!(facts[3].starts_with("the end that answered the handshake did not have"));
        assert!(facts.iter().all(|fact| !fact.contains("upstream")));
    }

    #[test]
    fn a_fin_before_each_rst_is_no_closed_listener() {
        let mut context = Context::default();
        let closed = ConnectionReset {
            fin_received: true,
            ..reset(Role::Client, 800, 5)
        };
        note(&mut context, closed.clone());
        let said = |context: &Context| {
            let p = problems(context).remove(0).problem;
            let facts: Vec<String> = p.evidence.into_iter().map(|e| e.fact).collect();
            facts.join("; ")
        };
        let facts = said(&context);
        assert!(facts.contains("closed it at once") && !facts.contains("a listener that was"));
        // A listener that is closed sends no FIN.
        note(&mut context, reset(Role::Client, 800, 5));
        assert!(said(&context).contains("a listener that was closed or replaced"));
    }

    #[test]
    fn at_a_server_it_is_no_fault() {
        let mut context = Context::default();
        note(&mut context, reset(Role::Server, 20, 0));
        let p = &problems(&context)[0].problem;
        assert_eq!(p.local_port, Some(8080));
        assert!(is_usual(p));
        assert!(p.evidence[1].fact.contains("TCP health checks"));
        assert!(p.evidence.iter().all(|e| !e.fact.contains("proxy")));
    }

    #[test]
    fn each_end_that_is_called_is_its_own() {
        let mut context = Context::default();
        for (peer, port) in [("10.0.0.9", 443), ("10.0.0.9", 80), ("10.0.0.8", 443)] {
            let connection = connection(Role::Client, peer, port);
            note(
                &mut context,
                ConnectionReset {
                    connection,
                    ..reset(Role::Client, 1, 0)
                },
            );
        }
        assert_eq!(problems(&context).len(), 3);
        assert!(problems(&Context::default()).is_empty());
    }
}
