//! The shape of the source tree: which part imports which, what is named what, how long a file is, and what
//! an output, a probe and a verdict touch. Needs no root.

#[path = "architecture/imports.rs"]
mod imports;
#[path = "architecture/names.rs"]
mod names;
#[path = "architecture/source.rs"]
mod source;
