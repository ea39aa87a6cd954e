//! One entry of a table, ready to be matched: literals and holes of the English text, and of its translation.

use std::cmp::Reverse;

use super::po::PoEntry;

/// What a text that continues another begins with.
pub(super) const JOINTS: [char; 5] = [';', ',', ' ', ':', '.'];

/// What may stand in a hole, and what becomes of it. In a translation: `{n:num}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HoleKind {
    /// `{n}`: nothing, a phrase that has a translation, or what needs none: names, numbers, units.
    Plain,
    /// `{n:num}`: digits, with a point or without, which stay as they are; or two such numbers with `to` between:
    /// the page makes a range of facts that differ in a number.
    Number,
    /// `{n:word}`: one word, or a name in quotes, and it stays as it is: names, addresses.
    Word,
    /// `{n:name}`: what a process, unit or pod is called. A name that is a text of a table too stays as it is.
    Name,
    /// `{n:addr}`: an IP address, with a port or without; stays as it is.
    Address,
    /// `{n:raw}`: anything, and it stays as it is: names, commands, rules.
    Raw,
    /// `{n:any}`: a phrase is translated, anything else stays.
    Any,
    /// `{n:phrase}`: must be a phrase that has a translation.
    Phrase,
    /// `{n:term}`: the same, and no holes are in it: one of several words of a sentence.
    Term,
    /// `{n:whole}`: the same, and the rest of the wording is added to it: such a wording is tried first.
    Whole,
    /// `{n:opt}`: as `phrase`, or nothing.
    Optional,
    /// `{n:list}`: phrases or names, separated by commas, semicolons or two spaces.
    List,
    /// `{n:drop}`: as `opt`, and nothing of it is said: a plural's form, for example.
    Dropped,
}

impl HoleKind {
    /// Whether it takes as much as it can, where another hole follows.
    pub fn is_greedy(self) -> bool {
        !matches!(
            self,
            Self::Word | Self::Name | Self::Address | Self::Any | Self::Number
        )
    }

    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "" => Self::Plain,
            "num" => Self::Number,
            "word" => Self::Word,
            "name" => Self::Name,
            "addr" => Self::Address,
            "raw" => Self::Raw,
            "any" => Self::Any,
            "phrase" => Self::Phrase,
            "term" => Self::Term,
            "whole" => Self::Whole,
            "opt" => Self::Optional,
            "list" => Self::List,
            "drop" => Self::Dropped,
            _ => return None,
        })
    }
}

/// A literal, or a hole by its index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WordingPiece {
    Text(String),
    Hole(usize),
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Wording {
    pub english: Vec<WordingPiece>,
    pub translated: Vec<WordingPiece>,
    /// Of each hole.
    pub kinds: Vec<HoleKind>,
    /// Bytes of the English literals.
    literal: usize,
    /// Begins with a separator or a space: it continues another text.
    pub continues: bool,
    /// Has a hole for a whole text: it is what is added to that.
    surrounds: bool,
}

/// A hole as it is written. One without a name has its number.
struct WrittenHole<'t> {
    name: String,
    spec: &'t str,
}

enum Written<'t> {
    Text(String),
    Hole(WrittenHole<'t>),
}

/// The literals and holes of a format string (std::fmt).
fn written(text: &str) -> Result<Vec<Written<'_>>, String> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut anonymous = 0;
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        literal.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            literal.push_str(brace);
            rest = after;
            continue;
        }
        let hole = rest.split_once('}').filter(|_| brace == "{");
        let (hole, after) = hole.ok_or_else(|| format!("{text:?}: a brace has no other"))?;
        rest = after;
        let (name, spec) = hole.split_once(':').unwrap_or((hole, ""));
        if !literal.is_empty() {
            pieces.push(Written::Text(std::mem::take(&mut literal)));
        }
        let name = match name {
            "" => {
                anonymous += 1;
                (anonymous - 1).to_string()
            }
            name => name.to_owned(),
        };
        pieces.push(Written::Hole(WrittenHole { name, spec }));
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(Written::Text(literal));
    }
    Ok(pieces)
}

impl Wording {
    /// # Errors
    ///
    /// What is wrong with the entry, in a line.
    pub fn new(entry: &PoEntry) -> Result<Self, String> {
        let mut names: Vec<String> = Vec::new();
        let mut english = Vec::new();
        for piece in written(&entry.english)? {
            english.push(match piece {
                Written::Text(text) => WordingPiece::Text(text),
                Written::Hole(hole) => {
                    let known = names.iter().position(|n| *n == hole.name);
                    WordingPiece::Hole(known.unwrap_or_else(|| {
                        names.push(hole.name);
                        names.len() - 1
                    }))
                }
            });
        }
        let mut kinds: Vec<Option<HoleKind>> = vec![None; names.len()];
        let mut translated = Vec::new();
        for piece in written(&entry.translated)? {
            translated.push(match piece {
                Written::Text(text) => WordingPiece::Text(text),
                Written::Hole(hole) => {
                    let name = hole.name;
                    let index = names.iter().position(|n| *n == name).ok_or_else(|| {
                        format!(
                            "{:?}: the English text has no hole {name}",
                            entry.translated
                        )
                    })?;
                    let kind = HoleKind::parse(hole.spec).ok_or_else(|| {
                        format!("{:?}: no kind of hole is {}", entry.translated, hole.spec)
                    })?;
                    if kinds[index].is_some_and(|known| known != kind) {
                        return Err(format!("{:?}: hole {name} has two kinds", entry.translated));
                    }
                    kinds[index] = Some(kind);
                    WordingPiece::Hole(index)
                }
            });
        }
        let missing = names.iter().zip(&kinds).find(|(_, kind)| kind.is_none());
        if let Some((name, _)) = missing {
            return Err(format!("{:?}: hole {name} is missing", entry.translated));
        }
        let literal = english.iter().map(|piece| match piece {
            WordingPiece::Text(text) => text.len(),
            WordingPiece::Hole(_) => 0,
        });
        Ok(Self {
            literal: literal.sum(),
            continues: entry.english.starts_with(JOINTS),
            surrounds: kinds.contains(&Some(HoleKind::Whole)),
            kinds: kinds.into_iter().flatten().collect(),
            english,
            translated,
        })
    }

    /// Of two wordings that fit a text, the one of the lower rank is meant: what is added to another text, then the
    /// most literal, then the one with more numbers: of all holes they take the least.
    pub fn rank(&self) -> (bool, Reverse<usize>, Reverse<usize>) {
        let numbers = self.kinds.iter().filter(|kind| **kind == HoleKind::Number);
        (
            !self.surrounds,
            Reverse(self.literal),
            Reverse(numbers.count()),
        )
    }

    /// Whether `text` has all literals in their order. Quick: most wordings do not fit most texts.
    pub fn may_fit(&self, text: &str) -> bool {
        let mut rest = text;
        for (n, piece) in self.english.iter().enumerate() {
            let WordingPiece::Text(literal) = piece else {
                continue;
            };
            let found = match n {
                0 => rest.strip_prefix(&**literal),
                _ => rest.find(&**literal).map(|at| &rest[at + literal.len()..]),
            };
            match found {
                Some(after) => rest = after,
                None => return false,
            }
        }
        match self.english.last() {
            Some(WordingPiece::Text(literal)) => text.ends_with(&**literal),
            _ => true,
        }
    }
}
