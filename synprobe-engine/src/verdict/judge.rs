//! When handshakes are judged, and which lines are printed.

use std::net::IpAddr;

use super::{
    ALL, Context, ProblemGroups,
    context::Window,
    judgement::judge,
    parts::found::Found,
    problems::{merged, ranked, unexplained::unexplained},
    undecided::is_undecided,
    window::ProblemWindow,
};
use crate::{
    model::{
        Body, Handshake, Line, Listener, Outcome, Peer, Problem, Role, SynSent, VerdictKind,
        WallClock,
    },
    util::{bounded::Bounded, table_bounds::TableBounds},
};

/// When a handshake is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As its line is printed: by what is known then.
    AtOnce,
    /// At the end of the run, by all that is known then; healthy handshakes are not printed.
    AtTheEnd,
    /// At the end of the run too; and every line is printed, those of healthy handshakes included.
    AllAtTheEnd,
}

/// Gives handshakes their verdicts, and sums them to problems.
pub struct Judge {
    mode: Mode,
    /// What is known around the handshakes.
    pub context: Context,
    /// Handshakes in trouble that are judged at the end.
    held: Vec<Line>,
    /// Handshakes beyond `bounds.held` are judged at once, and counted in the same problems.
    bounds: TableBounds,
    /// Sums of the handshakes in trouble that are judged.
    groups: ProblemGroups,
    /// Verdicts by peer. Most peers have one, so a list takes less memory than a map.
    by_peer: Bounded<(IpAddr, Role), Vec<(VerdictKind, u64)>>,
    /// When the last line was made, or the run ended, CLOCK_MONOTONIC nanoseconds.
    last_ns: Option<u64>,
    /// Handshakes that did not complete in their time and have no verdict.
    undecided: u64,
    /// Set when the run is over: what was seen and no problem explains.
    unexplained: Vec<String>,
    /// Names the run in the ids of its problems.
    run: u64,
    /// Problems are judged over a window, again and again; `None`: once, at the end of the run.
    pub window: Option<ProblemWindow>,
}

impl Judge {
    /// A judge without handshakes. `context` has the bounds of the tables.
    pub fn new(mode: Mode, context: Context) -> Self {
        let bounds = context.bounds;
        Self {
            mode,
            context,
            held: Vec::new(),
            bounds,
            groups: ProblemGroups::default(),
            by_peer: Bounded::new(bounds.judged_peers),
            last_ns: None,
            undecided: 0,
            unexplained: Vec::new(),
            run: 0,
            window: None,
        }
    }

    /// Names the run in the ids of its problems: when it began. With a window in the context, problems are judged
    /// over it.
    pub fn of_run(mut self, began_ns: u64) -> Self {
        self.run = began_ns;
        let length_ns = self.context.window.as_ref().map(Window::length_ns);
        self.window = length_ns.map(|length_ns| {
            ProblemWindow::new(length_ns, began_ns).holding(self.bounds.held_of_window)
        });
        self
    }

    /// Judges the problems of the window. `open`: handshakes in progress, as if they ended now.
    /// `counted_clients`: successful active opens that the kernel has only counted. Returns a line for each problem
    /// that opened, changed or closed.
    pub fn judge_window(
        &mut self,
        at_ns: u64,
        counted_clients: Option<u64>,
        open: Vec<Handshake>,
        clock: WallClock,
    ) -> Vec<Line> {
        let Some(window) = &mut self.window else {
            return Vec::new();
        };
        if self.context.passes(at_ns, counted_clients) {
            window.step(at_ns);
        }
        self.context.note_open(&open);
        let problems = window.problems(at_ns, open, &self.context);
        self.context.note_open(&[]);
        window.states.clock = clock;
        let changed = window.states.judged(at_ns, problems);
        let line = |problem| Line {
            mono_ns: at_ns,
            body: Body::Problem(Box::new(problem)),
        };
        changed.into_iter().map(line).collect()
    }

    /// When it judges.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Takes in the tracker's lines; returns those that can be printed.
    pub fn pass(&mut self, mut lines: Vec<Line>) -> Vec<Line> {
        for line in &lines {
            self.context.note(line);
            self.last_ns = self.last_ns.max(Some(line.mono_ns));
        }
        match self.mode {
            Mode::AtOnce => {
                lines.iter_mut().for_each(|line| self.judge(line));
                lines.retain(|line| !is_of_server(line));
                lines
            }
            Mode::AtTheEnd | Mode::AllAtTheEnd => {
                let all = self.mode == Mode::AllAtTheEnd;
                let mut printed = Vec::new();
                for mut line in lines {
                    match &line.body {
                        Body::Handshake(h) if went_well(h, &self.context) => {
                            printed.extend(all.then_some(line));
                        }
                        Body::State(_) | Body::Retransmit(_) | Body::ConnectionReset(_) => {
                            printed.extend(all.then_some(line));
                        }
                        Body::Handshake(_) if self.held.len() < self.bounds.held => {
                            self.held.push(line)
                        }
                        Body::Handshake(_) => {
                            self.judge(&mut line);
                            printed.push(line);
                        }
                        _ => printed.push(line),
                    }
                }
                printed
            }
        }
    }

    /// The last lines: handshakes that were held back, then problems, listeners and peers.
    pub fn finish(&mut self, lines: Vec<Line>) -> Vec<Line> {
        let (about_peers, rest): (Vec<Line>, Vec<Line>) = lines
            .into_iter()
            .partition(|line| matches!(line.body, Body::Peer(_)));
        let mut printed = self.pass(rest);
        let mut judged = std::mem::take(&mut self.held);
        judged.iter_mut().for_each(|line| self.judge(line));
        let all = judged.iter().chain(&printed).map(|l| l.mono_ns);
        let at_ns = all.max().max(self.last_ns);
        let mut of_window = Vec::new();
        if let Some(window) = &self.window {
            // What the window has is all that there is to explain something by.
            let (groups, held) = window.groups(at_ns.unwrap_or(0), Vec::new(), &self.context);
            (self.groups, of_window) = (groups, held);
        }
        let of_handshakes = judged.iter().filter_map(handshake).chain(&of_window);
        let (of_handshakes, without) = self.groups.found(of_handshakes, &self.context);
        // The lines of `watch` show the problems of handshakes one by one.
        let shown = match self.mode {
            Mode::AtTheEnd | Mode::AllAtTheEnd => None,
            Mode::AtOnce => Some(ranked(merged(without.clone()))),
        };
        let all: Vec<Found> = of_handshakes.into_iter().chain(without).collect();
        let problems: Vec<&Problem> = all.iter().map(|f| &f.problem).collect();
        self.unexplained = unexplained(
            &problems,
            self.undecided,
            &self.context,
            self.groups.explained(),
        );
        let found = ranked(merged(all));
        let listeners = listeners(&found, &self.context);
        let at_the_end = |body| Line {
            mono_ns: at_ns.unwrap_or(0),
            body,
        };
        printed.extend(judged);
        let mut shown = shown.unwrap_or(found);
        if self.window.is_some() {
            // Its lines came when they opened.
            shown.clear();
        }
        for p in &mut shown {
            p.life.id = format!("{:x}-{}", self.run, p.rank);
            p.life.since_ns = at_ns.unwrap_or(0);
        }
        let shown = shown.into_iter().map(|p| Body::Problem(Box::new(p)));
        printed.extend(shown.map(at_the_end));
        if self.mode != Mode::AtOnce {
            let listeners = listeners.into_iter().map(|l| Body::Listener(Box::new(l)));
            printed.extend(listeners.map(at_the_end));
        }
        printed.extend(about_peers.into_iter().map(|mut line| {
            if let Body::Peer(peer) = &mut line.body {
                self.add_verdicts(peer);
            }
            line
        }));
        printed
    }

    /// The same peers, with the verdicts of their handshakes.
    pub fn with_verdicts(&self, mut peers: Vec<Peer>) -> Vec<Peer> {
        peers.iter_mut().for_each(|peer| self.add_verdicts(peer));
        peers
    }

    fn add_verdicts(&self, peer: &mut Peer) {
        if let Some(counts) = self.by_peer.get(&(peer.peer_addr, peer.role)) {
            peer.verdicts = counts.iter().copied().collect();
        }
    }

    /// The run ends now, CLOCK_MONOTONIC nanoseconds: the time of its last lines.
    pub fn ends(&mut self, at_ns: u64) {
        self.last_ns = self.last_ns.max(Some(at_ns));
    }

    /// What was seen and no problem explains, once the run is over.
    pub fn unexplained(&mut self) -> Vec<String> {
        std::mem::take(&mut self.unexplained)
    }

    /// The problems as they stand now. Changes nothing: handshakes that are held back are judged for this
    /// answer alone, by what is known now.
    pub fn problems_now(&self) -> Vec<Problem> {
        if let Some(window) = &self.window {
            return window.states.open().cloned().collect();
        }
        self.problems_with(Vec::new())
    }

    /// The same with handshakes in progress, as if they ended now.
    pub fn problems_so_far(&mut self, open: Vec<Handshake>) -> Vec<Problem> {
        self.context.note_open(&open);
        let problems = self.problems_with(open);
        self.context.note_open(&[]);
        problems
    }

    /// Handshakes in progress with the verdicts that they have so far.
    pub fn judged_so_far(&mut self, mut open: Vec<Handshake>) -> Vec<Handshake> {
        self.context.note_open(&open);
        for h in &mut open {
            judge(h, &self.context);
        }
        self.context.note_open(&[]);
        open
    }

    fn problems_with(&self, open: Vec<Handshake>) -> Vec<Problem> {
        let mut judged = open;
        judged.extend(self.held.iter().filter_map(handshake).cloned());
        if judged.is_empty() {
            return self.groups.problems(std::iter::empty(), &self.context);
        }
        let mut groups = self.groups.clone();
        for h in &mut judged {
            if judge(h, &self.context) {
                groups.add(h);
            }
        }
        groups.problems(judged.iter(), &self.context)
    }

    fn judge(&mut self, line: &mut Line) {
        let Body::Handshake(h) = &mut line.body else {
            return;
        };
        let own = h.evidence.len();
        if judge(h, &self.context) {
            match &mut self.window {
                Some(window) => window.add(line.mono_ns, h, own),
                None => self.groups.add(h),
            }
        }
        self.undecided += u64::from(is_undecided(h));
        let Some(verdict) = h.verdict else { return };
        let key = (h.connection.peer_addr, h.connection.role);
        let Some(counts) = self.by_peer.get_mut(&key) else {
            self.by_peer.insert(key, vec![(verdict, 1)]);
            return;
        };
        match counts.iter_mut().find(|(of, _)| *of == verdict) {
            Some((_, count)) => *count += 1,
            None => counts.push((verdict, 1)),
        }
    }
}

fn handshake(line: &Line) -> Option<&Handshake> {
    match &line.body {
        Body::Handshake(h) => Some(h),
        _ => None,
    }
}

/// Listeners that a problem concerns, and selected ones whose accept queue was full.
fn listeners(problems: &[Problem], context: &Context) -> Vec<Listener> {
    let concerned = |l: &Listener| {
        problems.iter().any(|p| {
            p.role == Role::Server && (p.netns, p.local_port) == (l.netns, Some(l.local_port))
        })
    };
    let mut found: Vec<Listener> = context
        .listeners()
        .filter(|l| concerned(&l.last) || l.was_full() && context.selects_listener(&l.last))
        .map(|l| context.with_wait(&l.last))
        .collect();
    found.sort_by_key(|l| (l.netns, l.local_port, l.local_addr));
    found
}

/// Whether it says that a peer reset a connection to this host's server. A health check does so every few
/// seconds: only their sum is printed.
fn is_of_server(line: &Line) -> bool {
    matches!(&line.body, Body::ConnectionReset(r) if r.connection.role == Role::Server)
}

/// Whether it completed and no verdict applies.
fn went_well(h: &Handshake, context: &Context) -> bool {
    // It was deferred to a first write that never came: it has not begun.
    if h.outcome == Outcome::Abandoned && h.facts.syn == SynSent::NotBuilt {
        return true;
    }
    h.outcome == Outcome::Established && ALL.iter().all(|v| v.check(h, context).is_none())
}
