//! The bottom of the house: the output contract as types ([`model`]), the operating system wrapped
//! ([`sys`]), and small things that every part uses ([`util`]).
//!
//! A crate of its own because the agent and its lab both stand on it, and the agent may contain the
//! lab: neither may need the other. `synprobe` re-exports all three.

pub mod model;
pub mod sys;
pub mod util;
