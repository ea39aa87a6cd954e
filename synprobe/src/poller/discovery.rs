//! Which namespaces there are, and what is opened of each.

use std::{
    collections::HashSet,
    io, mem,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{PAUSE, Poller, watched_netns::WatchedNetns};
use crate::{
    diag::{
        counters::CounterReader, icmp::IcmpErrors, namespaces::HIDDEN, route::Routes,
        sock_diag::SockDiag,
    },
    model::{HandshakeSettings, QueueSettings},
    sys::{
        clock::CpuTimer,
        fd_limit,
        netns::{self, NetNs},
    },
};

/// How often namespaces are discovered.
const DISCOVER: Duration = Duration::from_secs(10);

impl Poller {
    /// Opens new namespaces; returns their inodes, and for how many no time was left.
    pub(super) fn discover(&mut self, named: &HashSet<u32>) -> (Vec<u32>, usize) {
        let first = self.discover_due.is_none();
        let due = self.discover_due.is_none_or(|at| at <= Instant::now());
        let timer = CpuTimer::begin();
        let mut found: Vec<NetNs> = self.given.drain(..).collect();
        let given: HashSet<u32> = found.iter().map(NetNs::inode).collect();
        if due {
            if !self.only {
                let discovery = netns::discover();
                if discovery.exhausted {
                    self.no_descriptors();
                }
                if discovery.hidden_processes && first {
                    log::warn!("{HIDDEN}");
                }
                found.extend(discovery.namespaces);
            }
            let pause = timer.took() * PAUSE;
            self.discover_due = Some(Instant::now() + pause.max(DISCOVER));
        }
        for inode in named {
            if self.opens_named
                && !self.watched.contains_key(inode)
                && !self.refused.contains(inode)
            {
                found.extend(self.index.find(*inode));
            }
        }
        // Known ones are closed before more are opened.
        found.retain(|netns| !self.watched.contains_key(&netns.inode()));
        let mut new = Vec::new();
        let mut unopened = 0;
        for netns in found {
            let inode = netns.inode();
            if self.watched.contains_key(&inode) {
                continue;
            }
            // Who makes namespaces by the thousand costs a bounded share: the rest waits.
            if !first && !self.opening.pause(Instant::now()).is_zero() {
                break;
            }
            if self.hurry.opens_no_more() && !given.contains(&inode) {
                unopened += 1;
                continue;
            }
            if fd_limit::scarce() {
                self.no_descriptors();
                break;
            }
            let given = given.contains(&inode);
            let timer = CpuTimer::begin();
            // On one thread, which enters the namespace once.
            let opened = netns.run(|| self.open(&netns, given));
            if !first {
                let took = timer.took();
                self.opening.spent(Instant::now(), took);
            }
            match opened.and_then(|opened| opened) {
                Ok(watched_netns) => {
                    self.watched.insert(inode, watched_netns);
                    new.push(inode);
                }
                Err(error) if fd_limit::used_up(&error) => self.no_descriptors(),
                Err(error) => {
                    if self.refused.insert(inode) {
                        log::warn!("namespace {} cannot be read: {error}", netns.name());
                    }
                }
            }
        }
        if unopened > 0 {
            // The last round finds them again.
            self.discover_due = Some(Instant::now());
        }
        (new, unopened)
    }

    fn open(&mut self, netns: &NetNs, given: bool) -> io::Result<WatchedNetns> {
        let sock_diag = SockDiag::open(netns)?;
        let counters = self.less_without("counters", CounterReader::open, netns);
        let routes = self.less_without("routes", Routes::open, netns);
        let icmp = self.less_without("ICMP errors", IcmpErrors::open, netns);
        let mut watched_netns = WatchedNetns {
            transparent: false,
            netns: netns.clone(),
            sock_diag,
            counters,
            routes,
            icmp: icmp.map(Arc::new),
            synack_retries: None,
            settings: HandshakeSettings::default(),
            limits: QueueSettings::default(),
            conntrack: None,
            is_stale: true,
            no_routes6: None,
            listen_drops: None,
            migrate_req: None,
            later_told: None,
            timeouts_at_first: None,
            waiting: HashSet::new(),
            begun: false,
            given,
            stays: netns.is_host(),
            alone: false,
            settings_read: Instant::now(),
            addresses: None,
            still_at: None,
        };
        watched_netns.read_settings();
        Ok(watched_netns)
    }

    /// Opens a source that a namespace can be watched without.
    fn less_without<T>(
        &mut self,
        what: &str,
        open: impl FnOnce(&NetNs) -> io::Result<T>,
        netns: &NetNs,
    ) -> Option<T> {
        let opened = open(netns);
        if let Err(error) = &opened {
            log::info!("{what} of namespace {}: {error}", netns.name());
            if fd_limit::used_up(error) {
                self.no_descriptors();
            }
        }
        opened.ok()
    }

    /// Logs the lack of file descriptors, once.
    fn no_descriptors(&mut self) {
        if !mem::replace(&mut self.exhausted, true) {
            log::warn!("{}", fd_limit::advice());
        }
    }
}
