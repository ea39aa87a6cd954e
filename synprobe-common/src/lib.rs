//! What the agent and its lab share: the output contract as types ([`model`]), wrappers of the operating
//! system ([`sys`]), and helpers ([`util`]).
//!
//! It is a crate of its own because the agent may contain the lab, and neither may depend on the other.
//! `synprobe` re-exports all three modules.

pub mod model;
pub mod sys;
pub mod util;
