//! One run on this host: ring, poller and clock → inputs; lines → subscribers.

mod completed;
mod finish;
mod icmp;
mod judging;
mod recordings;
mod rounds;
mod rules;
mod status;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::{
    decode::{Event, decode},
    diag::{
        icmp::{Buffer, IcmpErrors},
        state_counts,
    },
    engine::{Engine, Input},
    model::{Counted, End, Role},
    pipeline::{
        Stop, WatchError, WatchOptions,
        asked::StatusAnswers,
        core::Core,
        enrich::Enricher,
        host_names::HostNames,
        icmp_errors::has_failed,
        losses::Losses,
        polling::Polling,
        recorder::{PartRecorder, Prepared},
        rules::RuleReading,
        run_config::{enters_others, give_up_privileges, run_config},
        segment_ends::SegmentEnds,
        subscriber::Subscriber,
    },
    preflight::Ready,
    probe::{LoadOptions, Probes, bpf_log, half_open_source::RequestedMode},
    ring::Ring,
    status::StatusQueries,
    sys::{
        clock::{monotonic_ns, wall_clock},
        netns::NetnsIndex,
    },
};

/// Records taken from the ring before lines are made: few enough that those are still in the cache.
const BATCH: usize = 512;
/// How often the counters of the kernel side are read, and sock_diag asked where that is cheap.
const TICK: Duration = Duration::from_secs(1);
/// The same in the quiet mode, while no record comes and no handshake is in progress. The first record ends
/// it: a handshake in trouble is retransmitted after a second, which sends a record.
const CALM: Duration = Duration::from_secs(3);
/// How long the sockets are counted before a run.
const COUNT: Duration = Duration::from_millis(500);

/// All stages of one run.
pub(super) struct Run {
    options: WatchOptions,
    pub(super) core: Core,
    enricher: Enricher,
    polling: Polling,
    /// Reads the rules of packet filters.
    rules: RuleReading,
    /// Where ICMP errors come in.
    icmp: HashMap<u32, Weak<IcmpErrors>>,
    icmp_buffer: Buffer,
    probes: Probes,
    ring: Ring,
    /// When the next tick is.
    tick: Instant,
    /// Namespaces that events have named.
    named: HashSet<u32>,
    losses: Losses,
    began: Instant,
    segment_ends: SegmentEnds,
    asked: StatusAnswers,
    /// When the problems of the window are judged next.
    judge: Instant,
}

impl Run {
    pub fn start(
        options: WatchOptions,
        host: &Ready,
        mut asked: Option<StatusQueries>,
    ) -> Result<Self, WatchError> {
        let mut filter = options
            .selection
            .to_kernel(options.detail, host.ephemeral_ports);
        if host.kernel.preempts_tracepoints() {
            filter.filter.stand_in = 1;
        }
        // An active open always ends with an event.
        let requested_mode = match options.selection.wants(Role::Server) {
            true => options.requested_mode,
            false => RequestedMode::Tracepoints,
        };
        let exact = host.exact_by(requested_mode, options.detail)?;
        // Before records come: it may take long.
        let looked = Instant::now();
        let states_at_start = (options.count_sockets || options.record.is_some()).then(|| {
            let only = options.namespaces.first().cloned();
            state_counts::by_namespace(only, looked + COUNT)
        });
        let count_takes = looked.elapsed();
        let (mut probes, ring) = Probes::load(&LoadOptions {
            exact: &exact,
            ring_bytes: options.ring_bytes,
            filter: &filter,
            places: host.places,
            hooks: &host.hooks,
            reasons: &host.reasons,
            log_level: options.log_level,
        })?;
        let ring = Ring::new(ring, options.ring_bytes)
            .map_err(|e| WatchError::System("ring buffer", e))?;
        if options.log_level > 0 {
            bpf_log::forward(&mut probes);
        }
        let config = run_config(&options, host, &probes, &exact);
        let clock = wall_clock();
        let engine = Engine::new(&config, options.mode, clock);
        // The file is created with all privileges, and written with the remaining ones.
        let record = options
            .record
            .as_ref()
            .map(|to| Prepared::new(to, &config, clock))
            .transpose()?;
        let index = NetnsIndex::default();
        // One connect may be over before a search has ended.
        if options.selection.netns.is_none() || options.enters_dropping {
            index.learn();
        }
        let names = HostNames::new(&options.namespaces, index.clone());
        let enricher = Enricher::new(Arc::clone(&host.reasons), names);
        // This thread alone keeps the privilege to read rules.
        let confined = options.give_up_privileges.then(|| enters_others(&options));
        let rules = RuleReading::begin(confined).map_err(|e| WatchError::System("a thread", e))?;
        let parts = PartRecorder::of(asked.as_mut(), &config)?;
        if options.give_up_privileges {
            // Every other thread starts later, with the remaining privileges.
            give_up_privileges(&options);
        }
        let segment_ends = SegmentEnds::new(options.record.as_ref());
        let recorder = record.map(Prepared::begin).transpose()?;
        let polling = Polling::begin(&options, index, count_takes);
        let mut run = Self {
            core: Core {
                engine,
                subscribers: Vec::new(),
                recorder,
                parts,
                clock,
            },
            enricher,
            polling,
            rules,
            icmp: HashMap::new(),
            icmp_buffer: Buffer::default(),
            options,
            probes,
            ring,
            tick: Instant::now(),
            named: HashSet::new(),
            losses: Losses::default(),
            began: Instant::now(),
            segment_ends,
            asked: StatusAnswers::new(asked),
            judge: Instant::now(),
        };
        run.ask_first_rules();
        if let Some(states) = states_at_start {
            run.core.feed(Input::SocketStates(Box::new(states)));
        }
        Ok(run)
    }

    /// One more output.
    pub fn subscribe(&mut self, subscriber: Subscriber) {
        self.core.subscribers.push(subscriber);
    }

    /// Runs until the options, `stop` or a failing output end it.
    pub async fn until(
        &mut self,
        mut stop: Stop,
        mut output_fails: oneshot::Receiver<()>,
    ) -> Result<(), WatchError> {
        // The `start` line.
        self.core.publish(Subscriber::publish);
        let ends = self.options.duration.map(|duration| self.began + duration);
        loop {
            // So that the run ends on time.
            let deadline = ends.map(|at| at - self.polling.look_takes.min((at - self.began) / 4));
            tokio::select! {
                biased;
                () = &mut stop => return self.finish(None).await,
                () = at(deadline) => break,
                Ok(()) = &mut output_fails => return Ok(()),
                () = self.segment_ends.wanted() => self.close_segment(),
                () = at(Some(self.tick)) => self.tick()?,
                Some(report) = self.polling.report() => self.take_in(report).await?,
                reading = self.rules.next() => {
                    self.core.feed(Input::Rules(Box::new(reading)));
                    self.core.end_batch();
                }
                request = self.asked.next() => self.answer(request)?,
                ready = self.ring.ready() => {
                    ready.map_err(|e| WatchError::System("ring buffer", e))?;
                    self.drain();
                }
            }
            let handshakes = self.core.engine.totals().handshakes;
            if self.options.count.is_some_and(|count| handshakes >= count) {
                return self.finish(None).await;
            }
        }
        let early: Stop = Box::pin(async {
            tokio::select! { () = stop => (), Ok(()) = output_fails => () }
        });
        self.finish(ends.map(|at| (at, early))).await
    }

    /// Ring → decode → engine, until the ring is empty or, under load, for one batch; how many records.
    pub(super) fn drain(&mut self) -> usize {
        let (core, enricher, named) = (&mut self.core, &mut self.enricher, &mut self.named);
        let mut failed = Vec::new();
        let mut last = 0;
        let selection = &self.options.selection;
        let enters_dropping = self.options.enters_dropping;
        let mut elsewhere = 0;
        let records = self.ring.drain(BATCH, |bytes| match decode(bytes) {
            Ok(Event::Drop(record)) if !selection.selects_drop(&record) => {
                if enters_dropping {
                    named.insert(record.flow.netns);
                }
                elsewhere += 1;
                enricher.drop_elsewhere(record, &mut |input| core.feed(input));
            }
            Ok(event) => {
                let netns = event.flow().netns;
                if last != netns {
                    named.insert(netns);
                    last = netns;
                }
                if has_failed(&event) && !failed.contains(&netns) {
                    failed.push(netns);
                }
                let needs_counters = core.engine.needs_counters(&event);
                enricher.event(event, needs_counters, &mut |input| core.feed(input));
            }
            Err(error) => core.feed(Losses::undecodable(&error)),
        });
        if records > elsewhere && self.polling.calm {
            self.polling.wake();
            self.tick = Instant::now();
        }
        // The ICMP error came before the failure that it caused.
        failed.iter().for_each(|netns| self.drain_icmp_of(*netns));
        self.ask_rules(false);
        self.core.end_batch();
        records
    }

    /// Whether there were records.
    pub(super) fn drain_all(&mut self) -> bool {
        let mut records = self.drain();
        let any = records > 0;
        while records == BATCH {
            records = self.drain();
        }
        any
    }

    fn tick(&mut self) -> Result<(), WatchError> {
        let is_calm = self.polling.calm && !self.enricher.holds_any();
        self.tick = self.polling.next_tick(if is_calm { CALM } else { TICK });
        self.count_losses()?;
        if let Some(lost) = self.losses.relieve(&mut self.probes) {
            self.core.feed(lost);
        }
        let (core, enricher) = (&mut self.core, &mut self.enricher);
        enricher.tidy(&mut |input| core.feed(input));
        if let Some(recorder) = &mut self.core.recorder {
            recorder.hand_over();
        }
        self.drain_icmp();
        // Under load the ring may never be empty, and then no wake-up comes.
        self.drain();
        // The next round may be far: where dumps are expensive, the pauses are long.
        self.core.feed(Input::CountHalfOpens);
        if self.polling.is_due() {
            self.request_poll(false)?;
        } else {
            self.request_look_ups();
        }
        self.judge_problems()
    }

    pub(super) fn count_losses(&mut self) -> Result<(), WatchError> {
        for lost in self.losses.since_last(&self.probes, &self.icmp)? {
            self.core.feed(lost);
        }
        self.core.end_batch();
        Ok(())
    }

    /// The totals: as the `end` line has them, or as they stand now where there is none.
    pub fn end(&self) -> End {
        let engine = &self.core.engine;
        engine
            .end()
            .cloned()
            .unwrap_or_else(|| engine.totals_at(monotonic_ns(), self.losses.produced()))
    }

    /// Sockets by state at the end of the run.
    pub fn take_socket_states(&mut self) -> Option<Counted> {
        self.core.engine.socket_states().cloned()
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
