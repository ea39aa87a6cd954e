//! Listeners with their queues, and what is counted of their ports.

use super::Engine;
use crate::{
    model::{ListenCounters, Listener, QueueSample},
    verdict::Mode,
};

impl Engine {
    /// Ports at which connections waited for accept() at the last check: in the quiet mode the kernel side's
    /// counts of them are wanted before and after the next one ([`Input::ServerCounts`]).
    pub fn waiting_ports(&self) -> Vec<u16> {
        match self.is_quiet() {
            true => self.judge.context.accept_waits.waiting(),
            false => Vec::new(),
        }
    }

    pub(super) fn listen_sockets(
        &mut self,
        before_ns: u64,
        at_ns: u64,
        mut listeners: Vec<Listener>,
        counters: Vec<ListenCounters>,
    ) {
        let transparent = std::mem::take(&mut self.transparent);
        for l in &mut listeners {
            l.transparent = l
                .inode
                .is_some_and(|inode| transparent.contains(&(l.netns, inode)));
            l.workload = self.tracker.workload(l.pid, l.cgroup.as_deref());
        }
        self.listen_rises.note(&counters);
        let context = &self.judge.context;
        let selected = |l: &Listener| context.selects_listener(l);
        self.host_counts.sample(&listeners, selected, &counters);
        let namespaces = counters.iter().map(|c| c.netns).collect();
        self.tracker
            .listeners_sampled((before_ns, at_ns), &namespaces, &listeners);
        self.judge
            .context
            .sample_at((before_ns, at_ns), &listeners, &counters);
        if self.judge.mode() == Mode::AllAtTheEnd {
            let context = &self.judge.context;
            listeners.retain(|l| context.selects_listener(l));
            self.emit_queues(QueueSample {
                at_ns,
                listeners,
                listen_overflows: self.host_counts.listen_overflows,
                listen_drops: self.listen_rises.listen_drops(),
                syn_cookies: self.listen_rises.syn_cookies(),
            });
        }
    }

    /// What the kernel side has only counted.
    pub(super) fn server_counts(&mut self, ports: Vec<(u16, u64)>, others: u64) {
        self.judge.context.accept_waits.counted(ports, others);
    }
}
