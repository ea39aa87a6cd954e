//! The two ends of a handshake.

use serde::{Deserialize, Serialize};

/// Which end of the handshake this host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Active open.
    Client,
    /// Passive open.
    Server,
}

impl Role {
    /// The name in the output contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// One for each role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ByRole<T> {
    /// This host opened.
    pub client: T,
    /// This host accepted.
    pub server: T,
}

impl<T> ByRole<T> {
    /// That of a role.
    pub fn get(&self, role: Role) -> &T {
        match role {
            Role::Client => &self.client,
            Role::Server => &self.server,
        }
    }

    /// That of a role.
    pub fn get_mut(&mut self, role: Role) -> &mut T {
        match role {
            Role::Client => &mut self.client,
            Role::Server => &mut self.server,
        }
    }
}
