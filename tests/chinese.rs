//! The page of `diagnose` in Chinese, of every recording. No root, no kernel.
//!
//! Where another page is right: `cargo xtask recordings --bless`, and read the difference.

// The whole crate is tests: one that cannot replay a recording fails.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fs, path::PathBuf, sync::LazyLock, thread};

use synprobe::{lang::Lang, model::VerdictKind, view::remedy};
use synprobe_tests::{
    recordings::all,
    translated::{Pages, WIDTH, kept},
};
use unicode_width::UnicodeWidthStr;

const WORKERS: usize = 4;

/// Words of lower case that are names: of functions, programs, options, and what rules of packet filters are made
/// of.
const NAMES: [&str; 46] = [
    "accept",
    "ack",
    "backlog",
    "bufferbloat",
    "chain",
    "challenge",
    "close",
    "code",
    "conntrack",
    "connect",
    "cookie",
    "daddr",
    "deferred",
    "diagnose",
    "drop",
    "explain",
    "fentry",
    "flags",
    "handle",
    "horizon",
    "host",
    "iptables",
    "ip",
    "lab",
    "listen",
    "masquerade",
    "netns",
    "nftables",
    "nginx",
    "output",
    "pid",
    "pod",
    "policy",
    "port",
    "prohibit",
    "qdisc",
    "reject",
    "rule",
    "sport",
    "syn",
    "synproxy",
    "table",
    "tcp",
    "timer",
    "tracepoint",
    "type",
];

/// The pages of every recording, by its name. Each recording is replayed once for all tests.
static PAGES: LazyLock<Vec<(String, Pages)>> = LazyLock::new(|| {
    let recordings = all().unwrap();
    let of = |recording: &PathBuf| {
        let name = recording.file_stem().unwrap_or_default().to_string_lossy();
        let pages = Pages::of(recording).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        (name.into_owned(), pages)
    };
    thread::scope(|scope| {
        let workers: Vec<_> = recordings
            .chunks(recordings.len().div_ceil(WORKERS))
            .map(|some| scope.spawn(|| some.iter().map(of).collect::<Vec<_>>()))
            .collect();
        let found = workers.into_iter().map(|worker| worker.join().unwrap());
        found.flatten().collect()
    })
});

/// What is wrong with the pages of each recording, by `check`.
fn failures(check: impl Fn(&Pages) -> Vec<String>) -> String {
    let lines = |(name, pages): &(String, Pages)| {
        let found = check(pages).into_iter();
        found
            .map(|line| format!("{name}: {line}\n"))
            .collect::<String>()
    };
    PAGES.iter().map(lines).collect()
}

/// The sentences of a remedy, and its comment.
fn sentences(remedy: &str) -> Vec<&str> {
    let (steps, comment) = remedy::steps(remedy);
    let sentences = steps.into_iter().map(|step| step.sentence);
    let all = sentences.chain([comment]);
    all.filter(|sentence| !sentence.is_empty()).collect()
}

#[test]
fn each_text_of_a_recording_has_one_translation() {
    let failures = failures(|pages| {
        let remedies = pages.remedies.iter().flat_map(|remedy| sentences(remedy));
        let texts = pages.facts.iter().map(String::as_str).chain(remedies);
        let mut wrong = Vec::new();
        for text in texts {
            if Lang::Zh.translated(text).is_none() {
                wrong.push(format!("no translation: {text}"));
            }
            let readings = Lang::Zh.readings(text);
            if readings.len() > 1 {
                wrong.push(format!("{text}: {readings:#?}"));
            }
        }
        wrong
    });
    assert!(failures.is_empty(), "{failures}");
}

/// The page without its commands.
fn without_commands(page: &str, remedies: &[String]) -> String {
    let mut prose = String::new();
    let mut continues = false;
    for line in page.lines() {
        let is_command = continues || line.starts_with("    $ ");
        continues = is_command && line.ends_with('\\');
        if !is_command {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    let steps = remedies.iter().flat_map(|remedy| remedy::steps(remedy).0);
    let mut commands: Vec<&str> = steps.map(|step| step.command).collect();
    commands.sort_by_key(|command| std::cmp::Reverse(command.len()));
    for command in commands.into_iter().filter(|command| !command.is_empty()) {
        prose = prose.replace(command, "");
    }
    prose
}

#[test]
fn no_english_is_left_on_a_page() {
    let failures = failures(|pages| {
        let prose = without_commands(&pages.chinese, &pages.remedies);
        let mut wrong = Vec::new();
        // A rule of a packet filter stands as it is.
        for line in prose.lines().filter(|line| !line.contains("synprobe")) {
            let of_a_word = |c: char| c.is_ascii_alphanumeric() || "_./:-<>=*&|#@+".contains(c);
            let is_english = |word: &&str| {
                let is_verdict = VerdictKind::ALL.iter().any(|kind| kind.name() == *word);
                word.len() > 1
                    && word.chars().all(|c| c.is_ascii_lowercase())
                    && !["ms"].contains(word)
                    && !is_verdict
                    && !NAMES.contains(word)
            };
            let words: Vec<&str> = line.split(|c| !of_a_word(c)).filter(is_english).collect();
            if !words.is_empty() {
                wrong.push(format!("{words:?}: {line}"));
            }
        }
        wrong
    });
    assert!(failures.is_empty(), "{failures}");
}

/// How often each number is in a text.
fn numbers(text: &str) -> BTreeMap<&str, usize> {
    let mut numbers = BTreeMap::new();
    for number in text.split(|c: char| !c.is_ascii_digit() && c != '.') {
        let number = number.trim_matches('.');
        if !number.is_empty() {
            *numbers.entry(number).or_default() += 1;
        }
    }
    numbers
}

fn commands(page: &str, remedies: &[String]) -> Vec<String> {
    let page = page.replace(" \\\n        ", " ");
    let steps = remedies.iter().flat_map(|remedy| remedy::steps(remedy).0);
    let commands = steps.map(|step| step.command.to_owned());
    commands.filter(|command| page.contains(command)).collect()
}

#[test]
fn the_page_has_the_numbers_and_commands_of_the_english_one() {
    let failures = failures(|pages| {
        let mut wrong = Vec::new();
        let chinese = numbers(&pages.chinese);
        for (number, times) in numbers(&pages.english) {
            let shown = chinese.get(number).copied().unwrap_or(0);
            if shown < times {
                wrong.push(format!("{number}: {shown} times, not {times}"));
            }
        }
        for name in VerdictKind::ALL.iter().map(|kind| kind.name()) {
            // One without a hyphen may be a word of a sentence.
            let times = |page: &str| page.matches(name).count();
            if name.contains('-') && times(&pages.english) != times(&pages.chinese) {
                wrong.push(name.to_owned());
            }
        }
        let [english, chinese] =
            [&pages.english, &pages.chinese].map(|page| commands(page, &pages.remedies));
        if english != chinese {
            wrong.push(format!("{english:#?} {chinese:#?}"));
        }
        wrong
    });
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn lines_fit_the_width_and_break_where_chinese_may() {
    let failures = failures(|pages| {
        let too_long = |line: &&str| {
            let longest = line.split(' ').map(UnicodeWidthStr::width).max();
            line.width() > WIDTH && !line.contains('\'') && longest < Some(WIDTH - 20)
        };
        let breaks_wrongly = |line: &&str| {
            line.trim_start()
                .starts_with(|c| "，。：；）、".contains(c))
        };
        let ambiguous = |line: &&str| line.contains(|c| "…·—±→←×≈“”‘’".contains(c));
        let lines = pages.chinese.lines();
        lines
            .filter(|line| too_long(line) || breaks_wrongly(line) || ambiguous(line))
            .map(str::to_owned)
            .collect()
    });
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn pages_are_those_that_were_read() {
    for (recording, path) in kept() {
        let pages = Pages::of(&recording).unwrap();
        let wanted = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            pages.chinese,
            wanted,
            "{}\nif this is right: cargo xtask recordings --bless",
            path.display()
        );
    }
}
