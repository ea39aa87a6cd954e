//! What `synprobe listeners` shows.

use std::{net::SocketAddr, sync::Arc};

use super::{Body, Line, Listener, QueueSettings};

/// One network namespace.
#[derive(Clone, Debug)]
pub struct ListenerNamespace {
    /// How people call it.
    pub name: Arc<str>,
    /// What limits its queues.
    pub settings: QueueSettings,
    /// Its `ListenOverflows` and `SyncookiesSent`, all listeners together.
    pub overflows: Option<u64>,
    /// See there.
    pub syn_cookies: Option<u64>,
    /// Listeners that share an address (SO_REUSEPORT), and what waits in their SYN queues together.
    pub shared: Vec<SharedSynQueue>,
}

/// Sockets whose SYN queues cannot be distinguished.
#[derive(Clone, Debug)]
pub struct SharedSynQueue {
    /// Where they listen.
    pub local: SocketAddr,
    /// How many there are.
    pub members: usize,
    /// What they have together.
    pub half_opens: u32,
}

/// The listeners, and the namespaces that could not be read.
#[derive(Clone, Debug, Default)]
pub struct ListenerTable {
    /// Those with a listener that was asked for.
    pub namespaces: Vec<ListenerNamespace>,
    /// The fullest queue first.
    pub lines: Vec<Line>,
    /// One line each.
    pub failures: Vec<String>,
    /// No namespace could be read.
    pub nothing: bool,
}

impl ListenerTable {
    /// The listeners, in the order of the lines.
    pub fn listeners(&self) -> impl Iterator<Item = &Listener> {
        self.lines.iter().filter_map(|line| match &line.body {
            Body::Listener(listener) => Some(&**listener),
            _ => None,
        })
    }
}
