//! Whether a dropped packet is one of a handshake. Addresses and ports do not decide it: a namespace of somebody else
//! may have the same ones.

use super::{DroppedPacket, Packet};
use crate::model::Handshake;

/// How sure it is that a packet with the ends of a handshake is one of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropIsOf {
    /// It was dropped in the handshake's own namespace, or has its initial sequence number: 32 bits that only those
    /// know who have seen a packet of it.
    This,
    /// In another namespace, and no sequence number tells.
    NotKnown,
    /// It has another initial sequence number.
    Another,
}

impl DroppedPacket {
    /// What NAT of this namespace has made of the port that the client called.
    pub fn called_before_nat(&self) -> Option<String> {
        let server = match self.packet {
            Packet::SynAck => self.from,
            _ => self.to,
        };
        let called = self.called_port?;
        Some(format!(
            "the client called port {called}: a rule of NAT (DNAT, REDIRECT) of this namespace makes that {server}"
        ))
    }

    /// See [`DropIsOf`].
    pub fn is_of(&self, h: &Handshake) -> DropIsOf {
        if self.netns == h.connection.netns {
            return match self.is_of_another_syn(h) {
                true => DropIsOf::Another,
                false => DropIsOf::This,
            };
        }
        let Some(isn) = h.facts.syn_seq else {
            return DropIsOf::NotKnown;
        };
        match self.packet {
            // Whoever forged the SYN knows its number, and not this one.
            Packet::SynAck
                if h.facts
                    .syn_ack_seq
                    .is_some_and(|seq| !self.seqs.contains(&seq)) =>
            {
                DropIsOf::Another
            }
            Packet::Syn | Packet::SynAck => match self.syn_seq {
                Some(seq) if seq == isn => DropIsOf::This,
                Some(_) => DropIsOf::Another,
                None => DropIsOf::NotKnown,
            },
            // The client's ACK comes right after its SYN; the server's come later.
            Packet::Ack if self.seqs.contains(&isn.wrapping_add(1)) => DropIsOf::This,
            Packet::Ack | Packet::Rst => DropIsOf::NotKnown,
        }
    }

    /// Whether it is of another handshake with the same ends: a fixed source port, or one that was used again. A
    /// damaged packet may have another number; in a simultaneous open there are two.
    fn is_of_another_syn(&self, h: &Handshake) -> bool {
        let has_number = matches!(self.packet, Packet::Syn | Packet::SynAck)
            && !self.reason.ends_with("_CSUM")
            && !h.facts.peer_called_too;
        let both = self.syn_seq.zip(h.facts.syn_seq);
        has_number && both.is_some_and(|(seq, isn)| seq != isn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Outcome,
        verdict::{
            Context,
            fixtures::{NETNS, active, discard, half_open},
        },
    };

    #[test]
    fn another_syn_of_the_same_port_is_of_another_handshake() {
        let mut h = active(Outcome::TimedOut);
        h.facts.syn_seq = Some(5);
        let mut d = discard(&h, Packet::Syn, 1);
        for (seq, due) in [(5, DropIsOf::This), (6, DropIsOf::Another)] {
            d.syn_seq = Some(seq);
            assert_eq!(d.is_of(&h), due);
        }
        // What is damaged may have any number.
        d.reason = "TCP_CSUM".into();
        assert_eq!(d.is_of(&h), DropIsOf::This);
    }

    #[test]
    fn in_another_namespace_the_sequence_number_decides() {
        let mut h = active(Outcome::TimedOut);
        let mut d = discard(&h, Packet::Syn, 1);
        assert_eq!(d.is_of(&h), DropIsOf::This);
        (d.netns, d.syn_seq) = (7, Some(5));
        assert_eq!(d.is_of(&h), DropIsOf::NotKnown);
        h.facts.syn_seq = Some(5);
        assert_eq!(d.is_of(&h), DropIsOf::This);
        h.facts.syn_seq = Some(6);
        assert_eq!(d.is_of(&h), DropIsOf::Another);
        (d.packet, d.syn_seq, d.seqs) = (Packet::Ack, None, vec![7]);
        assert_eq!(d.is_of(&h), DropIsOf::This);
        d.seqs = vec![8];
        assert_eq!(d.is_of(&h), DropIsOf::NotKnown);
        // A SYN-ACK has a number of its own too.
        (d.packet, d.syn_seq, d.seqs) = (Packet::SynAck, Some(6), vec![70, 72]);
        assert_eq!(d.is_of(&h), DropIsOf::This);
        h.facts.syn_ack_seq = Some(70);
        assert_eq!(d.is_of(&h), DropIsOf::This);
        h.facts.syn_ack_seq = Some(71);
        assert_eq!(d.is_of(&h), DropIsOf::Another);
    }

    /// Under other ends only the numbers tell: both of a SYN-ACK count, and NAT stays in one family.
    #[test]
    fn behind_nat_a_syn_ack_with_other_numbers_is_of_another_handshake() {
        let mut h = half_open(Outcome::Expired);
        (h.facts.syn_seq, h.facts.syn_ack_seq) = (Some(6), Some(70));
        let found = |to: &str, seq| {
            let mut d = discard(&h, Packet::SynAck, 1);
            (d.netns, d.syn_seq, d.seqs) = (NETNS + 1, Some(6), vec![seq]);
            (d.from, d.to) = match to.starts_with('[') {
                true => ("[fd00::9]:8080".parse().unwrap(), to.parse().unwrap()),
                false => ("198.18.0.9:8080".parse().unwrap(), to.parse().unwrap()),
            };
            let mut context = Context::default();
            context.note_drop(d);
            context.drops_of_handshake(&h).len()
        };
        assert_eq!(found("198.18.0.1:4000", 70), 1);
        assert_eq!(found("198.18.0.1:4000", 71), 0);
        assert_eq!(found("[fd00::1]:4000", 70), 0);
    }
}
