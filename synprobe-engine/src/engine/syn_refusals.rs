//! SYNs that were refused at the door: from events to `syn_refused` lines.

use std::{collections::BTreeMap, net::SocketAddr};

use synprobe_ebpf::event::{QUEUE_ACCEPT, QUEUE_SYN, RequestRecord};

use super::Engine;
use crate::{
    model::{Body, Line, SynRefused},
    util::addresses::printable,
    verdict::{
        Context, Mode,
        context::{DroppedPacket, Packet, RefusedSum, RefusedSyn, SEVERAL_NETNS},
    },
};

impl Engine {
    /// A dropped packet that was a SYN on its way in, and met no half-open.
    pub(super) fn note_dropped_syn(&mut self, drop: &DroppedPacket) {
        if drop.packet != Packet::Syn || !drop.incoming || drop.may_be_a_copy() {
            return;
        }
        self.judge.context.note_refused_syn(RefusedSyn {
            netns: drop.netns,
            local: Some(drop.to),
            peer: Some(drop.from),
            reason: Some(drop.reason.as_ref().into()),
            words: drop.words.as_ref().into(),
            remedy: Some(drop.remedy().into()),
            count: drop.count,
            at_ns: drop.last_ns,
        });
    }

    /// A SYN that a full queue refused (the exact mode).
    pub(super) fn note_syn_at_full_queue(&mut self, r: &RequestRecord) {
        let queue = match r.queue {
            QUEUE_ACCEPT => "the listener's accept queue is full",
            QUEUE_SYN => "the listener's SYN queue is full",
            _ => return,
        };
        let end = |addr, port| SocketAddr::new(printable(addr), port);
        self.judge.context.note_refused_syn(RefusedSyn {
            netns: r.flow.netns,
            local: Some(end(r.flow.local_addr, r.flow.local_port)),
            peer: Some(end(r.flow.peer_addr, r.flow.peer_port)),
            reason: None,
            words: queue.into(),
            remedy: Some(format!("synprobe listeners --port {}", r.flow.local_port).into()),
            count: 1,
            at_ns: r.header.ts_ns,
        });
    }

    /// The lines that are due. `at_the_end`: of every sum that rose since its last line. A page prints none: it
    /// has them as problems.
    pub(super) fn refused_lines(&mut self, at_the_end: bool) -> Vec<Line> {
        let context = &mut self.judge.context;
        let mut sums = std::mem::take(&mut context.refused_syns);
        let due = sums.take_due_but(at_the_end, |refused| {
            context.awaits_route(refused) || context.is_of_a_scan(refused)
        });
        let due = one_line_a_scan(due, context);
        context.refused_syns = sums;
        if self.judge.mode() == Mode::AtTheEnd {
            return Vec::new();
        }
        let context = &self.judge.context;
        due.into_iter()
            .map(|sum| {
                let first = sum.first;
                let listener = first
                    .local
                    .and_then(|local| context.listener_at(first.netns, local));
                let drop = context.drop_of_refused(&first);
                let forward = drop.and_then(|drop| context.forward(drop));
                let is_end = forward.is_none();
                let listener = listener.filter(|_| is_end);
                let remedy = drop.map(|drop| context.remedy_of_drop(drop));
                Line {
                    mono_ns: sum.last_ns,
                    body: Body::SynRefused(Box::new(SynRefused {
                        peer_addr: first.peer.map(|peer| peer.ip()),
                        local_addr: first.local.map(|local| local.ip()).filter(|_| is_end),
                        local_port: first.local.map(|local| local.port()).filter(|_| is_end),
                        forward,
                        netns: first.netns,
                        netns_name: match first.netns {
                            SEVERAL_NETNS => Some("several namespaces".into()),
                            netns => self.tracker.netns_name(netns),
                        },
                        pid: listener.and_then(|l| l.last.pid),
                        comm: listener.and_then(|l| l.last.comm.clone()),
                        workload: listener
                            .map_or_else(Default::default, |l| l.last.workload.clone()),
                        reason: first.reason,
                        what: first.words.to_string(),
                        count: first.count,
                        since: first.at_ns,
                        remedy: remedy.or_else(|| {
                            let remedy = first.remedy?;
                            Some(context.each_in(first.netns, &remedy))
                        }),
                    })),
                }
            })
            .collect()
    }
}

/// SYNs to ports at which no listener is missed: one sum for each peer that called several.
fn one_line_a_scan(due: Vec<RefusedSum>, context: &Context) -> Vec<RefusedSum> {
    let (of_scans, mut lines): (Vec<RefusedSum>, Vec<RefusedSum>) = due
        .into_iter()
        .partition(|sum| context.is_of_a_scan(&sum.first));
    let mut by_peer: BTreeMap<_, (RefusedSum, usize)> = BTreeMap::new();
    for sum in of_scans {
        let key = (sum.first.netns, sum.first.peer.map(|peer| peer.ip()));
        match by_peer.get_mut(&key) {
            Some((all, ports)) => {
                all.first.count += sum.first.count;
                all.last_ns = all.last_ns.max(sum.last_ns);
                *ports += 1;
            }
            None => drop(by_peer.insert(key, (sum, 1))),
        }
    }
    lines.extend(by_peer.into_values().map(|(mut sum, ports)| {
        if ports > 1 {
            (sum.first.local, sum.first.remedy) = (None, None);
            let words = format!(
                "no listening socket found at the {ports} ends that were called: answered with RST"
            );
            sum.first.words = words.into();
        }
        sum
    }));
    lines
}
