//! ICMP errors about handshakes, and their senders.

use std::net::IpAddr;

use super::{Context, Ends, window::STEPS};
use crate::{
    model::{Handshake, Role},
    util::bounded::Bounded,
};

/// Different errors remembered for one connection.
const KINDS: usize = 8;

/// An ICMP error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IcmpReport {
    /// Who sent it.
    pub from: IpAddr,
    /// What: `host unreachable (type 3, code 1)`.
    pub what: String,
    /// How often.
    pub count: u64,
    /// Namespace that received it; `None`: the recording does not tell.
    pub netns: Option<u32>,
    /// Sequence number of the segment that it is about; `None`: the recording does not tell.
    pub seq: Option<u32>,
    /// The last of them was read then, CLOCK_MONOTONIC nanoseconds.
    pub last_ns: Option<u64>,
    /// This host's port of the connection.
    pub local_port: u16,
}

/// What an ICMP error means that this host sent to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnIcmp {
    /// The kernel sends it when the next hop does not answer (`arp_error_report()`, `ndisc_error_report()`). A
    /// REJECT rule can send the same.
    LinkFailure,
    /// The kernel sends it for no segment of its own: a REJECT rule does.
    Rule,
    /// Neither is known.
    Other,
}

impl IcmpReport {
    fn is_same(&self, other: &Self) -> bool {
        (self.from, &self.what, self.netns, self.seq)
            == (other.from, &other.what, other.netns, other.seq)
    }

    /// Whether it is about a segment that the socket had sent: `between(seq, snd_una, snd_nxt)` in `tcp_v4_err()` and
    /// `tcp_v6_err()`. In SYN_SENT those are the initial sequence number and the next one. Of a half-open only the
    /// SYN-ACK's own number counts (`tcp_req_err()`). `None`: not known.
    pub fn fits(&self, h: &Handshake) -> Option<bool> {
        Some(match h.connection.role {
            Role::Client => self.seq?.wrapping_sub(h.facts.syn_seq?) <= 1,
            Role::Server => self.seq? == h.facts.syn_ack_seq?,
        })
    }

    /// Whether it ends a half-open whose SYN-ACK it is about: `tcp_v4_err()`, `tcp_v6_err()` with
    /// `icmpv6_err_convert()`. The kernel counts that in `ListenDrops`.
    fn ends_half_open(&self) -> bool {
        let fatal: &[&str] = match self.from.is_ipv4() {
            true => &[
                "host unreachable",
                "network unreachable",
                "time exceeded (a routing loop, or too far)",
                "parameter problem",
            ],
            false => &[
                "administratively prohibited",
                "port unreachable",
                "source address failed policy",
                "reject route",
                "parameter problem",
            ],
        };
        fatal.iter().any(|what| self.what.starts_with(what))
    }

    /// Whether only a packet filter sends it for a TCP segment: a host answers one to a closed port with RST (RFC
    /// 9293, section 3.10.7.1).
    pub fn is_of_a_filter(&self) -> bool {
        self.what.starts_with("port unreachable")
    }

    /// What it means if this host itself sent it. Type and code decide (RFC 792, RFC 4443), not the sender.
    pub fn as_own(&self) -> OwnIcmp {
        let is = |words: &[&str]| words.iter().any(|w| self.what.starts_with(w));
        if is(&["host unreachable", "address unreachable"]) {
            OwnIcmp::LinkFailure
        } else if is(&[
            "port unreachable",
            "protocol unreachable",
            "network unreachable",
            "no route to destination",
            "administratively prohibited",
            "source address failed policy",
            "reject route",
        ]) {
            OwnIcmp::Rule
        } else {
            OwnIcmp::Other
        }
    }
}

#[derive(Default)]
pub(super) struct IcmpReports {
    /// With the step of the last one.
    reports: Bounded<Ends, (Vec<IcmpReport>, u64)>,
    step: u64,
}

impl IcmpReports {
    pub(super) fn note(&mut self, ends: Ends, word: IcmpReport) {
        let now = self.step;
        let Some((known, step)) = self.reports.get_mut(&ends) else {
            self.reports.insert(ends, (vec![word], now));
            return;
        };
        *step = now;
        if let Some(same) = known.iter_mut().find(|one| one.is_same(&word)) {
            same.count += word.count;
            same.last_ns = same.last_ns.max(word.last_ns);
            return;
        }
        if known.len() >= KINDS {
            known.remove(0);
        }
        known.push(word);
    }

    /// A step of the window begins: forgets those that are older than the window.
    pub(super) fn step(&mut self) {
        self.step += 1;
        let oldest = self.step.saturating_sub(STEPS);
        self.reports.retain(|_, (_, step)| *step >= oldest);
    }

    fn of(&self, ends: &Ends) -> Option<&Vec<IcmpReport>> {
        self.reports.get(ends).map(|(reports, _)| reports)
    }
}

impl Context {
    /// ICMP errors about segments from listeners' ports of a namespace that end a half-open: how many, and one of them.
    pub fn half_opens_ended_by_icmp(&self, netns: u32) -> Option<(u64, &IcmpReport)> {
        let is_listeners = |word: &&IcmpReport| {
            self.listeners_of_port(netns, word.local_port)
                .next()
                .is_some()
        };
        let all = self.icmp.reports.iter().flat_map(|(_, (words, _))| words);
        let of_netns = all.filter(|word| word.netns == Some(netns) && word.ends_half_open());
        let mut found = of_netns.filter(is_listeners);
        let first = found.next()?;
        let rest: u64 = found.map(|word| word.count).sum();
        Some((first.count + rest, first))
    }

    /// The ICMP errors about a handshake that its socket may have acted on.
    pub fn icmp(&self, h: &Handshake) -> Vec<&IcmpReport> {
        let all = self.icmp_of_ends(h);
        all.filter(|word| word.fits(h) != Some(false)).collect()
    }

    /// The one that its socket acted on, where only one can be it.
    pub fn only_icmp(&self, h: &Handshake) -> Option<&IcmpReport> {
        match self.icmp(h)[..] {
            [only] => Some(only),
            _ => None,
        }
    }

    /// The first about a segment that it never sent: the kernel ignores those, and counts them in
    /// OutOfWindowIcmps.
    pub fn ignored_icmp(&self, h: &Handshake) -> Option<&IcmpReport> {
        let mut all = self.icmp_of_ends(h);
        all.find(|word| word.fits(h) == Some(false))
    }

    fn icmp_of_ends(&self, h: &Handshake) -> impl Iterator<Item = &IcmpReport> {
        let (netns, since_ns) = (h.connection.netns, h.facts.since_ns());
        let known = Ends::of(&h.connection).and_then(|ends| self.icmp.of(&ends));
        known
            .into_iter()
            .flatten()
            .filter(move |word| word.netns.is_none_or(|of| of == netns))
            .filter(move |word| word.last_ns.is_none_or(|at| at >= since_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Outcome,
        verdict::fixtures::{NETNS, SEC, T0, active, half_open, listener},
    };

    fn word(from: &str, seq: u32) -> IcmpReport {
        IcmpReport {
            from: from.parse().unwrap(),
            what: "host unreachable (type 3 code 1)".into(),
            count: 1,
            netns: Some(NETNS),
            seq: Some(seq),
            last_ns: Some(T0 + SEC),
            local_port: 0,
        }
    }

    #[test]
    fn the_sequence_number_tells_the_true_one_from_a_forged_one() {
        let mut h = active(Outcome::Unreachable);
        h.facts.syn_seq = Some(u32::MAX);
        let ends = Ends::of(&h.connection).unwrap();
        let mut context = Context::default();
        context.note_icmp(ends, word("10.0.0.254", u32::MAX));
        // The forged one comes last.
        context.note_icmp(ends, word("10.6.6.6", 7));
        let only = context.only_icmp(&h).unwrap();
        assert_eq!(only.from.to_string(), "10.0.0.254");
        let ignored = context.ignored_icmp(&h).unwrap();
        assert_eq!(ignored.from.to_string(), "10.6.6.6");
        // Where the SYN was not repeated its number is not known: either may be it.
        h.facts.syn_seq = None;
        assert!(context.only_icmp(&h).is_none() && context.icmp(&h).len() == 2);
        // snd_nxt is one further.
        h.facts.syn_seq = Some(6);
        assert_eq!(context.only_icmp(&h).unwrap().from.to_string(), "10.6.6.6");
    }

    /// Half-opens that such errors end are in `ListenDrops`: which do it differs by family.
    #[test]
    fn which_errors_end_a_half_open_of_a_listener() {
        let mut context = Context::default();
        context.sample(&[listener(0, 0)], &[]);
        let h = half_open(Outcome::Dropped);
        let ends = Ends::of(&h.connection).unwrap();
        for (from, what) in [
            (
                "10.0.0.254",
                "time exceeded (a routing loop, or too far) (type 11 code 0)",
            ),
            ("10.0.0.254", "port unreachable (type 3 code 3)"),
            ("fd00::1", "port unreachable (type 1 code 4)"),
            (
                "fd00::1",
                "time exceeded (a routing loop, or too far) (type 3 code 0)",
            ),
        ] {
            let mut one = word(from, 5);
            one.what = what.into();
            one.local_port = 8080;
            context.note_icmp(ends, one.clone());
            // Of a port without a listener it is about a connection of a client.
            one.local_port = 40_000;
            one.seq = Some(6);
            context.note_icmp(ends, one);
        }
        assert_eq!(context.half_opens_ended_by_icmp(NETNS).unwrap().0, 2);
    }

    #[test]
    fn one_of_another_namespace_or_an_earlier_time_is_anothers() {
        let h = active(Outcome::Unreachable);
        let ends = Ends::of(&h.connection).unwrap();
        let mut context = Context::default();
        let mut elsewhere = word("10.0.0.254", 1);
        elsewhere.netns = Some(7);
        context.note_icmp(ends, elsewhere);
        let mut before = word("10.0.0.254", 1);
        before.last_ns = Some(T0 - SEC);
        context.note_icmp(ends, before);
        assert!(context.icmp(&h).is_empty());
    }
}
