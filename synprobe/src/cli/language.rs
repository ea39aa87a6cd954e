//! The language of a page, for the verbs that print one.

use clap::{Args, ValueEnum};

use crate::lang::Lang;

/// `--lang`
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct LanguageArgs {
    /// The language of the page; default: the locale's
    ///
    /// Without it, the first of LC_ALL, LC_MESSAGES and LANG that is set and not empty decides. JSON, names of
    /// verdicts and messages on standard error are English in every language.
    #[arg(long, value_enum, value_name = "LANGUAGE")]
    lang: Option<LangArg>,
}

/// A language that pages have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LangArg {
    /// English
    En,
    /// Simplified Chinese
    Zh,
}

impl LanguageArgs {
    /// What is asked for, else what the variables of the environment ask for.
    pub fn lang(self, variable: impl Fn(&str) -> Option<String>) -> Lang {
        match self.lang {
            Some(LangArg::En) => Lang::En,
            Some(LangArg::Zh) => Lang::Zh,
            None => Lang::of_environment(variable),
        }
    }
}
