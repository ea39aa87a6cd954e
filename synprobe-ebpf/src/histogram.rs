//! Histograms of the duration of healthy handshakes, counted in the kernel: layout and shared arithmetic.

/// Slots selected by key, a power of two.
pub const SLOTS: u32 = 256;
/// Overflow slots after them, one for each role, in the order of the `ROLE_*` numbers.
pub const OTHERS: u32 = 2;
/// Slots that are tried for a key, from its first one on.
pub const PROBES: u32 = 8;
/// Four buckets for each doubling, from 1 µs to 33 s. The last one includes all longer times.
pub const BUCKETS: usize = 96;

/// One slot of one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// [`key()`]; 0: free, or one of the [`OTHERS`].
    pub key: u32,
    /// Zero.
    pub _pad: u32,
    /// Sum of their times, microseconds.
    pub sum_us: u64,
    /// Handshakes by [`bucket()`].
    pub counts: [u64; BUCKETS],
}

/// How long the connections of one port in one namespace waited for accept(): one slot of one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptHistogram {
    /// [`key()`] of the server's role and the port; 0: free, or all ports without a slot of their own.
    pub key: u32,
    /// Inode of the namespace.
    pub netns: u32,
    /// The waits together, microseconds.
    pub total_us: u64,
    /// Process (thread group) id of the last that accepted a connection after [`LONG_WAIT_US`]; 0: none.
    pub tgid: u64,
    /// Its `comm`, NUL-padded.
    pub comm: [u64; 2],
    /// Connections by [`bucket()`].
    pub counts: [u64; BUCKETS],
}

/// After a longer wait the process that accepted is recorded, microseconds.
pub const LONG_WAIT_US: u32 = 100_000;

/// The key of a role (`ROLE_CLIENT`, `ROLE_SERVER`) and a port; never 0.
#[inline(always)]
pub const fn key(role: u32, port: u16) -> u32 {
    (role << 16) | port as u32
}

/// The first slot of a key. Fibonacci hashing spreads neighbouring ports.
#[inline(always)]
pub const fn first_slot(key: u32) -> u32 {
    key.wrapping_mul(0x9e37_79b1) >> 24
}

const _: () = assert!(SLOTS == 1 << 8);

/// The bucket of a time in microseconds.
#[inline(always)]
pub const fn bucket(us: u32) -> usize {
    if us < 4 {
        return us as usize;
    }
    // The instruction set cannot count leading zeros.
    let (mut rest, mut log2) = (us, 0);
    let mut step = 16;
    while step > 0 {
        if rest >> step != 0 {
            rest >>= step;
            log2 += step;
        }
        step >>= 1;
    }
    let bucket = (log2 as usize - 1) * 4 + ((us >> (log2 - 2)) & 3) as usize;
    if bucket < BUCKETS {
        bucket
    } else {
        BUCKETS - 1
    }
}

/// The lower bound of a bucket, microseconds.
pub const fn from_us(bucket: usize) -> u32 {
    if bucket < 4 {
        return bucket as u32;
    }
    let log2 = bucket / 4 + 1;
    (4 + bucket as u32 % 4) << (log2 - 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_a_quarter_of_a_doubling_and_leave_no_gap() {
        for b in 0..BUCKETS {
            assert_eq!(bucket(from_us(b)), b);
            if b > 0 {
                assert_eq!(bucket(from_us(b) - 1), b - 1);
            }
        }
        assert_eq!(bucket(u32::MAX), BUCKETS - 1);
        assert_eq!(from_us(BUCKETS - 1), 7 << 22);
    }

    #[test]
    fn a_first_slot_is_a_slot() {
        assert!((0..=u16::MAX).all(|port| first_slot(key(1, port)) < SLOTS));
    }
}
