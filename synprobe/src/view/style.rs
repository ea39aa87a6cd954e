//! How text is laid out: its width, whether it has colours, and its language.

use crate::lang::Lang;

/// Columns of text that is no table, where nothing tells the width.
pub const WIDTH: usize = 100;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Columns that a line may have.
    pub width: usize,
    /// Whether escape sequences for colours are printed.
    pub colour: bool,
    /// The language of its pages.
    pub lang: Lang,
}

impl Default for Style {
    fn default() -> Self {
        Self {
            width: WIDTH,
            colour: false,
            lang: Lang::En,
        }
    }
}

impl Style {
    /// Without colour, `width` columns wide.
    pub fn plain(width: usize) -> Self {
        Self {
            width,
            ..Self::default()
        }
    }

    /// `text` in the colours of `code` (ECMA-48, SGR).
    pub(crate) fn paint(self, code: &str, text: &str) -> String {
        if self.colour && !code.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
