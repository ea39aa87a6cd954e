//! The terminal that a verb prints to: its width, and whether it shows colours.

use std::{
    env,
    io::{self, IsTerminal},
    sync::OnceLock,
};

use crate::{
    cli::{ColorArg, LanguageArgs},
    lang::Lang,
    sys,
    view::Style,
};

/// The narrowest line that text is laid out for, columns.
const NARROWEST: usize = 40;
/// Longer lines of prose are hard to read.
const WIDEST_PAGE: usize = 120;

/// What `--color` asks for.
static ASKED: OnceLock<ColorArg> = OnceLock::new();

/// Keeps what `--color` asks for; the first call counts.
pub(super) fn set_color(asked: ColorArg) {
    let _ = ASKED.set(asked);
}

/// Whether standard output gets colours.
pub(super) fn in_colour() -> bool {
    colour(
        ASKED.get().copied().unwrap_or_default(),
        io::stdout().is_terminal(),
        |name| env::var(name).ok(),
    )
}

fn colour(asked: ColorArg, is_terminal: bool, variable: impl Fn(&str) -> Option<String>) -> bool {
    match asked {
        ColorArg::Always => true,
        ColorArg::Never => false,
        ColorArg::Auto => {
            let unwanted = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
            is_terminal && !unwanted && !is_dumb(&variable)
        }
    }
}

/// Whether the terminal takes no escape sequences.
pub(super) fn is_dumb(variable: impl Fn(&str) -> Option<String>) -> bool {
    variable("TERM").is_none_or(|term| term.is_empty() || term == "dumb")
}

/// How lines are laid out for standard output.
pub(super) fn style() -> Style {
    Style {
        width: columns().unwrap_or(crate::view::WIDTH),
        colour: in_colour(),
        lang: Lang::En,
    }
}

/// How a page of text is laid out for standard output.
pub(super) fn page_style() -> Style {
    let style = style();
    Style {
        width: style.width.min(WIDEST_PAGE),
        ..style
    }
}

/// The language of a page: what is asked for, else that of the environment.
pub(super) fn lang(asked: LanguageArgs) -> Lang {
    asked.lang(|name| env::var(name).ok())
}

/// The columns of standard output: of the terminal, else what `COLUMNS` says; `None`: nothing tells them.
pub(super) fn columns() -> Option<usize> {
    sys::terminal::columns(&io::stdout())
        .or_else(|| env::var("COLUMNS").ok()?.trim().parse().ok())
        .filter(|columns| *columns > 0)
        .map(|columns| columns.max(NARROWEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_that_want_them() {
        let none = |_: &str| None;
        let xterm = |name: &str| (name == "TERM").then(|| "xterm".to_owned());
        let dumb = |name: &str| (name == "TERM").then(|| "dumb".to_owned());
        let unwanted = |_: &str| Some("1".to_owned());
        let empty = |name: &str| match name {
            "TERM" => Some("xterm".to_owned()),
            _ => Some(String::new()),
        };
        assert!(colour(ColorArg::Auto, true, xterm));
        assert!(colour(ColorArg::Auto, true, empty));
        assert!(!colour(ColorArg::Auto, true, dumb));
        assert!(!colour(ColorArg::Auto, true, none));
        assert!(!colour(ColorArg::Auto, true, unwanted));
        assert!(!colour(ColorArg::Auto, false, xterm));
        assert!(colour(ColorArg::Always, false, unwanted));
        assert!(!colour(ColorArg::Never, true, xterm));
    }
}
