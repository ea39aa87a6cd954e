//! Packets that a socket processed and freed: answers that it refused, and SYNs that met a connection.

use std::{borrow::Cow, net::SocketAddr, sync::Arc};

use synprobe_ebpf::event::{DropRecord, state};

use super::{DropMeaning, Engine};
use crate::{
    model::{TcpState, Tuple, TupleHolder},
    util::addresses::printable,
    verdict::{
        context::{
            Ends, NO_SOCKET, Packet, RefusedAnswer, RefusedSyn, SynAtExisting, SynWithoutSocket,
        },
        who_listens,
    },
};

impl Engine {
    /// Takes in a packet that its receiving socket processed. Returns whether it was one: with the words of a
    /// reason this host dropped it before the socket.
    pub(super) fn freed_by_socket(
        &mut self,
        r: &DropRecord,
        meaning: Option<&DropMeaning>,
    ) -> bool {
        let reason = match meaning {
            Some(meaning) if !meaning.words.is_empty() => return false,
            Some(meaning) => meaning.reason.clone(),
            None => Cow::Borrowed(""),
        };
        if r.receiver == state::SYN_SENT {
            self.answer_refused(r, reason);
            return true;
        }
        if r.is_repeated_syn_ack() {
            let (tuple, at_ns) = (Tuple::from(&r.flow), r.header.ts_ns);
            let context = &mut self.judge.context;
            context.note_repeated_synack(tuple.netns, ends(&tuple), tuple.peer_port, at_ns);
            return true;
        }
        if r.met_existing() {
            // Of another connection: the kernel answers it, and it opens nothing.
            if Packet::of(r.flags) != Packet::Syn {
                return true;
            }
            // A copy that the network made, or that came late: nobody wants a connection by it.
            if r.is_copy_of_first_syn() {
                return true;
            }
            self.syn_at_existing(r, reason);
            return true;
        }
        if meaning.is_some_and(DropMeaning::is_no_socket) {
            self.syn_without_socket(r);
            return true;
        }
        false
    }

    fn syn_without_socket(&mut self, r: &DropRecord) {
        let end = |addr, port| SocketAddr::new(printable(addr), port);
        let syn = SynWithoutSocket {
            netns: r.flow.netns,
            local: end(r.flow.local_addr, r.flow.local_port),
            peer: end(r.flow.peer_addr, r.flow.peer_port),
            syn_seq: r.seq,
            called_port: r.called_port(),
            at_ns: r.header.ts_ns,
        };
        let context = &mut self.judge.context;
        let selected = context.selection.selects_drop(r);
        context.note_syn_without_socket(syn, selected);
        if !selected {
            return;
        }
        let who = who_listens(syn.local.port());
        context.note_refused_syn(RefusedSyn {
            netns: syn.netns,
            local: Some(syn.local),
            peer: Some(syn.peer),
            reason: Some(NO_SOCKET.into()),
            words: match syn.called_port {
                Some(called) => format!(
                    "no listening socket found: answered with RST; called port {called}, which NAT sends here"
                )
                .into(),
                None => "no listening socket found: answered with RST".into(),
            },
            remedy: Some(format!("see who listens, and on which address: {who}").into()),
            count: 1,
            at_ns: syn.at_ns,
        });
    }

    fn answer_refused(&mut self, r: &DropRecord, reason: Cow<'static, str>) {
        let answer = RefusedAnswer {
            packet: Packet::of(r.flags),
            reason,
            times_ns: vec![r.header.ts_ns],
        };
        let context = &mut self.judge.context;
        context.note_refused_answer(r.flow.netns, ends(&Tuple::from(&r.flow)), answer);
    }

    fn syn_at_existing(&mut self, r: &DropRecord, reason: Cow<'static, str>) {
        let tuple = Tuple::from(&r.flow);
        let end = |addr, port| SocketAddr::new(printable(addr), port);
        let state = TcpState::from_kernel(r.receiver);
        let syn = SynAtExisting {
            netns: tuple.netns,
            local: end(tuple.local_addr, tuple.local_port),
            peer: end(tuple.peer_addr, tuple.peer_port),
            state,
            reason: reason.clone(),
            idle_us: r
                .idle_jiffies()
                .map(|jiffies| self.tracker.jiffies_to_us(jiffies)),
            count: 1,
            first_ns: r.header.ts_ns,
            last_ns: r.header.ts_ns,
        };
        let words = format!(
            "a connection of {} exists in {}",
            syn.peer,
            state.map_or("an unknown state", TcpState::name)
        );
        let remedy = syn.remedy(self.tracker.netns_name(syn.netns).as_deref());
        let context = &mut self.judge.context;
        context.note_syn_at_existing(ends(&tuple), syn.clone());
        context.note_refused_syn(RefusedSyn {
            netns: syn.netns,
            local: Some(syn.local),
            peer: Some(syn.peer),
            // The kernel's own word for it says nothing.
            reason: (!matches!(&*reason, "" | "NOT_SPECIFIED")).then(|| Arc::from(&*reason)),
            words: words.into(),
            remedy: Some(remedy.into()),
            count: 1,
            at_ns: r.header.ts_ns,
        });
    }

    /// Which socket holds a tuple.
    pub(super) fn holder(&mut self, tuple: &Tuple, holder: Option<TupleHolder>) {
        self.tracker.set_tuple_held(*tuple, holder.is_some());
        let context = &mut self.judge.context;
        context.note_holder(tuple.netns, ends(tuple), holder);
    }
}

fn ends(tuple: &Tuple) -> Ends {
    Ends::new(
        (tuple.local_addr, tuple.local_port),
        (tuple.peer_addr, tuple.peer_port),
    )
}
