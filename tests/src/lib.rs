//! Shared code of the kernel tests: the harness, the pipeline in parallel to its traffic, the schema of the
//! output contract, and the binary.

pub mod agent;
pub mod binary;
pub mod collector;
pub mod connect_hook;
pub mod empty_program;
pub mod guest;
pub mod harness;
pub mod kernel;
pub mod netns_process;
pub mod pipeline_run;
pub mod prose;
pub mod pty;
pub mod recorded;
pub mod recordings;
pub mod schema;
pub mod traffic;
pub mod translated;
pub mod wire;
