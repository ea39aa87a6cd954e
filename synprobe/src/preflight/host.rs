//! Access to the host, behind a trait: tests replace it with faulty hosts.

use std::{fs, io, path::Path};

use super::attempt;
use crate::{diag::icmp::IcmpErrors, sys::kernel};

/// Something that only an attempt can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Load a raw tracepoint program of two instructions.
    RawTracepoint,
    /// Load a classifier of two instructions.
    SchedCls,
    /// Load an fentry program of two instructions for this function (its BTF id), and attach it where loading does not
    /// show whether that can be done.
    Fentry(u32),
    /// Create a ring buffer of one page.
    RingBuffer,
    /// Ask sock_diag for TCP sockets with an empty set of states.
    SockDiag,
    /// Open the raw sockets that receive ICMP errors.
    Icmp,
}

/// What the checks read from a host and try on it.
pub trait HostAccess {
    /// The contents of a file.
    ///
    /// # Errors
    /// The error of reading it.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// The release, as `uname -r` prints it.
    ///
    /// # Errors
    /// The error of `uname(2)`.
    fn release(&self) -> io::Result<String>;

    /// Length of one tick of the coarse clock, nanoseconds.
    fn tick_ns(&self) -> Option<u64>;

    /// Tries something, and undoes it.
    ///
    /// # Errors
    /// The kernel's error.
    fn attempt(&self, attempt: Attempt) -> io::Result<()>;
}

/// The running host.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThisHost;

impl HostAccess for ThisHost {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn release(&self) -> io::Result<String> {
        kernel::release()
    }

    fn tick_ns(&self) -> Option<u64> {
        kernel::tick_ns().ok()
    }

    fn attempt(&self, attempt: Attempt) -> io::Result<()> {
        match attempt {
            Attempt::RawTracepoint => attempt::load(attempt::RAW_TRACEPOINT, 0, 0).map(drop),
            Attempt::SchedCls => attempt::load(attempt::SCHED_CLS, 0, 0).map(drop),
            Attempt::Fentry(id) => attempt::fentry(id),
            Attempt::RingBuffer => attempt::ring_buffer(),
            Attempt::SockDiag => attempt::sock_diag(),
            Attempt::Icmp => IcmpErrors::open_here().map(drop),
        }
    }
}

/// A file of the host as text; `None` where it cannot be read.
pub(super) fn text(host: &impl HostAccess, path: &str) -> Option<String> {
    host.read(Path::new(path))
        .ok()
        .map(|b| String::from_utf8_lossy(&b).into_owned())
}
