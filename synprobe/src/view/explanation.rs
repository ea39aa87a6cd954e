//! `synprobe explain`: the long form of a verdict. In English the verdict has it; in Chinese docs/verdicts.zh-CN.md.

use std::fmt::Write as _;

use crate::{
    lang::Lang,
    model::VerdictKind,
    util::fill::{fill, padded},
    verdict::{self, ALL, Verdict},
};

/// Width of the text.
const WIDTH: usize = 88;
/// Each line of a part.
const INDENT: &str = "  ";
/// How a command begins.
const COMMAND: &str = "    ";
/// Headings of the parts, in English.
const HEADINGS: [&str; 4] = [
    "What it means",
    "How it is detected",
    "What to try",
    "How to reproduce it",
];
/// A section for each verdict: its name, what it means in one line, and the four parts.
const CHINESE: &str = include_str!("../../../docs/verdicts.zh-CN.md");

/// The long form of a verdict in one language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExplanationText {
    /// In one line.
    pub summary: &'static str,
    /// Each with its heading: paragraphs, and commands, which begin with four spaces.
    pub parts: [(&'static str, Vec<&'static str>); HEADINGS.len()],
}

impl ExplanationText {
    /// In that language; in English where it has none.
    pub fn of(verdict: &dyn Verdict, lang: Lang) -> Self {
        match lang {
            Lang::En => Self::english(verdict),
            Lang::Zh => Self::chinese(verdict.name()).unwrap_or_else(|| Self::english(verdict)),
        }
    }

    /// The verdict, and what it means.
    pub fn headline(&self, verdict: &dyn Verdict, lang: Lang) -> String {
        let colon = match lang {
            Lang::En => ": ",
            Lang::Zh => "：",
        };
        format!("{}{colon}{}", verdict.name(), self.summary)
    }

    fn english(verdict: &dyn Verdict) -> Self {
        let e = verdict.explain();
        let bodies = [e.meaning, e.detection, e.remedy, e.reproduce];
        let mut parts = HEADINGS.map(|heading| (heading, Vec::new()));
        for ((_, lines), body) in parts.iter_mut().zip(bodies) {
            lines.extend(body.lines());
        }
        Self {
            summary: e.summary,
            parts,
        }
    }

    /// `None`: a part of it is missing.
    fn chinese(name: &str) -> Option<Self> {
        let (_, section) = CHINESE.split_once(&format!("\n## {name}\n"))?;
        let section = section.split("\n## ").next()?;
        let mut texts = section.split("\n### ");
        let summary = texts.next()?.trim();
        let part = |text: &'static str| {
            let (heading, body) = text.split_once('\n')?;
            let lines: Vec<&str> = body.lines().filter(|line| !line.is_empty()).collect();
            (!lines.is_empty()).then_some((heading, lines))
        };
        let parts: Option<Vec<_>> = texts.map(part).collect();
        let mut parts: [_; HEADINGS.len()] = parts?.try_into().ok()?;
        // Nothing but commands, as in English.
        let [.., (_, reproduce)] = &mut parts;
        for line in reproduce {
            *line = line.trim_start();
        }
        (!summary.is_empty()).then_some(Self { summary, parts })
    }
}

/// What a verdict means, in one line.
pub(crate) fn summary(kind: VerdictKind, lang: Lang) -> &'static str {
    let verdict = verdict::find(kind);
    verdict.map_or("", |verdict| ExplanationText::of(verdict, lang).summary)
}

/// The long form of one verdict, in lines of at most `columns`; commands stay whole.
pub fn long(verdict: &dyn Verdict, lang: Lang, columns: usize) -> String {
    let explained = ExplanationText::of(verdict, lang);
    let mut text = String::new();
    for line in fill("", INDENT, &explained.headline(verdict, lang), columns) {
        let _ = writeln!(text, "{line}");
    }
    let width = columns.min(INDENT.len() + WIDTH);
    for (heading, lines) in &explained.parts {
        let _ = write!(text, "\n{heading}\n");
        for line in lines {
            match line.starts_with(COMMAND) {
                true => {
                    let _ = writeln!(text, "{INDENT}{line}");
                }
                false => {
                    for line in fill(INDENT, INDENT, line, width) {
                        let _ = writeln!(text, "{line}");
                    }
                }
            }
        }
    }
    text
}

/// One line for each verdict, or as many as it takes.
pub fn list(lang: Lang, columns: usize) -> String {
    let width = ALL.iter().map(|v| v.name().len()).max().unwrap_or(0);
    let mut text = String::new();
    for verdict in ALL {
        let first = format!("{}  ", padded(verdict.name(), width));
        let summary = summary(verdict.kind(), lang);
        for line in fill(&first, &" ".repeat(width + 2), summary, columns) {
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::fill::columns;

    #[test]
    fn every_verdict_is_explained_in_full() {
        for verdict in ALL {
            let e = verdict.explain();
            for part in [e.summary, e.meaning, e.detection, e.remedy, e.reproduce] {
                assert!(part.len() > 16, "{}: {part:?}", verdict.name());
            }
            assert!(e.reproduce.contains("synprobe lab "), "{}", verdict.name());
            for lang in [Lang::En, Lang::Zh] {
                for (wide, least) in [(usize::MAX, WIDTH + 2), (60, 60)] {
                    let text = long(*verdict, lang, wide);
                    // The first line has no bound of its own; commands are whole.
                    let mut lines = text.lines().skip(usize::from(wide > WIDTH));
                    let is_whole = |l: &str| l.starts_with("      ") || l.contains("synprobe lab ");
                    assert!(lines.all(|l| is_whole(l) || columns(l) <= least), "{text}");
                }
            }
        }
    }

    /// The command of a line, without what is said about it; `None`: it is prose.
    fn command(line: &str) -> Option<&str> {
        let command = line.strip_prefix(COMMAND)?;
        let note = command.find("   (").or(command.find("   （"));
        Some(command[..note.unwrap_or(command.len())].trim_end())
    }

    fn is_chinese(text: &str) -> bool {
        text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c))
    }

    #[test]
    fn every_verdict_has_all_its_parts_in_chinese_with_the_same_commands() {
        for verdict in ALL {
            let name = verdict.name();
            let english = ExplanationText::english(*verdict);
            let chinese = ExplanationText::chinese(name).expect(name);
            assert!(is_chinese(chinese.summary), "{name}: {}", chinese.summary);
            let parts = english.parts.iter().zip(&chinese.parts).enumerate();
            for (n, ((_, english), (heading, chinese))) in parts {
                assert!(is_chinese(heading), "{name}: {heading}");
                let commands = |lines: &[&'static str]| -> Vec<&'static str> {
                    lines.iter().filter_map(|line| command(line)).collect()
                };
                assert_eq!(commands(chinese), commands(english), "{name}: {heading}");
                if n + 1 == HEADINGS.len() {
                    assert_eq!(chinese, english, "{name}");
                    continue;
                }
                let prose = |lines: &[&str]| lines.iter().filter(|l| command(l).is_none()).count();
                assert_eq!(prose(chinese), prose(english), "{name}: {heading}");
                let mut said = chinese.iter().filter(|line| command(line).is_none());
                assert!(said.all(|line| is_chinese(line)), "{name}: {heading}");
            }
        }
        assert_eq!(
            CHINESE.matches("\n## ").count(),
            ALL.len(),
            "one section each"
        );
    }

    #[test]
    fn what_has_no_chinese_is_not_half_chinese() {
        assert_eq!(ExplanationText::chinese("no-such-verdict"), None);
        assert_eq!(ExplanationText::chinese("synack"), None);
    }

    #[test]
    fn names_are_unique() {
        for (n, verdict) in ALL.iter().enumerate() {
            assert!(ALL[n + 1..].iter().all(|v| v.name() != verdict.name()));
        }
    }
}
