//! What was lost: counted once, with the reason.

use std::{collections::HashMap, sync::Weak, time::Instant};

use aya::maps::MapError;
use synprobe_ebpf::{
    config::{DROPS_PER_SECOND, EARLY_RESETS_PER_SECOND, OTHER_DROPS_PER_SECOND},
    event::{
        KIND_DROP, KIND_EARLY_RESET, KIND_NAMES, KIND_REQUEST, KIND_RETRANSMIT, KIND_STATE,
        KIND_SYNACK,
    },
    stats::Stats,
};

use crate::{
    diag::icmp::IcmpErrors,
    engine::Input,
    model::Missed,
    poller::LeftOut,
    probe::{Probes, losses},
    sys::clock::monotonic_ns,
};

/// The reason for lost ICMP errors. They are evidence, like drop records.
const ICMP_LOST: &str =
    "drop records: ICMP errors that came faster than they were read, or were damaged";

/// Namespaces of which it is remembered what was said of their listeners.
const MOST_NAMESPACES: usize = 4096;

/// The counters of what was lost, as last reported.
#[derive(Default)]
pub struct Losses {
    stats: Stats,
    skipped: u64,
    drops_skipped: u64,
    /// Losses that the kernel side does not count as produced, because it was not watching.
    unwatched: u64,
    /// By namespace, of how many listeners it was said that they are not followed.
    not_followed: HashMap<u32, LeftOut>,
}

impl Losses {
    /// What the kernel side, and the sockets that ICMP errors come to, could not hand over since the
    /// last time.
    ///
    /// # Errors
    /// When the kernel side's counters cannot be read.
    pub fn since_last(
        &mut self,
        probes: &Probes,
        icmp: &HashMap<u32, Weak<IcmpErrors>>,
    ) -> Result<Vec<Input>, MapError> {
        // The skips are read before the stand-in's events, so that a reported loss never has to be corrected.
        let skipped = probes.skipped();
        let stats = probes.stats()?;
        let skipped = skipped.saturating_sub(stats.stood_in).max(self.skipped);
        let drops_skipped = probes.drops_skipped();
        let mut lost = Vec::new();
        let mut add = |events: u64, reason: &dyn Fn() -> String, of: Missed| {
            if events > 0 {
                lost.push(lost_input(events, reason(), of));
            }
        };
        for (kind, name) in KIND_NAMES.iter().enumerate() {
            let before = &self.stats;
            let dropped = stats.dropped[kind].saturating_sub(before.dropped[kind]);
            let unread = stats.unread[kind].saturating_sub(before.unread[kind]);
            let of = match kind as u16 {
                KIND_STATE => Missed::States,
                KIND_RETRANSMIT | KIND_SYNACK => Missed::Retransmissions,
                KIND_REQUEST => Missed::Requests,
                KIND_DROP => Missed::Drops,
                KIND_EARLY_RESET => Missed::EarlyResets,
                _ => Missed::Others,
            };
            let full = || format!("{name} records: the ring was full (a larger --ring-size helps)");
            add(dropped, &full, of);
            let unreadable = || format!("{name} records: a kernel member could not be read");
            add(unread, &unreadable, of);
        }
        let skips = || "events while the same program was running on that CPU".to_owned();
        add(skipped.saturating_sub(self.skipped), &skips, Missed::Any);
        let skips = drops_skipped.saturating_sub(self.drops_skipped);
        let [unwatched, held_back] = losses::of_drops(&self.stats, &stats, skips);
        let icmp_lost = icmp
            .values()
            .filter_map(Weak::upgrade)
            .map(|errors| errors.drops())
            .sum();
        self.unwatched += unwatched.0 + icmp_lost;
        for (events, reason) in [unwatched, held_back] {
            add(events, &|| reason.clone(), Missed::Drops);
        }
        let before = &self.stats;
        let elsewhere = (stats.elsewhere_held_back).saturating_sub(before.elsewhere_held_back);
        let others = (stats.others_held_back).saturating_sub(before.others_held_back);
        let no_socket = (stats.no_socket_held_back).saturating_sub(before.no_socket_held_back);
        let scanned = || {
            format!(
                "drop records of SYNs without a listener: more than {DROPS_PER_SECOND} in a second on one CPU"
            )
        };
        add(no_socket, &scanned, Missed::WithoutSocket);
        for (events, of, which, most) in [
            (
                elsewhere,
                Missed::Drops,
                "in other namespaces or roles",
                DROPS_PER_SECOND,
            ),
            (
                others,
                Missed::OtherDrops,
                "outside the selection",
                OTHER_DROPS_PER_SECOND,
            ),
        ] {
            let many = || {
                format!("drop records of packets {which}: more than {most} in a second on one CPU")
            };
            add(events, &many, of);
        }
        let resets = stats
            .resets_held_back
            .saturating_sub(self.stats.resets_held_back);
        let flood = || {
            format!(
                "early_reset records: more than {EARLY_RESETS_PER_SECOND} in a second on one CPU"
            )
        };
        add(resets, &flood, Missed::EarlyResets);
        add(icmp_lost, &|| ICMP_LOST.to_owned(), Missed::Drops);
        (self.stats, self.skipped, self.drops_skipped) = (stats, skipped, drops_skipped);
        Ok(lost)
    }

    /// Stops watching drops while there are too many ([`Probes::relieve`]), and reports it.
    pub fn relieve(&mut self, probes: &mut Probes) -> Option<Input> {
        let reason = probes.relieve(self.stats.drop_runs, Instant::now())?;
        // How many are missed is not known: one stands for all.
        self.unwatched += 1;
        Some(lost_input(1, reason, Missed::Drops))
    }

    /// The sockets of a namespace could not be read in a round: ends without an event are seen later, or never.
    pub fn not_looked_at(&mut self, netns: u32, error: &str) -> Input {
        // How many are missed is not known: one stands for all.
        self.unwatched += 1;
        lost_input(
            1,
            format!(
                "looks at the sockets of namespace {netns}: {error}; tried again with the next look"
            ),
            Missed::Handshakes(netns),
        )
    }

    /// The run had to end before the sockets of so many namespaces were read.
    pub fn not_reached(&mut self, namespaces: usize) -> Input {
        self.unwatched += namespaces as u64;
        lost_input(
            namespaces as u64,
            "last looks at the sockets of a namespace each: no time was left".to_owned(),
            // What other namespaces showed is as true as before.
            Missed::Handshakes(0),
        )
    }

    /// There are more listeners in a namespace than may be followed. Said again when they are twice as many.
    pub fn not_followed(&mut self, netns: u32, listeners: LeftOut, most: usize) -> Option<Input> {
        if self.not_followed.len() > MOST_NAMESPACES {
            self.not_followed.clear();
        }
        let told = self.not_followed.entry(netns).or_default();
        let is_more = |now: usize, told: usize| now > 0 && now >= told.saturating_mul(2);
        if is_more(listeners.idle, told.idle) {
            told.idle = listeners.idle;
            // Nothing is lost: with the first connection that waits or is dropped they are followed.
            log::warn!(
                "{} listeners of namespace {netns} in which nothing happens are not followed: there is room for \
                 {most} (a larger --max-memory has more)",
                listeners.idle
            );
        }
        if !is_more(listeners.active, told.active) {
            return None;
        }
        let events = (listeners.active - told.active) as u64;
        told.active = listeners.active;
        self.unwatched += events;
        let reason = format!(
            "listeners of namespace {netns} that are not followed: there is room for {most} (a larger --max-memory \
             has more)"
        );
        Some(lost_input(events, reason, Missed::Handshakes(netns)))
    }

    /// A record cannot be decoded. The kernel side has counted it.
    pub fn undecodable(error: &impl std::fmt::Display) -> Input {
        lost_input(
            1,
            format!("a record cannot be decoded: {error}"),
            Missed::Any,
        )
    }

    /// Records that were due: those that the kernel side produced, and those that it did not watch.
    pub fn produced(&self) -> u64 {
        self.stats.produced.iter().sum::<u64>() + self.skipped + self.unwatched
    }
}

fn lost_input(events: u64, reason: String, of: Missed) -> Input {
    Input::Lost {
        at_ns: monotonic_ns(),
        events,
        reason,
        of,
    }
}
