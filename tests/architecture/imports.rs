//! Which part of the tree may use which: docs/design.md, "Imports that must not exist".

use std::fs;

use super::source::{self, SourceFile};

/// Parts of the tree.
enum Parts {
    Only(&'static [&'static str]),
    AllBut(&'static [&'static str]),
}

impl Parts {
    fn has(&self, part: &str) -> bool {
        match self {
            Self::Only(parts) => parts.contains(&part),
            Self::AllBut(parts) => !parts.contains(&part),
        }
    }
}

/// A forbidden import.
struct Rule {
    /// As in docs/design.md.
    words: &'static str,
    from: Parts,
    to: Parts,
}

use Parts::{AllBut, Only};

const RULES: [Rule; 12] = [
    Rule {
        words: "`track` → `verdict`",
        from: Only(&["track"]),
        to: Only(&["verdict"]),
    },
    Rule {
        words: "`verdict` → `track`",
        from: Only(&["verdict"]),
        to: Only(&["track"]),
    },
    Rule {
        words: "`track`, `verdict` or `model` → `probe`, `diag`, `poller`, `pipeline`, `view` or `lang`",
        from: Only(&["track", "verdict", "model"]),
        to: Only(&["probe", "diag", "poller", "pipeline", "view", "lang"]),
    },
    Rule {
        words: "`view` or `report` → `verbs` or `diag`",
        from: Only(&["view", "report"]),
        to: Only(&["verbs", "diag"]),
    },
    Rule {
        words: "`decode` → `track`",
        from: Only(&["decode"]),
        to: Only(&["track"]),
    },
    Rule {
        words: "`poller` → `track` or `verdict`",
        from: Only(&["poller"]),
        to: Only(&["track", "verdict"]),
    },
    Rule {
        words: "`connect` → the lab",
        from: Only(&["connect"]),
        to: Only(&["lab"]),
    },
    Rule {
        words: "anything outside `verbs` → the lab",
        from: AllBut(&["verbs", "lab"]),
        to: Only(&["lab"]),
    },
    Rule {
        words: "`engine` → anything but `track`, `verdict`, `model`, `util`, `filter`, `decode` and the wire \
                contract",
        from: Only(&["engine"]),
        to: AllBut(&[
            "engine", "track", "verdict", "model", "util", "filter", "decode", "ebpf",
        ]),
    },
    Rule {
        words: "`recording` → `pipeline`, `view` or `verbs`",
        from: Only(&["recording"]),
        to: Only(&["pipeline", "view", "verbs"]),
    },
    Rule {
        words: "anything outside `verbs` and `connect` → `pipeline`",
        from: AllBut(&["verbs", "connect", "pipeline"]),
        to: Only(&["pipeline"]),
    },
    Rule {
        words: "a crate's root by `*`",
        from: AllBut(&[]),
        to: Only(&["*"]),
    },
];

/// Modules of `synprobe-common` and `synprobe-engine` under their own names; every other crate is one part.
fn part_of(crate_name: &str, first: Option<&str>) -> Option<String> {
    match crate_name {
        "synprobe" | "synprobe-common" | "synprobe-engine" => {
            Some(first.unwrap_or("root").to_owned())
        }
        "synprobe-lab" => Some("lab".to_owned()),
        "synprobe-ebpf" => Some("ebpf".to_owned()),
        _ => None,
    }
}

/// A path that a file uses, as the part of the tree that it leads to.
struct Used {
    offset: usize,
    part: String,
}

/// Every part that a file's `use` lines and paths lead to.
fn used(file: &SourceFile) -> Vec<Used> {
    let mut found = Vec::new();
    let code = &file.code;
    let begins = |at: usize| {
        let before = &code[..at];
        let before = before
            .strip_suffix("::")
            .unwrap_or(before)
            .chars()
            .next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | ':' | '>'))
    };
    for root in [
        "crate",
        "super",
        "self",
        "synprobe",
        "synprobe_common",
        "synprobe_ebpf",
        "synprobe_engine",
        "synprobe_lab",
    ] {
        for (at, _) in code.match_indices(root).filter(|(at, _)| begins(*at)) {
            let mut paths = Vec::new();
            tree(&code[at..], &mut Vec::new(), &mut paths);
            for path in paths {
                if path.len() > 1
                    && let Some(part) = resolve(file, &path)
                {
                    found.push(Used { offset: at, part });
                }
            }
        }
    }
    found.sort_by_key(|used| used.offset);
    found
}

/// The paths of a use tree: `a::{b::c, d}` is `a::b::c` and `a::d`. Returns what is behind it.
fn tree<'c>(code: &'c str, prefix: &mut Vec<&'c str>, paths: &mut Vec<Vec<&'c str>>) -> &'c str {
    let depth = prefix.len();
    let mut rest = code.trim_start();
    loop {
        let len = rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '*'))
            .unwrap_or(rest.len());
        if len > 0 {
            prefix.push(&rest[..len]);
        }
        rest = rest[len..].trim_start();
        match rest.strip_prefix("::").map(str::trim_start) {
            Some(next) if next.starts_with('{') => {
                rest = next;
                while let Some(item) = rest.strip_prefix(['{', ',']) {
                    rest = tree(item, prefix, paths).trim_start();
                    // `as name`
                    if let Some(at) = rest.find([',', '}']) {
                        rest = &rest[at..];
                    }
                }
                rest = rest.strip_prefix('}').unwrap_or(rest);
                break;
            }
            Some(next) if next.starts_with(|c: char| c.is_alphabetic() || c == '_' || c == '*') => {
                rest = next;
            }
            _ => {
                if prefix.len() > depth {
                    paths.push(prefix.clone());
                }
                break;
            }
        }
    }
    prefix.truncate(depth);
    rest
}

fn resolve(file: &SourceFile, path: &[&str]) -> Option<String> {
    let root = |crate_name: &str| part_of(crate_name, path.get(1).copied());
    match path[0] {
        "crate" => root(file.crate_name()),
        "synprobe" => root("synprobe"),
        "synprobe_common" => root("synprobe-common"),
        "synprobe_ebpf" => root("synprobe-ebpf"),
        "synprobe_engine" => root("synprobe-engine"),
        "synprobe_lab" => root("synprobe-lab"),
        _ => {
            let mut module = file.module();
            let mut rest = path;
            // An inline module of the same file may stand between: then this leads too far up, which only a
            // file at the top could make another part of.
            while let Some((first @ ("super" | "self"), behind)) =
                rest.split_first().map(|(first, behind)| (*first, behind))
            {
                if first == "super" {
                    module.pop();
                }
                rest = behind;
            }
            let first = module.first().or_else(|| rest.first())?;
            part_of(file.crate_name(), Some(first))
        }
    }
}

/// The forbidden imports of a file, with the file, the line and the rule.
fn violations(file: &SourceFile) -> Vec<String> {
    let Some(from) = part_of(file.crate_name(), file.module().first().copied()) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for used in used(file) {
        for rule in &RULES {
            if from != used.part && rule.from.has(&from) && rule.to.has(&used.part) {
                let line = file.line_of(used.offset);
                found.push(format!(
                    "{}:{line}: {from} uses {}; forbidden: {}",
                    file.path, used.part, rule.words
                ));
            }
        }
    }
    found
}

#[test]
fn no_forbidden_import() {
    let found: Vec<String> = source::all().iter().flat_map(violations).collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn the_design_lists_the_rules() {
    let path = source::workspace().join("docs/design.md");
    let design = fs::read_to_string(path).expect("docs/design.md");
    let section = design
        .split("### Imports that must not exist")
        .nth(1)
        .and_then(|rest| rest.split("\n#").next())
        .expect("the section");
    let listed: Vec<&str> = section
        .lines()
        .filter_map(|line| line.strip_prefix("- "))
        .map(|line| line.trim_end_matches([';', '.']))
        .collect();
    let rules: Vec<&str> = RULES.iter().map(|rule| rule.words).collect();
    assert_eq!(listed, rules);
}

#[test]
fn each_rule_fails_on_an_import_that_it_forbids() {
    let made_up = [
        (
            "synprobe-engine/src/track/mod.rs",
            "use crate::verdict::Judge;",
        ),
        (
            "synprobe-engine/src/verdict/context/mod.rs",
            "use crate::{model::Line, track::Tracker as T};",
        ),
        (
            "synprobe-common/src/model/line.rs",
            "fn f() -> synprobe::view::View {}",
        ),
        ("synprobe/src/view/mod.rs", "use super::diag::route;"),
        ("synprobe-engine/src/decode.rs", "use crate::track;"),
        (
            "synprobe/src/poller/mod.rs",
            "fn f() { crate::verdict::find(KIND) }",
        ),
        ("synprobe/src/connect/mod.rs", "use synprobe_lab::Lab;"),
        ("synprobe/src/ring.rs", "use ::synprobe_lab::Lab;"),
        (
            "synprobe-engine/src/engine/core.rs",
            "use crate::sys::clock;",
        ),
        (
            "synprobe-engine/src/recording/rolling/mod.rs",
            "use super::super::pipeline::Run;",
        ),
        (
            "synprobe/src/preflight/mod.rs",
            "use crate::{\n    model::{Line, Role},\n    pipeline::{self, Setup},\n};",
        ),
        ("synprobe/src/verbs/watch.rs", "use crate::*;"),
    ];
    for (rule, (path, code)) in RULES.iter().zip(made_up) {
        let found = violations(&SourceFile::new(path, &format!("\n{code}")));
        assert!(
            found
                .iter()
                .any(|v| v.contains(path) && v.ends_with(rule.words)),
            "{} is not found in {path}: {code}: {found:?}",
            rule.words
        );
        let tested = violations(&SourceFile::new(
            path,
            &format!("#[cfg(test)]\nmod tests {{\n{code}\n}}"),
        ));
        assert!(tested.is_empty(), "{tested:?}");
    }
    let line = violations(&SourceFile::new(
        "synprobe-engine/src/decode.rs",
        "\n\nuse crate::{\n    model::Role,\n    track::peers::Peers,\n};",
    ));
    assert_eq!(
        line,
        ["synprobe-engine/src/decode.rs:3: decode uses track; forbidden: `decode` → `track`"]
    );
}

#[test]
fn an_allowed_import_is_none_of_them() {
    for (path, code) in [
        (
            "synprobe-engine/src/engine/core.rs",
            "use crate::{track::Tracker, verdict::Judge};",
        ),
        ("synprobe/src/verbs/lab/run.rs", "use synprobe_lab::Lab;"),
        ("synprobe/src/connect/mod.rs", "use crate::pipeline::watch;"),
        (
            "synprobe-engine/src/track/peers/mod.rs",
            "use super::{facts, super::model::Line};",
        ),
        (
            "synprobe-lab/src/lib.rs",
            "use synprobe_common::sys::netns;",
        ),
        (
            "synprobe-engine/src/track/mod.rs",
            "use crate::model::verdict::VerdictKind;",
        ),
        ("synprobe/src/report/mod.rs", "use crate::view::View;"),
    ] {
        let found = violations(&SourceFile::new(path, code));
        assert!(found.is_empty(), "{found:?}");
    }
}
