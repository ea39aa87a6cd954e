//! Options of first SYNs, and whether such SYNs were answered.

use std::net::IpAddr;

use crate::{
    model::{Connection, Handshake, Outcome},
    util::bounded::Bounded,
};

/// A SYN that is answered later than this after its repetition may have been lost for another reason, µs.
const AT_ONCE_US: u64 = 500_000;

/// What a first SYN may have that its repetitions have not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SynOption {
    /// TCP Fast Open.
    FastOpen,
    /// ECN (RFC 3168).
    Ecn,
}

impl SynOption {
    /// Of a handshake whose first SYN was repeated.
    pub fn of(h: &Handshake) -> Option<Self> {
        match (h.facts.first_syn_had_fast_open, h.facts.first_syn_had_ecn) {
            (true, _) => Some(Self::FastOpen),
            (false, true) => Some(Self::Ecn),
            (false, false) => None,
        }
    }

    /// What such a SYN does.
    pub fn words(self) -> &'static str {
        match self {
            Self::FastOpen => "asked for Fast Open",
            Self::Ecn => "asked for ECN",
        }
    }

    /// The setting that makes SYNs go without.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::FastOpen => "sysctl -w net.ipv4.tcp_fastopen=0",
            Self::Ecn => "sysctl -w net.ipv4.tcp_ecn=2",
        }
    }
}

/// What became of first SYNs with an option.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OptionCounts {
    /// Lost, and the repetition without it was answered at once.
    pub lost: u64,
    /// Answered, as far as that is known.
    pub passed: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct OptionHistory {
    fast_open_lost: u64,
    ecn_lost: u64,
    /// Connected with the first SYN. Whether it had an option is not known.
    at_once: u64,
}

type Key = (u32, IpAddr, Option<u16>);

fn key(c: &Connection) -> Key {
    (c.netns, c.peer_addr, c.peer_port)
}

/// See the module; by the end that is called.
#[derive(Default)]
pub(super) struct SynOptions(Bounded<Key, OptionHistory>);

impl SynOptions {
    /// Takes in an active open.
    pub fn note(&mut self, h: &Handshake) {
        // One that was too large shows nothing of its options.
        if h.outcome != Outcome::Established || h.facts.syn_too_large {
            return;
        }
        let option = match h.retransmits {
            0 => None,
            1 if h.facts.since_last_syn_us.is_some_and(|us| us < AT_ONCE_US) => SynOption::of(h),
            _ => return,
        };
        let key = key(&h.connection);
        if self.0.get(&key).is_none() {
            self.0.insert(key, OptionHistory::default());
        }
        let Some(seen) = self.0.get_mut(&key) else {
            return;
        };
        match option {
            _ if h.retransmits == 0 => seen.at_once += 1,
            Some(SynOption::FastOpen) => seen.fast_open_lost += 1,
            Some(SynOption::Ecn) => seen.ecn_lost += 1,
            None => (),
        }
    }

    /// What became of such SYNs to the end that a connection calls.
    pub fn of(&self, c: &Connection, option: SynOption) -> OptionCounts {
        let seen = self.0.get(&key(c)).copied().unwrap_or_default();
        match option {
            // Each socket asks for it, or does not.
            SynOption::FastOpen => OptionCounts {
                lost: seen.fast_open_lost,
                passed: 0,
            },
            // The namespace's setting: all ask for it.
            SynOption::Ecn => OptionCounts {
                lost: seen.ecn_lost,
                passed: seen.at_once,
            },
        }
    }
}
