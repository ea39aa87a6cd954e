//! Evidence against what was made: a verdict can be right and a sentence beside it false.

use std::net::IpAddr;

use synprobe_common::model::{Evidence, Handshake, Outcome, Role, VerdictKind};

use crate::{Cause, ExpectedHandshake};

/// A statement that evidence makes, and when it is true of a handshake that the lab has made.
struct Claim {
    /// Words that only this statement has.
    words: &'static str,
    is_true: fn(&ExpectedHandshake) -> bool,
}

fn caused_by(made: &ExpectedHandshake, kinds: &[VerdictKind]) -> bool {
    matches!(made.cause, Some(Cause::Verdict(kind)) if kinds.contains(&kind))
}

/// Whether it can have ended so. A diagnosis may end before an incident's handshakes do, so their outcome is
/// not predicted.
fn may_end(made: &ExpectedHandshake, outcome: Outcome) -> bool {
    made.outcome == outcome || made.outcome == Outcome::Open
}

/// Whether the SYN came in the name of an address beyond the client, which has no route there. Of IPv6 it says so, though
/// it forwards nothing (`ip6_pkt_discard()`); of IPv4 it is silent (`ip_error()`).
fn has_no_way_back(made: &ExpectedHandshake) -> bool {
    made.role == Role::Server
        && made.outcome == Outcome::Expired
        && made.peer_addr.to_canonical().is_ipv6()
}

/// Statements about packets and ends. Statements about other handshakes, queues and counters are compared by
/// the tests of their verdicts.
const CLAIMS: &[Claim] = &[
    Claim {
        words: "this host dropped the ",
        is_true: |made| {
            // A router of the lab drops what it has no route for, and says so.
            caused_by(made, &[VerdictKind::DroppedHere]) || made.outcome == Outcome::Unreachable
        },
    },
    Claim {
        words: "RST after ",
        is_true: |made| made.outcome == Outcome::Refused,
    },
    Claim {
        words: "a RST in the peer's name was seen",
        is_true: |made| made.outcome == Outcome::Reset,
    },
    Claim {
        words: "ICMP from ",
        is_true: |made| {
            caused_by(made, &[VerdictKind::DroppedHere])
                || made.outcome == Outcome::Unreachable
                || has_no_way_back(made)
        },
    },
    Claim {
        words: "the final ACK arrived and was discarded: the accept queue was full",
        is_true: |made| caused_by(made, &[VerdictKind::AcceptQueueFull]),
    },
    Claim {
        words: "the listener has TCP_DEFER_ACCEPT",
        is_true: |made| caused_by(made, &[VerdictKind::DeferAccept]),
    },
    Claim {
        words: " closed it after ",
        is_true: |made| may_end(made, Outcome::Abandoned),
    },
    Claim {
        words: "the kernel gave up: ETIMEDOUT",
        is_true: |made| may_end(made, Outcome::TimedOut),
    },
    Claim {
        words: " without a SYN",
        is_true: |made| made.outcome == Outcome::Unreachable,
    },
    Claim {
        words: "no answer of any kind",
        is_true: |made| !matches!(made.outcome, Outcome::Refused | Outcome::Established),
    },
    Claim {
        words: "and no answer: no SYN-ACK",
        is_true: |made| !matches!(made.outcome, Outcome::Refused | Outcome::Established),
    },
    Claim {
        words: "and TCP refused it",
        is_true: |made| caused_by(made, &[VerdictKind::AnswerRejected]),
    },
    Claim {
        words: "long before its time-out",
        is_true: |made| caused_by(made, &[VerdictKind::AnswerRejected]),
    },
    Claim {
        words: "the socket is connected to itself",
        is_true: |made| caused_by(made, &[VerdictKind::SelfConnect]),
    },
    Claim {
        words: "completed after ",
        is_true: |made| made.outcome == Outcome::Established,
    },
];

/// The number that follows `words` in a fact.
fn number_after(fact: &str, words: &str) -> Option<u32> {
    let rest = &fact[fact.find(words)? + words.len()..];
    let digits = rest.find(|c: char| !c.is_ascii_digit());
    rest[..digits.unwrap_or(rest.len())].parse().ok()
}

/// How a sentence begins that names the rule which dropped a packet.
const RULE: &str = "the rule: ";

/// Whether a rule that is named can be about the handshake: each port and each network in its text is one of the
/// handshake's, and it is one of the lab's own rules. `nat`: what the line says of its ends after NAT.
fn is_its_rule(made: &ExpectedHandshake, fact: &str, nat: &str) -> bool {
    let words: Vec<&str> = fact.split([' ', ';']).collect();
    let pairs = || words.windows(2).map(|pair| (pair[0], pair[1]));
    let ports = [made.local_port, made.peer_port];
    let after_nat = |end: &str| {
        nat.split(' ')
            .any(|word| word.trim_end_matches([':', ';']).ends_with(end))
    };
    let is_port = |text: &str| ports.contains(&text.parse().ok()) || after_nat(&format!(":{text}"));
    let is_end = |text: &str| {
        let (network, prefix) = text.split_once('/').unwrap_or((text, "128"));
        let ends = [made.local_addr, made.peer_addr].map(|end| end.to_canonical());
        match (network.parse(), prefix.parse()) {
            (Ok(network), Ok(prefix)) => {
                ends.iter().any(|end| is_in(*end, network, prefix))
                    || nat.contains(&format!("to {network}"))
            }
            _ => false,
        }
    };
    let is_true = |(word, value): (&str, &str)| match word {
        "sport" | "dport" => is_port(value),
        "saddr" | "daddr" => is_end(value),
        _ => true,
    };
    caused_by(made, &[VerdictKind::DroppedHere])
        && fact.contains(" synprobe_lab chain ")
        && pairs().all(is_true)
}

/// Whether an address is in a network.
fn is_in(address: IpAddr, network: IpAddr, prefix: u32) -> bool {
    let both = match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) => {
            let (a, n) = (u128::from(u32::from(a)), u128::from(u32::from(n)));
            Some((a << 96, n << 96))
        }
        (IpAddr::V6(a), IpAddr::V6(n)) => Some((u128::from(a), u128::from(n))),
        _ => None,
    };
    both.is_some_and(|(a, n)| (a ^ n).checked_shr(128 - prefix.min(128)).unwrap_or(0) == 0)
}

fn is_false(made: &ExpectedHandshake, evidence: &Evidence, nat: &str) -> bool {
    let fact = &evidence.fact;
    if fact.starts_with(RULE) {
        return !is_its_rule(made, fact, nat);
    }
    let claim = |c: &Claim| evidence.supports && fact.contains(c.words) && !(c.is_true)(made);
    let syn = number_after(fact, "connected on SYN ");
    let miscounted = |n: u32| made.retransmits.is_some_and(|made| made + 1 != n);
    CLAIMS.iter().any(claim) || syn.is_some_and(miscounted)
}

/// The sentences of a line that are false of the handshake that was made.
pub(crate) fn false_sentences(made: &ExpectedHandshake, line: &Handshake) -> Vec<String> {
    let facts = || line.evidence.iter().map(|e| e.fact.as_str());
    let nat = facts()
        .find_map(|fact| fact.split_once("NAT to "))
        .map_or("", |(_, nat)| nat);
    let nat = format!("to {nat}");
    let wrong = line.evidence.iter().filter(|e| is_false(made, e, &nat));
    wrong.map(|e| e.fact.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(cause: VerdictKind, outcome: Outcome) -> ExpectedHandshake {
        ExpectedHandshake {
            role: Role::Client,
            local_addr: [10, 0, 0, 1].into(),
            local_port: Some(1),
            peer_addr: [10, 0, 0, 2].into(),
            peer_port: Some(2),
            outcome,
            count: 1..=1,
            error: None,
            retransmits: Some(1),
            cause: Some(Cause::Verdict(cause)),
        }
    }

    fn says(made: &ExpectedHandshake, fact: &str, supports: bool) -> bool {
        let fact = fact.to_owned();
        !is_false(made, &Evidence { fact, supports }, "")
    }

    #[test]
    fn a_sentence_that_was_not_made_is_false() {
        let refused = made(VerdictKind::Refused, Outcome::Refused);
        assert!(says(&refused, "RST after 81 µs: ECONNREFUSED", true));
        let silent = made(VerdictKind::Filtered, Outcome::TimedOut);
        assert!(!says(&silent, "RST after 81 µs: ECONNREFUSED", true));
        assert!(!says(
            &silent,
            "this host dropped the SYN on its way out",
            true
        ));
        assert!(!says(
            &silent,
            "app closed it after 3.0 s, while it was open",
            true
        ));
        assert!(says(&silent, "the kernel gave up: ETIMEDOUT", true));
        assert!(says(
            &silent,
            "whether this host dropped the SYN is not known",
            false
        ));
    }

    #[test]
    fn a_rule_of_another_port_or_network_is_false() {
        let mut dropped = made(VerdictKind::DroppedHere, Outcome::Abandoned);
        dropped.peer_port = Some(7000);
        let rule = |text: &str| {
            format!(
                "the rule: table ip synprobe_lab chain input handle 2: {text} drop; no other fits"
            )
        };
        for text in [
            "tcp dport 7000",
            "ip saddr 10.0.0.0/24 tcp sport 7000",
            "ip daddr 10.0.0.2",
        ] {
            assert!(says(&dropped, &rule(text), true), "{text}");
        }
        for text in [
            "tcp dport 7001",
            "ip saddr 10.0.1.0/24",
            "ip daddr 10.0.0.3",
        ] {
            assert!(!says(&dropped, &rule(text), true), "{text}");
        }
        let silent = made(VerdictKind::Filtered, Outcome::TimedOut);
        assert!(!says(&silent, &rule("tcp flags syn"), true));
        // After NAT it has another port.
        assert!(is_its_rule(
            &dropped,
            &rule("tcp dport 7001"),
            "to 10.0.0.9:7001: its"
        ));
        assert!(!is_its_rule(
            &dropped,
            &rule("tcp dport 7001"),
            "to 10.0.0.9:17001: its"
        ));
    }

    #[test]
    fn only_of_ipv6_an_unknown_address_is_told_by_icmp() {
        let mut silent = made(VerdictKind::PeerSilent, Outcome::Expired);
        silent.role = Role::Server;
        let icmp = "ICMP from fd00::1: no route to destination (type 1 code 0), once";
        assert!(!says(&silent, icmp, true));
        silent.peer_addr = "fd00:5950:f::1".parse().unwrap();
        assert!(says(&silent, icmp, true));
        silent.outcome = Outcome::Established;
        assert!(!says(&silent, icmp, true));
    }

    #[test]
    fn numbers_are_compared() {
        let late = made(VerdictKind::SynLostThenOk, Outcome::Established);
        assert!(says(&late, "connected on SYN 2; it took 1.02 s", true));
        assert!(!says(&late, "connected on SYN 3; it took 1.02 s", true));
    }
}
