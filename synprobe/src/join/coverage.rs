//! Whether a side can testify: was it watching then, and would it have seen this connection?

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
};

use super::fact::SideStart;
use crate::{
    filter::{Selection, parse_cidr},
    model::Role,
};

/// A time from which something is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// From.
    pub from_ns: i64,
    /// To.
    pub to_ns: i64,
    /// How many records or lines.
    pub events: u64,
}

/// One run of a side.
#[derive(Clone, Debug)]
pub struct SideRun {
    /// How it was set up.
    pub start: SideStart,
    /// Its last line.
    pub until_ns: i64,
    /// SYNs and ACKs that its listeners refused; `None`: not known.
    pub listen_drops: Option<u64>,
    /// SYNs that it answered with a cookie.
    pub syn_cookies: Option<u64>,
    selection: Selection,
}

/// What a side's file covers.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// Its runs, in the order of the file.
    pub runs: Vec<SideRun>,
    /// Where something is missing.
    pub gaps: Vec<Gap>,
    /// Addresses that the file shows to be this host's.
    pub addresses: HashSet<IpAddr>,
}

/// Runs that are kept individually; then the last one grows.
const RUNS: usize = 4096;

impl Coverage {
    /// A run begins.
    pub(super) fn begins(&mut self, start: SideStart) {
        if self.runs.len() < RUNS {
            let selection = selection(&start);
            self.runs.push(SideRun {
                until_ns: start.at_ns,
                start,
                listen_drops: None,
                syn_cookies: None,
                selection,
            });
        }
    }

    /// The file has a line of this time.
    pub(super) fn seen_at(&mut self, at_ns: i64) {
        if let Some(run) = self.runs.last_mut() {
            run.until_ns = run.until_ns.max(at_ns);
        }
    }

    /// The counters at the end of a run.
    pub(super) fn counted(&mut self, listen_drops: Option<u64>, syn_cookies: Option<u64>) {
        if let Some(run) = self.runs.last_mut() {
            (run.listen_drops, run.syn_cookies) = (listen_drops, syn_cookies);
        }
    }

    /// Why a SYN without a half-open may have arrived all the same; `None`: the counters exclude it.
    pub fn may_have_taken_a_syn(&self) -> Option<String> {
        let sum = |counter: fn(&SideRun) -> Option<u64>| self.runs.iter().map(counter).sum();
        let (drops, cookies): (Option<u64>, Option<u64>) =
            (sum(|run| run.listen_drops), sum(|run| run.syn_cookies));
        match (drops, cookies) {
            (Some(0), Some(0)) => None,
            (Some(drops @ 1..), _) => Some(format!(
                "its listeners may have refused SYNs: ListenDrops rose by {drops} in its run"
            )),
            (_, Some(cookies @ 1..)) => Some(format!(
                "it answered {cookies} SYNs with cookies, which leave no half-open"
            )),
            _ => Some(
                "its file does not tell whether its listeners refused SYNs (listen_drops of the end line)".to_owned(),
            ),
        }
    }

    /// From the first line to the last, on the side's own clock; `None` without a run.
    pub fn span(&self) -> Option<(i64, i64)> {
        let from = self.runs.iter().map(|run| run.start.at_ns).min()?;
        Some((from, self.runs.iter().map(|run| run.until_ns).max()?))
    }

    /// Whether every run has a line for each handshake.
    pub fn reports_all(&self) -> bool {
        self.runs
            .iter()
            .all(|run| run.start.reports_all == Some(true))
    }

    /// Why nothing may be concluded about this time from what the file has not; `None`: it was watching, and
    /// nothing is missing. On the side's own clock.
    pub fn cannot_tell_of(&self, from_ns: i64, to_ns: i64) -> Option<String> {
        let covers = |run: &&SideRun| run.start.at_ns <= from_ns && to_ns <= run.until_ns;
        if !self.runs.iter().any(|run| covers(&run)) {
            let (first, last) = match self.span() {
                Some(span) => span,
                None => return Some("its file has no run".to_owned()),
            };
            let reason = if to_ns < first {
                "its run began later"
            } else if from_ns < first {
                "its run began meanwhile"
            } else if from_ns > last {
                "its run had ended before"
            } else if to_ns > last {
                "its run ended meanwhile"
            } else {
                "it was not watching all that time"
            };
            return Some(reason.to_owned());
        }
        let gap = self
            .gaps
            .iter()
            .find(|gap| gap.from_ns <= to_ns && from_ns <= gap.to_ns)?;
        Some(match gap.events {
            0 => "it lost records then".to_owned(),
            events => format!("it lost {events} records around then"),
        })
    }

    /// Why the file cannot have the connection; `None`: its filters let it through.
    pub fn filters_out(&self, role: Role, local: SocketAddr, peer: SocketAddr) -> Option<String> {
        let run = self.runs.iter().find(|run| {
            let s = &run.selection;
            !s.wants(role) || !s.matches(Some(local.port()), Some(peer.port()), peer.ip(), 0)
        })?;
        let filters: Vec<String> = run
            .start
            .filters
            .iter()
            .map(|(name, value)| format!("--{} {value}", name.replace('_', "-")))
            .collect();
        Some(format!("it ran with {}", filters.join(" ")))
    }

    /// Why silence of this side tells nothing; `None`: it has a line for each handshake.
    pub fn is_selective(&self) -> Option<&'static str> {
        let of = |all: Option<bool>| self.runs.iter().any(|run| run.start.reports_all == all);
        if of(Some(false)) {
            return Some("it lists only handshakes in trouble (quiet mode, or diagnose)");
        }
        of(None).then_some("its version does not tell whether it lists every handshake")
    }

    /// The one namespace that it was restricted to, if it was.
    pub fn watches_one_namespace(&self) -> bool {
        self.runs
            .iter()
            .any(|run| run.start.filters.contains_key("netns"))
    }
}

/// The filters of a `start` line. The namespace is left out: its number means nothing on another host.
fn selection(start: &SideStart) -> Selection {
    let ports = |name: &str| {
        let text = start.filters.get(name);
        text.and_then(|text| text.parse().ok()).unwrap_or_default()
    };
    let peers = start.filters.get("peer").map(String::as_str).unwrap_or("");
    Selection {
        ports: ports("port"),
        local_ports: ports("local_port"),
        peer_ports: ports("peer_port"),
        peers: peers
            .split(',')
            .filter_map(|cidr| parse_cidr(cidr).ok())
            .collect(),
        role: match start.filters.get("role").map(String::as_str) {
            Some("client") => Some(Role::Client),
            Some("server") => Some(Role::Server),
            _ => None,
        },
        netns: None,
    }
}
