//! Pages in another language. Everything inside is English: what the engine says, JSON, recordings. A page is
//! translated at its edge, a text at a time, by [`Lang::say`]. docs/translating.md has the tables' format.

mod matching;
mod po;
#[cfg(test)]
mod tests;
mod translations;
mod wording;

use std::{borrow::Cow, collections::BTreeSet, sync::OnceLock};

pub use po::PoEntry;
use translations::Translations;

/// The language of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lang {
    /// English, as the source has it.
    #[default]
    En,
    /// Simplified Chinese.
    Zh,
}

/// The tables of Simplified Chinese: their names, and their text (gettext PO).
const ZH: [(&str, &str); 6] = [
    ("page.po", include_str!("zh/page.po")),
    ("evidence.po", include_str!("zh/evidence.po")),
    ("remedies.po", include_str!("zh/remedies.po")),
    ("drops.po", include_str!("zh/drops.po")),
    ("report.po", include_str!("zh/report.po")),
    ("top.po", include_str!("zh/top.po")),
];

impl Lang {
    /// The language of a locale's name: `zh`, `zh_CN.UTF-8` and `zh_SG` are Simplified Chinese. Traditional
    /// Chinese there is none, so `zh_TW`, `zh_HK` and all others are English.
    pub fn of_locale(locale: &str) -> Self {
        let name = locale.split(['.', '@']).next().unwrap_or_default();
        let mut parts = name.split(['_', '-']).map(str::to_ascii_lowercase);
        let is_chinese = parts.next().is_some_and(|language| language == "zh");
        let is_traditional = parts.any(|part| matches!(&*part, "tw" | "hk" | "mo" | "hant"));
        match is_chinese && !is_traditional {
            true => Self::Zh,
            false => Self::En,
        }
    }

    /// What the environment asks for: the first of LC_ALL, LC_MESSAGES and LANG that is set and not empty
    /// (POSIX, "Environment Variables", 8.2).
    pub fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        ["LC_ALL", "LC_MESSAGES", "LANG"]
            .into_iter()
            .filter_map(variable)
            .find(|value| !value.is_empty())
            .map_or(Self::En, |locale| Self::of_locale(&locale))
    }

    /// As HTML and BCP 47 name it.
    pub fn tag(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Zh => "zh-CN",
        }
    }

    /// The text in this language: a sentence, a phrase, a label. What has no translation stays English as a
    /// whole.
    pub fn say<'t>(self, english: &'t str) -> Cow<'t, str> {
        match self.translations().and_then(|all| all.of(english)) {
            Some(said) => Cow::Owned(said),
            None => Cow::Borrowed(english),
        }
    }

    /// The sentence of a remedy's step. Its command is in no table.
    ///
    /// `None`: there is no translation, or none is needed.
    pub fn translated(self, english: &str) -> Option<String> {
        self.translations()?.of(english)
    }

    /// The translation of a text that stands in a table as it is: quick.
    pub fn exactly(self, english: &str) -> Option<&'static str> {
        self.translations()?.exactly(english)
    }

    /// Every translation that the tables can give of a text: more than one is an error in a table.
    pub fn readings(self, english: &str) -> BTreeSet<String> {
        self.translations()
            .map(|all| all.readings(english))
            .unwrap_or_default()
    }

    /// The entries of the tables, by the table's name. Empty for English.
    ///
    /// # Errors
    ///
    /// What is wrong with them, a line each.
    pub fn entries(self) -> Result<Vec<(&'static str, PoEntry)>, Vec<String>> {
        let tables: &[(&str, &str)] = match self {
            Self::En => &[],
            Self::Zh => &ZH,
        };
        let (entries, wrong) = translations::entries(tables);
        match wrong.is_empty() {
            true => Ok(entries),
            false => Err(wrong),
        }
    }

    fn translations(self) -> Option<&'static Translations> {
        static OF_ZH: OnceLock<Translations> = OnceLock::new();
        match self {
            Self::En => None,
            Self::Zh => Some(OF_ZH.get_or_init(|| Translations::new(&ZH))),
        }
    }
}
