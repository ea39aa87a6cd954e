//! Reads coded frames back.

use super::{
    super::varint::{Cursor, Malformed, unzigzag},
    AT, LOW, MAX_SLOT, MIN_SLOT, Mask, OP_MASK, OP_PLAIN, OP_WHOLE, PLAIN_OTHER, PLAIN_RECORD,
    SLOTS, TIME, TIME_WORD, WORDS, time_of,
};

struct DecoderSlot {
    len: usize,
    record: [u8; MAX_SLOT],
    mask: Mask,
}

/// Where a decoded frame stands.
pub(in crate::recording) enum DecodedFrame {
    /// A record, in this slot: see [`FrameDecoder::record`].
    Slot(usize),
    /// A record, in the coded bytes.
    Record(std::ops::Range<usize>),
    /// An input of the caller's, in the coded bytes.
    Other(std::ops::Range<usize>),
    /// A frame type of a later minor version, in the coded bytes.
    Unknown(std::ops::Range<usize>),
}

/// Reads the frames of a block back.
pub(in crate::recording) struct FrameDecoder {
    slots: Box<[DecoderSlot]>,
    position: usize,
    at_ns: u64,
    ts_ns: u64,
}

impl FrameDecoder {
    pub(in crate::recording) fn new() -> Self {
        let empty = |_| DecoderSlot {
            len: 0,
            record: [0; MAX_SLOT],
            mask: Mask::EMPTY,
        };
        Self {
            slots: (0..SLOTS).map(empty).collect(),
            position: 0,
            at_ns: 0,
            ts_ns: 0,
        }
    }

    /// Begins a block whose first frame is of `at_ns`.
    pub(in crate::recording) fn begin(&mut self, at_ns: u64) {
        for slot in &mut self.slots {
            slot.len = 0;
        }
        self.position = 0;
        self.at_ns = at_ns;
        self.ts_ns = at_ns;
    }

    /// Time of the frame decoded last.
    pub(in crate::recording) fn at_ns(&self) -> u64 {
        self.at_ns
    }

    pub(in crate::recording) fn record(&self, slot: usize) -> &[u8] {
        let slot = &self.slots[slot];
        &slot.record[..slot.len]
    }

    /// The next frame of `block`, the same bytes at every call; `None` at its end.
    pub(in crate::recording) fn next(
        &mut self,
        block: &[u8],
    ) -> Result<Option<DecodedFrame>, Malformed> {
        if self.position == block.len() {
            return Ok(None);
        }
        let mut cursor = Cursor::new(&block[self.position..]);
        let tag = cursor.byte()?;
        if tag & AT != 0 {
            self.at_ns = self.at_ns.wrapping_add(unzigzag(cursor.u64()?));
        }
        let number = usize::from(tag & LOW);
        let op = tag & !(AT | LOW);
        let decoded = if op == OP_PLAIN {
            let len = cursor.len()?;
            cursor.bytes(len)?;
            let end = block.len() - cursor.rest().len();
            match tag & LOW {
                PLAIN_OTHER => DecodedFrame::Other(end - len..end),
                PLAIN_RECORD => DecodedFrame::Record(end - len..end),
                _ => DecodedFrame::Unknown(end - len..end),
            }
        } else {
            let slot = &mut self.slots[number];
            if op == OP_WHOLE {
                let len = cursor.len()?;
                if !(MIN_SLOT..=MAX_SLOT).contains(&len) {
                    return Err(Malformed);
                }
                slot.record[..len].copy_from_slice(cursor.bytes(len)?);
                slot.len = len;
                slot.mask.count = 0;
                self.ts_ns = time_of(&slot.record);
            } else {
                if slot.len == 0 {
                    return Err(Malformed);
                }
                self.ts_ns = self.ts_ns.wrapping_add(unzigzag(cursor.u64()?));
                if op == OP_MASK {
                    slot.read_mask(&mut cursor)?;
                }
                let bytes = cursor.bytes(slot.mask.count)?;
                for (byte, offset) in bytes.iter().zip(slot.mask.offsets()) {
                    slot.record[usize::from(*offset)] = *byte;
                }
                slot.record[TIME].copy_from_slice(&self.ts_ns.to_le_bytes());
            }
            DecodedFrame::Slot(number)
        };
        self.position = block.len() - cursor.rest().len();
        Ok(Some(decoded))
    }
}

impl DecoderSlot {
    fn read_mask(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Malformed> {
        let words = cursor.u64()?;
        self.mask.count = 0;
        if words >> self.len.div_ceil(8) != 0 || words & 1 << TIME_WORD != 0 {
            return Err(Malformed);
        }
        for word in (0..WORDS).filter(|word| words >> word & 1 != 0) {
            let bits = cursor.byte()?;
            for offset in (0..8)
                .filter(|bit| bits >> bit & 1 != 0)
                .map(|bit| word * 8 + bit)
            {
                if offset >= self.len {
                    return Err(Malformed);
                }
                self.mask.push(offset);
            }
        }
        Ok(())
    }
}
