//! Codes frames.

use std::mem::offset_of;

use synprobe_ebpf::event::{KIND_STATE, StateRecord};

use super::{
    super::{
        Frame,
        varint::{put_u64, zigzag},
    },
    AT, MAX_SLOT, MIN_SLOT, Mask, OP_DELTA, OP_MASK, OP_PLAIN, OP_WHOLE, PLAIN_OTHER, PLAIN_RECORD,
    SLOTS, TIME, TIME_WORD, WORDS, time_of,
};

/// Records of a slot after which its mask is cut back to the bytes that did change.
const MASK_LIFE: u32 = 128;

/// The last bytes of a record whose length is no multiple of 8, as a word.
fn tail(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

/// 0xff for each byte of `word` that is not zero.
fn spread(word: u64) -> u64 {
    const LOW7: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    // The top bit of each byte: was any bit of the byte set?
    let top = (((word & LOW7) + LOW7) | word) & !LOW7;
    (top >> 7) * 0xff
}

struct EncoderSlot {
    /// Of the record held; 0: none.
    len: usize,
    key: u64,
    record: [u8; MAX_SLOT],
    /// By word, 0xff for each byte that the mask names.
    named: [u64; WORDS],
    /// By word, bits that have changed since the mask was last cut back.
    changed: [u64; WORDS],
    mask: Mask,
    /// Records until the mask is cut back.
    life: u32,
}

impl EncoderSlot {
    const EMPTY: Self = Self {
        len: 0,
        key: 0,
        record: [0; MAX_SLOT],
        named: [0; WORDS],
        changed: [0; WORDS],
        mask: Mask::EMPTY,
        life: 0,
    };

    fn hold(&mut self, key: u64, record: &[u8]) {
        self.key = key;
        self.len = record.len();
        self.record[..record.len()].copy_from_slice(record);
        self.named = [0; WORDS];
        self.named[TIME_WORD] = u64::MAX;
        self.changed = [0; WORDS];
        self.mask.count = 0;
        self.life = MASK_LIFE;
    }

    /// Notes what `record` changes, then holds it; true: the mask has to be written.
    fn replace(&mut self, record: &[u8]) -> bool {
        let held = &mut self.record[..record.len()];
        let mut missing = 0;
        let ((words, end), (held_words, held_end)) =
            (record.as_chunks::<8>(), held.as_chunks_mut::<8>());
        let masks = self.named.iter().zip(&mut self.changed);
        for ((word, held), (named, changed)) in words.iter().zip(held_words).zip(masks) {
            let change = u64::from_le_bytes(*word) ^ u64::from_le_bytes(*held);
            missing |= change & !named;
            *changed |= change;
            *held = *word;
        }
        if !end.is_empty() {
            let change = tail(end) ^ tail(held_end);
            missing |= change & !self.named[words.len()];
            self.changed[words.len()] |= change;
            held_end.copy_from_slice(end);
        }
        self.life -= 1;
        let renewed = missing != 0 || self.life == 0;
        renewed && self.renew(record.len())
    }

    /// Makes the mask anew; false: it is what it was.
    #[cold]
    fn renew(&mut self, len: usize) -> bool {
        let expired = self.life == 0;
        let before = self.named;
        for (named, changed) in self.named.iter_mut().zip(&mut self.changed) {
            if expired {
                // Cut back to what changed of late.
                *named = spread(*changed);
                *changed = 0;
            } else {
                *named |= spread(*changed);
            }
        }
        // Never missing, never written.
        self.named[TIME_WORD] = u64::MAX;
        if expired {
            self.life = MASK_LIFE;
        }
        self.mask.count = 0;
        for offset in (0..len).filter(|offset| !TIME.contains(offset)) {
            if self.named[offset / 8] >> (offset % 8 * 8) & 1 != 0 {
                self.mask.push(offset);
            }
        }
        before != self.named
    }

    fn put_mask(&self, out: &mut Vec<u8>) {
        let named = self.named.iter().enumerate();
        let named = named.filter(|(index, named)| *index != TIME_WORD && **named != 0);
        put_u64(
            out,
            named
                .clone()
                .fold(0, |words, (index, _)| words | 1 << index),
        );
        for (_, named) in named {
            // A little-endian word: its lowest byte is the first of the record's.
            let byte = (0..8).fold(0, |byte, bit| {
                byte | ((named >> (bit * 8) & 1) as u8) << bit
            });
            out.push(byte);
        }
    }
}

/// Codes the frames of a block; [`FrameEncoder::take`] ends it.
pub(in crate::recording) struct FrameEncoder {
    slots: Box<[EncoderSlot]>,
    /// By pair of slots: which of the two was used last.
    recent: [usize; SLOTS / 2],
    out: Vec<u8>,
    /// Time of the previous frame.
    at_ns: u64,
    /// Time stamp of the previous record.
    ts_ns: u64,
}

/// What the records of a slot have in common. It only decides how small a block gets.
fn key_of(record: &[u8]) -> u64 {
    let kind = u16::from_ne_bytes([record[0], record[1]]);
    let mut key = u64::from(kind);
    if kind == KIND_STATE && record.len() == size_of::<StateRecord>() {
        const TGID: usize = offset_of!(StateRecord, tgid);
        let mut tgid = [0; 4];
        tgid.copy_from_slice(&record[TGID..TGID + 4]);
        key |= u64::from(record[offset_of!(StateRecord, old)]) << 16
            | u64::from(record[offset_of!(StateRecord, new)]) << 24
            | u64::from(u32::from_ne_bytes(tgid)) << 32;
    }
    key
}

impl FrameEncoder {
    pub(in crate::recording) fn new(capacity: usize) -> Self {
        Self {
            slots: (0..SLOTS).map(|_| EncoderSlot::EMPTY).collect(),
            recent: [0; SLOTS / 2],
            out: Vec::with_capacity(capacity),
            at_ns: 0,
            ts_ns: 0,
        }
    }

    /// Bytes coded so far in this block.
    pub(in crate::recording) fn coded(&self) -> &[u8] {
        &self.out
    }

    /// Begins a block whose first frame is of `at_ns`.
    pub(in crate::recording) fn begin(&mut self, at_ns: u64) {
        self.out.clear();
        for slot in &mut self.slots {
            slot.len = 0;
        }
        self.at_ns = at_ns;
        self.ts_ns = at_ns;
    }

    pub(in crate::recording) fn push(&mut self, at_ns: u64, frame: Frame<'_>) {
        match frame {
            Frame::Other(bytes) => self.plain(PLAIN_OTHER, at_ns, bytes),
            Frame::Record(record) if (MIN_SLOT..=MAX_SLOT).contains(&record.len()) => {
                self.record(at_ns, record);
            }
            Frame::Record(record) => self.plain(PLAIN_RECORD, at_ns, record),
        }
    }

    fn tag(&mut self, tag: u8, at_ns: u64) {
        if at_ns == self.at_ns {
            self.out.push(tag);
        } else {
            self.out.push(tag | AT);
            put_u64(&mut self.out, zigzag(at_ns.wrapping_sub(self.at_ns)));
            self.at_ns = at_ns;
        }
    }

    fn plain(&mut self, kind: u8, at_ns: u64, bytes: &[u8]) {
        self.tag(OP_PLAIN | kind, at_ns);
        put_u64(&mut self.out, bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    /// The slot for records of this key: one of a pair, the one used less lately where neither holds any.
    fn choose(&mut self, key: u64, len: usize) -> usize {
        let pair = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60) as usize;
        let slots = &self.slots[pair * 2..pair * 2 + 2];
        let holds = |slot: &EncoderSlot| slot.len == len && slot.key == key;
        let chosen = slots
            .iter()
            .position(holds)
            .unwrap_or(1 - self.recent[pair]);
        self.recent[pair] = chosen;
        pair * 2 + chosen
    }

    fn record(&mut self, at_ns: u64, record: &[u8]) {
        let key = key_of(record);
        let index = self.choose(key, record.len());
        // Below SLOTS = 32.
        let number = index as u8;
        let ts_ns = time_of(record);
        if self.slots[index].len != record.len() {
            self.tag(OP_WHOLE | number, at_ns);
            put_u64(&mut self.out, record.len() as u64);
            self.out.extend_from_slice(record);
            self.slots[index].hold(key, record);
            self.ts_ns = ts_ns;
            return;
        }
        let renewed = self.slots[index].replace(record);
        self.tag(if renewed { OP_MASK } else { OP_DELTA } | number, at_ns);
        put_u64(&mut self.out, zigzag(ts_ns.wrapping_sub(self.ts_ns)));
        self.ts_ns = ts_ns;
        let slot = &mut self.slots[index];
        if renewed {
            slot.put_mask(&mut self.out);
        }
        slot.key = key;
        let mut bytes = [0; MAX_SLOT];
        for (byte, offset) in bytes.iter_mut().zip(slot.mask.offsets()) {
            *byte = record[usize::from(*offset)];
        }
        self.out.extend_from_slice(&bytes[..slot.mask.count]);
    }
}
