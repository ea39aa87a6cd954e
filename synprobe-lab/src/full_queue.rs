//! An accept queue that is full: how scenarios fill one, and what becomes of those who wait.

use anyhow::Result;
use synprobe_common::model::VerdictKind;

use crate::{Cause, FaultInjector, LossPattern, bare_ack, scenario::ScenarioRun, socket::Client};

/// The clients of a full accept queue.
pub(super) struct QueueClients {
    /// Their final ACKs are dropped while the application does not accept.
    pub(super) half_open: [Client; 2],
    /// Those that have a place.
    pub(super) queued: Vec<Client>,
}

impl ScenarioRun<'_> {
    /// Fills the accept queue of `port`, whose capacity is `capacity`. Two half-opens arrive while it has
    /// room; their first final ACKs are lost.
    pub(super) fn fill_accept_queue(
        &self,
        port: u16,
        capacity: usize,
        into_server: &mut FaultInjector<'_>,
    ) -> Result<QueueClients> {
        let mut queued = Vec::new();
        for _ in 1..capacity {
            queued.push(self.connect(port)?);
        }
        self.settle(&mut queued)?;
        // Their final ACKs have arrived. From here on final ACKs are lost.
        self.wait_established(port, queued.len())?;
        into_server.set(0, bare_ack(), LossPattern::First(1), port)?;
        let mut half_open = [self.connect(port)?, self.connect(port)?];
        self.settle(&mut half_open)?;
        into_server.lift(0)?;
        // Take the last place before their SYN-ACKs are retransmitted, one second after the first.
        let mut last = self.connect(port)?;
        self.settle([&mut last])?;
        queued.push(last);
        Ok(QueueClients { half_open, queued })
    }

    /// Records both ends of those who waited, and of those whose SYNs were dropped meanwhile, once all have
    /// connected; then closes them. `retransmits`: how often the SYN-ACK of a half-open was sent again.
    pub(super) fn full_queue_ended<const LATE: usize>(
        &mut self,
        clients: QueueClients,
        late: [Client; LATE],
        retransmits: u32,
    ) -> Result<()> {
        for client in &clients.queued {
            self.both_healthy(client)?;
            self.with_retransmits(0);
        }
        for client in &clients.half_open {
            self.both_established(client, Cause::Healthy, VerdictKind::AcceptQueueFull)?;
            self.with_retransmits(retransmits);
        }
        for client in &late {
            self.both_established(client, VerdictKind::ServerQueueFull, Cause::Healthy)?;
            self.with_retransmits(0);
        }
        self.finish(
            clients
                .queued
                .into_iter()
                .chain(clients.half_open)
                .chain(late),
        )
    }
}
