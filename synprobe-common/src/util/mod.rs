//! Small helpers that every part uses.

pub mod addresses;
pub mod bounded;
pub mod errno;
pub mod fill;
pub mod format;
pub mod table_bounds;
