//! Facts of the same kind, added up: those that differ in one number become one fact with its range.

use crate::model::Evidence;

/// Facts of single handshakes that a problem quotes at most: with as many, there may be more.
const EXAMPLES: usize = 2;
/// Facts that several handshakes share and a problem quotes at most.
const SHARED: usize = 6;
/// How the fact of a single handshake begins.
pub(super) const EXAMPLE: &str = "for example: ";
/// What follows a number that is counted or measured. Other numbers are names: of ports, for example.
const UNITS: [&str; 7] = ["times", "µs", "ms", "s", "bytes", "SYNs", "SYN-ACKs"];

/// A fact, taken apart.
#[derive(Clone, Debug)]
struct Fact<'e> {
    supports: bool,
    /// Its words, one of which is the number.
    words: Vec<&'e str>,
    /// Which word that is, and its lowest and highest value, as text.
    number: Option<(usize, &'e str, &'e str)>,
    /// Handshakes that have it; `None`: all of the problem.
    of: Option<u64>,
    is_example: bool,
    /// How many facts it stands for.
    facts: usize,
    at_least: bool,
}

/// The same facts, fewer. `handshakes`: of the problem.
pub(super) fn added_up(evidence: &[Evidence], handshakes: u64) -> Vec<Evidence> {
    let mut facts: Vec<Fact<'_>> = Vec::new();
    for fact in evidence.iter().map(Fact::of) {
        match facts.iter_mut().find(|known| known.is_like(&fact)) {
            Some(known) => known.add(&fact),
            None => facts.push(fact),
        }
    }
    let examples = evidence.iter().filter(|e| e.fact.starts_with(EXAMPLE));
    let shared = evidence.iter().filter(|e| split_count(&e.fact).1.is_some());
    // Facts beyond the bounds are not quoted: the same one may be among them.
    let incomplete = examples.count() >= EXAMPLES || shared.count() >= SHARED;
    facts
        .into_iter()
        .map(|fact| fact.evidence(handshakes, incomplete))
        .collect()
}

/// `text (5 of them)`, `text (at least 5 of them)`: the text, the number, and whether that is a lower bound.
fn split_count(text: &str) -> (&str, Option<(u64, bool)>) {
    let count = || {
        let (body, rest) = text.strip_suffix(" of them)")?.rsplit_once(" (")?;
        let (n, at_least) = match rest.strip_prefix("at least ") {
            Some(n) => (n, true),
            None => (rest, false),
        };
        Some((body, (n.parse().ok()?, at_least)))
    };
    count().map_or((text, None), |(body, n)| (body, Some(n)))
}

impl<'e> Fact<'e> {
    fn of(evidence: &'e Evidence) -> Self {
        let (text, count) = split_count(&evidence.fact);
        let (text, is_example) = match text.strip_prefix(EXAMPLE) {
            Some(text) => (text, true),
            None => (text, false),
        };
        let mut words: Vec<&str> = Vec::new();
        for word in text.split(' ') {
            match word.trim_end_matches([',', ';', ':']) {
                "once" => words.extend(["1", times(word, "once")]),
                "twice" => words.extend(["2", times(word, "twice")]),
                _ => words.push(word),
            }
        }
        let is_unit = |word: &str| UNITS.contains(&word.trim_end_matches([',', ';', ':']));
        let number = words
            .windows(2)
            .position(|pair| value(pair[0]).is_some() && is_unit(pair[1]));
        Self {
            supports: evidence.supports,
            number: number.map(|at| (at, words[at], words[at])),
            words,
            of: match (count, is_example) {
                (Some((n, _)), _) => Some(n),
                (None, true) => Some(1),
                (None, false) => None,
            },
            is_example,
            facts: 1,
            at_least: count.is_some_and(|(_, at_least)| at_least),
        }
    }

    /// Whether it is the same but for its number. What all handshakes share is shared by no other fact.
    fn is_like(&self, other: &Self) -> bool {
        let (Some((at, ..)), Some((other_at, ..))) = (self.number, other.number) else {
            return false;
        };
        let same = |(n, (a, b)): (usize, (&&str, &&str))| n == at || a == b;
        at == other_at
            && self.supports == other.supports
            && self.of.is_some()
            && other.of.is_some()
            && self.words.len() == other.words.len()
            && self.words.iter().zip(&other.words).enumerate().all(same)
    }

    fn add(&mut self, other: &Self) {
        if let (Some((at, low, high)), Some((_, number, _))) = (self.number, other.number) {
            let low = if value(number) < value(low) {
                number
            } else {
                low
            };
            let high = match value(number) > value(high) {
                true => number,
                false => high,
            };
            self.number = Some((at, low, high));
        }
        self.of = self.of.zip(other.of).map(|(a, b)| a + b);
        self.is_example &= other.is_example;
        self.at_least |= other.at_least;
        self.facts += 1;
    }

    fn evidence(self, handshakes: u64, incomplete: bool) -> Evidence {
        let mut text = String::new();
        if self.is_example {
            text.push_str(EXAMPLE);
        }
        for (n, word) in self.words.iter().enumerate() {
            if n > 0 {
                text.push(' ');
            }
            match self.number {
                Some((at, low, high)) if at == n && low != high => {
                    text.push_str(&format!("{low} to {high}"));
                }
                _ => text.push_str(word),
            }
        }
        let text = text
            .replace(" 1 times", " once")
            .replace(" 2 times", " twice");
        let text = text
            .replace(" to once", " to 1 times")
            .replace(" to twice", " to 2 times");
        let at_least = match self.at_least || self.facts > 1 && incomplete {
            true => "at least ",
            false => "",
        };
        let fact = match self.of {
            Some(n) if self.is_example || n >= handshakes && at_least.is_empty() => text,
            Some(n) => format!("{text} ({at_least}{n} of them)"),
            None => text,
        };
        Evidence {
            fact,
            supports: self.supports,
        }
    }
}

/// `times`, with the mark that follows `word`.
fn times(word: &str, stem: &str) -> &'static str {
    match &word[stem.len()..] {
        "," => "times,",
        ";" => "times;",
        ":" => "times:",
        _ => "times",
    }
}

fn value(word: &str) -> Option<f64> {
    let is_number = word.chars().all(|c| c.is_ascii_digit() || c == '.');
    is_number.then(|| word.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(facts: &[(&str, bool)], handshakes: u64) -> Vec<String> {
        let facts: Vec<Evidence> = facts
            .iter()
            .map(|&(fact, supports)| Evidence {
                fact: fact.to_owned(),
                supports,
            })
            .collect();
        let added = added_up(&facts, handshakes);
        added.into_iter().map(|e| e.fact).collect()
    }

    #[test]
    fn facts_that_differ_in_a_count_are_one() {
        let facts = [
            (
                "the SYN-ACK was sent once, and no ACK came (4 of them)",
                true,
            ),
            (
                "the SYN-ACK was sent 3 times, and no ACK came (3 of them)",
                true,
            ),
            (
                "during the run this host was not seen to drop any of them, and a drop without a reason is not seen",
                true,
            ),
            (
                "the SYN-ACK was sent twice, and no ACK came (2 of them)",
                true,
            ),
        ];
        assert_eq!(
            added(&facts, 10),
            [
                "the SYN-ACK was sent 1 to 3 times, and no ACK came (9 of them)",
                "during the run this host was not seen to drop any of them, and a drop without a reason is not seen"
            ]
        );
        // All of them have it.
        assert_eq!(
            added(&facts, 9)[0],
            "the SYN-ACK was sent 1 to 3 times, and no ACK came"
        );
    }

    #[test]
    fn examples_are_one_with_the_range_and_stay_examples() {
        let facts = [
            ("for example: RST after 133 µs: ECONNREFUSED", true),
            ("for example: RST after 122 µs: ECONNREFUSED", true),
        ];
        assert_eq!(
            added(&facts, 3),
            ["for example: RST after 122 to 133 µs: ECONNREFUSED"]
        );
        let facts = [
            ("RST after 133 µs: ECONNREFUSED (5 of them)", true),
            ("for example: RST after 122 µs: ECONNREFUSED", true),
            ("for example: RST after 9.50 ms: ECONNREFUSED", true),
        ];
        // A third example may exist and is not quoted.
        assert_eq!(
            added(&facts, 20),
            [
                "RST after 122 to 133 µs: ECONNREFUSED (at least 6 of them)",
                "for example: RST after 9.50 ms: ECONNREFUSED"
            ]
        );
    }

    #[test]
    fn what_is_no_count_stays_apart() {
        let facts = [
            ("listener 0.0.0.0:8080: accept queue full (2 of them)", true),
            ("listener 0.0.0.0:8081: accept queue full (2 of them)", true),
            ("sent 3 times (2 of them)", true),
            ("sent 4 times (2 of them)", false),
            ("sent 5 times", true),
            ("sent twice, and after 3 s again (1 of them)", true),
            ("sent 3 times, and after 4 s again (1 of them)", true),
        ];
        let wanted: Vec<&str> = facts.iter().map(|(fact, _)| *fact).collect();
        assert_eq!(added(&facts, 9), wanted);
    }
}
