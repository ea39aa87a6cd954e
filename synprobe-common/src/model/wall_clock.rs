//! Wall-clock time of kernel time.

/// Where in wall-clock time CLOCK_MONOTONIC stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WallClock {
    /// CLOCK_REALTIME − CLOCK_MONOTONIC, nanoseconds.
    offset_ns: i128,
}

impl WallClock {
    /// From two readings of the same moment, nanoseconds.
    pub fn new(realtime_ns: i128, monotonic_ns: u64) -> Self {
        Self::from_offset(realtime_ns - i128::from(monotonic_ns))
    }

    /// From CLOCK_REALTIME − CLOCK_MONOTONIC, nanoseconds.
    pub fn from_offset(offset_ns: i128) -> Self {
        Self { offset_ns }
    }

    /// CLOCK_REALTIME − CLOCK_MONOTONIC, nanoseconds.
    pub fn offset_ns(self) -> i128 {
        self.offset_ns
    }

    /// CLOCK_REALTIME at a moment of CLOCK_MONOTONIC, nanoseconds since 1970.
    pub fn realtime_ns(self, mono_ns: u64) -> i128 {
        i128::from(mono_ns) + self.offset_ns
    }
}
