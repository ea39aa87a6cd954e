//! Errors of the BTF reader.

use std::io;

use thiserror::Error;

use super::KERNEL_BTF;

/// Why type information could not be read, or does not have the requested item.
#[derive(Debug, Error)]
pub enum BtfError {
    /// The kernel has none.
    #[error("{KERNEL_BTF} is missing: this kernel was built without CONFIG_DEBUG_INFO_BTF")]
    Absent,
    /// This process may not read it.
    #[error("{KERNEL_BTF} cannot be read: permission denied")]
    Denied,
    /// Reading failed otherwise.
    #[error("{KERNEL_BTF} cannot be read: {0}")]
    Read(#[source] io::Error),
    /// Not BTF.
    #[error("not BTF: it begins with {0:#06x}")]
    Magic(u16),
    /// BTF of a machine with the other byte order.
    #[error("BTF of a machine with the other byte order")]
    ForeignEndian,
    /// A later format.
    #[error("BTF version {0}, expected 1")]
    Version(u8),
    /// An item extends beyond its section.
    #[error("malformed BTF: {what} at byte {offset} extends beyond the end")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Where it begins.
        offset: usize,
    },
    /// A kind of unknown length: nothing after it can be found.
    #[error("BTF type {id} at byte {offset} is of the unknown kind {kind}")]
    UnknownKind {
        /// The type's number.
        id: u32,
        /// Its `BTF_KIND_*`.
        kind: u32,
        /// Where it begins.
        offset: usize,
    },
    /// The string section is malformed, or a name lies outside it.
    #[error("malformed BTF: no string at {0}")]
    BadString(u32),
    /// A reference to a type that does not exist.
    #[error("malformed BTF: no type {0}")]
    BadType(u32),
    /// A member without an offset in bytes, or a type without a size.
    #[error("malformed BTF: type {id}: {what}")]
    Malformed {
        /// The type's number.
        id: u32,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A cycle.
    #[error("malformed BTF: type {0} is nested without end")]
    TooDeep(u32),
    /// No structure or union of this name.
    #[error("no struct {0}")]
    NoStruct(String),
    /// The structure does not have this member.
    #[error("no struct {container} member {path}")]
    NoMember {
        /// The outer structure.
        container: String,
        /// The requested path.
        path: String,
    },
    /// The path continues after a member that is not an embedded structure.
    #[error("struct {container} member {path}: {part} is {what}, not an embedded structure")]
    NotEmbedded {
        /// The outer structure.
        container: String,
        /// The requested path.
        path: String,
        /// The member that cannot be followed.
        part: String,
        /// What it is.
        what: &'static str,
    },
    /// No such tracepoint.
    #[error("no tracepoint {0}")]
    NoTracepoint(String),
    /// No such function; a static one may have been inlined.
    #[error("no function {0}")]
    NoFunction(String),
}
