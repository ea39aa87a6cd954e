//! What events tell beside the handshakes: they pass through here on their way to the tracker.

use std::net::IpAddr;

use synprobe_ebpf::{event::StateRecord, histogram::BUCKETS};

use super::Engine;
use crate::{
    decode::{Event, Moment},
    model::{Listener, Role, TcpState, Tuple},
    track::Observation,
    util::addresses::printable,
    verdict::context::ClosedListener,
};

impl Engine {
    /// Takes in an event that is no drop.
    pub(super) fn event(&mut self, event: Event) {
        if let Event::SynAck(..) | Event::Request(..) = &event {
            self.judge.context.note_listener_of(event.flow());
        }
        let closed = match &event {
            Event::State(r, TcpState::Listen, TcpState::Close) => self.closes_listener(r),
            Event::Request(r, Moment::Refused) => {
                self.note_syn_at_full_queue(r);
                None
            }
            Event::SynAck(record, ..) => {
                self.judge
                    .context
                    .repeats_syn_ack(&Tuple::from(&record.flow));
                None
            }
            Event::Retransmit(record, TcpState::SynSent) => {
                self.judge
                    .context
                    .destinations
                    .repeats_syn(&Tuple::from(&record.flow));
                None
            }
            _ => None,
        };
        let tuple = Tuple::from(event.flow());
        self.tracker.observe(Observation::Event(event));
        if let Some(mut closed) = closed {
            closed.others_listen = self.tracker.listener_owner(&tuple).is_some();
            self.judge.context.note_closed_listener(closed);
        }
    }

    /// A listener that is closed, with what waits in its accept queue. `None`: the record does not tell.
    fn closes_listener(&self, r: &StateRecord) -> Option<ClosedListener> {
        let accept_queue = r.accept_queue()?;
        let tuple = Tuple::from(&r.flow);
        let owner = self.tracker.listener_owner(&tuple);
        let process = owner.and_then(|owner| owner.process.as_ref());
        let pid = process.map(|process| process.pid);
        let cgroup = owner.and_then(|owner| owner.cgroup.clone());
        let local_addr: IpAddr = printable(tuple.local_addr);
        Some(ClosedListener {
            listener: Listener {
                netns_name: self.tracker.netns_name(tuple.netns),
                pid,
                comm: process.map(|process| process.comm.clone()),
                workload: self.tracker.workload(pid, cgroup.as_deref()),
                cgroup,
                accept_queue: Some(accept_queue),
                ..Listener::at(tuple.netns, local_addr, tuple.local_port)
            },
            waiting: accept_queue.into(),
            half_opens: r.half_opens().map(u64::from),
            others_listen: false,
        })
    }

    /// What the kernel side has counted of a role and port since the run began: by bucket, and the sum of the
    /// times in microseconds.
    pub(super) fn completed(&mut self, role: Role, port: Option<u16>, counts: &[u64]) {
        let Some((counts, sum_us)) = counts.split_first_chunk::<BUCKETS>() else {
            return;
        };
        if let Some(port) = port {
            self.judge.context.counted(role, port, counts.iter().sum());
        }
        self.tracker.set_completed(role, port, counts);
        let sum_us = sum_us.first().copied().unwrap_or(0);
        self.stats.set_counted((role, port), counts, sum_us);
    }
}
