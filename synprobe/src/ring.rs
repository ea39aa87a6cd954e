//! The ring buffer, read in batches of raw records.

use std::{io, time::Duration};

use aya::maps::{MapData, RingBuf};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, sleep_until},
};

/// How long records gather after the first. The kernel wakes the reader only for a record that finds the
/// ring empty, so under load there are at most a hundred wake-ups a second.
const GATHER: Duration = Duration::from_millis(10);

/// The reader of the ring.
pub struct Ring {
    fd: AsyncFd<RingBuf<MapData>>,
    /// A drain of more bytes than this means load: the next one does not wait.
    busy_bytes: usize,
    last_bytes: usize,
    /// The last drain left records. The kernel does not wake the reader for those.
    more: bool,
    /// The kernel has woken the reader: the ring is to be drained then. It wakes nobody again before that.
    due: Option<Instant>,
}

impl Ring {
    /// Wraps the map. Needs a tokio runtime with I/O.
    ///
    /// # Errors
    ///
    /// When the descriptor cannot be polled.
    pub fn new(ring: RingBuf<MapData>, ring_bytes: u32) -> io::Result<Self> {
        // SAFETY: the ring's descriptor is the map's own, which it keeps open and never replaces.
        let fd = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE)? };
        Ok(Self {
            fd,
            busy_bytes: ring_bytes as usize / 8,
            last_bytes: 0,
            more: false,
            due: None,
        })
    }

    /// Waits for a record, and for [`GATHER`] after it unless the ring fills fast. The future can be dropped: the
    /// next one goes on where it was.
    ///
    /// # Errors
    ///
    /// When the descriptor cannot be polled.
    pub async fn ready(&mut self) -> io::Result<()> {
        if self.more {
            tokio::task::yield_now().await;
            return Ok(());
        }
        let due = match self.due {
            Some(due) => due,
            None => {
                self.fd.readable_mut().await?.clear_ready();
                let is_busy = self.last_bytes >= self.busy_bytes;
                let gather = if is_busy { Duration::ZERO } else { GATHER };
                *self.due.insert(Instant::now() + gather)
            }
        };
        if due > Instant::now() {
            sleep_until(due).await;
        }
        Ok(())
    }

    /// Passes on the records, oldest first, until the ring is empty or `most` were taken. Returns their
    /// number.
    pub fn drain(&mut self, most: usize, mut take: impl FnMut(&[u8])) -> usize {
        self.due = None;
        let ring = self.fd.get_mut();
        let (mut records, mut bytes) = (0, 0);
        while records < most
            && let Some(record) = ring.next()
        {
            take(&record);
            records += 1;
            bytes += record.len() + 8;
        }
        self.last_bytes = bytes;
        self.more = records == most;
        records
    }
}

/// The requested size, rounded up to a power of two and a multiple of the page size
/// (`ringbuf_map_alloc()`). `None`: too large.
pub fn usable_size(requested: u32) -> Option<u32> {
    // SAFETY: sysconf takes no pointer.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let page = u32::try_from(page).unwrap_or(4096);
    requested.max(page).checked_next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_up() {
        let page = usable_size(1).unwrap();
        assert!(page >= 4096 && page.is_power_of_two());
        assert_eq!(usable_size(page + 1), Some(2 * page));
        assert_eq!(usable_size(1 << 20), Some(1 << 20));
        assert_eq!(usable_size(u32::MAX), None);
    }
}
