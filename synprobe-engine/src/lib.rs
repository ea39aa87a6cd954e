//! What every event passes: decoding, filters, the engine (tracking and verdicts behind one door), recordings, and the
//! JSON of the most frequent lines.
//!
//! It is a crate of its own because it is optimised for speed in every profile, whereas the rest of the agent, which
//! runs once or seldom, is optimised for size in the binary that is copied to other hosts. `synprobe` re-exports its
//! modules. docs/design.md has the whole tree.

pub mod decode;
pub mod engine;
pub mod filter;
pub mod line_json;
pub mod recording;
pub mod track;
pub mod verdict;

pub use synprobe_common::{model, sys, util};
