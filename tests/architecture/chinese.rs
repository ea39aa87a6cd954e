//! The Chinese documents say what the English ones say: line by line the same commands, links and figures.

use std::fs;

use super::source;

/// The marker of a fenced block.
const FENCE: &str = "```";

/// A document, as it is compared with its translation.
struct Document<'t> {
    name: &'static str,
    lines: Vec<Compared<'t>>,
}

/// What is the same in every language on one line.
#[derive(Debug, PartialEq, Eq)]
enum Compared<'t> {
    /// A line of a block: a command without its comment, or what a command printed.
    Block(&'t str),
    Prose {
        /// `##`, `-`, `|` and the number of cells; empty for a paragraph.
        form: String,
        /// Between backquotes.
        code: Vec<&'t str>,
        links: Vec<&'t str>,
        /// Without points and zeros at their end: 12.7 million is 1270 万.
        figures: Vec<String>,
    },
}

impl<'t> Document<'t> {
    fn new(name: &'static str, text: &'t str) -> Self {
        let mut fenced = false;
        let line = |line: &'t str| {
            if line.starts_with(FENCE) {
                fenced = !fenced;
                return Compared::Block(line);
            }
            match (fenced, line.strip_prefix("    ")) {
                (true, _) => Compared::Block(line),
                (false, Some(command)) => Compared::Block(without_comment(command)),
                (false, None) => prose(line),
            }
        };
        Self {
            name,
            lines: text.lines().map(line).collect(),
        }
    }

    /// The lines that differ, by their numbers.
    fn differences(&self, other: &Self) -> Vec<String> {
        let mut found: Vec<String> = self
            .lines
            .iter()
            .zip(&other.lines)
            .enumerate()
            .filter(|(_, (one, other))| one != other)
            .map(|(at, (one, two))| {
                let at = at + 1;
                format!("{}:{at} {one:?}\n{}:{at} {two:?}", self.name, other.name)
            })
            .collect();
        if self.lines.len() != other.lines.len() {
            found.push(format!(
                "{} has {} lines, {} has {}",
                self.name,
                self.lines.len(),
                other.name,
                other.lines.len()
            ));
        }
        found
    }
}

fn without_comment(command: &str) -> &str {
    command
        .split_once("  # ")
        .map_or(command, |(command, _)| command)
        .trim_end()
}

fn prose(line: &str) -> Compared<'_> {
    let mark = line.split(' ').next().unwrap_or_default();
    let form = match mark {
        "|" | "|---|---|" | "|---|---|---|" => format!("| {}", line.matches(" |").count()),
        "-" => "-".to_owned(),
        mark if mark.starts_with(['#', '<']) => mark.to_owned(),
        _ => String::new(),
    };
    let mut code: Vec<&str> = line.split('`').skip(1).step_by(2).collect();
    let mut links: Vec<&str> = line
        .match_indices("](")
        .filter_map(|(at, open)| line[at + open.len()..].split(')').next())
        .collect();
    let mut figures: Vec<String> = line
        .split(|c: char| !c.is_ascii_digit() && c != '.')
        .map(|figure| figure.replace('.', "").trim_end_matches('0').to_owned())
        .filter(|figure| !figure.is_empty())
        .collect();
    code.sort_unstable();
    links.sort_unstable();
    figures.sort_unstable();
    Compared::Prose {
        form,
        code,
        links,
        figures,
    }
}

fn read(name: &str) -> String {
    let path = source::workspace().join(name);
    fs::read_to_string(path).expect("a document of the tree")
}

/// Without the line with which each points to the other.
fn without_pointer(text: &str) -> String {
    let pointers = [
        "English | [简体中文](README.zh-CN.md)",
        "[English](README.md) | 简体中文",
    ];
    let pointer = |line: &&str| pointers.contains(line);
    assert_eq!(text.lines().filter(pointer).count(), 1, "one pointer");
    let lines = text
        .lines()
        .map(|line| if pointer(&line) { "" } else { line });
    lines.collect::<Vec<_>>().join("\n")
}

/// A figure that `cargo xtask bench` wrote is changed in both.
#[test]
fn the_chinese_readme_has_the_commands_the_links_and_the_figures_of_the_english_one() {
    let english = without_pointer(&read("README.md"));
    let chinese = without_pointer(&read("README.zh-CN.md"));
    let english = Document::new("README.md", &english);
    let chinese = Document::new("README.zh-CN.md", &chinese);
    assert!(english.lines.len() > 100, "this is not the README");
    let differences = english.differences(&chinese);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn another_command_link_figure_or_form_is_a_difference() {
    let english =
        "# A\n\nRun `a --b` in [x](x.md), 12.7 million times.\n\n    a --b    # why\n\n| c | d |\n";
    let same =
        "# 甲\n\n在 [甲](x.md) 里运行 `a --b` 1270 万次。\n\n    a --b    # 因为\n\n| 丙 | 丁 |\n";
    let compare = |text: &str| {
        let other = Document::new("B", text);
        Document::new("A", english).differences(&other).len()
    };
    assert_eq!(compare(same), 0);
    for (from, to) in [
        ("`a --b`", "`a -b`"),
        ("x.md", "y.md"),
        ("1270", "1280"),
        ("    a --b", "    a -b"),
        ("# 甲", "## 甲"),
        ("| 丙 | 丁 |", "| 丙 |"),
    ] {
        assert_eq!(compare(&same.replace(from, to)), 1, "{to}");
    }
    assert_eq!(compare(&format!("{same}\n又")), 1);
}
