//! What was done held against what was said of it: a confusion matrix.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use synprobe_common::model::{Body, Confidence, Handshake, Outcome, VerdictKind};

use crate::{Cause, LabRun, MadeHandshake};

/// What synprobe said of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Answer {
    /// A verdict.
    Verdict(VerdictKind),
    /// Nothing, for nothing was wrong.
    Nothing,
    /// That the evidence does not suffice.
    Insufficient,
}

impl Answer {
    /// The name of its column.
    pub fn name(self) -> &'static str {
        match self {
            Self::Verdict(kind) => kind.name(),
            Self::Nothing => "(nothing)",
            Self::Insufficient => "(insufficient)",
        }
    }

    /// Of a printed handshake.
    fn of(h: &Handshake) -> Self {
        match (h.verdict, h.outcome) {
            (Some(kind), _) => Self::Verdict(kind),
            (None, Outcome::Established) => Self::Nothing,
            (None, _) => Self::Insufficient,
        }
    }

    /// Whether it names what the lab did.
    fn is_right(self, cause: Cause) -> bool {
        match cause {
            Cause::Verdict(kind) => self == Self::Verdict(kind),
            Cause::Healthy => self == Self::Nothing,
        }
    }
}

/// One handshake: what was done to it, what was said of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// The cause that the lab gave it.
    pub cause: Cause,
    /// What was said.
    pub answer: Answer,
    /// How surely.
    pub confidence: Confidence,
    /// Its line, for those who ask why; `None` where no line was printed.
    pub line: Option<Box<Handshake>>,
}

impl Said {
    /// Whether it is what was done.
    pub fn is_right(&self) -> bool {
        self.answer.is_right(self.cause)
    }
}

fn is_it(made: &MadeHandshake, h: &Handshake) -> bool {
    let c = &h.connection;
    let port = |made: Option<u16>, seen: Option<u16>| made.is_none() || made == seen;
    made.role == c.role
        && made.peer_addr == c.peer_addr
        && port(made.peer_port, c.peer_port)
        && (made.local_addr == c.local_addr || c.local_port.is_none())
        // One that got no port has nothing but its end to be told by.
        && (port(made.local_port, c.local_port) || c.local_port.is_none() && made.outcome == h.outcome)
}

impl LabRun {
    /// Each handshake that the lab gave a cause, with what was said of it. A connection may have made
    /// several half-opens, each with a line.
    pub fn said(&self) -> Vec<Said> {
        let mut all = Vec::new();
        let mut matched = vec![0u64; self.made.handshakes.len()];
        for line in &self.lines {
            let Body::Handshake(h) = &line.body else {
                continue;
            };
            let made = &self.made.handshakes;
            let fits = |exact: bool, room: bool| {
                (0..made.len()).find(|&at| {
                    let m = &made[at];
                    let has_room = matched[at] < *m.count.end();
                    (has_room || !room) && (m.peer_port.is_some() || !exact) && is_it(m, h)
                })
            };
            // Several may look alike (those that got no port): each is taken once, as long as it goes.
            let of = [(true, true), (true, false), (false, false)];
            let Some(at) = of.into_iter().find_map(|(exact, room)| fits(exact, room)) else {
                continue;
            };
            matched[at] += 1;
            let Some(cause) = made[at].cause else {
                continue;
            };
            all.push(Said {
                cause,
                answer: Answer::of(h),
                confidence: h.confidence,
                line: Some(h.clone()),
            });
        }
        // Those that went well are not printed in a diagnosis.
        for (made, seen) in self.made.handshakes.iter().zip(matched) {
            let Some(cause) = made.cause else { continue };
            for _ in seen..*made.count.start() {
                all.push(Said {
                    cause,
                    answer: Answer::Nothing,
                    confidence: Confidence::Insufficient,
                    line: None,
                });
            }
        }
        all
    }
}

/// Counts of one cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// Said with certainty.
    pub certain: u64,
    /// Said otherwise.
    pub others: u64,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.certain, self.others) {
            (0, 0) => f.write_str("·"),
            (0, others) => write!(f, "{others}"),
            (certain, 0) => write!(f, "**{certain}**"),
            (certain, others) => write!(f, "**{certain}**+{others}"),
        }
    }
}

/// Rows: what was done. Columns: what was said.
#[derive(Clone, Debug, Default)]
pub struct Matrix {
    rows: BTreeMap<Cause, BTreeMap<Answer, Cell>>,
    /// Runs that went into it.
    pub runs: u64,
}

impl Matrix {
    /// Adds one handshake.
    pub fn add(&mut self, said: &Said) {
        let cell = self
            .rows
            .entry(said.cause)
            .or_default()
            .entry(said.answer)
            .or_default();
        match said.confidence {
            Confidence::Certain => cell.certain += 1,
            _ => cell.others += 1,
        }
    }

    /// Handshakes in it.
    pub fn handshakes(&self) -> u64 {
        let cells = self.rows.values().flat_map(BTreeMap::values);
        cells.map(|c| c.certain + c.others).sum()
    }

    /// Those of which something wrong was said: certain, and not.
    pub fn wrong(&self) -> Cell {
        let mut wrong = Cell::default();
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

    /// Those of which too little was known.
    pub fn insufficient(&self) -> u64 {
        let rows = self.rows.values();
        let cells = rows.filter_map(|row| row.get(&Answer::Insufficient));
        cells.map(|cell| cell.others).sum()
    }
}

/// As a table of Markdown; bold: said with certainty.
impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: BTreeSet<Answer> = self
            .rows
            .values()
            .flat_map(BTreeMap::keys)
            .copied()
            .collect();
        let names: Vec<&str> = columns.iter().map(|answer| answer.name()).collect();
        writeln!(f, "| done \\ said | {} |", names.join(" | "))?;
        writeln!(f, "|---|{}", "---:|".repeat(columns.len()))?;
        for (cause, row) in &self.rows {
            let cells: Vec<String> = columns
                .iter()
                .map(|column| row.get(column).copied().unwrap_or_default().to_string())
                .collect();
            writeln!(f, "| {} | {} |", cause.name(), cells.join(" | "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: Cause = Cause::Verdict(VerdictKind::Refused);

    fn said(cause: Cause, answer: Answer, confidence: Confidence) -> Said {
        Said {
            cause,
            answer,
            confidence,
            line: None,
        }
    }

    #[test]
    fn what_is_off_the_diagonal_is_wrong_and_silence_is_not() {
        let mut matrix = Matrix::default();
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
            (Cell::default(), 1)
        );
        matrix.add(&said(
            REFUSED,
            Answer::Verdict(VerdictKind::Filtered),
            Confidence::Certain,
        ));
        matrix.add(&said(REFUSED, Answer::Nothing, Confidence::Insufficient));
        let wrong = Cell {
            certain: 1,
            others: 1,
        };
        assert_eq!((matrix.wrong(), matrix.handshakes()), (wrong, 5));
        let text = matrix.to_string();
        assert!(
            text.contains("| done \\ said | refused | filtered | (nothing) | (insufficient) |")
        );
        assert!(
            text.contains("| refused | **1** | **1** | 1 | 1 |"),
            "{text}"
        );
    }
}
