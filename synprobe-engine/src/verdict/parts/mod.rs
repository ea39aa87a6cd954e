//! What problems are made of, whoever finds them.

pub(super) mod callers;
pub(super) mod found;
pub(super) mod no_address;
pub(super) mod peer_counts;
