//! What was done held against what was said of it: a confusion matrix.

use crate::LabRun;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::MadeHandshake;
use synprobe_common::model::{Body, Confidence, Handshake, VerdictKind};

/// The column of handshakes of which nothing was said, for nothing was wrong.
pub const NOTHING: &str = "(nothing)";
/// The column of those of which too little was known.
pub const INSUFFICIENT: &str = "(insufficient)";
/// The row of those with which nothing was wrong.
pub const HEALTHY: &str = "healthy";

/// One handshake: what was done to it, what was said of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// The cause that the lab gave it.
    pub cause: &'static str,
    /// What was said: a verdict's name, [`NOTHING`] or [`INSUFFICIENT`].
    pub verdict: String,
    /// How surely.
    pub confidence: Confidence,
    /// Its line, for those who ask why; `None` where no line was printed.
    pub line: Option<Box<Handshake>>,
}

impl Said {
    /// Whether it is what was done.
    pub fn is_right(&self) -> bool {
        self.verdict == self.cause || self.cause == HEALTHY && self.verdict == NOTHING
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
            let verdict = match (&h.verdict, h.outcome) {
                (Some(verdict), _) => verdict.clone(),
                (None, synprobe_common::model::Outcome::Established) => NOTHING.to_owned(),
                (None, _) => INSUFFICIENT.to_owned(),
            };
            all.push(Said {
                cause,
                verdict,
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
                    verdict: NOTHING.to_owned(),
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
    rows: BTreeMap<&'static str, BTreeMap<String, Cell>>,
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
            .entry(said.verdict.clone())
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
            for (verdict, cell) in row {
                let right = verdict == cause
                    || verdict == INSUFFICIENT
                    || *cause == HEALTHY && verdict == NOTHING;
                if !right {
                    wrong.certain += cell.certain;
                    wrong.others += cell.others;
                }
            }
        }
        wrong
    }

    /// Those of which too little was known.
    pub fn insufficient(&self) -> u64 {
        let cell =
            |row: &BTreeMap<String, Cell>| row.get(INSUFFICIENT).copied().unwrap_or_default();
        self.rows.values().map(|row| cell(row).others).sum()
    }
}

/// As a table of Markdown; bold: said with certainty.
impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used: BTreeSet<&str> = self
            .rows
            .values()
            .flat_map(|row| row.keys().map(String::as_str))
            .collect();
        let order = VerdictKind::ALL.iter().map(|v| v.name());
        let columns: Vec<&str> = order
            .clone()
            .chain([NOTHING, INSUFFICIENT])
            .filter(|name| used.contains(name))
            .collect();
        writeln!(f, "| done \\ said | {} |", columns.join(" | "))?;
        writeln!(f, "|---|{}", "---:|".repeat(columns.len()))?;
        for cause in order.chain([HEALTHY]) {
            let Some(row) = self.rows.get(cause) else {
                continue;
            };
            let cells: Vec<String> = columns
                .iter()
                .map(|column| row.get(*column).copied().unwrap_or_default().to_string())
                .collect();
            writeln!(f, "| {cause} | {} |", cells.join(" | "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(cause: &'static str, verdict: &str, confidence: Confidence) -> Said {
        Said {
            cause,
            verdict: verdict.to_owned(),
            confidence,
            line: None,
        }
    }

    #[test]
    fn what_is_off_the_diagonal_is_wrong_and_silence_is_not() {
        let mut matrix = Matrix::default();
        for one in [
            said("refused", "refused", Confidence::Certain),
            said("refused", INSUFFICIENT, Confidence::Insufficient),
            said("healthy", NOTHING, Confidence::Insufficient),
        ] {
            assert_eq!(one.is_right(), one.verdict != INSUFFICIENT);
            matrix.add(&one);
        }
        assert_eq!(
            (matrix.wrong(), matrix.insufficient()),
            (Cell::default(), 1)
        );
        matrix.add(&said("refused", "filtered", Confidence::Certain));
        matrix.add(&said("refused", NOTHING, Confidence::Insufficient));
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
