//! Each text of a page has a translation, and each entry of a table is a text of the source
//! (docs/translating.md).

use std::collections::{BTreeMap, BTreeSet};

use synprobe::lang::{Lang, PoEntry};

use super::{
    report_texts,
    source::{self, SourceFile},
};

/// Files whose texts are on the page of `diagnose` or on the screen of `top`: folders end with `/`.
const SAID: [&str; 18] = [
    "synprobe-engine/src/verdict/",
    "synprobe/src/view/page/",
    "synprobe/src/view/mod.rs",
    "synprobe/src/probe/drop_reasons/table.rs",
    "synprobe/src/probe/hooks.rs",
    "synprobe/src/probe/losses.rs",
    "synprobe-engine/src/track/",
    "synprobe/src/diag/icmp/message.rs",
    "synprobe/src/diag/namespaces.rs",
    "synprobe-common/src/sys/fd_limit.rs",
    "synprobe-engine/src/engine/losses.rs",
    "synprobe-engine/src/engine/refusals.rs",
    "synprobe-engine/src/engine/syn_refusals.rs",
    "synprobe/src/pipeline/losses.rs",
    "synprobe/src/pipeline/enrich.rs",
    "synprobe/src/probe/half_open_source/programs.rs",
    "synprobe-ebpf/src/config.rs",
    "synprobe/src/top/",
];

/// Of these files only phrases: a single word is a name of the kernel's.
const PHRASES: [&str; 3] = [
    "synprobe/src/probe/hooks.rs",
    "synprobe/src/probe/half_open_source/programs.rs",
    "synprobe-ebpf/src/config.rs",
];

/// Of these paths no text is on the page.
const OTHER_FILES: [&str; 2] = [
    // Made-up handshakes for tests.
    "synprobe-engine/src/verdict/fixtures.rs",
    // It takes texts apart, and puts them together.
    "synprobe/src/view/page/facts.rs",
];

/// Texts with words that no page says, or says as they are.
const NOT_SAID: [(&str, &str); 22] = [
    ("fixtures", "a cargo feature"),
    ("<twice>", "is replaced"),
    ("<peer>", "is replaced"),
    ("<local>", "is replaced"),
    ("<device>", "is replaced"),
    (".<device>.", "is replaced"),
    ("lo", "a device"),
    ("dummy", "a device"),
    (".service", "a unit"),
    ("host", "a namespace's name, compared"),
    ("netns:", "a namespace's name, compared"),
    ("pid ", "a namespace's name, compared"),
    ("docker ", "a namespace's name, compared"),
    ("role", "a filter's name, compared"),
    ("synprobe top", "a command"),
    ("top", "a cargo feature"),
    (", netns {name}", "a name of the field, and a name"),
    ("listener {}{}", "listener {} has an entry"),
    ("comm", "a key of a filter"),
    (
        "port: netns: verdict: comm: peer: role:",
        "keys of a filter",
    ),
    ("{:.0} min", "a unit"),
    ("somaxconn", "a name of the kernel"),
];
/// As [`NOT_SAID`]: what the arguments of tracepoints are.
const TYPES: [&str; 3] = ["const ", "struct ", "enum "];

/// Bodies that other pages say, by what they begin with: to their closing brace.
const OTHER_PAGES: [&str; 1] = ["fn explain(&self) -> Explanation {"];

/// The programs of remedies (synprobe/src/view/remedy.rs).
fn programs(files: &[SourceFile]) -> BTreeSet<String> {
    let file = files
        .iter()
        .find(|file| file.path == "synprobe/src/view/remedy.rs")
        .expect("the file of remedies");
    let is_name = |text: &String| !text.is_empty() && !text.contains([' ', ':', '#', ';']);
    let literals = file.literals().into_iter().map(|(_, text)| text);
    literals.filter(is_name).collect()
}

/// A text without the holes that it begins with.
fn behind_holes(text: &str) -> &str {
    let mut rest = text;
    while let Some((_, after)) = rest.strip_prefix('{').and_then(|hole| hole.split_once('}')) {
        rest = after;
    }
    rest
}

/// Whether a step of a remedy is a command: it begins with a program, or is all holes.
fn is_command(step: &str, programs: &BTreeSet<String>) -> bool {
    let rest = behind_holes(step);
    let first = rest.split(' ').next().unwrap_or_default();
    rest.is_empty() || programs.contains(first)
}

/// Where the command of a step begins.
fn command_of(step: &str, programs: &BTreeSet<String>) -> Option<usize> {
    let mut colons = step.match_indices(": ").map(|(at, _)| at);
    match is_command(step, programs) {
        true => Some(0),
        false => colons.find(|at| is_command(&step[at + 2..], programs)),
    }
}

/// The sentences of a remedy's steps, and its comment: what is left without its commands. A text without a command is
/// one sentence.
fn sentences<'t>(text: &'t str, programs: &BTreeSet<String>) -> Vec<&'t str> {
    let (steps, comment) = text.split_once(" # ").unwrap_or((text, ""));
    let of_steps = steps.split("; ").filter(|step| !step.is_empty());
    let steps: Vec<_> = of_steps
        .map(|step| (step, command_of(step, programs)))
        .collect();
    if steps.iter().all(|(_, command)| command.is_none()) {
        return vec![text];
    }
    let sentences = steps
        .into_iter()
        .map(|(step, command)| &step[..command.unwrap_or(step.len())]);
    sentences
        .chain([comment])
        .filter(|sentence| !sentence.is_empty())
        .collect()
}

/// Whether a text has an English word: letters of lower case, two or more, between spaces or marks.
pub fn has_words(text: &str) -> bool {
    let mut bare = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        bare.push_str(&rest[..at]);
        // A name that is made of a hole is no word.
        bare.push('_');
        rest = rest[at..].split_once('}').map_or("", |(_, after)| after);
    }
    bare.push_str(rest);
    bare.split([' ', '\n']).any(|word| {
        let word = word.trim_matches(|c: char| ".,:;()\"'<>".contains(c));
        word.len() > 1 && word.chars().all(|c| c.is_ascii_lowercase())
    })
}

/// The literals of a file that its page says, with their lines.
fn said(file: &SourceFile) -> Vec<(usize, String)> {
    let mut others: Vec<(usize, usize)> = Vec::new();
    for begin in OTHER_PAGES {
        for (at, _) in file.code.match_indices(begin) {
            let end = file.code[at..].find("\n    }\n");
            let end = end.map_or(file.code.len(), |end| at + end);
            others.push((file.line_of(at), file.line_of(end)));
        }
    }
    let literals = file.literals().into_iter();
    literals
        .filter(|(line, _)| others.iter().all(|(a, b)| line < a || line > b))
        .collect()
}

pub struct TranslatedTexts {
    entries: Vec<(&'static str, PoEntry)>,
    /// English texts that have an entry, or that one is made of.
    pub known: BTreeSet<String>,
}

impl TranslatedTexts {
    pub fn read() -> Self {
        let entries = Lang::Zh
            .entries()
            .unwrap_or_else(|wrong| panic!("{wrong:#?}"));
        let texts = entries.iter().flat_map(|(_, entry)| {
            let english = std::iter::once(&entry.english);
            english.chain(&entry.made_of)
        });
        let known = texts.cloned().collect();
        Self { entries, known }
    }

    /// What of a text has no translation.
    fn missing<'t>(&self, text: &'t str, programs: &BTreeSet<String>) -> Vec<&'t str> {
        if self.known.contains(text) || !has_words(text) {
            return Vec::new();
        }
        let sentences = sentences(text, programs);
        let missing = sentences
            .into_iter()
            .filter(|sentence| has_words(sentence) && !self.known.contains(*sentence));
        missing.collect()
    }
}

#[test]
fn each_text_of_the_page_has_a_translation() {
    let files = source::all();
    let programs = programs(&files);
    let texts = TranslatedTexts::read();
    for path in SAID {
        let is_there = files.iter().any(|file| file.path.starts_with(path));
        assert!(is_there, "{path} has no source file: take it off the list");
    }
    let mut missing = Vec::new();
    let mut excepted = BTreeSet::new();
    for file in &files {
        let is_of = |paths: &[&str]| paths.iter().any(|path| file.path.starts_with(path));
        if !is_of(&SAID) || is_of(&OTHER_FILES) {
            continue;
        }
        for (line, text) in said(file) {
            let is_type = text.ends_with('*') || TYPES.iter().any(|t| text.starts_with(t));
            if is_of(&PHRASES) && (is_type || !text.contains(' ')) {
                continue;
            }
            let not_translated = texts.missing(&text, &programs);
            if let Some((text, _)) = NOT_SAID.iter().find(|(known, _)| *known == text) {
                excepted.insert(*text);
            } else {
                let place = |text| format!("{}:{line}: {text:?}", file.path);
                missing.extend(not_translated.into_iter().map(place));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "{} texts without an entry in synprobe/src/lang/zh/:\n{}",
        missing.len(),
        missing.join("\n")
    );
    for (text, reason) in NOT_SAID {
        assert!(
            excepted.contains(text),
            "{text:?} ({reason}) is gone: take it off the list"
        );
    }
}

#[test]
fn each_entry_is_a_text_of_the_source() {
    let files = source::all();
    let programs = programs(&files);
    let mut literals = BTreeMap::new();
    for file in &files {
        for (line, text) in file.literals() {
            for sentence in sentences(&text, &programs) {
                literals.insert(sentence.to_owned(), (file.path.clone(), line));
            }
            for part in report_texts::of_literal(&text) {
                literals.insert(part, (file.path.clone(), line));
            }
            literals.insert(text, (file.path.clone(), line));
        }
    }
    let texts = TranslatedTexts::read();
    let unused: Vec<String> = texts
        .entries
        .iter()
        .filter(|(_, entry)| {
            let is_there = |text: &String| literals.contains_key(text);
            match entry.made_of.is_empty() {
                true => !is_there(&entry.english),
                false => !entry.made_of.iter().all(is_there),
            }
        })
        .map(|(table, entry)| format!("{table}:{}: {:?}", entry.line, entry.english))
        .collect();
    assert!(
        unused.is_empty(),
        "no text of the source:\n{}",
        unused.join("\n")
    );
}

#[test]
fn a_text_without_a_translation_is_found() {
    let files = source::all();
    let programs = programs(&files);
    let texts = TranslatedTexts::read();
    for text in [
        "a sentence of which nobody has heard",
        "see the cat: {run}ss -ltn; ip rule",
        "ip rule # feed the cat",
        "{n} cats were seen",
        // Nothing says that these two are steps of a remedy.
        "no ICMP error; no answer came",
    ] {
        assert_eq!(texts.missing(text, &programs).len(), 1, "{text}");
    }
    for text in [
        "",
        "TCP_RESET",
        "{run}ss -ltnp 'sport = :{port}'",
        "{}/{}",
        "; ",
        "net.ipv4.ip_forward",
    ] {
        assert_eq!(texts.missing(text, &programs), [""; 0], "{text}");
    }
}
