//! What the tests on the real kernel share: a harness that says why a test cannot run, the pipeline
//! run beside the traffic it watches, the contract's schema, and the binary.

pub mod agent;
pub mod binary;
pub mod empty_program;
pub mod guest;
pub mod harness;
pub mod kernel;
pub mod netns_process;
pub mod pipeline_run;
pub mod schema;
pub mod traffic;
pub mod wire;
