//! `synprobe explain`: the long form of a verdict.

use std::fmt::Write as _;

use super::{ALL, Verdict};

/// Width of the text.
const WIDTH: usize = 88;

/// The long form of one verdict.
pub fn long(verdict: &dyn Verdict) -> String {
    let e = verdict.explain();
    let mut text = format!("{}: {}\n", verdict.name(), e.summary);
    for (head, body) in [
        ("What it means", e.meaning),
        ("How it is detected", e.detection),
        ("What to try", e.remedy),
        ("How to reproduce it", e.reproduce),
    ] {
        let _ = write!(text, "\n{head}\n");
        for line in body.lines() {
            wrap(&mut text, line);
        }
    }
    text
}

/// One line for each verdict.
pub fn list() -> String {
    let width = ALL.iter().map(|v| v.name().len()).max().unwrap_or(0);
    let mut text = String::new();
    for verdict in ALL {
        let _ = writeln!(
            text,
            "{:<width$}  {}",
            verdict.name(),
            verdict.explain().summary
        );
    }
    text
}

/// Commands (indented in the source) keep their line; prose is filled.
fn wrap(text: &mut String, line: &str) {
    if line.starts_with("    ") || line.is_empty() {
        let _ = writeln!(text, "  {line}");
        return;
    }
    let mut column = 0;
    for word in line.split_whitespace() {
        let len = word.chars().count();
        if column == 0 {
            text.push_str("  ");
        } else if column + 1 + len > WIDTH {
            text.push_str("\n  ");
            column = 0;
        } else {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += len;
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_is_explained_in_full() {
        for verdict in ALL {
            let e = verdict.explain();
            for part in [e.summary, e.meaning, e.detection, e.remedy, e.reproduce] {
                assert!(part.len() > 16, "{}: {part:?}", verdict.name());
            }
            assert!(e.reproduce.contains("synprobe lab "), "{}", verdict.name());
            let text = long(*verdict);
            assert!(
                text.lines()
                    .skip(1)
                    .all(|l| l.starts_with("      ") || l.chars().count() <= WIDTH + 2),
                "{text}"
            );
        }
    }

    #[test]
    fn names_are_unique() {
        for (n, verdict) in ALL.iter().enumerate() {
            assert!(ALL[n + 1..].iter().all(|v| v.name() != verdict.name()));
        }
    }
}
