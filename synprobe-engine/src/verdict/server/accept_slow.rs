//! Connections wait for accept(), in a queue that is not full.

use std::collections::BTreeSet;

use crate::{
    model::{Confidence, Evidence, Handshake, Problem, VerdictKind},
    util::format,
    verdict::{
        Context, Explanation, Finding, Verdict,
        context::{LONG_US, ListenerHistory, PortWaits},
        parts::found::{contra, of_listener, pro},
    },
};

/// `accept-slow`
pub(in crate::verdict) struct AcceptSlow;

/// Checks at which a connection had waited for long that make it: a pause of a second, as of a garbage collection,
/// is seen by one.
const CHECKS: u64 = 2;

impl Verdict for AcceptSlow {
    fn kind(&self) -> VerdictKind {
        VerdictKind::AcceptSlow
    }

    fn check(&self, _: &Handshake, _: &Context) -> Option<Finding> {
        // The handshakes complete in their time: only a problem has it.
        None
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "connections wait for accept() for a second or more, and the accept queue is not full",
            meaning: "The kernel completes handshakes without the application. A connection then waits in the \
                      listener's accept queue until the application takes it with accept(). The client is \
                      connected, may have sent its request, and gets no answer. No packet is lost, no counter \
                      rises, and connect() is fast: all of the delay is in the application. It is busy, blocked, \
                      stopped, or has too few threads that accept.",
            detection: "Once a second the queue's length is read. Where it holds more connections than came since an \
                      earlier check, the rest has waited since then; so it must be at two checks, for 0.9 s or \
                      more. PassiveOpens of the namespace counts what came, certain; where another listener is \
                      busy too, the handshakes of the port do, likely. The mean wait is an estimate (Little's \
                      law: mean length of the queue, divided by the connections a second); in mode exact \
                      (fentry) each wait is measured at accept(). All listeners of a port are taken together. A queue that is full is accept-queue-full.",
            remedy: "See what the application does; raise the number of threads or processes that accept.\n    \
                     synprobe listeners\n    ss -ltnp\n    cat /proc/<pid>/stack; gdb -p <pid>",
            reproduce: "synprobe lab accept-slow",
        }
    }
}

/// One for each port at which connections wait for long. `is_full`: another problem names a full accept queue there.
pub(in crate::verdict) fn problems(
    context: &Context,
    is_full: impl Fn((u32, Option<u16>)) -> bool,
) -> Vec<Problem> {
    let mut seen = BTreeSet::new();
    let mut problems = Vec::new();
    for l in context.listeners() {
        let place = (l.last.netns, l.last.local_port);
        let waits = context.accept_waits.of(place.0, place.1);
        let Some(waits) = waits.filter(|w| w.by_port().checks.max(w.by_opens().checks) >= CHECKS)
        else {
            continue;
        };
        if is_full((place.0, Some(place.1)))
            || !context.selects_listener(&l.last)
            || !seen.insert(place)
        {
            continue;
        }
        let of_port = |h: &&ListenerHistory| (h.last.netns, h.last.local_port) == place;
        let all: Vec<&ListenerHistory> = context.listeners().filter(of_port).collect();
        let worst = all.iter().max_by_key(|h| (h.longest, h.trouble()));
        if let Some(worst) = worst
            && !all.iter().any(|h| h.was_full())
        {
            problems.extend(problem(worst, waits, context));
        }
    }
    problems
}

fn problem(l: &ListenerHistory, waits: &PortWaits, context: &Context) -> Option<Problem> {
    let (by_opens, by_port) = (waits.by_opens(), waits.by_port());
    // Lost records make the handshakes of a port too few.
    let (proven, confidence) = match by_opens.checks >= CHECKS {
        true => (by_opens, Confidence::Certain),
        false if context.losses.any_of_handshakes() => return None,
        false => (by_port, Confidence::Likely),
    };
    if proven.checks < CHECKS {
        return None;
    }
    let long = format::duration(LONG_US);
    let counted = match confidence {
        Confidence::Certain => "PassiveOpens of its namespace counted",
        _ => "handshakes of the port were seen to complete",
    };
    let max = l.last.accept_queue_max.unwrap_or(0);
    let mut evidence = vec![
        pro(format!(
            "listener {}: at {} checks connections had waited for accept() for {long} or more, up to {} at one \
             check, the longest for at least {}",
            l.name(),
            proven.checks,
            proven.most,
            format::duration(proven.longest_us())
        )),
        pro(format!(
            "more connections were in the queue than {counted} since an earlier check: the rest had waited \
             since then"
        )),
        mean(l, waits, context),
        pro(format!(
            "its accept queue was up to {} of {max} in {} checks: not full in any",
            l.longest, l.samples
        )),
    ];
    evidence.push(match context.moved(l.last.netns, |c| c.listen_overflows) {
        Some(0) => pro("ListenOverflows of its namespace did not rise: no queue overflowed".to_owned()),
        Some(n) => contra(format!(
            "ListenOverflows of its namespace rose by {n}: a queue overflowed between two checks, of this or of \
             another listener"
        )),
        None => contra("ListenOverflows of its namespace could not be read".to_owned()),
    });
    evidence.extend(l.why_not_accepted().map(pro));
    evidence.extend(l.others_of(&context.group_of(&l.last)).map(pro));
    let port = l.last.local_port;
    let remedy = match l.owner_remedy() {
        Some(owner) => format!("{owner}; synprobe listeners --port {port}"),
        None => format!("synprobe listeners --port {port}"),
    };
    Some(Problem {
        confidence,
        ..of_listener(
            &l.last,
            VerdictKind::AcceptSlow,
            proven.most,
            evidence,
            remedy,
        )
    })
}

/// The mean wait: as measured at accept(), or marked as an estimate.
fn mean(l: &ListenerHistory, waits: &PortWaits, context: &Context) -> Evidence {
    let measured = context.accept_waits.wait(l.last.netns, l.last.local_port);
    if let Some(m) = measured
        && let (Some(accepted), Some(mean)) = (m.accepted, m.mean_us)
    {
        let most = match m.p99_us {
            Some(us) => format!(", 99 % of them for {} at most", format::duration(us)),
            None => String::new(),
        };
        let who = match &m.accepted_by {
            Some(p) => format!(
                "; {} (pid {}) took the last late one",
                format::name(&p.comm),
                p.pid
            ),
            None => String::new(),
        };
        return pro(format!(
            "measured at accept(): {accepted} connections had waited for {} on average{most}{who}",
            format::duration(mean)
        ));
    }
    estimate(waits)
}

/// The mean wait, marked as an estimate.
fn estimate(waits: &PortWaits) -> Evidence {
    let wait = waits.wait();
    let span = format::duration(wait.span_us);
    if wait.checks == 0 {
        return contra(
            "the mean wait is not known: handshakes of the port could not be counted".to_owned(),
        );
    }
    if wait.left == 0 {
        return pro(format!("no connection left the queue within {span}"));
    }
    let (length, rate) = waits.length_and_rate();
    match wait.mean_us {
        Some(us) => pro(format!(
            "the mean wait is about {}, an estimate by Little's law: {length:.1} connections in the queue, {rate:.1} \
             a second ({} checks within {span})",
            format::duration(us),
            wait.checks
        )),
        None => contra(format!(
            "the mean wait is not estimated: too few connections came or left, or their numbers differ too much ({} \
             left the queue within {span})",
            wait.left
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{AcceptReading, ListenCounters, OwnerState, Role},
        verdict::{ProblemGroups, fixtures::*},
    };

    /// Six checks of a queue of so many, with `came` a second, and overflows at the last.
    fn problems_of(queue: u32, came: u64, overflows: u64) -> Vec<Problem> {
        let mut context = Context::default();
        for n in 0..6 {
            let read = AcceptReading {
                netns: NETNS,
                before_ns: T0 + n * SEC,
                after_ns: T0 + n * SEC,
                opens_before: Some(n * came),
                opens_after: Some(n * came),
            };
            let counters = ListenCounters {
                netns: NETNS,
                listen_overflows: Some(if n == 5 { overflows } else { 0 }),
                ..ListenCounters::default()
            };
            let mut it = listener(queue, 0);
            it.drops = Some(counters.listen_overflows.unwrap());
            it.owner_state = Some(OwnerState {
                state: 'T',
                cpu_ms: 0,
                open_fds: None,
                max_fds: None,
                waits_in: None,
            });
            (0..came).for_each(|_| context.accept_waits.completed(NETNS, Some(8080)));
            context.accept_waits.round_begins();
            context.accept_waits.read(vec![read]);
            context.sample(&[it], &[counters]);
            context.round_ends();
        }
        ProblemGroups::default().problems(std::iter::empty(), &context)
    }

    #[test]
    fn connections_that_are_still_there_at_the_next_check_make_it() {
        let found = problems_of(25, 10, 0);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!(found[0].verdict, Some(VerdictKind::AcceptSlow));
        assert_eq!(found[0].confidence, Confidence::Certain);
        assert!(found[0].role == Role::Server && found[0].handshakes == 15);
        let facts: Vec<&str> = found[0].evidence.iter().map(|e| e.fact.as_str()).collect();
        assert_eq!(
            facts[0],
            "listener 0.0.0.0:8080 (app/77): at 5 checks connections had waited for accept() for 900 ms or more, \
             up to 15 at one check, the longest for at least 2.00 s"
        );
        assert!(
            facts
                .iter()
                .any(|f| f.starts_with("the mean wait is about 2.50 s, an estimate")),
            "{facts:#?}"
        );
        assert!(facts.contains(&"app/77 does not run: a signal has stopped it (state T)"));
        let remedy = found[0].remedy.as_deref();
        assert_eq!(
            remedy,
            Some("let app run again: kill -CONT 77; synprobe listeners --port 8080")
        );
    }

    #[test]
    fn a_full_queue_is_accept_queue_full_alone() {
        for (queue, overflows) in [(129, 7), (129, 0), (25, 7)] {
            let found = problems_of(queue, 10, overflows);
            assert_eq!(found.len(), 1, "{found:#?}");
            assert_eq!(found[0].verdict, Some(VerdictKind::AcceptQueueFull));
        }
    }

    #[test]
    fn bursts_and_idle_listeners_are_not_it() {
        assert!(problems_of(25, 25, 0).is_empty());
        assert!(problems_of(0, 1000, 0).is_empty());
        assert!(problems_of(0, 0, 0).is_empty());
    }
}
