//! Peers that exist on the wire only.
