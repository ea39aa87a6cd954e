//! One name, one meaning: no type name is defined twice. And no file is too long to be read at once.

use std::collections::BTreeMap;

use super::source::{self, SourceFile};

/// Names that are defined more than once, with the reason.
const ALLOWED: [(&str, &str); 0] = [];
/// Lines of a file outside tests, at most.
const MAX_LINES: usize = 400;

/// The types and traits that a file defines, with their lines.
fn defined(file: &SourceFile) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (number, line) in file.code.lines().enumerate() {
        let mut item = line.trim_start();
        if let Some(public) = item.strip_prefix("pub") {
            item = match public.strip_prefix('(') {
                Some(scope) => scope.split_once(')').map_or("", |(_, item)| item),
                None => public,
            };
        }
        let mut words = item.split_whitespace();
        if !matches!(words.next(), Some("struct" | "enum" | "trait" | "union")) {
            continue;
        }
        let name: String = words
            .next()
            .unwrap_or_default()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        // In a macro the name is a variable.
        if !name.is_empty() {
            found.push((name, number + 1));
        }
    }
    found
}

/// The names that more than one place defines, with the places.
fn defined_twice(files: &[SourceFile]) -> Vec<String> {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in files {
        for (name, line) in defined(file) {
            let place = format!("{}:{line}", file.path);
            places.entry(name).or_default().push(place);
        }
    }
    places
        .into_iter()
        .filter(|(_, places)| places.len() > 1)
        .map(|(name, places)| format!("{name}: {}", places.join(", ")))
        .collect()
}

fn too_long(file: &SourceFile) -> Option<String> {
    (file.lines > MAX_LINES).then(|| format!("{}: {} lines", file.path, file.lines))
}

#[test]
fn no_type_name_is_defined_twice() {
    let twice = defined_twice(&source::all());
    let name = |entry: &String| entry.split(':').next().unwrap_or_default().to_owned();
    let allowed: Vec<&str> = ALLOWED.iter().map(|(name, _)| *name).collect();
    let found: Vec<&String> = twice
        .iter()
        .filter(|entry| !allowed.contains(&name(entry).as_str()))
        .collect();
    assert!(found.is_empty(), "{found:#?}");
    for (allowed, reason) in ALLOWED {
        assert!(
            twice.iter().any(|entry| name(entry) == allowed),
            "{allowed} ({reason}) is defined once: take it off the list"
        );
    }
}

#[test]
fn a_name_that_is_defined_twice_is_found() {
    let files = [
        SourceFile::new(
            "synprobe/src/a.rs",
            "pub(in crate::a) struct Peer<T>(T);\nenum One {}",
        ),
        SourceFile::new("synprobe/src/b.rs", "\npub(super) trait Peer: Sized {}"),
        SourceFile::new(
            "synprobe/src/c.rs",
            "#[cfg(test)]\nmod tests {\n    struct One;\n}",
        ),
    ];
    assert_eq!(
        defined_twice(&files),
        ["Peer: synprobe/src/a.rs:1, synprobe/src/b.rs:2"]
    );
}

#[test]
fn no_file_is_longer_than_the_limit() {
    let found: Vec<String> = source::all().iter().filter_map(too_long).collect();
    assert!(
        found.is_empty(),
        "more than {MAX_LINES} lines outside tests:\n{}",
        found.join("\n")
    );
}

#[test]
fn a_file_that_is_too_long_is_found() {
    let long = "fn f() {}\n".repeat(MAX_LINES + 1);
    let path = "synprobe-engine/src/track/mod.rs";
    assert!(too_long(&SourceFile::new(path, &long)).is_some());
    let tested = format!(
        "{}#[cfg(test)]\nmod tests {{\n{long}}}\n",
        "fn f() {}\n".repeat(MAX_LINES)
    );
    assert!(too_long(&SourceFile::new(path, &tested)).is_none());
}
