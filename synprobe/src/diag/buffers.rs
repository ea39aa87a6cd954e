//! Memory for the kernel's answers: one buffer for each thread, not for each socket and file of each
//! watched namespace. A host may have thousands of those.

use std::{
    cell::Cell,
    mem,
    ops::{Deref, DerefMut},
};

/// Twice the largest datagram that `netlink_dump()` builds (32 KiB), and several times the counters of a
/// namespace.
const BYTES: usize = 64 * 1024;

thread_local! {
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A buffer for one answer, returned to its thread on drop. A nested query gets a buffer of its own.
pub(super) struct Scratch(Vec<u8>);

impl Scratch {
    pub(super) fn take() -> Self {
        // While a thread ends, its spare buffer may be gone.
        let mut bytes = SPARE.try_with(Cell::take).unwrap_or_default();
        bytes.resize(bytes.len().max(BYTES), 0);
        Self(bytes)
    }
}

impl Deref for Scratch {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let bytes = mem::take(&mut self.0);
        let _ = SPARE.try_with(|spare| spare.set(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_used_again_and_never_by_two() {
        let mut outer = Scratch::take();
        outer[0] = 1;
        let first = outer.as_ptr();
        let inner = Scratch::take();
        assert_ne!(inner.as_ptr(), first);
        assert_eq!(inner.len(), BYTES);
        drop(inner);
        drop(outer);
        assert_eq!(Scratch::take().as_ptr(), first);
    }
}
