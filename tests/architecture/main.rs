//! The shape of the source tree: which part imports which, what is named what, how long a file is, and what
//! an output, a probe and a verdict touch. Needs no root.

// The whole crate is tests: one that cannot read the tree fails.
#![allow(clippy::expect_used)]

mod chinese;
mod imports;
mod names;
mod report_texts;
mod source;
mod steps;
mod translations;
