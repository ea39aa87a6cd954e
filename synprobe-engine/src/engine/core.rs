//! The engine itself.

use std::{collections::HashSet, mem};

use super::{
    HostCounts, Input, RunConfig, dumps::UnreadDumps, in_progress::InProgressCounts,
    listen_rises::ListenRises, losses, stats::HandshakeStats,
};
use crate::{
    decode::Event,
    model::{
        Body, Counted, DestinationQuestion, End, HandshakeLines, Line, ListenCounters, Listener,
        Lost, PathQuestion, QueueSample, RouteQuestion, SocketDump, Start, Tuple, WallClock,
        Workload,
    },
    track::{Fates, Observation, Totals, Tracker},
    verdict::{Context, Judge, Mode, context::Window},
};

/// Half-opens that are counted by port at every tick, at most: more are counted once a round.
const FEW: usize = 10_000;

/// Lines of one moment.
#[derive(Clone, Debug)]
pub struct Batch {
    /// In order.
    pub lines: Vec<Line>,
    /// Where in wall-clock time they lie.
    pub clock: WallClock,
    /// The queues at this moment; only where every line is printed at the end of the run.
    pub queues: Option<QueueSample>,
}

/// Lines that an output writes at a time: a slow one shows that it goes on.
const PIECE: usize = 512;

impl Batch {
    /// The lines in pieces. Every output takes them so, live and in a replay.
    pub fn pieces(&self) -> impl Iterator<Item = &[Line]> {
        self.lines.chunks(PIECE)
    }
}

/// What the engine wants to know next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Questions {
    /// The paths of answers to these peers: [`Input::Path`].
    pub paths: Vec<PathQuestion>,
    /// The routes of these packets, and of the answers to them: [`Input::Route`].
    pub routes: Vec<RouteQuestion>,
    /// Where this host's NAT sends these connections: [`Input::Destination`].
    pub destinations: Vec<DestinationQuestion>,
    /// What became of these half-opens: [`Input::Fates`].
    pub fates: Vec<Tuple>,
}

/// See [the module](super).
pub struct Engine {
    start: Start,
    pub(super) began_ns: u64,
    quiet: bool,
    pub(super) tracker: Tracker,
    pub(super) judge: Judge,
    pub(super) stats: HandshakeStats,
    pub(super) host_counts: HostCounts,
    pub(super) listen_rises: ListenRises,
    pub(super) clock: WallClock,
    /// Dumps of a round that wait for the answer to what they do not show.
    pub(super) dumps: Vec<(Box<SocketDump>, Vec<Tuple>)>,
    /// Longer ones that wait.
    pub(super) unread: UnreadDumps,
    /// Of the next listeners: namespace and inode of those with IP_TRANSPARENT.
    pub(super) transparent: HashSet<(u32, u32)>,
    /// At the start of the run, and at its end.
    socket_states: [Option<Counted>; 2],
    pub(super) in_progress: InProgressCounts,
    /// A round of the socket tables is over.
    is_polled: bool,
    end: Option<End>,
    batches: Vec<Batch>,
}

impl Engine {
    /// A new engine. The first batch of lines is the `start` line.
    pub fn new(config: &RunConfig, mode: Mode, clock: WallClock) -> Self {
        let mut context = Context::within(config.track.tables);
        context.sees_drops = config.sees_drops;
        context.sees_answers = config.sees_answers();
        context.selection = config.selection().clone();
        let quiet = config.detail().slow_us().is_some();
        context.accept_waits.quiet = quiet;
        // Until the kernel side's counts are read, there may be any number.
        context.counted_clients = if quiet { u64::MAX } else { 0 };
        if mode == Mode::AtOnce {
            context.window = config.window.map(Window::new);
        }
        let mut start = config.start.clone();
        start.handshake_lines = match quiet || mode == Mode::AtTheEnd {
            true => HandshakeLines::Trouble,
            false => HandshakeLines::All,
        };
        let line = Line {
            mono_ns: config.track.began_ns,
            body: Body::Start(start.clone()),
        };
        Self {
            start,
            began_ns: config.track.began_ns,
            quiet,
            tracker: Tracker::new(config.track.clone()),
            judge: Judge::new(mode, context).of_run(config.track.began_ns),
            stats: HandshakeStats::default(),
            host_counts: HostCounts::default(),
            listen_rises: ListenRises::default(),
            clock,
            dumps: Vec::new(),
            unread: UnreadDumps::default(),
            transparent: HashSet::new(),
            socket_states: [None, None],
            in_progress: InProgressCounts::default(),
            is_polled: false,
            end: None,
            batches: vec![Batch {
                lines: vec![line],
                clock,
                queues: None,
            }],
        }
    }

    /// Takes in one input.
    pub fn feed(&mut self, input: Input) {
        match input {
            Input::Event(Event::Drop(record)) => self.dropped(record, None),
            Input::Event(event) => self.event(event),
            Input::Drop(record, meaning) => self.dropped(record, meaning.as_deref()),
            Input::Lost {
                at_ns,
                events,
                reason,
                of,
            } => {
                let lost = Lost { events, reason, of };
                self.tracker.observe(Observation::Lost { at_ns, lost });
            }
            Input::NetnsName(inode, name) => {
                self.judge.context.set_netns_name(inode, name.clone());
                self.tracker.set_netns_name(inode, name);
            }
            Input::CgroupPath(id, path) => self.tracker.set_cgroup_path(id, path),
            Input::Settings(netns, settings) => {
                let context = &mut self.judge.context;
                context.has_syncookies(netns, settings.syncookies);
                self.tracker.set_settings(netns, settings);
            }
            Input::Counters(netns, counters) => self.tracker.set_counters(netns, counters),
            Input::PollBegins => {
                self.tracker.poll_begins();
                self.judge.context.accept_waits.round_begins();
            }
            Input::Owners(owners) => self.tracker.observe(Observation::Listeners(owners)),
            Input::Queues {
                at_ns,
                listeners,
                counters,
            } => {
                let listeners = listeners.into_iter().map(Listener::from).collect();
                let counters = counters.into_iter().map(ListenCounters::from).collect();
                self.listen_sockets(at_ns, at_ns, listeners, counters);
            }
            Input::ListenSockets {
                before_ns,
                at_ns,
                listeners,
                counters,
            } => self.listen_sockets(before_ns, at_ns, listeners, counters),
            Input::LaterCounters(counters) => self.judge.context.later_counters(counters),
            Input::Addresses(netns, addresses) => {
                self.judge.context.has_addresses(netns, addresses);
            }
            Input::Route(question, answer) => self.judge.context.route(question, *answer),
            Input::Destination(question, to) => {
                self.judge.context.destinations.found(&question, to);
            }
            Input::Path(question, path) => self.judge.context.path(&question, path),
            Input::Icmp { .. } | Input::IcmpError { .. } => self.icmp_error(input),
            Input::Dump(dump) => self.dump(dump),
            Input::Fates(fates) => self.fates(&fates),
            Input::PollEnds { at_ns } => {
                self.fates(&Fates::default());
                self.tracker.poll_ends(at_ns);
                self.judge.context.refused_syns.passed(at_ns);
                self.judge.context.round_ends();
                self.judge.context.routes_are_answered();
                self.count_half_opens();
                self.in_progress_after_round();
                self.is_polled = true;
            }
            Input::CountHalfOpens if self.tracker.open() <= FEW => {
                self.count_half_opens();
                self.count_in_progress();
            }
            Input::CountHalfOpens => (),
            Input::Completed(role, port, counts) => self.completed(role, port, &counts),
            Input::CompletedAll => {
                self.judge.context.counted_clients = self.tracker.counted_clients();
            }
            Input::Holder(tuple, holder) => self.holder(&tuple, holder),
            // Counted before the first round of the socket tables, and after the last.
            Input::SocketStates(states) => {
                self.socket_states[usize::from(self.is_polled)] = Some(*states);
            }
            Input::Conntrack(reading) => self.judge.context.note_conntrack(reading),
            Input::Device(netns, index, name) => {
                self.judge.context.set_device(netns, index, name);
            }
            Input::BatchEnds(offset_ns) => {
                self.clock = WallClock::from_offset(offset_ns.into());
                let mut lines = self.judge.pass(self.tracker.take_lines());
                lines.extend(self.refused_lines(false));
                losses::merge(&mut lines);
                self.emit(lines);
            }
            Input::EndOpen { at_ns, most } => {
                self.fates(&Fates::default());
                self.in_progress_at_end();
                self.tracker.end_open(at_ns, most as usize);
            }
            Input::End { at_ns, produced } => self.finish(at_ns, produced),
            Input::Callers(callers) => self.tracker.set_callers(callers),
            Input::Workload { cgroup, pid, names } => {
                self.tracker.set_workload(cgroup, pid, Workload(names));
            }
            Input::JudgeProblems {
                at_ns,
                counted_clients,
            } => self.judge_problems(at_ns, counted_clients),
            Input::NotPolled(netns) => {
                self.host_counts.not_polled(&netns);
                self.tracker.not_polled(netns);
            }
            Input::AcceptReadings(readings) => self.judge.context.accept_waits.read(readings),
            Input::AcceptCounts(counts) => self.judge.context.accept_waits.measured(counts),
            Input::ServerCounts { ports, others } => self.server_counts(ports, others),
            Input::TransparentListeners(sockets) => {
                self.transparent = sockets.into_iter().collect()
            }
            Input::TakenOver(netns, called) => self.judge.context.note_taken_over(netns, called),
            Input::Rules(reading) => self.judge.context.note_rules(*reading),
        }
    }

    /// What the engine wants to know next. Paths are asked for once; fates until they are answered or the
    /// round is over.
    pub fn questions(&mut self) -> Questions {
        Questions {
            paths: self.judge.context.wanted_paths(),
            routes: self.judge.context.wanted_routes(),
            destinations: self.judge.context.destinations.wanted(),
            fates: self
                .dumps
                .iter()
                .flat_map(|(_, missing)| missing.iter().copied())
                .collect(),
        }
    }

    /// Namespaces that the page may name, and whose name is not known.
    pub fn unnamed_namespaces(&self) -> Vec<u32> {
        self.judge.context.unnamed()
    }

    /// Whether the counters of the event's namespace are to be read and fed ([`Input::Counters`]) before it.
    pub fn needs_counters(&self, event: &Event) -> bool {
        self.tracker.needs_counters(event)
    }

    /// The lines since the last call, oldest first.
    pub fn take_lines(&mut self) -> Vec<Batch> {
        mem::take(&mut self.batches)
    }

    /// Whether something was fed that gives lines once the batch ends ([`Input::BatchEnds`]).
    pub fn has_news(&self) -> bool {
        self.tracker.has_lines() || self.judge.context.refused_syns.is_due()
    }

    /// Where in wall-clock time the lines of now lie.
    pub fn clock(&self) -> WallClock {
        self.clock
    }

    /// When the run began, CLOCK_MONOTONIC nanoseconds.
    pub fn began_ns(&self) -> u64 {
        self.began_ns
    }

    /// Handshakes under way.
    pub fn open(&self) -> usize {
        self.tracker.open()
    }

    /// Whether another round must decide what the last one left open.
    pub fn in_doubt(&self) -> bool {
        self.tracker.in_doubt()
    }

    /// Namespaces with half-opens: each must be polled until it has none.
    pub fn namespaces(&self) -> impl Iterator<Item = u32> {
        self.tracker.namespaces()
    }

    /// The running totals.
    pub fn totals(&self) -> Totals {
        self.tracker.totals()
    }

    /// The `end` line, once the run is over.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Sockets by state at the end of the run, where they were counted.
    pub fn socket_states(&self) -> Option<&Counted> {
        self.socket_states[1].as_ref()
    }

    /// The same at its start.
    pub(super) fn socket_states_at_start(&self) -> Option<&Counted> {
        self.socket_states[0].as_ref()
    }

    pub(super) fn parts(&self) -> (&Start, &Tracker, &Judge, &HandshakeStats) {
        (&self.start, &self.tracker, &self.judge, &self.stats)
    }

    pub(super) fn emit(&mut self, lines: Vec<Line>) {
        if lines.is_empty() {
            return;
        }
        lines.iter().for_each(|line| self.stats.line(line));
        self.batches.push(Batch {
            lines,
            clock: self.clock,
            queues: None,
        });
    }

    pub(super) fn emit_queues(&mut self, queues: QueueSample) {
        self.batches.push(Batch {
            lines: Vec::new(),
            clock: self.clock,
            queues: Some(queues),
        });
    }

    fn count_half_opens(&mut self) {
        let now = self.tracker.half_opens_by_port();
        self.judge.context.half_opens(now);
    }

    fn finish(&mut self, at_ns: u64, produced: u64) {
        self.fates(&Fates::default());
        self.in_progress_at_end();
        self.tracker.finish(at_ns);
        self.judge.ends(at_ns);
        let mut lines = self.refused_lines(true);
        lines.extend(self.judge.finish(self.tracker.take_lines()));
        let mut end = self.totals_at(at_ns, produced);
        end.unexplained = self.judge.unexplained();
        lines.push(Line {
            mono_ns: at_ns,
            body: Body::End(end.clone()),
        });
        self.end = Some(end);
        self.emit(lines);
    }

    /// Whether healthy handshakes are only counted, in the kernel.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }
}
