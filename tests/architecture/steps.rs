//! CONTRIBUTING.md lists, file by file, what an output, a probe and a verdict touch. The lists are complete:
//! no file outside them mentions those that exist.

use std::{collections::BTreeSet, fs};

use super::source::{self, SourceFile};

/// The files of a step list. `NAME` stands for the module's name.
fn steps(section: &str) -> Vec<String> {
    let path = source::workspace().join("CONTRIBUTING.md");
    let text = fs::read_to_string(path).expect("CONTRIBUTING.md");
    listed(&text, section)
}

fn listed(text: &str, section: &str) -> Vec<String> {
    let heading = format!("\n## {section}\n");
    let (_, rest) = text.split_once(&heading).expect("the section is there");
    let section = rest.split("\n## ").next().unwrap_or_default();
    section
        .lines()
        .filter_map(|line| line.strip_prefix("- "))
        .flat_map(|line| {
            let (paths, _) = line.split_once(": ").expect("paths, then what to do");
            paths.split('`').skip(1).step_by(2).map(str::to_owned)
        })
        .collect()
}

/// Whether a path is the one of a step: `NAME.rs` is also the folder of a module with children.
fn is_step(step: &str, name: &str, path: &str) -> bool {
    let step = step.replace("NAME", name);
    path == step
        || step
            .strip_suffix(".rs")
            .is_some_and(|folder| path.starts_with(&format!("{folder}/")))
}

/// The files that mention one of these identifiers, in code or in a literal.
fn mentioning<'f>(files: &'f [SourceFile], identifiers: &[&str]) -> BTreeSet<&'f str> {
    let mentions = |file: &SourceFile, identifier: &str| {
        let text = &file.with_literals;
        text.match_indices(identifier).any(|(at, _)| {
            let part = |c: char| c.is_alphanumeric() || c == '_';
            let before = text[..at].chars().next_back();
            let after = text[at + identifier.len()..].chars().next();
            !before.is_some_and(part) && !after.is_some_and(part)
        })
    };
    files
        .iter()
        .filter(|file| {
            identifiers
                .iter()
                .any(|identifier| mentions(file, identifier))
        })
        .map(|file| &*file.path)
        .collect()
}

/// Fails on a file that mentions `name`'s identifiers and is not in the list, and on a step without one.
fn compare(section: &str, name: &str, identifiers: &[&str]) {
    let files = source::all();
    let steps = steps(section);
    let found = mentioning(&files, identifiers);
    let unlisted: Vec<&&str> = found
        .iter()
        .filter(|path| !steps.iter().any(|step| is_step(step, name, path)))
        // Several scenarios may have the same cause.
        .filter(|path| !path.starts_with("synprobe-lab/src/scenarios/"))
        .collect();
    assert!(
        unlisted.is_empty(),
        "{name}: not in \"{section}\" of CONTRIBUTING.md: {unlisted:#?}"
    );
    assert!(found.len() > 2, "{name}: only {found:?}");
}

#[test]
fn every_listed_file_exists() {
    let files = source::all();
    for section in ["Add an output", "Add a probe", "Add a verdict"] {
        let steps = steps(section);
        assert!(steps.len() > 2, "{section}: {steps:?}");
        for step in steps {
            let exists = match step.split_once("NAME") {
                Some((folder, _)) => files.iter().any(|file| file.path.starts_with(folder)),
                None => files.iter().any(|file| file.path == step),
            };
            assert!(exists, "{section}: {step}");
        }
    }
}

#[test]
fn an_output_touches_one_file_in_view_and_one_line_in_verbs() {
    compare("Add an output", "json", &["JsonView", "mod json"]);
    let steps = steps("Add an output");
    let new: Vec<&String> = steps
        .iter()
        .filter(|step| step.starts_with("synprobe/src/view/") && !step.ends_with("/mod.rs"))
        .collect();
    assert_eq!(new, ["synprobe/src/view/NAME.rs"]);
    let files = source::all();
    let lines: Vec<String> = files
        .iter()
        .filter(|file| file.path.starts_with("synprobe/src/verbs/"))
        .flat_map(|file| file.code.lines().filter(|line| line.contains("JsonView")))
        .map(|line| line.trim().to_owned())
        .collect();
    assert_eq!(lines.len(), 1, "{lines:#?}");
}

#[test]
fn a_probe_touches_six_files() {
    compare(
        "Add a probe",
        "receive_reset",
        &["receive_reset", "ResetRecord", "KIND_RESET", "Event::Reset"],
    );
    let steps = steps("Add a probe");
    assert!(steps.len() <= 6, "{steps:#?}");
}

/// The verdicts that need nothing beyond the list. The others are also named where they are treated apart from
/// the rest: in the rules that group handshakes to problems, and on the pages of `diagnose` and `connect`.
#[test]
fn a_verdict_touches_its_file_its_line_in_the_table_and_its_scenario() {
    for (name, kind) in [
        ("asymmetric_nat", "AsymmetricNat"),
        ("peer_reset", "PeerReset"),
        ("synack_lost", "SynackLost"),
        ("syn_flood", "SynFlood"),
        ("peer_silent", "PeerSilent"),
        ("ports_exhausted", "PortsExhausted"),
        ("refused", "Refused"),
        ("unreachable", "Unreachable"),
        ("filtered", "Filtered"),
    ] {
        let identifiers = [
            format!("mod {name}"),
            format!("use {name}::{kind}"),
            format!("VerdictKind::{kind}"),
            format!("{kind} = \"{}\"", name.replace('_', "-")),
        ];
        let identifiers: Vec<&str> = identifiers.iter().map(String::as_str).collect();
        compare("Add a verdict", name, &identifiers);
    }
}

/// What `synprobe explain` tells to run exists.
#[test]
fn an_explanation_names_scenarios_that_exist() {
    for verdict in synprobe::verdict::ALL {
        for command in verdict.explain().reproduce.lines() {
            let name = command.strip_prefix("synprobe lab ").unwrap_or(command);
            let name = name.split(' ').next().unwrap_or(name);
            assert!(
                synprobe_lab::find(name).is_some(),
                "{}: {command}",
                verdict.name()
            );
        }
    }
}

#[test]
fn a_file_that_a_list_lacks_is_found() {
    let text = "# C\n\n## Add a probe\n\nWords with `code`.\n\n- `a/NAME.rs`: new.\n- `b/x.rs`, `b/y.rs`: lines.\n\n\
                ## Next\n\n- `c.rs`: other\n";
    let steps = listed(text, "Add a probe");
    assert_eq!(steps, ["a/NAME.rs", "b/x.rs", "b/y.rs"]);
    assert!(is_step("a/NAME.rs", "new", "a/new.rs"));
    assert!(is_step("a/NAME.rs", "new", "a/new/mod.rs"));
    assert!(!is_step("a/NAME.rs", "new", "a/newer.rs"));
    let files = [
        SourceFile::new("synprobe/src/a.rs", "use crate::NewRecord;"),
        SourceFile::new("synprobe/src/b.rs", "// NewRecord\nuse crate::NewRecords;"),
        SourceFile::new("synprobe/src/c.rs", "const N: &str = \"the NewRecord\";"),
    ];
    let found: Vec<&str> = mentioning(&files, &["NewRecord"]).into_iter().collect();
    assert_eq!(found, ["synprobe/src/a.rs", "synprobe/src/c.rs"]);
}
