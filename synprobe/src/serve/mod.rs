//! What `synprobe serve` answers over HTTP: metrics, problems, health, and a page.
//!
//! A thread of its own answers requests. It asks the run for its [`RunStatus`] at a scrape, at most once a
//! second, and the run never waits for it. Requests are bounded in size, number and time. Another one sends the
//! same metrics, and log records, to a collector ([`otlp`]).

mod accept;
mod listen;
mod metrics;
mod negotiate;
mod otlp;
mod page;
mod reply;
mod server;
mod sockets;
mod source;

pub use listen::{BindError, Bound, ListenAddr};
pub use otlp::{OtlpOutput, OtlpSending, OtlpUrl};
pub use page::LivePage;
pub use reply::Replier;
pub use server::begin;

use crate::status::{OtherOutput, RunStatus, StatusRequest};
