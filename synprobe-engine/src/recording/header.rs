//! What a segment says of itself.

use super::{
    MAJOR, MAX_META, MINOR,
    varint::{Cursor, Malformed},
};

/// The start of a recording, or of one segment of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Major version of the format.
    pub major: u16,
    /// Minor version of the format; may be later than [`MINOR`].
    pub minor: u16,
    /// Identifies the run that was recorded. Never all zero.
    pub run_id: [u8; 16],
    /// Number of the segment in its run, from 0.
    pub segment: u32,
    /// What to add to a time of this segment to get nanoseconds of CLOCK_REALTIME.
    pub realtime_offset_ns: i64,
    /// The caller's own description of the run, at most [`MAX_META`] bytes.
    pub meta: Vec<u8>,
}

impl SegmentHeader {
    /// The header of a run's first segment, in the version that is written.
    pub fn new(run_id: [u8; 16], realtime_offset_ns: i64, meta: Vec<u8>) -> Self {
        Self {
            major: MAJOR,
            minor: MINOR,
            run_id,
            segment: 0,
            realtime_offset_ns,
            meta,
        }
    }

    /// What stands for the header of a segment whose header is damaged.
    pub(super) fn lost(minor: u16) -> Self {
        Self {
            minor,
            ..Self::new([0; 16], 0, Vec::new())
        }
    }

    /// Is this only a substitute, because the segment's header is damaged?
    pub fn is_lost(&self) -> bool {
        self.run_id == [0; 16]
    }

    /// A time of this segment as nanoseconds since 1970.
    pub fn realtime_ns(&self, at_ns: u64) -> i64 {
        i64::try_from(at_ns)
            .unwrap_or(i64::MAX)
            .saturating_add(self.realtime_offset_ns)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + self.meta.len());
        out.extend_from_slice(&self.run_id);
        out.extend_from_slice(&self.segment.to_le_bytes());
        // The caller keeps to MAX_META.
        out.extend_from_slice(&(self.meta.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.realtime_offset_ns.to_le_bytes());
        out.extend_from_slice(&self.meta);
        out
    }

    /// What follows the meta is of a later minor version, and is ignored.
    pub(super) fn decode(minor: u16, payload: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(payload);
        let run_id = cursor.array()?;
        let segment = u32::from_le_bytes(cursor.array()?);
        let len = u32::from_le_bytes(cursor.array()?) as usize;
        let realtime_offset_ns = i64::from_le_bytes(cursor.array()?);
        if len > MAX_META {
            return Err(Malformed);
        }
        Ok(Self {
            major: MAJOR,
            minor,
            run_id,
            segment,
            realtime_offset_ns,
            meta: cursor.bytes(len)?.to_vec(),
        })
    }
}
