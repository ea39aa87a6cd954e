//! Tables of translations: the part of gettext's PO format that they use (GNU gettext, "The Format of PO Files").
//! Comments, `msgid` and `msgstr`, strings in several lines. No plural forms and no contexts: a number is a hole.

use std::mem;

/// An English text and its translation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoEntry {
    /// As the source has it: a format string of Rust, or a plain text.
    pub english: String,
    /// The translation, with the holes of the English text.
    pub translated: String,
    /// Of `#. from: "…"`: the texts of the source that this is made of, where it does not stand there itself.
    pub made_of: Vec<String>,
    /// The line of its `msgid`.
    pub line: usize,
}

/// What the next string belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PoField {
    Id,
    Str,
}

/// The entries of a table, and what is wrong with it, with line numbers. The header (an empty `msgid`) is left out.
pub(super) fn read(text: &str) -> (Vec<PoEntry>, Vec<String>) {
    let mut entries: Vec<PoEntry> = Vec::new();
    let (mut wrong, mut made_of, mut field) = (Vec::new(), Vec::new(), None);
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') {
            field = None;
            if let Some(from) = line.strip_prefix("#. from: ") {
                match unquoted(from) {
                    Some(from) => made_of.push(from),
                    None => wrong.push(format!("line {number}: no string after from:")),
                }
            }
            continue;
        }
        let string = if let Some(string) = line.strip_prefix("msgid ") {
            entries.push(PoEntry {
                english: String::new(),
                translated: String::new(),
                made_of: mem::take(&mut made_of),
                line: number,
            });
            field = Some(PoField::Id);
            string
        } else if let Some(string) = line.strip_prefix("msgstr ") {
            field = Some(PoField::Str);
            string
        } else {
            line
        };
        let (Some(entry), Some(field), Some(string)) =
            (entries.last_mut(), field, unquoted(string.trim()))
        else {
            wrong.push(format!(
                "line {number}: neither a comment, msgid, msgstr nor a string"
            ));
            continue;
        };
        match field {
            PoField::Id => entry.english.push_str(&string),
            PoField::Str => entry.translated.push_str(&string),
        }
    }
    entries.retain(|entry| !entry.english.is_empty());
    for entry in entries.iter().filter(|entry| entry.translated.is_empty()) {
        wrong.push(format!(
            "line {}: {:?} has no translation",
            entry.line, entry.english
        ));
    }
    (entries, wrong)
}

/// `"a \"b\""` without its quotes and escapes.
fn unquoted(string: &str) -> Option<String> {
    let inner = string.strip_prefix('"')?.strip_suffix('"')?;
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return None,
            '\\' => text.push(match chars.next()? {
                'n' => '\n',
                't' => '\t',
                c @ ('"' | '\\') => c,
                _ => return None,
            }),
            c => text.push(c),
        }
    }
    Some(text)
}
