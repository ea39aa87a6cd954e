//! Whether a text is a wording with its holes filled, and what that is in the other language.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
};

use super::{
    translations::Translations,
    wording::{HoleKind, JOINTS, Wording, WordingPiece},
};

/// Longer texts are not looked at, bytes.
const LONGEST: usize = 4096;
/// Phrases in phrases in phrases.
const DEEPEST: usize = 12;
/// Tries for one text: a hostile name must not cost more.
const MOST_TRIES: usize = 4096;
/// What separates the items of a list, and what does in the translation.
const SEPARATORS: [(&str, &str); 3] = [(", ", "、"), ("; ", "；"), ("  ", "  ")];
/// Units that stay as they are.
const UNITS: [&str; 4] = ["µs", "ms", "s", "%"];

impl Translations {
    /// The translation of a text; `None`: there is none.
    pub fn of(&self, english: &str) -> Option<String> {
        Matching::new(self).translated(english)
    }

    /// The translations of a text by the wordings of the first rank that has one.
    pub fn readings(&self, english: &str) -> BTreeSet<String> {
        if let Some(said) = self.exactly(english) {
            return [said.to_owned()].into();
        }
        let mut first = None;
        let mut readings = BTreeSet::new();
        for wording in self.fitting(english) {
            if first.is_some_and(|rank| rank != wording.rank()) {
                break;
            }
            if let Some(said) = Matching::new(self).wording(wording, english) {
                first = Some(wording.rank());
                readings.insert(said);
            }
        }
        readings
    }
}

/// One text at work: what is known of its parts, and how much was tried.
pub(super) struct Matching<'a> {
    all: &'a Translations,
    /// Parts that were looked at, and their translations.
    known: HashMap<String, Option<String>>,
    depth: usize,
    tries: usize,
}

impl<'a> Matching<'a> {
    pub fn new(all: &'a Translations) -> Self {
        Self {
            all,
            known: HashMap::new(),
            depth: 0,
            tries: 0,
        }
    }

    /// The translation of a text; `None`: there is none, or it takes too long to find.
    pub fn translated(mut self, text: &str) -> Option<String> {
        let said = self.text(text);
        said.filter(|_| self.tries <= MOST_TRIES)
    }

    /// The same of a text in a text.
    fn text(&mut self, text: &str) -> Option<String> {
        if let Some(said) = self.all.exactly(text) {
            return Some(said.to_owned());
        }
        if let Some(known) = self.known.get(text) {
            return known.clone();
        }
        let is_bounded = text.len() <= LONGEST && self.depth < DEEPEST && self.tries < MOST_TRIES;
        if text.is_empty() || !is_bounded {
            return None;
        }
        self.depth += 1;
        let said = self.whole(text).or_else(|| self.continued(text));
        self.depth -= 1;
        // Deep down the bound may be why there is none: from elsewhere there may be one.
        if said.is_some() || self.depth < DEEPEST / 2 {
            self.known.insert(text.to_owned(), said.clone());
        }
        said
    }

    fn whole(&mut self, text: &str) -> Option<String> {
        let all = self.all;
        all.fitting(text)
            .find_map(|wording| self.wording(wording, text))
    }

    /// A text to which another was added: `3 half-opens: 3 open` and `; the longest 2.04 s`.
    fn continued(&mut self, text: &str) -> Option<String> {
        let all = self.all;
        let begins = text.char_indices().skip(1);
        let begins = begins.filter(|(_, c)| JOINTS.contains(c));
        let begins: Vec<usize> = begins.map(|(at, _)| at).collect();
        begins.into_iter().rev().find_map(|at| {
            self.tries += 1;
            if self.tries > MOST_TRIES {
                return None;
            }
            let (before, after) = text.split_at(at);
            if !is_balanced(before) {
                return None;
            }
            let mut fitting = all.continuing(after);
            let added = fitting.find_map(|wording| self.wording(wording, after));
            let added = added.or_else(|| {
                let said = all.exactly(after)?;
                Some(said.to_owned())
            })?;
            let begun = self.text(before)?;
            Some(joined([&*begun, &*added].into_iter()))
        })
    }

    /// `text`, if it is this wording.
    pub fn wording(&mut self, wording: &Wording, text: &str) -> Option<String> {
        let mut filled = vec![None; wording.kinds.len()];
        if !self.fill(wording, 0, text, &mut filled) {
            return None;
        }
        let pieces = wording.translated.iter().map(|piece| match piece {
            WordingPiece::Text(text) => text.as_str(),
            WordingPiece::Hole(hole) => match &filled[*hole] {
                Some((_, said)) => said,
                None => "",
            },
        });
        Some(joined(pieces))
    }

    /// Fills the holes from piece `n` on with `rest`: what stands in each, and its translation.
    fn fill<'t>(
        &mut self,
        wording: &Wording,
        n: usize,
        rest: &'t str,
        filled: &mut [Option<(&'t str, String)>],
    ) -> bool {
        let Some(piece) = wording.english.get(n) else {
            return rest.is_empty();
        };
        let hole = match piece {
            WordingPiece::Text(literal) => {
                return rest
                    .strip_prefix(&**literal)
                    .is_some_and(|rest| self.fill(wording, n + 1, rest, filled));
            }
            WordingPiece::Hole(hole) => *hole,
        };
        if let Some((before, _)) = filled[hole] {
            return rest
                .strip_prefix(before)
                .is_some_and(|rest| self.fill(wording, n + 1, rest, filled));
        }
        let kind = wording.kinds[hole];
        let ends: Vec<usize> = match wording.english.get(n + 1) {
            None => vec![rest.len()],
            Some(WordingPiece::Text(next)) => {
                rest.match_indices(&**next).map(|(at, _)| at).collect()
            }
            Some(WordingPiece::Hole(_)) => between_words(rest, kind.is_greedy()),
        };
        for end in ends {
            self.tries += 1;
            if self.tries > MOST_TRIES {
                return false;
            }
            let (content, after) = rest.split_at(end);
            if !is_balanced(content) {
                continue;
            }
            let Some(said) = self.content(kind, content) else {
                continue;
            };
            filled[hole] = Some((content, said));
            if self.fill(wording, n + 1, after, filled) {
                return true;
            }
            filled[hole] = None;
        }
        false
    }

    /// What stands in a hole, in the other language; `None`: it cannot stand there.
    fn content(&mut self, kind: HoleKind, content: &str) -> Option<String> {
        let as_it_is = || content.to_owned();
        match kind {
            HoleKind::Number if is_number(content) => Some(as_it_is()),
            HoleKind::Number => {
                let (low, high) = content.split_once(" to ")?;
                let is_range = is_number(low) && is_number(high);
                is_range.then(|| self.text(content)).flatten()
            }
            HoleKind::Word => is_word(content).then(as_it_is),
            HoleKind::Address => is_address(content).then(as_it_is),
            HoleKind::Raw => (!content.is_empty()).then(as_it_is),
            HoleKind::Term => self.all.exactly(content).map(str::to_owned),
            HoleKind::Phrase | HoleKind::Whole => self.text(content),
            HoleKind::Optional if content.is_empty() => Some(String::new()),
            HoleKind::Optional => self.text(content),
            HoleKind::Dropped if content.is_empty() => Some(String::new()),
            HoleKind::Dropped => self.text(content).map(|_| String::new()),
            HoleKind::Any if content.is_empty() => None,
            HoleKind::Any => Some(self.text(content).unwrap_or_else(as_it_is)),
            HoleKind::Name if content.is_empty() => None,
            HoleKind::Name if self.all.exactly(content).is_some() => Some(as_it_is()),
            HoleKind::Name | HoleKind::Plain => self
                .text(content)
                .or_else(|| needs_none(content).then(as_it_is)),
            HoleKind::List => self.list(content),
        }
    }

    fn item(&mut self, item: &str) -> Option<String> {
        let said = self.text(item);
        said.or_else(|| (!item.is_empty() && needs_none(item)).then(|| item.to_owned()))
    }

    /// A rule of a packet filter is whatever it is: what can be two items is two.
    fn list(&mut self, list: &str) -> Option<String> {
        let several = SEPARATORS.iter().find_map(|(separator, of_translation)| {
            let mut at = list.match_indices(separator);
            at.find_map(|(at, _)| {
                if !is_balanced(&list[..at]) {
                    return None;
                }
                let first = self.item(&list[..at])?;
                let others = self.list(&list[at + separator.len()..])?;
                Some(format!("{first}{of_translation}{others}"))
            })
        });
        several.or_else(|| self.item(list))
    }
}

/// Where a hole may end that another one follows: nowhere in a word. Of phrases as much as possible is tried first, of
/// names as little.
fn between_words(rest: &str, longest_first: bool) -> Vec<usize> {
    let ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
    let in_a_word = |at: &usize| {
        let before = rest[..*at].chars().next_back();
        let after = rest[*at..].chars().next();
        before.is_some_and(char::is_alphanumeric) && after.is_some_and(char::is_alphanumeric)
    };
    let mut ends: Vec<usize> = ends.filter(|at| !in_a_word(at)).collect();
    if longest_first {
        ends.reverse();
    }
    ends
}

/// The pieces of a translation, with a space between Chinese and Latin characters, and none beside a full-width mark.
fn joined<'p>(pieces: impl Iterator<Item = &'p str>) -> String {
    let is_han = |c: char| ('\u{4e00}'..='\u{9fff}').contains(&c);
    let is_mark = |c: char| "，。：；（）、".contains(c);
    let begins_latin = |c: char| c.is_ascii_alphanumeric() || "[\"<".contains(c);
    let ends_latin = |c: char| c.is_ascii_alphanumeric() || "%)]\">".contains(c);
    let mut text = String::new();
    for mut piece in pieces {
        let Some(first) = piece.chars().next() else {
            continue;
        };
        if is_mark(first) {
            text.truncate(text.trim_end_matches(' ').len());
        }
        if text.ends_with(|c: char| is_mark(c) || c == ' ') {
            piece = piece.trim_start_matches(' ');
        }
        let before = text.trim_end_matches(' ');
        if before.ends_with(is_han) && piece.starts_with(is_han) {
            text.truncate(before.len());
        }
        let (last, first) = (text.chars().next_back(), piece.chars().next());
        if let (Some(last), Some(first)) = (last, first)
            && (is_han(last) && begins_latin(first) || ends_latin(last) && is_han(first))
        {
            text.push(' ');
        }
        text.push_str(piece);
    }
    text
}

fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_digit() || c == '.')
}

fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok()
}

/// One word; what stands in quotes may have spaces.
fn is_word(text: &str) -> bool {
    !text.is_empty() && !outside_quotes(text).any(|c| c == ' ')
}

/// Where names in quotes begin and end, as [`format::name`](crate::util::format::name) makes them: in them `\\`
/// escapes what follows.
#[derive(Default)]
struct Quotes {
    open: bool,
    escaped: bool,
}

impl Quotes {
    /// Whether the next character stands in quotes, or is one.
    fn has(&mut self, c: char) -> bool {
        let escaped = std::mem::replace(&mut self.escaped, false);
        if c == '"' && !escaped {
            self.open = !self.open;
            return true;
        }
        self.escaped = self.open && !escaped && c == '\\';
        self.open
    }
}

fn outside_quotes(text: &str) -> impl Iterator<Item = char> + '_ {
    let mut quotes = Quotes::default();
    text.chars().filter(move |c| !quotes.has(*c))
}

/// Whether no name in quotes and no parenthesis begins in a text and ends elsewhere: nothing in a name that a process
/// chose is taken for the words around it.
fn is_balanced(text: &str) -> bool {
    let mut quotes = Quotes::default();
    let mut open = 0_i32;
    for c in text.chars() {
        if quotes.has(c) {
            continue;
        }
        open += i32::from(c == '(') - i32::from(c == ')');
        if open < 0 {
            return false;
        }
    }
    open == 0 && !quotes.open
}

/// Whether a text stays as it is in every language: nothing, one name, or numbers, units and names that no English
/// word is. What stands in quotes is a name.
fn needs_none(text: &str) -> bool {
    if !text.contains(' ') {
        return true;
    }
    let unquoted: String = outside_quotes(text).collect();
    unquoted.split(' ').all(|word| {
        let word = word.trim_end_matches([',', ';', ':']);
        let is_prose = !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase());
        !is_prose || UNITS.contains(&word)
    })
}

#[cfg(test)]
mod tests {
    use super::{super::ZH, *};

    /// A process chooses its name; what it costs is bounded.
    #[test]
    fn a_hostile_text_is_given_up() {
        let all = Translations::new(&ZH);
        for part in [
            ": the SYN-ACK was sent , and ",
            " of (a) after 3 in x; ",
            ", 7 open, 3 reset",
            "for example: 3 to 5 ",
        ] {
            let text = format!("listener {}", part.repeat(80));
            let mut matching = Matching::new(&all);
            assert_eq!(matching.text(&text), None, "{text}");
            // Where the bound is reached, each level that is left may still count once.
            assert!(
                matching.tries < 2 * MOST_TRIES,
                "{part}: {}",
                matching.tries
            );
            assert_eq!(Matching::new(&all).translated(&text), None);
        }
        let too_long = "once".repeat(LONGEST);
        assert_eq!(Matching::new(&all).translated(&too_long), None);
    }
}
