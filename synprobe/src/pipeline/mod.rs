//! START HERE. Every stage, in order:
//!
//! 1. [`preflight`](crate::preflight): may we run here, and where does this kernel keep its members?
//! 2. [`probe`](crate::probe): load the eBPF object with filters and offsets, attach it.
//! 3. [`ring`](crate::ring): raw records, in batches. Beside it [`survey`](crate::poller): what
//!    sock_diag shows, for what raises no event.
//! 4. [`decode`](crate::decode): bytes → events.
//! 5. [`track`](crate::track): one handshake's life → lines.
//! 6. [`verdict`](crate::verdict): why a handshake went as it did → the same lines, with the reason.
//! 7. [`view`](crate::view): lines → text or JSON.
//!
//! Nothing flows backwards.

use std::{
    collections::HashSet,
    io,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, time::sleep};

use crate::{
    decode::{Event, decode},
    diag::icmp::IcmpErrors,
    model::{Body, ByRole, End, Line, Role, Start, TcpState},
    pipeline::{enrich::Enricher, host_names::HostNames},
    poller::{Poller, Report, Request},
    preflight::Ready,
    probe::{
        LoadOptions, Probes, bpf_log,
        half_open_source::{Decision, RequestedMode},
        hooks::DROPS,
    },
    ring::Ring,
    sys::{clock::monotonic_ns, netns::NetNs, privileges},
    track::{Fate, Observation, Snapshot, TrackConfig, Tracker, Tuple},
    verdict::{Context, Judge},
    view::{View, WallClock},
};
use losses::Losses;
pub use options::{OnReady, Setup, Stop, WatchError, WatchOptions};

mod enrich;
mod host_names;
mod losses;
mod options;
#[cfg(test)]
mod tests;

/// Records taken from the ring before lines are shown: few enough that those are still in the cache.
const BATCH: usize = 512;
/// Handshakes that are still open at the end and judged together: enough to know a flood by, and their
/// lines fit into memory.
const LAST_BATCH: usize = 65_536;
/// A dump of more leaves enough memory behind to be given back.
const MANY_ROWS: usize = 50_000;
/// Half-opens that are counted by port between two looks as well.
const FEW: usize = 10_000;
/// How often the counters of the kernel side are read, and sock_diag asked where that is cheap.
const TICK: Duration = Duration::from_secs(1);
/// Likewise in the quiet mode, while no record comes and no handshake is under way. The first record ends
/// it: what goes badly is sent again after a second, and that gives one.
const CALM: Duration = Duration::from_secs(3);
/// A survey may take this share of one core: its pause is so many times what it took.
const SURVEY_PAUSE: u32 = 100;
/// An event whose program runs while a dump is read reaches the ring within this time.
const SETTLE: Duration = Duration::from_millis(20);

/// Watches until the options, `stop` or the view's reader end it.
///
/// # Errors
///
/// [`WatchError`]; a reader that closed its pipe is no error.
pub fn watch(
    host: &Ready,
    options: WatchOptions,
    view: &mut dyn View,
    mut stop: Stop,
    ready: OnReady,
) -> Result<End, WatchError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| WatchError::System("async runtime", e))?;
    let end = runtime.block_on(async {
        let mut run = Run::start(options, host, view)?;
        // Reading BTF took twice of what is needed from now on.
        give_back_memory();
        // Whoever is told that it is ready may send the signal at once, and the first poll sets up what
        // catches it.
        tokio::select! {
            biased;
            () = &mut stop => stop = Box::pin(std::future::ready(())),
            () = std::future::ready(()) => (),
        }
        ready();
        let done = match run.greet(host) {
            Ok(()) => run.until(stop).await,
            Err(error) => Err(error),
        };
        match done {
            // The reader has what it wanted.
            Err(WatchError::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => Ok(run.totals()),
            result => result.map(|()| run.totals()),
        }
    });
    // The poller may be in the middle of a dump: it ends by itself, and nobody waits for it.
    runtime.shutdown_background();
    end
}

/// All stages of one run.
struct Run<'v> {
    options: WatchOptions,
    probes: Probes,
    ring: Ring,
    tracker: Tracker,
    judge: Judge,
    notice: Enricher,
    /// Where ICMP errors come in.
    icmp: Vec<Arc<IcmpErrors>>,
    names: Rc<HostNames>,
    view: &'v mut dyn View,
    requests: mpsc::Sender<Request>,
    reports: mpsc::Receiver<Report>,
    survey: PollState,
    /// When the next tick is.
    tick: Instant,
    /// Namespaces that events have named.
    named: HashSet<u32>,
    /// What was decided to tell of a half-open's end.
    exact: Decision,
    losses: Losses,
    began: Instant,
    began_ns: u64,
}

struct PollState {
    under_way: bool,
    due: Instant,
    /// Nothing is under way, as far as the last one showed, and no record has come since it began.
    calm: bool,
}

impl<'v> Run<'v> {
    fn start(
        options: WatchOptions,
        host: &Ready,
        view: &'v mut dyn View,
    ) -> Result<Self, WatchError> {
        let mut filter = options
            .selection
            .to_kernel(options.detail, host.ephemeral_ports);
        if host.kernel.preempts_tracepoints() {
            filter.filter.stand_in = 1;
        }
        // An active open always ends with an event.
        let wish = match options.selection.wants(Role::Server) {
            true => options.wish,
            false => RequestedMode::Tracepoints,
        };
        let exact = host.exact_by(wish, options.detail)?;
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
        let attached: Vec<&str> = probes.attached().collect();
        let mut context = Context::default();
        context.sees_drops = attached.contains(&DROPS);
        context.counted_clients = options.detail.slow_us().map_or(0, |_| u64::MAX);
        context.selection = options.selection.clone();
        let names = HostNames::new(&options.namespaces);
        let began_ns = monotonic_ns();
        let tracker = Tracker::new(
            TrackConfig {
                hz: host.hz,
                synack_rto_max: host.kernel.listener_bounds_syn_ack_timeout(),
                sees_failures: host.kernel.at_least(6, 17),
                sees_resets: attached.contains(&"tcp_receive_reset"),
                source: probes.source().0,
                detail: options.detail,
                max_handshakes: options.max_handshakes,
                max_peers: options.max_peers,
                began_ns,
                selection: options.selection.clone(),
            },
            Box::new(Rc::clone(&names)),
        );
        let notice = Enricher::new(Arc::clone(&host.reasons));
        if options.give_up_privileges {
            // Every other thread is begun below: it has what is left.
            give_up_privileges(&options);
        }
        let (requests, to_serve) = mpsc::channel(1);
        let (from_serve, reports) = mpsc::channel(1);
        let poller = Poller::new(
            options.namespaces.clone(),
            options.selection.netns.is_some(),
        );
        tokio::task::spawn_blocking(move || poller.serve(to_serve, from_serve));
        Ok(Self {
            judge: Judge::new(options.mode, context),
            notice,
            icmp: Vec::new(),
            options,
            probes,
            ring,
            tracker,
            names,
            view,
            requests,
            reports,
            survey: PollState {
                under_way: false,
                due: Instant::now(),
                calm: false,
            },
            tick: Instant::now(),
            named: HashSet::new(),
            exact,
            losses: Losses::default(),
            began: Instant::now(),
            began_ns,
        })
    }

    /// The `start` line.
    fn greet(&mut self, host: &Ready) -> Result<(), WatchError> {
        let hooks = self.probes.attached().chain(self.probes.exact_hooks());
        let (source, why) = self.probes.source();
        let unknown = match source.is_exact() {
            true => self.exact.parts.lost.as_slice(),
            false => &[],
        };
        let start = Start {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: host.kernel.release.clone(),
            features: hooks.chain(["sock_diag"]).map(str::to_owned).collect(),
            mode: source.name().to_owned(),
            mode_why: why.or(self.exact.why.as_deref()).map(str::to_owned),
            missing: host
                .missing
                .iter()
                .chain(unknown)
                .map(|&m| m.to_owned())
                .collect(),
            filters: self.options.selection.describe(),
        };
        self.show(vec![Line {
            mono_ns: self.began_ns,
            body: Body::Start(start),
        }])
    }

    async fn until(&mut self, mut stop: Stop) -> Result<(), WatchError> {
        let deadline = self.options.duration.map(|d| self.began + d);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                () = at(deadline) => break,
                () = at(Some(self.tick)) => self.tick()?,
                Some(report) = self.reports.recv() => self.report(report).await?,
                ready = self.ring.ready() => {
                    ready.map_err(|e| WatchError::System("ring buffer", e))?;
                    self.drain()?;
                }
            }
            if self
                .options
                .count
                .is_some_and(|count| self.tracker.totals().handshakes >= count)
            {
                break;
            }
        }
        self.finish().await
    }

    /// Ring → decode → track → view, until the ring is empty or, under load, for one batch.
    fn drain(&mut self) -> Result<usize, WatchError> {
        let (tracker, named) = (&mut self.tracker, &mut self.named);
        let (context, notice) = (&mut self.judge.context, &self.notice);
        let mut failed = false;
        let mut last = 0;
        let records = self.ring.drain(BATCH, |bytes| match decode(bytes) {
            Ok(event) => {
                let netns = event.flow().netns;
                if last != netns {
                    named.insert(netns);
                    last = netns;
                }
                match &event {
                    Event::Drop(discarded) => notice.discarded(discarded, context),
                    Event::Error(..) | Event::State(_, TcpState::SynSent, TcpState::Close) => {
                        failed = true;
                    }
                    _ => (),
                }
                tracker.observe(Observation::Event(event));
            }
            Err(error) => tracker.observe(Losses::undecodable(&error)),
        });
        if records > 0 && self.survey.calm {
            self.survey.calm = false;
            (self.tick, self.survey.due) = (Instant::now(), Instant::now());
        }
        if failed {
            // An ICMP error came before what it did.
            self.listen_to_icmp();
        }
        self.show_news()?;
        Ok(records)
    }

    fn listen_to_icmp(&mut self) {
        for errors in &self.icmp {
            self.notice.listen(errors, &mut self.judge.context);
        }
    }

    /// Whether there was anything.
    fn drain_all(&mut self) -> Result<bool, WatchError> {
        let mut records = self.drain()?;
        let any = records > 0;
        while records == BATCH {
            records = self.drain()?;
        }
        Ok(any)
    }

    fn show(&mut self, lines: Vec<Line>) -> Result<(), WatchError> {
        if lines.is_empty() {
            return Ok(());
        }
        let clock = WallClock::now();
        self.view
            .show(&lines, clock)
            .and_then(|()| self.view.flush())
            .map_err(WatchError::Output)
    }

    fn tick(&mut self) -> Result<(), WatchError> {
        self.tick = Instant::now() + if self.survey.calm { CALM } else { TICK };
        self.count_losses()?;
        if let Some(lost) = self.losses.relieve(&mut self.probes) {
            self.tracker.observe(lost);
        }
        self.names.tidy();
        self.listen_to_icmp();
        // Under load the ring may never be found empty, and then nobody wakes us.
        self.drain()?;
        // The next look may be far: where dumps are dear, the pauses are long.
        if self.tracker.open() <= FEW {
            self.count_half_opens();
        }
        if !self.survey.under_way && self.survey.due <= Instant::now() {
            self.request_survey();
        }
        Ok(())
    }

    fn request_survey(&mut self) {
        self.tracker.snapshot_begins();
        let mut named = std::mem::take(&mut self.named);
        named.extend(self.tracker.namespaces());
        let paths = self.judge.context.wanted_paths();
        let request = Request::Survey { named, paths };
        self.survey.under_way = self.requests.try_send(request).is_ok();
    }

    async fn report(&mut self, report: Report) -> Result<(), WatchError> {
        let Report::Survey {
            snapshots,
            listeners,
            queues,
            counters,
            addresses,
            paths,
            icmp,
            at_ns,
            took,
        } = report
        else {
            return Ok(());
        };
        self.tracker.observe(Observation::Listeners(listeners));
        self.judge.context.look(&queues, &counters, at_ns);
        for (netns, addresses) in addresses {
            self.judge.context.has_addresses(netns, addresses);
        }
        for (wanted, path) in paths {
            self.judge.context.path(&wanted, path);
        }
        self.icmp = icmp;
        // What happened before the dump ended is in the ring by now, or will be in a moment.
        sleep(SETTLE).await;
        let came = self.drain_all()?;
        let empty = snapshots.iter().all(Snapshot::is_empty);
        // What did not fit into the ring is known to be lost before something else shows it.
        self.count_losses()?;
        let rows: usize = snapshots.iter().map(|snapshot| snapshot.rows.len()).sum();
        for mut snapshot in snapshots {
            let missing = self.tracker.missing(&mut snapshot);
            if !missing.is_empty() {
                snapshot.asked_ns = monotonic_ns();
                snapshot.fates = self.ask(missing).await;
                // Those that ended with an event are told by it.
                sleep(SETTLE).await;
                self.drain_all()?;
            }
            self.tracker.observe(Observation::Snapshot(snapshot));
        }
        self.tracker.snapshots_done(at_ns);
        let began = Instant::now();
        self.count_half_opens();
        let took = took + began.elapsed();
        self.show_news()?;
        if rows > MANY_ROWS {
            give_back_memory();
        }
        self.survey = PollState {
            under_way: false,
            due: Instant::now() + took * SURVEY_PAUSE,
            calm: self.options.detail.slow_us().is_some()
                && !came
                && empty
                && self.tracker.open() == 0,
        };
        Ok(())
    }

    fn count_half_opens(&mut self) {
        let now = self.tracker.half_opens_by_port();
        self.judge.context.half_opens(now);
    }

    async fn ask(&mut self, tuples: Vec<Tuple>) -> Vec<(Tuple, Fate)> {
        if self.requests.send(Request::Ask(tuples)).await.is_err() {
            return Vec::new();
        }
        match self.reports.recv().await {
            Some(Report::Fates(fates)) => fates,
            _ => Vec::new(),
        }
    }

    fn count_losses(&mut self) -> Result<(), WatchError> {
        for lost in self.losses.since_last(&self.probes, &self.icmp)? {
            self.tracker.observe(lost);
        }
        self.show_news()
    }

    /// Track → verdict → view.
    fn show_news(&mut self) -> Result<(), WatchError> {
        let lines = self.judge.pass(self.tracker.take_lines());
        self.show(lines)
    }

    /// Waits for the look that is under way, if one is.
    async fn take_report(&mut self) -> Result<(), WatchError> {
        if self.survey.under_way
            && let Some(report) = self.reports.recv().await
        {
            self.report(report).await?;
        }
        Ok(())
    }

    /// One last look at what raises no event, then everything that is left, and the summary.
    async fn finish(&mut self) -> Result<(), WatchError> {
        self.take_report().await?;
        // What one dump does not show the next one decides.
        for _ in 0..2 {
            self.request_survey();
            self.take_report().await?;
            if !self.tracker.in_doubt() {
                break;
            }
        }
        self.probes.detach();
        self.listen_to_icmp();
        self.drain_all()?;
        self.count_losses()?;
        if self.options.detail.slow_us().is_some() {
            for (role, port, counts) in self.probes.counted()? {
                self.tracker.counted(role, port, &counts);
            }
            self.judge.context.counted_clients = self.tracker.counted_clients();
        }
        let at_ns = monotonic_ns();
        while self.tracker.end_open(at_ns, LAST_BATCH) {
            self.show_news()?;
        }
        self.tracker.finish(at_ns);
        let mut lines = self.judge.finish(self.tracker.take_lines());
        lines.push(Line {
            mono_ns: monotonic_ns(),
            body: Body::End(self.totals()),
        });
        self.show(lines)
    }

    fn totals(&self) -> End {
        let totals = self.tracker.totals();
        End {
            events: totals.events,
            lost: totals.lost,
            handshakes: totals.handshakes,
            duration_us: (monotonic_ns() - self.began_ns) / 1000,
            evicted: totals.evicted,
            counted: totals.counted,
            produced: self.losses.produced() + totals.untold,
            peers_unlisted: totals.peers_unlisted,
            peers_distinct: ByRole {
                client: totals.peers_distinct.client.count,
                server: totals.peers_distinct.server.count,
            },
            peers_distinct_error: ByRole {
                client: four_digits(totals.peers_distinct.client.error),
                server: four_digits(totals.peers_distinct.server.error),
            },
        }
    }
}

fn give_up_privileges(options: &WatchOptions) {
    let here = NetNs::current().ok();
    let only = options.selection.netns.is_some();
    let all_here = options
        .namespaces
        .iter()
        .all(|netns| here.as_ref() == Some(netns));
    if let Err(error) = privileges::give_up(!(only && all_here)) {
        log::warn!("privileges that are not needed any more cannot be given up: {error}");
    }
}

/// Gives back what was freed: the C library keeps it between what is still in use.
fn give_back_memory() {
    // SAFETY: malloc_trim() takes a number and may be called at any time.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// More of an error's digits would say nothing.
fn four_digits(share: f64) -> f64 {
    (share * 1e4).round() / 1e4
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
