//! The state at any moment, without ending the run: what a live view or an exporter needs.

use std::{collections::HashMap, net::IpAddr};

use super::{Engine, HandshakeStats, HostCounts};
use crate::{
    model::{AcceptCounts, End, Listener, Peer, PortState, Problem, Role, Start, UnderWay},
    track::{OpenSurvey, Totals},
};

/// See the module. Reading it changes nothing.
#[derive(Clone, Debug)]
pub struct EngineSnapshot {
    /// The run.
    pub start: Start,
    /// The running totals.
    pub totals: Totals,
    /// Cumulative counts and histograms.
    pub stats: HandshakeStats,
    /// Cumulative counts of this host that no line has.
    pub host: HostCounts,
    /// By namespace, role and port.
    pub ports: Vec<PortState>,
    /// The selected listeners that are open, as last seen, with the waits for accept() of their ports.
    pub listeners: Vec<Listener>,
    /// How long connections waited for accept(), by namespace and port; empty where accept() is not watched.
    pub accept_counts: Vec<AcceptCounts>,
    /// The peers, those in most trouble first.
    pub peers: Vec<Peer>,
    /// Handshakes in progress, in the order in which they became known: at most the number asked for.
    pub open: Vec<UnderWay>,
    /// How many there are.
    pub open_total: usize,
    /// Only the oldest were asked for; they are in the order of their age.
    pub open_is_part: bool,
    /// How many there are by peer, where any were asked for.
    pub open_by_peer: HashMap<(IpAddr, Role), u64>,
    /// What is wrong as things stand now, worst first.
    pub problems: Vec<Problem>,
    /// The `end` line, once the run is over.
    pub end: Option<End>,
}

impl Engine {
    /// The state as it is now, with at most `most_open` of the handshakes under way.
    pub fn snapshot(&self, most_open: usize) -> EngineSnapshot {
        let (_, tracker, judge, _) = self.parts();
        // A list that grows is copied again and again.
        let mut open = Vec::with_capacity(most_open.min(self.open()));
        open.extend(tracker.under_way().take(most_open));
        EngineSnapshot {
            peers: judge.with_verdicts(tracker.peers()),
            open,
            ..self.summary_of(tracker.survey(0, most_open > 0))
        }
    }

    /// The same with the oldest handshakes under way alone: a fraction of the cost where there are 100,000.
    pub fn snapshot_of_oldest(&self, most_open: usize) -> EngineSnapshot {
        if self.open() <= most_open {
            return self.snapshot(most_open);
        }
        let (_, tracker, judge, _) = self.parts();
        EngineSnapshot {
            peers: judge.with_verdicts(tracker.peers()),
            open_is_part: true,
            ..self.summary_of(tracker.survey(most_open, true))
        }
    }

    /// The same without peers and without the handshakes under way: it costs little, however many there are.
    pub fn summary(&self) -> EngineSnapshot {
        let (_, tracker, ..) = self.parts();
        self.summary_of(tracker.survey(0, false))
    }

    fn summary_of(&self, survey: OpenSurvey) -> EngineSnapshot {
        let (start, _, judge, stats) = self.parts();
        let mut listeners: Vec<Listener> = judge
            .context
            .listeners()
            .filter(|history| {
                history.closed_ns.is_none() && judge.context.selects_listener(&history.last)
            })
            .map(|history| judge.context.with_wait(&history.last))
            .collect();
        listeners.sort_by_key(|l| (l.netns, l.local_port, l.local_addr));
        EngineSnapshot {
            start: start.clone(),
            totals: self.totals(),
            stats: stats.clone(),
            host: self.host_counts.clone(),
            ports: survey.ports,
            listeners,
            accept_counts: judge.context.accept_waits.all_measured().cloned().collect(),
            peers: Vec::new(),
            open: survey.oldest,
            open_total: self.open(),
            open_is_part: false,
            open_by_peer: survey.by_peer,
            problems: judge.problems_now(),
            end: self.end().cloned(),
        }
    }
}
