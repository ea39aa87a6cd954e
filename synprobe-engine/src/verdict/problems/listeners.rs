//! Listeners that refused or lost connections, and that no handshake shows.

use crate::{
    model::{Confidence, Problem, VerdictKind, who},
    verdict::{
        Context,
        context::{ClosedListener, ListenerHistory},
        parts::found::{contra, of_listener, pro},
        server::listener_closed,
    },
};

/// A listener that was closed or replaced while another listens at its address: what it held went with it.
/// `None`: it held nothing at the last check, or the group took its half-opens over.
pub(super) fn closed_listener(history: &ListenerHistory, context: &Context) -> Option<Problem> {
    let l = &history.last;
    history.closed_ns?;
    let others = context.group_of(l);
    let replaced = others.iter().any(|h| h.closed_ns.is_none());
    let migrates = context.migrates(l.netns) == Some(true);
    // What the close itself showed is exact.
    let at_check = u64::from(l.accept_queue.unwrap_or(0));
    let seen = context.seen_closing(l);
    if seen.is_some_and(|seen| seen.half_opens.is_some()) {
        // The close showed what both queues held: closed_with_queue() has it.
        return None;
    }
    let waiting = seen.map_or(at_check, |seen| seen.waiting);
    let half_opens = history.half_opens();
    if !replaced || migrates || waiting == 0 && half_opens == 0 {
        return None;
    }
    let mut evidence = vec![pro(history.how_closed())];
    if waiting > 0 {
        evidence.push(pro(
            "close() of a listener resets the connections that wait in its accept queue".to_owned(),
        ));
    }
    if half_opens > 0 {
        evidence.push(pro(format!(
            "{half_opens} half-opens were in the SYN queues of the address then: those of the closed socket end \
             with it, and their final ACK is answered with a RST"
        )));
        evidence.push(contra(
            "the kernel does not tell which socket of the group a half-open belongs to".to_owned(),
        ));
    }
    evidence.push(contra(
        "the check is up to a second older than the close: what happened in between is not known"
            .to_owned(),
    ));
    let remedy = listener_closed::remedy(
        Some(l.local_port),
        true,
        &others
            .first()
            .map_or_else(String::new, |l| l.in_its_netns()),
    );
    let held = waiting + u64::from(half_opens);
    Some(of_listener(
        l,
        VerdictKind::ListenerClosed,
        held,
        evidence,
        remedy,
    ))
}

/// A listener that was closed with connections or half-opens in its queues. `None`: others of its SO_REUSEPORT group
/// took them over.
pub(super) fn closed_with_queue(closed: &ClosedListener, context: &Context) -> Option<Problem> {
    let l = &closed.listener;
    let migrates = context.migrates(l.netns);
    if closed.others_listen && migrates == Some(true) {
        return None;
    }
    let name = std::net::SocketAddr::new(l.local_addr, l.local_port);
    let owner = who(l.comm.as_deref(), l.pid, &l.workload);
    let owner = match owner.is_empty() {
        true => String::new(),
        false => format!(" ({owner})"),
    };
    let mut evidence = Vec::new();
    if closed.waiting > 0 {
        let (connections, their) = match closed.waiting {
            1 => ("1 connection".to_owned(), "its client"),
            n => (format!("{n} connections"), "their clients"),
        };
        evidence.push(pro(format!(
            "listener {name}{owner} was closed with {connections} in its accept queue"
        )));
        evidence.push(pro(format!(
            "close() of a listener resets what waits there: {their} had completed the handshake, and got a RST"
        )));
    }
    if let Some(n) = closed.half_opens.filter(|n| *n > 0) {
        let half_opens = match n {
            1 => "1 half-open".to_owned(),
            n => format!("{n} half-opens"),
        };
        evidence.push(pro(format!(
            "listener {name}{owner} was closed with {half_opens} in its SYN queue, which ends with it: a final ACK \
             that comes later is answered with a RST"
        )));
        if closed.waiting == 0 {
            evidence.push(contra(
                "whether the peers would have completed the handshake is not known".to_owned(),
            ));
        }
    }
    if closed.others_listen {
        evidence.push(pro("another socket listened at its address then".to_owned()));
        evidence.extend(
            (migrates == Some(false)).then(|| pro(listener_closed::NO_MIGRATION.to_owned())),
        );
    }
    let listens = context.group_of(l);
    let enter = listens
        .first()
        .map_or_else(String::new, |l| l.in_its_netns());
    let remedy = listener_closed::remedy(Some(l.local_port), closed.others_listen, &enter);
    // Half-opens of silent peers are no loss.
    let sure = closed.waiting > 0 && (!closed.others_listen || migrates == Some(false));
    Some(Problem {
        confidence: match sure {
            true => Confidence::Certain,
            false => Confidence::Likely,
        },
        ..of_listener(
            l,
            VerdictKind::ListenerClosed,
            closed.held(),
            evidence,
            remedy,
        )
    })
}

/// A listener whose queue is full and that has no half-open: the kernel drops SYNs silently, and neither a
/// handshake nor a packet drop shows them.
pub(super) fn full_listener(history: &ListenerHistory, context: &Context) -> Problem {
    let l = &history.last;
    let overflows = context.moved(l.netns, |c| c.listen_overflows);
    let mut evidence = vec![pro(history.how_full())];
    evidence.extend(history.why_not_accepted().map(pro));
    evidence.extend(history.others_of(&context.group_of(l)).map(pro));
    evidence.push(match overflows {
        None => contra("ListenOverflows of its namespace could not be read".to_owned()),
        Some(0) => contra(format!(
            "ListenOverflows of its namespace did not rise {}: no SYN was refused",
            context.during()
        )),
        Some(n) => pro(format!(
            "ListenOverflows of its namespace rose by {n} {}: {}",
            context.during(),
            context.what_overflowed(l.netns)
        )),
    });
    let own = history.dropped();
    let refused = overflows.unwrap_or(0).min(own.unwrap_or(u64::MAX));
    if overflows.unwrap_or(0) > 0 && own == Some(0) {
        evidence.push(contra(
            "its own sk_drops did not rise: it was another listener that refused them".to_owned(),
        ));
    }
    let look = format!("synprobe listeners --port {}", l.local_port);
    let steps = [history.owner_remedy(), Some(look), history.longer_queue()];
    let remedy = steps.into_iter().flatten().collect::<Vec<_>>().join("; ");
    Problem {
        confidence: match refused {
            0 => Confidence::Likely,
            _ => Confidence::Certain,
        },
        ..of_listener(l, VerdictKind::AcceptQueueFull, refused, evidence, remedy)
    }
}
