//! What no tracepoint shows: half-opens that are older than the run, and ends without an event.
//!
//! A half-open that is ended by a RST, by its timer, by ICMP or with its listener raises no event
//! (docs/kernel-facts.md, section 3). Its end is noticed when sock_diag no longer shows it, so it lies
//! between the last sighting and that dump. The namespace's counters show the cause.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::{
    Tracker,
    half_open_age::{estimate, possible_time_outs, ticks_us, time_outs},
    handshake::{HandshakeStart, OpenHandshake},
    schedule::{SynAckSchedule, SynSchedule},
    unreported::EVICTION_REPORT_NS,
};
use crate::{
    model::{DwellSource, Fate, HalfOpenRow, Role, SocketDump, Tuple},
    util::addresses::{mapped, printable},
};

/// What became of half-opens that a dump did not show ([`Tracker::missing`]). Each is looked up: a dump that
/// is read while the table changes may skip a row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fates {
    /// When they were asked for, CLOCK_MONOTONIC nanoseconds.
    pub asked_ns: u64,
    /// One for each that could be asked for.
    pub of: Vec<(Tuple, Fate)>,
}

/// State that the comparison needs from one dump to the next.
#[derive(Default)]
pub(super) struct Reconcile {
    /// Since when ends are collected: a dump is under way.
    collecting: bool,
    ended: HashMap<Tuple, u64>,
    /// Namespaces of this round, and of the one before it.
    polled: HashSet<u32>,
    polled_before: HashSet<u32>,
    /// `EmbryonicRsts` that are accounted for: those up to the last dump, and those given to a
    /// half-open since.
    pub(super) embryonic: HashMap<u32, u64>,
    cookies: HashMap<u32, Cookies>,
}

#[derive(Clone, Copy, Default)]
struct Cookies {
    received: u64,
    /// When the counter was last seen to have moved.
    moved_ns: u64,
}

impl Reconcile {
    /// A half-open ended with an event: a dump that was under way may still show it.
    pub(super) fn ended(&mut self, tuple: Tuple, at_ns: u64) {
        if self.collecting {
            self.ended.insert(tuple, at_ns);
        }
    }

    /// Forgets namespaces that are gone: a host may make many a second.
    fn keep(&mut self, polled: &HashSet<u32>) {
        self.embryonic.retain(|netns, _| polled.contains(netns));
        self.cookies.retain(|netns, _| polled.contains(netns));
    }

    /// Whether a connection of this moment may have come through a SYN cookie: the counter moved
    /// since it was last looked at, or the connection is older than the last time it was seen to.
    pub(super) fn cookies_in_use(
        &mut self,
        netns: u32,
        received: u64,
        now_ns: u64,
        at_ns: u64,
    ) -> bool {
        let first = !self.cookies.contains_key(&netns);
        let cookies = self.cookies.entry(netns).or_default();
        if (first && received > 0) || received != cookies.received {
            *cookies = Cookies {
                received,
                moved_ns: now_ns,
            };
        }
        at_ns <= cookies.moved_ns
    }
}

impl Tracker {
    /// A dump is about to be asked for: from here on ends are collected, so that a row that was read
    /// just before its end does not bring it back.
    pub fn poll_begins(&mut self) {
        self.reconcile.collecting = true;
    }

    /// Namespaces with half-opens: each must be polled until it has none.
    pub fn namespaces(&self) -> impl Iterator<Item = u32> {
        self.half_opens.namespaces()
    }

    /// Namespaces that still exist, and that this round leaves out.
    pub fn not_polled(&mut self, namespaces: Vec<u32>) {
        self.reconcile.polled.extend(namespaces);
    }

    /// All dumps that were asked for are taken in.
    pub fn poll_ends(&mut self, now_ns: u64) {
        self.reconcile.collecting = false;
        self.callers.clear();
        self.reconcile.ended.clear();
        let polled = std::mem::take(&mut self.reconcile.polled);
        self.mib_audit.keep(|netns| polled.contains(netns));
        self.reconcile.keep(&polled);
        // A single failed dump does not orphan a namespace: the next round decides.
        let mut polled = std::mem::replace(&mut self.reconcile.polled_before, polled);
        polled.extend(&self.reconcile.polled_before);
        self.end_orphaned(&polled, now_ns);
        let due = |since: u64| now_ns.saturating_sub(since) >= EVICTION_REPORT_NS;
        if self.evictions.since_ns.is_some_and(due) {
            self.report_evictions(now_ns);
        }
    }

    /// Half-opens of this namespace that a dump does not show though they were known before it. Each
    /// has to be asked for: absence from a dump proves nothing.
    pub fn missing(&self, dump: &mut SocketDump) -> Vec<Tuple> {
        // There may be a million rows: they are sorted in place.
        dump.rows.sort_unstable_by_key(|row| row.tuple);
        // Of a thousand namespaces most have none: the table of all is not walked for each.
        if !self
            .half_opens
            .namespaces()
            .any(|netns| netns == dump.netns)
        {
            return Vec::new();
        }
        let shown = |tuple: &Tuple| {
            let at = dump.rows.binary_search_by_key(tuple, |row| row.tuple);
            at.is_ok()
        };
        self.half_opens
            .alive()
            .filter(|(tuple, alive_ns)| {
                tuple.netns == dump.netns && *alive_ns < dump.before_ns && !shown(tuple)
            })
            .map(|(tuple, _)| tuple)
            .collect()
    }

    /// Takes in what one namespace showed, and what became of those that it did not show.
    pub fn on_dump(&mut self, dump: &SocketDump, fates: &Fates) {
        self.reconcile.polled.insert(dump.netns);
        self.on_rows(&dump.rows, dump);
        let syn_sent = dump.syn_sent.as_deref();
        for row in syn_sent.filter(|_| dump.is_first).unwrap_or_default() {
            self.on_syn_sent(row, dump);
        }
        self.on_gone(dump, fates);
        self.end_gone_clients(dump);
        self.audit_counters(dump);
    }

    /// Takes in some rows of a dump, in order.
    pub fn on_rows(&mut self, rows: &[HalfOpenRow], dump: &SocketDump) {
        if self.config.selection.wants(Role::Server) {
            for row in rows {
                self.on_row(row, dump);
            }
        }
    }

    fn on_row(&mut self, row: &HalfOpenRow, dump: &SocketDump) {
        let tuple = row.tuple;
        if self
            .reconcile
            .ended
            .get(&tuple)
            .is_some_and(|at| *at >= dump.before_ns)
        {
            return;
        }
        let known = self.half_opens.get(&tuple);
        // One that was seen then cannot have begun later.
        let seen_ns = known.as_ref().filter(|open| open.start.is_none());
        let seen_ns = seen_ns.map(|open| open.alive_ns);
        let mut start = estimate(row, dump, self.config.hz, seen_ns);
        start.error_us += dump.took_us();
        let passed = known
            .as_ref()
            .and_then(|open| time_outs(open.start?, row, dump));
        // With its retries used up it dies when the timer fires that is armed now. Where their number is
        // not known, the highest possible counts: only an end at that very moment is taken for it.
        let (fewest, most) = possible_time_outs(row, dump.synack_retries, self.config.hz);
        let tries = passed
            .unwrap_or(0)
            .max(match known_time_outs(known.as_ref()) {
                Some(time_outs) => time_outs.max(fewest),
                None => most,
            });
        let last = dump.synack_retries.is_some_and(|retries| tries >= retries);
        let gap_us = SynAckSchedule::PLAIN.gap_us(tries);
        let dies = last.then(|| {
            (
                dump.before_ns + u64::from(row.expires_ms) * 1_000_000,
                gap_us,
            )
        });
        if let Some(mut open) = known {
            // A start later than the one known, beyond both bounds, is another half-open of a peer
            // that used its port again.
            let slack = (start.error_us + open.start.map_or(0, |s| s.error_us)) * 1000 + 50_000_000;
            let later = open.start.is_some_and(|s| start.at_ns > s.at_ns + slack);
            // `num_retrans` never falls.
            let fell = u32::from(row.retrans) < open.retransmits && open.alive_ns < dump.before_ns;
            let newer = later && (passed.is_none() || fell);
            if let Some(passed) = passed.filter(|_| !newer) {
                open.facts.time_outs = open.facts.time_outs.max(passed);
            }
            if !newer {
                open.alive_ns = open.alive_ns.max(dump.before_ns);
                open.start.get_or_insert(start);
                if u32::from(row.retrans) > open.retransmits {
                    // Its event did not come: the last transmission is not known.
                    open.next_us = None;
                }
                open.retransmits = open.retransmits.max(u32::from(row.retrans));
                open.gives_up = match open.gives_up {
                    // Overdue: the timer's turn on a busy CPU has not come, or it was armed anew.
                    Some((nominal_ns, gap_us)) if nominal_ns < dump.before_ns => {
                        let due_ns = dump.before_ns + u64::from(row.expires_ms) * 1_000_000;
                        Some((due_ns, gap_us)).filter(|_| last || row.expires_ms == 0)
                    }
                    known => known.or(dies),
                };
                if settled(&open, dump.after_ns) {
                    self.announce_if_due(&open);
                    open.announced = true;
                }
                self.half_opens.update(&tuple, |known| *known = open);
                return;
            }
            self.half_opens.remove(&tuple);
            // It had ended by the time that its tuple was used again.
            let again_ns = start.at_ns + start.error_us * 1000;
            let latest_ns = again_ns.min(dump.before_ns).max(open.alive_ns);
            self.gone(open, Fate::Gone, latest_ns);
        }
        if !self.config.selection.matches(
            Some(tuple.local_port),
            Some(tuple.peer_port),
            printable(tuple.peer_addr),
            tuple.netns,
        ) {
            return;
        }
        if !self.end_sends_record(row, start, dump.before_ns) {
            return;
        }
        let mut open = self.new_half_open(tuple, row.family, Some(start), dump.before_ns);
        open.retransmits = u32::from(row.retrans);
        // More than the timer can have caused came from the peer's repeated SYNs.
        open.by_peer = open.retransmits.saturating_sub(most);
        open.gives_up = dies;
        if settled(&open, dump.after_ns) {
            self.announce_if_due(&open);
            open.announced = true;
        }
        self.keep_half_open(tuple, open, dump.after_ns);
    }

    /// An active open that is older than the run: its timer shows its age.
    fn on_syn_sent(&mut self, row: &HalfOpenRow, dump: &SocketDump) {
        if row.retrans == 0 && self.config.detail.slow_us().is_some() {
            // It may still complete, and no record would report it.
            return;
        }
        // One that began since then is tracked by its socket.
        let known = self.clients.iter().any(|(_, open)| {
            open.connection.peer_port == Some(row.tuple.peer_port)
                && mapped(open.connection.peer_addr) == row.tuple.peer_addr
                && open.start.is_some_and(|start| start.at_ns <= dump.after_ns)
                && open
                    .connection
                    .local_port
                    .is_none_or(|port| port == row.tuple.local_port)
                && open.connection.netns == row.tuple.netns
        });
        if known
            || self
                .reconcile
                .ended
                .get(&row.tuple)
                .is_some_and(|at| *at >= dump.before_ns)
        {
            return;
        }
        let schedule = SynSchedule::plain(dump.syn_linear);
        let n = u32::from(row.retrans);
        let age_us = schedule.age_us(n, u64::from(row.expires_ms) * 1000);
        let late_us = if n == 0 { 0 } else { age_us / 8 };
        let start = HandshakeStart {
            at_ns: dump.after_ns.saturating_sub(age_us * 1000),
            source: DwellSource::SockDiag,
            error_us: late_us + ticks_us(self.config.hz),
        };
        self.preexisting_client(row.tuple, row.family, n, start, dump.before_ns);
    }

    fn on_gone(&mut self, dump: &SocketDump, fates: &Fates) {
        for (tuple, fate) in &fates.of {
            let at_ns = fates.asked_ns;
            // One that began anew since it was asked for is not the one that is gone.
            let Some(open) = self.half_opens.get(tuple).filter(|o| o.alive_ns < at_ns) else {
                continue;
            };
            if *fate == Fate::HalfOpen {
                self.half_opens.update(tuple, |open| open.alive_ns = at_ns);
            } else {
                self.half_opens.remove(tuple);
                self.gone(open, *fate, at_ns);
            }
        }
        if let Some(now) = dump.embryonic_rsts {
            // RSTs that came since the reading may be accounted for already.
            let accounted = self.reconcile.embryonic.entry(dump.netns).or_insert(now);
            *accounted = now.max(*accounted);
        }
    }
}

/// A healthy handshake is over in a round trip: a half-open is worth a line once it is older than this,
/// microseconds, or was retransmitted.
const SETTLED_US: u64 = 250_000;

fn settled(open: &OpenHandshake, now_ns: u64) -> bool {
    open.retransmits > 0 || open.dwell_us(now_ns).is_none_or(|age| age >= SETTLED_US)
}

/// How many time-outs an event showed.
fn known_time_outs(open: Option<&OpenHandshake>) -> Option<u32> {
    open.filter(|open| open.facts.history_known)
        .map(|open| open.facts.time_outs)
}
