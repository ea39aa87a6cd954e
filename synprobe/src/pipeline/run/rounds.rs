//! The poller's rounds: the engine's questions go out, the answers come back as inputs.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::Run;
use crate::{
    engine::Input,
    model::{Role, Tuple},
    pipeline::{WatchError, trim_memory},
    poller::{LookUps, Report, Request, Round},
    sys::clock::CpuTimer,
};

/// After a dump of more rows, freed memory is returned to the system.
const MANY_ROWS: usize = 50_000;
/// A round may take this share of one core: its pause is this many times its CPU time.
const PAUSE: u32 = 100;
/// How often the waits for accept() are read: on a host with many CPUs the map is large.
const ACCEPTS: Duration = Duration::from_secs(10);
/// An event whose program runs while a dump is read reaches the ring within this time.
const SETTLE: Duration = Duration::from_millis(20);

impl Run {
    /// Begins a round; with `all` one that looks at idle namespaces too.
    pub(super) fn request_poll(&mut self, all: bool) -> Result<(), WatchError> {
        self.feed_server_counts()?;
        self.core.feed(Input::PollBegins);
        let mut named = std::mem::take(&mut self.named);
        named.extend(self.core.engine.namespaces());
        self.take_questions();
        let polling = &mut self.polling;
        let request = Request::Round {
            named,
            paths: std::mem::take(&mut polling.paths),
            routes: std::mem::take(&mut polling.routes),
            destinations: std::mem::take(&mut polling.destinations),
            all,
            callers: self.core.engine.is_quiet(),
        };
        self.polling.under_way = self.polling.requests.try_send(request).is_ok();
        Ok(())
    }

    /// The engine's questions wait for the next request. Returns those about what has become of half-opens.
    fn take_questions(&mut self) -> Vec<Tuple> {
        let questions = self.core.engine.questions();
        let polling = &mut self.polling;
        polling.paths.extend(questions.paths);
        polling.routes.extend(questions.routes);
        polling.destinations.extend(questions.destinations);
        questions.fates
    }

    /// Asks for routes and paths alone, where no round is due: a half-open may end, and its route change, before the
    /// next one. They may take the share of a core that rounds may take.
    pub(super) fn request_look_ups(&mut self) {
        if self.polling.under_way || self.polling.look_ups_due > Instant::now() {
            return;
        }
        self.take_questions();
        let polling = &mut self.polling;
        if polling.paths.is_empty() && polling.routes.is_empty() {
            return;
        }
        let request = Request::LookUps {
            paths: std::mem::take(&mut polling.paths),
            routes: std::mem::take(&mut polling.routes),
        };
        polling.under_way = polling.requests.try_send(request).is_ok();
    }

    /// What was looked up between two rounds → inputs.
    fn take_look_ups(&mut self, found: LookUps) {
        for (question, path) in found.paths {
            self.core.feed(Input::Path(question, path));
        }
        for (question, answer) in found.routes {
            self.core.feed(Input::Route(question, Box::new(answer)));
        }
        let polling = &mut self.polling;
        polling.paths.extend(found.later_paths);
        polling.routes.extend(found.later_routes);
        polling.under_way = false;
        polling.look_ups_due = Instant::now() + found.took * PAUSE;
    }

    /// The quiet mode: how many handshakes of the ports whose connections wait for accept() were only counted.
    fn feed_server_counts(&mut self) -> Result<(), WatchError> {
        let wanted = self.core.engine.waiting_ports();
        if wanted.is_empty() {
            return Ok(());
        }
        let counted = self.probes.counted_of(&wanted)?;
        let mut ports: BTreeMap<u16, u64> = wanted.into_iter().map(|port| (port, 0)).collect();
        let mut others = 0;
        for (role, port, counts, _) in counted {
            let sum = match port {
                _ if role != Role::Server => None,
                Some(port) => ports.get_mut(&port),
                None => Some(&mut others),
            };
            if let Some(sum) = sum {
                *sum += counts.iter().sum::<u64>();
            }
        }
        self.core.feed(Input::ServerCounts {
            ports: ports.into_iter().collect(),
            others,
        });
        Ok(())
    }

    /// What was measured at accept(), where that rose.
    pub(super) fn feed_accept_counts(&mut self) -> Result<(), WatchError> {
        let mut counts = self.probes.accept_waits()?;
        let told = &mut self.polling.accepts_told;
        counts.retain(|c| {
            let accepted = c.counts.iter().sum();
            told.insert((c.netns, c.port), accepted) != Some(accepted)
        });
        if !counts.is_empty() {
            self.core.feed(Input::AcceptCounts(counts));
        }
        self.polling.accepts_due = Instant::now() + ACCEPTS;
        Ok(())
    }

    /// What a round found → inputs.
    pub(super) async fn take_in(&mut self, report: Report) -> Result<(), WatchError> {
        let round = match report {
            Report::Round(round) => round,
            Report::LookUps(found) => {
                self.take_look_ups(*found);
                return Ok(());
            }
            Report::Fates(_) => return Ok(()),
        };
        let Round {
            mut dumps,
            owners,
            queues,
            accept_readings,
            mut counters,
            later_counters,
            addresses,
            settings,
            conntrack,
            paths,
            routes,
            destinations,
            taken_over,
            icmp,
            mut idle,
            failed,
            left_out,
            callers,
            before_ns,
            at_ns,
            took,
            skipped,
            ..
        } = *round;
        self.polling.skipped = skipped;
        if let Some(only) = self.options.selection.netns {
            // A namespace that only a drop has named: its handshakes, and so its counts, are nobody's here.
            dumps.retain(|dump| only.contains(&dump.netns));
            counters.retain(|counters| only.contains(&counters.netns));
        }
        idle.extend(failed.iter().map(|(netns, _)| *netns));
        let mut there: HashSet<u32> = dumps.iter().map(|dump| dump.netns).collect();
        there.extend(&idle);
        self.polling.watched = there.len();
        let (core, enricher) = (&mut self.core, &mut self.enricher);
        enricher.still_there(&there);
        let mut feed = |input| core.feed(input);
        for caller in &callers {
            enricher.process(&caller.process, caller.cgroup.as_ref(), &mut feed);
        }
        for owner in &owners {
            if let Some(process) = &owner.process {
                enricher.process(process, owner.cgroup.as_ref(), &mut feed);
            }
        }
        if !callers.is_empty() {
            core.feed(Input::Callers(callers));
        }
        if !idle.is_empty() {
            core.feed(Input::NotPolled(idle));
        }
        for (netns, error) in failed {
            core.feed(self.losses.not_looked_at(netns, &error));
        }
        let most = self.options.tables.listeners;
        for (netns, listeners) in left_out {
            let lost = self.losses.not_followed(netns, listeners, most);
            lost.into_iter().for_each(|lost| core.feed(lost));
        }
        core.feed(Input::Owners(owners));
        let waits = queues.iter().any(|l| l.accept_queue > Some(0));
        core.feed(Input::AcceptReadings(accept_readings));
        let transparent = queues.iter().filter(|l| l.transparent);
        let transparent: Vec<_> = transparent
            .filter_map(|l| Some((l.netns, l.inode?)))
            .collect();
        if !transparent.is_empty() {
            core.feed(Input::TransparentListeners(transparent));
        }
        core.feed(Input::LaterCounters(later_counters));
        core.feed(Input::ListenSockets {
            before_ns,
            at_ns,
            listeners: queues,
            counters,
        });
        for (netns, settings) in settings {
            core.feed(Input::Settings(netns, settings));
        }
        for reading in conntrack {
            core.feed(Input::Conntrack(reading));
        }
        for (netns, addresses) in addresses {
            core.feed(Input::Addresses(netns, addresses));
        }
        for (question, path) in paths {
            core.feed(Input::Path(question, path));
        }
        for (question, answer) in routes {
            core.feed(Input::Route(question, Box::new(answer)));
        }
        for (question, to) in destinations {
            core.feed(Input::Destination(question, to));
        }
        for (netns, called) in taken_over {
            core.feed(Input::TakenOver(netns, called));
        }
        self.icmp = icmp;
        // What happened before the dump ended is in the ring by now, or will be in a moment.
        sleep(SETTLE).await;
        let came = self.drain_all();
        let empty = dumps.iter().all(|dump| dump.is_empty());
        // What did not fit into the ring is counted as lost before a counter shows it.
        self.count_losses()?;
        let rows: usize = dumps.iter().map(|dump| dump.rows.len()).sum();
        for dump in dumps {
            if !dump.is_empty() {
                let core = &mut self.core;
                self.enricher
                    .namespace(dump.netns, &mut |input| core.feed(input));
            }
            self.core.feed(Input::Dump(Box::new(dump)));
        }
        // Once for all namespaces, a thousand perhaps: each wait is 20 ms.
        let fates = self.take_questions();
        if !fates.is_empty() {
            let concerned: BTreeSet<u32> = fates.iter().map(|tuple| tuple.netns).collect();
            let fates = self.polling.ask(fates).await;
            // Those that ended with an event are reported by it.
            sleep(SETTLE).await;
            self.drain_all();
            for netns in concerned {
                self.core.feed(self.enricher.counters(netns));
            }
            self.core.feed(Input::Fates(fates));
        }
        self.feed_server_counts()?;
        if self.polling.accepts_due <= Instant::now() {
            self.feed_accept_counts()?;
        }
        // CPU time: on a busy host a round must not seem expensive.
        let timer = CpuTimer::begin();
        self.core.feed(Input::PollEnds { at_ns });
        let took = took + timer.took();
        self.core.end_batch();
        if rows > MANY_ROWS {
            trim_memory();
        }
        let polling = &mut self.polling;
        // The first round looks at all namespaces, as the last one does.
        if let Some(began) = polling.first_began.take() {
            polling.look_takes += began.elapsed();
        }
        polling.under_way = false;
        polling.due = Instant::now() + took * PAUSE;
        polling.calm =
            self.core.engine.is_quiet() && !came && empty && !waits && self.core.engine.open() == 0;
        Ok(())
    }
}
