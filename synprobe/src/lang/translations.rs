//! The tables of one language, ready to be asked.

use std::collections::HashMap;

use super::{
    po::{self, PoEntry},
    wording::{Wording, WordingPiece},
};

/// See the module.
pub(super) struct Translations {
    /// Texts without holes.
    exact: HashMap<String, String>,
    /// Those with holes, by [`Wording::rank`].
    wordings: Vec<Wording>,
}

/// The entries of the tables, and what is wrong with them, a line each.
pub(super) fn entries(
    tables: &[(&'static str, &str)],
) -> (Vec<(&'static str, PoEntry)>, Vec<String>) {
    let (mut entries, mut wrong) = (Vec::new(), Vec::new());
    let mut lines: HashMap<String, String> = HashMap::new();
    for (table, text) in tables {
        let (of_table, errors) = po::read(text);
        wrong.extend(errors.into_iter().map(|error| format!("{table}: {error}")));
        for entry in of_table {
            let line = format!("{table}: line {}", entry.line);
            if let Err(error) = Wording::new(&entry) {
                wrong.push(format!("{line}: {error}"));
            }
            if let Some(other) = lines.insert(entry.english.clone(), line.clone()) {
                wrong.push(format!("{line}: {:?} is at {other} too", entry.english));
            }
            entries.push((*table, entry));
        }
    }
    (entries, wrong)
}

impl Translations {
    /// What is wrong in the tables is left out: a test fails for it.
    pub fn new(tables: &[(&'static str, &str)]) -> Self {
        let mut exact = HashMap::new();
        let mut wordings = Vec::new();
        for (_, entry) in entries(tables).0 {
            let Ok(wording) = Wording::new(&entry) else {
                continue;
            };
            if let ([WordingPiece::Text(english)], [WordingPiece::Text(translated)]) =
                (&*wording.english, &*wording.translated)
            {
                exact.insert(english.clone(), translated.clone());
            } else {
                wordings.push(wording);
            }
        }
        wordings.sort_by_key(Wording::rank);
        Self { exact, wordings }
    }

    /// The translation of a text without holes.
    pub fn exactly(&self, english: &str) -> Option<&str> {
        self.exact.get(english).map(String::as_str)
    }

    /// The wordings that may fit, by [`Wording::rank`].
    pub fn fitting(&self, text: &str) -> impl Iterator<Item = &Wording> {
        self.wordings
            .iter()
            .filter(move |wording| wording.may_fit(text))
    }

    /// The same, of those that continue another text.
    pub fn continuing(&self, text: &str) -> impl Iterator<Item = &Wording> {
        self.fitting(text).filter(|wording| wording.continues)
    }
}
