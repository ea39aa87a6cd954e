//! The confusion matrix: causes in the lab against verdicts of synprobe.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use synprobe_common::model::{Body, Confidence, Handshake, Outcome, VerdictKind};

use crate::{Cause, ExpectedHandshake, LabRun, false_sentences::false_sentences};

/// What synprobe concluded about a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Answer {
    /// A verdict.
    Verdict(VerdictKind),
    /// No verdict: the handshake completed.
    Nothing,
    /// No verdict: the evidence is insufficient.
    Insufficient,
}

impl Answer {
    /// Name of its column.
    pub fn name(self) -> &'static str {
        match self {
            Self::Verdict(kind) => kind.name(),
            Self::Nothing => "(nothing)",
            Self::Insufficient => "(insufficient)",
        }
    }

    /// The answer of a `handshake` line.
    fn of(h: &Handshake) -> Self {
        match (h.verdict, h.outcome) {
            (Some(kind), _) => Self::Verdict(kind),
            (None, Outcome::Established) => Self::Nothing,
            (None, _) => Self::Insufficient,
        }
    }

    /// Whether the answer is the cause.
    fn is_right(self, cause: Cause) -> bool {
        match cause {
            Cause::Verdict(kind) => self == Self::Verdict(kind),
            Cause::Healthy => self == Self::Nothing,
        }
    }
}

/// One handshake: its cause and synprobe's answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Classification {
    /// The cause in the lab.
    pub cause: Cause,
    /// The answer.
    pub answer: Answer,
    /// Confidence of the verdict.
    pub confidence: Confidence,
    /// The handshake's line; `None` where none was printed.
    pub line: Option<Box<Handshake>>,
    /// Its sentences that are false of what was made.
    pub false_sentences: Vec<String>,
}

impl Classification {
    /// Whether the answer is the cause.
    pub fn is_right(&self) -> bool {
        self.answer.is_right(self.cause)
    }
}

fn matches(made: &ExpectedHandshake, h: &Handshake) -> bool {
    let c = &h.connection;
    let port = |made: Option<u16>, seen: Option<u16>| made.is_none() || made == seen;
    made.role == c.role
        && made.peer_addr == c.peer_addr
        && port(made.peer_port, c.peer_port)
        && (made.local_addr == c.local_addr || c.local_port.is_none())
        // A handshake without a port is identified by its outcome.
        && (port(made.local_port, c.local_port) || c.local_port.is_none() && made.outcome == h.outcome)
}

/// Whether it ended in the same way, with as many retransmissions.
fn is_like(made: &ExpectedHandshake, h: &Handshake) -> bool {
    made.outcome == h.outcome && made.retransmits.is_none_or(|n| n == h.retransmits)
}

impl LabRun {
    /// Each handshake that has a cause, with the answer. A connection may have several half-opens, each with
    /// a line.
    pub fn classifications(&self) -> Vec<Classification> {
        let mut all = Vec::new();
        let mut matched = vec![0u64; self.truth.handshakes.len()];
        for line in &self.lines {
            let Body::Handshake(h) = &line.body else {
                continue;
            };
            let made = &self.truth.handshakes;
            let fits = |like: bool, exact: bool, room: bool| {
                (0..made.len()).find(|&at| {
                    let m = &made[at];
                    let has_room = matched[at] < *m.count.end();
                    (has_room || !room)
                        && (m.peer_port.is_some() || !exact)
                        && (!like || is_like(m, h))
                        && matches(m, h)
                })
            };
            // Several may be indistinguishable (those without a port), or have the same ends one after the
            // other: match each once, where possible.
            let of = [
                (true, true, true),
                (false, true, true),
                (false, true, false),
                (false, false, false),
            ];
            let found = of
                .into_iter()
                .find_map(|(like, exact, room)| fits(like, exact, room));
            let Some(at) = found else {
                continue;
            };
            matched[at] += 1;
            let Some(cause) = made[at].cause else {
                continue;
            };
            all.push(Classification {
                cause,
                answer: Answer::of(h),
                confidence: h.confidence,
                line: Some(h.clone()),
                false_sentences: false_sentences(&made[at], h),
            });
        }
        // A diagnosis does not print healthy handshakes.
        for (made, seen) in self.truth.handshakes.iter().zip(matched) {
            let Some(cause) = made.cause else { continue };
            for _ in seen..*made.count.start() {
                all.push(Classification {
                    cause,
                    answer: Answer::Nothing,
                    confidence: Confidence::Insufficient,
                    line: None,
                    false_sentences: Vec::new(),
                });
            }
        }
        all
    }
}

/// Counts of one cell of the matrix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CellCounts {
    /// Answers with confidence `certain`.
    pub certain: u64,
    /// Answers with another confidence.
    pub others: u64,
}

impl fmt::Display for CellCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.certain, self.others) {
            (0, 0) => f.write_str("·"),
            (0, others) => write!(f, "{others}"),
            (certain, 0) => write!(f, "**{certain}**"),
            (certain, others) => write!(f, "**{certain}**+{others}"),
        }
    }
}

/// Rows: causes. Columns: answers.
#[derive(Clone, Debug, Default)]
pub struct ConfusionMatrix {
    rows: BTreeMap<Cause, BTreeMap<Answer, CellCounts>>,
    /// Handshakes with a false sentence.
    false_sentences: BTreeMap<Cause, u64>,
    /// Number of runs.
    pub runs: u64,
}

impl ConfusionMatrix {
    /// Adds one handshake.
    pub fn add(&mut self, one: &Classification) {
        if !one.false_sentences.is_empty() {
            *self.false_sentences.entry(one.cause).or_default() += 1;
        }
        let cell = self
            .rows
            .entry(one.cause)
            .or_default()
            .entry(one.answer)
            .or_default();
        match one.confidence {
            Confidence::Certain => cell.certain += 1,
            _ => cell.others += 1,
        }
    }

    /// Number of handshakes.
    pub fn handshakes(&self) -> u64 {
        let cells = self.rows.values().flat_map(BTreeMap::values);
        cells.map(|c| c.certain + c.others).sum()
    }

    /// Handshakes with a wrong verdict.
    pub fn wrong(&self) -> CellCounts {
        let mut wrong = CellCounts::default();
        for (cause, row) in &self.rows {
            for (answer, cell) in row {
                if *answer != Answer::Insufficient && !answer.is_right(*cause) {
                    wrong.certain += cell.certain;
                    wrong.others += cell.others;
                }
            }
        }
        wrong
    }

    /// Handshakes with a sentence that is false of what was made.
    pub fn false_sentences(&self) -> u64 {
        self.false_sentences.values().sum()
    }

    /// Handshakes with insufficient evidence.
    pub fn insufficient(&self) -> u64 {
        let rows = self.rows.values();
        let cells = rows.filter_map(|row| row.get(&Answer::Insufficient));
        cells.map(|cell| cell.others).sum()
    }
}

/// A Markdown table; bold counts have confidence `certain`.
impl fmt::Display for ConfusionMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: BTreeSet<Answer> = self
            .rows
            .values()
            .flat_map(BTreeMap::keys)
            .copied()
            .collect();
        let names: Vec<&str> = columns.iter().map(|answer| answer.name()).collect();
        writeln!(
            f,
            "| done \\ said | {} | false sentences |",
            names.join(" | ")
        )?;
        writeln!(f, "|---|{}", "---:|".repeat(columns.len() + 1))?;
        for (cause, row) in &self.rows {
            let cells: Vec<String> = columns
                .iter()
                .map(|column| row.get(column).copied().unwrap_or_default().to_string())
                .collect();
            let wrong = self.false_sentences.get(cause).copied().unwrap_or(0);
            writeln!(f, "| {} | {} | {wrong} |", cause.name(), cells.join(" | "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: Cause = Cause::Verdict(VerdictKind::Refused);

    fn said(cause: Cause, answer: Answer, confidence: Confidence) -> Classification {
        Classification {
            cause,
            answer,
            confidence,
            line: None,
            false_sentences: Vec::new(),
        }
    }

    #[test]
    fn only_wrong_verdicts_count_as_wrong() {
        let mut matrix = ConfusionMatrix::default();
        for one in [
            said(
                REFUSED,
                Answer::Verdict(VerdictKind::Refused),
                Confidence::Certain,
            ),
            said(REFUSED, Answer::Insufficient, Confidence::Insufficient),
            said(Cause::Healthy, Answer::Nothing, Confidence::Insufficient),
        ] {
            assert_eq!(one.is_right(), one.answer != Answer::Insufficient);
            matrix.add(&one);
        }
        assert_eq!(
            (matrix.wrong(), matrix.insufficient()),
            (CellCounts::default(), 1)
        );
        matrix.add(&said(
            REFUSED,
            Answer::Verdict(VerdictKind::Filtered),
            Confidence::Certain,
        ));
        matrix.add(&said(REFUSED, Answer::Nothing, Confidence::Insufficient));
        let wrong = CellCounts {
            certain: 1,
            others: 1,
        };
        assert_eq!((matrix.wrong(), matrix.handshakes()), (wrong, 5));
        let text = matrix.to_string();
        assert!(text.contains(
            "| done \\ said | refused | filtered | (nothing) | (insufficient) | false sentences |"
        ));
        assert!(
            text.contains("| refused | **1** | **1** | 1 | 1 | 0 |"),
            "{text}"
        );
    }
}
