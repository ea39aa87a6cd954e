//! Rust source files as these tests read them: without comments, without the contents of strings, and
//! without what is compiled for tests only.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

/// The crates whose source is checked.
const CRATES: [&str; 7] = [
    "synprobe",
    "synprobe-common",
    "synprobe-ebpf",
    "synprobe-engine",
    "synprobe-lab",
    "manual",
    "xtask",
];

/// One source file.
pub struct SourceFile {
    /// Path below the workspace.
    pub path: String,
    /// The code. Comments, literals and test code are blank; lines keep their numbers.
    pub code: String,
    /// The same with its literals.
    pub with_literals: String,
    /// Lines of the file that are not in a `#[cfg(test)]` item.
    pub lines: usize,
}

impl SourceFile {
    /// From a path and its text.
    pub fn new(path: &str, text: &str) -> Self {
        let mut code = blanked(text, Blank::CommentsAndLiterals);
        let mut with_literals = blanked(text, Blank::Comments);
        let mut lines = code.lines().count();
        while let Some(begin) = code.find(CFG_TEST) {
            let end = item_end(&code, begin + CFG_TEST.len());
            lines = lines.saturating_sub(code[begin..end].matches('\n').count() + 1);
            for text in [&mut code, &mut with_literals] {
                *text = blank(text, begin, end);
            }
        }
        Self {
            path: path.to_owned(),
            code,
            with_literals,
            lines,
        }
    }

    /// The string literals outside of tests, with their lines, as they are at run time.
    pub fn literals(&self) -> Vec<(usize, String)> {
        let bytes = self.with_literals.as_bytes();
        let (mut found, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            let end = literal_end(bytes, at);
            if end > at && bytes[at] == b'"' {
                let inner = &self.with_literals[at + 1..end - 1];
                found.push((self.line_of(at), unescaped(inner)));
            }
            at = end.max(at + 1);
        }
        found
    }

    /// The line number of a byte of the code.
    pub fn line_of(&self, offset: usize) -> usize {
        self.code[..offset].matches('\n').count() + 1
    }

    /// The crate's folder.
    pub fn crate_name(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }

    /// The path of the file's module in its crate: `["track", "peers"]`; empty for the root.
    pub fn module(&self) -> Vec<&str> {
        let below = self.path.split_once("/src/").map_or("", |(_, below)| below);
        let mut module: Vec<&str> = below.trim_end_matches(".rs").split('/').collect();
        if matches!(module.last(), Some(&"mod")) || matches!(module[..], ["lib"]) {
            module.pop();
        }
        module
    }
}

/// The workspace's folder.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests are a folder of the workspace")
        .to_owned()
}

/// The source files of all crates that are checked, without those of test modules.
pub fn all() -> Vec<SourceFile> {
    let root = workspace();
    let files: Vec<SourceFile> = CRATES
        .iter()
        .flat_map(|name| of_crate(&root, name))
        .collect();
    assert!(
        files.len() > 200,
        "{} files: this is not the tree",
        files.len()
    );
    files
}

/// The source files of one crate, without those of test modules.
pub fn of_crate(root: &Path, name: &str) -> Vec<SourceFile> {
    let mut paths = Vec::new();
    rust_files(&root.join(name).join("src"), &mut paths);
    paths.sort();
    let mut tests = HashSet::new();
    let mut files = Vec::new();
    for path in &paths {
        let text = fs::read_to_string(path).expect("a source file is text");
        let relative = path.strip_prefix(root).expect("it is below the root");
        let file = SourceFile::new(&relative.to_string_lossy(), &text);
        let folder = match path.file_stem().and_then(|stem| stem.to_str()) {
            Some("mod" | "lib" | "main") | None => path.with_file_name(""),
            Some(stem) => path.with_file_name(stem),
        };
        for module in test_modules(&blanked(&text, Blank::CommentsAndLiterals)) {
            tests.insert(folder.join(format!("{module}.rs")));
            tests.insert(folder.join(module));
        }
        files.push((path, file));
    }
    let in_tests = |path: &Path| path.ancestors().any(|ancestor| tests.contains(ancestor));
    files
        .into_iter()
        .filter(|(path, _)| !in_tests(path))
        .map(|(_, file)| file)
        .collect()
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// What is blanked in a file's text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blank {
    Comments,
    CommentsAndLiterals,
}

/// The text with spaces in place of comments, or of comments and literals.
fn blanked(text: &str, what: Blank) -> String {
    let bytes = text.as_bytes();
    let mut code = text.to_owned();
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(bytes, at);
        if end > at && (bytes[at] == b'/' || what == Blank::CommentsAndLiterals) {
            code = blank(&code, at, end);
        }
        at = end.max(at + 1);
    }
    code
}

/// The text with spaces in place of these bytes; line ends stay.
fn blank(text: &str, begin: usize, end: usize) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for byte in &mut bytes[begin..end] {
        if *byte != b'\n' {
            *byte = b' ';
        }
    }
    String::from_utf8(bytes).expect("whole characters are blanked")
}

/// The end of the comment or literal that begins here; `at` where none does.
fn literal_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let word_before = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    let find = |needle: &[u8], from: usize| {
        (from..bytes.len())
            .find(|i| bytes[*i..].starts_with(needle))
            .map_or(bytes.len(), |i| i + needle.len())
    };
    match rest {
        [b'/', b'/', ..] => find(b"\n", at) - 1,
        [b'/', b'*', ..] => find(b"*/", at + 2),
        [b'r', b'"' | b'#', ..] | [b'b', b'r', ..] if !word_before => {
            let hashes_from = at + 1 + usize::from(rest[0] == b'b');
            let hashes = bytes[hashes_from..]
                .iter()
                .take_while(|b| **b == b'#')
                .count();
            if bytes.get(hashes_from + hashes) != Some(&b'"') {
                return at;
            }
            let close = [&b"\""[..], &b"#".repeat(hashes)].concat();
            find(&close, hashes_from + hashes + 1)
        }
        [b'"', ..] => {
            let mut end = at + 1;
            while end < bytes.len() && bytes[end] != b'"' {
                end += 1 + usize::from(bytes[end] == b'\\');
            }
            (end + 1).min(bytes.len())
        }
        // A lifetime has no second quote where a character literal has it.
        [b'\'', b'\\', ..] => find(b"'", at + 3),
        [b'\'', ..] => {
            let width = match rest.get(1) {
                Some(first) if *first >= 0xf0 => 4,
                Some(first) if *first >= 0xe0 => 3,
                Some(first) if *first >= 0xc0 => 2,
                _ => 1,
            };
            match rest.get(1 + width) {
                Some(b'\'') => at + width + 2,
                _ => at,
            }
        }
        _ => at,
    }
}

/// The contents of a string literal without its escapes (The Rust Reference, "Tokens").
fn unescaped(inner: &str) -> String {
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => text.push('\n'),
            Some('t') => text.push('\t'),
            Some('\n') => while chars.next_if(|c| c.is_whitespace()).is_some() {},
            // `\u{…}`, `\x…` and the like are in no text.
            Some(c @ ('"' | '\\' | '\'')) => text.push(c),
            other => text.extend(['\\'].into_iter().chain(other)),
        }
    }
    text
}

const CFG_TEST: &str = "#[cfg(test)]";

/// The end of the item from here: its `;`, or the brace that closes its body.
fn item_end(code: &str, from: usize) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code[from..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => {
                depth = depth.saturating_sub(1);
                // A `use` group ends at the `;` behind its brace.
                if depth == 0 && !code[from + at + 1..].starts_with(';') {
                    return from + at + 1;
                }
            }
            ';' if depth == 0 => return from + at + 1,
            _ => (),
        }
    }
    code.len()
}

/// Modules that are compiled for tests only and have a file of their own.
fn test_modules(code: &str) -> Vec<String> {
    code.match_indices(CFG_TEST)
        .filter_map(|(at, _)| {
            let item = &code[at + CFG_TEST.len()..item_end(code, at + CFG_TEST.len())];
            let (_, name) = item.split_once("mod ")?;
            Some(name.strip_suffix(';')?.trim().to_owned())
        })
        .collect()
}

#[test]
fn comments_literals_and_tests_are_left_out() {
    let text = "use a::b; // crate::x\nconst S: &str = \"crate::y\"; const C: char = '\"';\n\
                fn f<'a>(s: &'a str) { crate::z() }\n#[cfg(test)]\nmod tests {\n    use crate::t;\n}\n\
                #[cfg(test)]\nuse crate::{u, v};\nuse crate::w;\n";
    let file = SourceFile::new("synprobe-engine/src/track/mod.rs", text);
    for absent in ["crate::x", "crate::y", "crate::t", "crate::{u"] {
        assert!(!file.code.contains(absent), "{absent} in {}", file.code);
    }
    for present in ["use a::b;", "crate::z()", "use crate::w;"] {
        assert!(file.code.contains(present), "no {present} in {}", file.code);
    }
    assert_eq!(file.line_of(file.code.find("crate::w").expect("there")), 10);
    assert_eq!(file.lines, 4);
    assert_eq!(file.module(), ["track"]);
    let text = "fn f() { g(\"a \\\"b\\\", \\\n      c\") }\n#[cfg(test)]\nmod t { const A: &str = \"d\"; }\n";
    let file = SourceFile::new("synprobe-engine/src/track/mod.rs", text);
    assert_eq!(file.literals(), [(1, "a \"b\", c".to_owned())]);
    let tests =
        test_modules("#[cfg(test)]\nmod tests;\n#[cfg(test)]\npub(crate) mod fixtures;\nmod a;");
    assert_eq!(tests, ["tests", "fixtures"]);
}
