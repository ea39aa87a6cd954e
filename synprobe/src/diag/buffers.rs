//! Memory for what the kernel answers: a piece for each thread, and not for each socket and file of each
//! namespace that is watched, of which a host may have thousands.

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

/// Taken for one answer, and given back when it is dropped. Who asks in the midst of an answer has
/// another.
pub(super) struct Scratch(Vec<u8>);

impl Scratch {
    pub(super) fn take() -> Self {
        // At a thread's end there may be none any more.
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
