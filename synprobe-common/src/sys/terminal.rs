//! How wide a terminal is.

use std::os::fd::AsFd;

/// The columns of a terminal; `None`: it is none, or it does not know.
pub fn columns(stream: &impl AsFd) -> Option<usize> {
    let (terminal_size::Width(columns), _) = terminal_size::terminal_size_of(stream)?;
    (columns > 0).then_some(usize::from(columns))
}
