//! The panes of the screen.

/// A table of the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pane {
    /// What is wrong.
    #[default]
    Problems,
    /// Listening sockets.
    Listeners,
    /// Handshakes in progress.
    Handshakes,
    /// Peer addresses.
    Peers,
    /// What happened, as it came.
    Events,
}

impl Pane {
    /// In their order.
    pub const ALL: [Self; 5] = [
        Self::Problems,
        Self::Listeners,
        Self::Handshakes,
        Self::Peers,
        Self::Events,
    ];

    /// Its place in [`Self::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The next one.
    pub fn next(self) -> Self {
        Self::ALL[(self.index() + 1) % Self::ALL.len()]
    }

    /// The one before.
    pub fn previous(self) -> Self {
        Self::ALL[(self.index() + Self::ALL.len() - 1) % Self::ALL.len()]
    }

    /// Its title.
    pub fn title(self) -> &'static str {
        match self {
            Self::Problems => "PROBLEMS",
            Self::Listeners => "LISTENERS",
            Self::Handshakes => "IN PROGRESS",
            Self::Peers => "PEERS",
            Self::Events => "EVENTS",
        }
    }

    /// Its orders, the default first.
    pub fn orders(self) -> &'static [&'static str] {
        match self {
            Self::Problems => &["weight", "now", "all", "since"],
            Self::Listeners => &["fullest", "SYN queue", "drops", "port"],
            Self::Handshakes => &["oldest", "again", "ends first", "peer"],
            Self::Peers => &["trouble", "in progress", "again", "address"],
            Self::Events => &["newest", "oldest"],
        }
    }
}
