//! Which problems are open: from one judgement of the window to the next.
//!
//! A problem opens when a judgement finds it, and closes when none has found it for a window. Where another
//! verdict replaces its own at the same place, it is the same problem: what is known of it has changed. So it
//! neither opens and closes at a threshold, nor is one cause two problems.

use std::{net::IpAddr, sync::Arc};

use crate::model::{Problem, ProblemRole, ProblemState, VerdictKind, WallClock, Workload};

/// A share of the window: a problem has a line of its changes no more often.
const PAUSE: u64 = 4;

/// The client of a problem. Equal: the same process, or the same command in the same unit, container and pod.
#[derive(Clone, Debug)]
struct CallerName {
    pid: Option<u32>,
    comm: Option<Arc<str>>,
    workload: Workload,
}

impl CallerName {
    fn of(p: &Problem) -> Self {
        Self {
            pid: p.pid,
            comm: p.comm.clone(),
            workload: p.workload.clone(),
        }
    }
}

impl PartialEq for CallerName {
    fn eq(&self, other: &Self) -> bool {
        let same_process = self.pid.is_some() && self.pid == other.pid;
        let same_command =
            self.comm.is_some() && (&self.comm, &self.workload) == (&other.comm, &other.workload);
        let unknown = |c: &Self| c.pid.is_none() && c.comm.is_none();
        same_process || same_command || (unknown(self) && unknown(other))
    }
}

/// Where a problem is: what stays while its verdict may change.
#[derive(Clone, Debug, PartialEq)]
struct ProblemPlace {
    role: ProblemRole,
    netns: u32,
    local: Option<(Option<IpAddr>, u16)>,
    peer_port: Option<u16>,
    /// Client: who called.
    caller: Option<CallerName>,
    forwarded_to: Option<(IpAddr, u16)>,
}

impl ProblemPlace {
    fn of(p: &Problem) -> Self {
        Self {
            role: p.role,
            netns: p.netns,
            local: p.local_port.map(|port| (p.local_addr, port)),
            peer_port: p.peer_port,
            // A server's problem is its port's, whichever of its processes is shown.
            caller: (p.role == ProblemRole::Client).then(|| CallerName::of(p)),
            forwarded_to: p.forward.as_ref().map(|f| (f.to_addr, f.to_port)),
        }
    }
}

impl ProblemPlace {
    /// Whether this is the place of a server whose listener was not known yet, and `other` that of the listener: it
    /// accepts at every address. Two listeners cannot share the port in this way.
    fn is_part_of(&self, other: &Self) -> bool {
        let port = |place: &Self| place.local.map(|(_, port)| port);
        let is_any = |place: &Self| {
            let addr = place.local.and_then(|(addr, _)| addr);
            addr.is_some_and(|addr| addr.is_unspecified())
        };
        self.role == ProblemRole::Server
            && (self.role, self.netns, port(self)) == (other.role, other.netns, port(other))
            && port(self).is_some()
            && is_any(other)
            && !is_any(self)
    }
}

/// What a line says of a problem that a small change does not alter.
type Gist = (Option<VerdictKind>, &'static str, usize);

fn gist(p: &Problem) -> Gist {
    (p.verdict, p.confidence.name(), p.effects.len())
}

struct OpenProblem {
    place: ProblemPlace,
    /// As found last.
    problem: Problem,
    found_ns: u64,
    /// As its last line had it.
    printed: Gist,
    printed_handshakes: u64,
    printed_ns: u64,
}

/// See the module.
pub struct ProblemStates {
    length_ns: u64,
    run: u64,
    next: u64,
    open: Vec<OpenProblem>,
    /// Where in wall-clock time a judgement lies.
    pub clock: WallClock,
}

impl ProblemStates {
    pub(super) fn new(length_ns: u64, run: u64) -> Self {
        Self {
            length_ns,
            run,
            next: 1,
            open: Vec::new(),
            clock: WallClock::default(),
        }
    }

    /// Whether no problem is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Those that are open, worst first.
    pub fn open(&self) -> impl Iterator<Item = &Problem> {
        self.open.iter().map(|open| &open.problem)
    }

    /// Takes in what a judgement found, worst first. Returns what changed.
    pub fn judged(&mut self, at_ns: u64, found: Vec<Problem>) -> Vec<Problem> {
        let mut changed = Vec::new();
        let mut before = std::mem::take(&mut self.open);
        let places: Vec<ProblemPlace> = found.iter().map(ProblemPlace::of).collect();
        // The same verdict at the same place first: only what is left over may have become another.
        let mut known: Vec<Option<OpenProblem>> = Vec::new();
        for (p, place) in found.iter().zip(&places) {
            let same = |o: &OpenProblem| o.place == *place && o.problem.verdict == p.verdict;
            let at = before.iter().position(same);
            known.push(at.map(|at| before.remove(at)));
        }
        for ((mut p, place), known) in found.into_iter().zip(places).zip(known) {
            let known = known.or_else(|| {
                let same = before.iter().position(|o| o.place == place);
                let at = same.or_else(|| before.iter().position(|o| o.place.is_part_of(&place)))?;
                Some(before.remove(at))
            });
            let open = match known {
                Some(mut open) => {
                    open.place.caller = place.caller;
                    self.again(at_ns, open, p, &mut changed)
                }
                None => {
                    p.life.id = format!("{:x}-{}", self.run, self.next);
                    p.life.since_ns = at_ns;
                    p.life.since_clock = Some(self.clock);
                    self.next += 1;
                    changed.push(p.clone());
                    OpenProblem {
                        place,
                        found_ns: at_ns,
                        printed: gist(&p),
                        printed_handshakes: p.handshakes,
                        printed_ns: at_ns,
                        problem: p,
                    }
                }
            };
            self.open.push(open);
        }
        for mut gone in before {
            if at_ns.saturating_sub(gone.found_ns) < self.length_ns {
                self.open.push(gone);
                continue;
            }
            gone.problem.life.state = ProblemState::Closed;
            gone.problem.life.until_ns = Some(gone.found_ns);
            changed.push(gone.problem);
        }
        for (rank, open) in (1..).zip(&mut self.open) {
            open.problem.rank = rank;
        }
        changed
    }

    /// A problem that is open was found again.
    fn again(
        &self,
        at_ns: u64,
        mut open: OpenProblem,
        mut p: Problem,
        changed: &mut Vec<Problem>,
    ) -> OpenProblem {
        p.life = std::mem::take(&mut open.problem.life);
        let other = gist(&p) != open.printed;
        let grown = p.handshakes >= open.printed_handshakes.saturating_mul(2).max(2)
            && p.handshakes > open.printed_handshakes;
        let paused = at_ns.saturating_sub(open.printed_ns) < self.length_ns / PAUSE;
        if (other || grown) && !paused {
            p.life.state = ProblemState::Updated;
            open.printed = gist(&p);
            open.printed_handshakes = p.handshakes;
            open.printed_ns = at_ns;
            changed.push(p.clone());
        }
        open.problem = p;
        open.found_ns = at_ns;
        open
    }
}

#[cfg(test)]
mod tests;
