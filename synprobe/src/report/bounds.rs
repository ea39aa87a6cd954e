//! What a report may remember: of a file without limit in practice, of the page of a service by its memory.

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportBounds {
    /// Handshakes whose retransmissions are remembered until their own line comes.
    pub(super) remembered: usize,
    /// Retransmissions of one handshake that are remembered.
    pub(super) sent: usize,
    /// Rows of one role and cause in the table.
    pub(super) rows: usize,
    /// Peers that are counted one by one, and networks.
    pub(super) peers: usize,
    /// Listening sockets whose queues are followed.
    pub(super) listeners: usize,
}

/// Those of a file.
impl Default for ReportBounds {
    fn default() -> Self {
        Self {
            remembered: 65_536,
            sent: 48,
            rows: 250,
            peers: 4096,
            listeners: 1024,
        }
    }
}

impl ReportBounds {
    /// Of a report that takes about `memory` bytes when all of it is full.
    pub fn within(memory: u64) -> Self {
        // Percent, and bytes an entry where each has as much as it may have.
        let share = |percent: u64, entry: u64| (memory * percent / 100 / entry).max(8) as usize;
        Self {
            // With 16 retransmissions.
            remembered: share(30, 1_600),
            sent: 16,
            // Of 30 roles and causes, which have twice as many rows until they are sorted.
            rows: share(30, 60 * 900).min(250),
            // A peer and a network, each with all intervals.
            peers: share(20, 8_400),
            listeners: share(15, 8_600),
        }
    }
}
