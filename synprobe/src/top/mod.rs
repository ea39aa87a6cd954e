//! `synprobe top`: the state of a run on a screen. What is here is pure: it takes the state ([`Observed`]) and
//! keys, and gives lines. The terminal, the clock and the run are in `verbs/top/`.
//!
//! [`App`] is the state of the screen. `rows/` makes the rows of each pane, `table.rs` their columns, `detail.rs`
//! the pages of one row, `screen.rs` puts them together.

mod app;
mod cursor;
mod detail;
mod events;
mod handshake_page;
mod header;
mod help;
mod item;
mod keys;
#[cfg(test)]
mod many_tests;
mod networks;
mod not_seen;
mod observed;
mod open_counts;
mod order;
mod ordered;
mod page_text;
mod pane;
mod part;
mod query;
mod rows;
mod screen;
mod style;
mod table;
#[cfg(test)]
mod tests;
mod wording;

pub use app::App;
pub use events::{EventTail, ReplayedEvents, TopEvent};
pub use keys::KeyRequest;
pub use observed::{Observed, ReplayPosition};
pub use style::{Look, StyledLine, Tone};
