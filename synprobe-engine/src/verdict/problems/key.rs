//! What makes two handshakes part of one problem.

use crate::{
    model::{Handshake, Role, VerdictKind},
    verdict::parts::callers::Caller,
};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ProblemKey {
    /// `None`: too little is known.
    pub verdict: Option<VerdictKind>,
    pub role: Role,
    /// Inode of the network namespace; 0 in [`ProblemKey::rest`].
    pub netns: u32,
    /// Server: the listening port. Client: the port called; `None` for a fan-out.
    pub port: Option<u16>,
    /// Client: who called. Server: unknown.
    pub caller: Caller,
    /// What found no place in a group of its own.
    pub is_rest: bool,
}

impl ProblemKey {
    /// The group of a judged handshake; `caller`: who called, where it is a client's.
    pub fn of(h: &Handshake, caller: Caller) -> Self {
        let c = &h.connection;
        let port = match c.role {
            Role::Server => c.local_port,
            Role::Client if h.verdict == Some(VerdictKind::ScanFanout) => None,
            Role::Client => c.peer_port,
        };
        Self {
            verdict: h.verdict,
            role: c.role,
            netns: c.netns,
            port,
            caller,
            is_rest: false,
        }
    }

    /// The group of the same whose caller is not known.
    pub fn of_anybody(&self) -> Self {
        Self {
            caller: Caller::Unknown,
            ..self.clone()
        }
    }

    /// The group of those like it that find no place in one of their own.
    pub fn rest(self) -> Self {
        Self {
            netns: 0,
            port: None,
            caller: Caller::Unknown,
            is_rest: true,
            ..self
        }
    }

    /// The order in which equally bad problems are printed.
    pub fn order(&self) -> impl Ord + use<> {
        let name = self.verdict.map(VerdictKind::name);
        (name, self.role, self.netns, self.port, self.caller.clone())
    }
}
