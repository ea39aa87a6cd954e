//! Any bytes are read as a recording without a panic, within the stated bounds. A recording that was
//! written comes back byte for byte, and with bits flipped nothing comes back that was not written.
//!
//! The first byte chooses: 0 modulo 4, the rest is a recording; 2, it is one whose checksums are made to
//! hold; odd, it is frames and the bits to flip.

#![no_main]

use libfuzzer_sys::fuzz_target;
use synprobe::recording::{Frame, Item, MAX_FRAME, Reader, SegmentHeader, Writer};

fn read(bytes: &[u8]) -> Vec<(u64, bool, Vec<u8>)> {
    let mut frames = Vec::new();
    if let Ok((_, mut reader)) = Reader::open(bytes) {
        let mut items = 0;
        while let Some(item) = reader.next_item() {
            items += 1;
            // A frame takes a byte, a block at most 1 MiB of them.
            assert!(items <= 300 * bytes.len());
            if let Item::Frame { at_ns, frame } = item {
                assert!(frame.bytes().len() <= 2 * MAX_FRAME);
                if frames.len() < 10_000 {
                    let is_record = matches!(frame, Frame::Record(_));
                    frames.push((at_ns, is_record, frame.bytes().to_vec()));
                }
            }
        }
        let _ = reader.damage().to_string();
        assert_eq!(reader.is_complete(), reader.damage().is_none());
    }
    frames
}

/// Two bytes of length and kind, one of time, one that tells to close the block, then the frame.
fn write(mut data: &[u8]) -> (Vec<u8>, Vec<(u64, bool, Vec<u8>)>) {
    let header = SegmentHeader::new([1; 16], 0, vec![2; 20]);
    let mut writer = Writer::new(Vec::new(), &header).unwrap();
    let (mut at_ns, mut frames) = (0, Vec::new());
    while let Some(([low, high, later], rest)) = data.split_first_chunk() {
        let len = usize::from(u16::from_le_bytes([*low, *high & 1])).min(rest.len());
        let (bytes, rest) = rest.split_at(len);
        let is_record = high & 2 != 0;
        at_ns += u64::from(*later);
        let frame = if is_record {
            Frame::Record(bytes)
        } else {
            Frame::Other(bytes)
        };
        writer.push(at_ns, frame).unwrap();
        if high & 4 != 0 {
            writer.flush().unwrap();
        }
        frames.push((at_ns, is_record, bytes.to_vec()));
        data = rest;
    }
    (writer.finish().unwrap().0, frames)
}

/// Makes the checksums of every block hold, so that what is behind them is reached.
fn repaired(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    let mut start = 0;
    while let Some(block) = bytes.get_mut(start..)
        && let Some((prefix, payload)) = block.split_first_chunk_mut::<72>()
    {
        if !prefix.starts_with(b"\x93SYNREC\n") {
            start += 1;
            continue;
        }
        let stored = u32::from_le_bytes([prefix[20], prefix[21], prefix[22], prefix[23]]) as usize;
        let stored = stored.min(payload.len());
        let checksum = crc32fast::hash(&payload[..stored]).to_le_bytes();
        prefix[20..24].copy_from_slice(&(stored as u32).to_le_bytes());
        prefix[36..40].copy_from_slice(&checksum);
        let checksum = crc32fast::hash(&prefix[..68]).to_le_bytes();
        prefix[68..].copy_from_slice(&checksum);
        start += 72 + stored;
    }
    bytes
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    match choice % 4 {
        0 => return drop(read(data)),
        2 => return drop(read(&repaired(data))),
        _ => {}
    }
    let (flips, data) = data.split_at(data.len().min(usize::from(choice / 2 % 4) * 3));
    let (mut bytes, frames) = write(data);
    assert_eq!(read(&bytes), frames);
    // A whole block in a frame can be taken for one, once the block around it is damaged.
    if data.windows(8).any(|bytes| bytes == b"\x93SYNREC\n") {
        return;
    }
    for flip in flips.as_chunks::<3>().0 {
        let bit = u32::from_le_bytes([flip[0], flip[1], flip[2], 0]) as usize % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    let mut written = frames.iter();
    for frame in read(&bytes) {
        assert!(written.any(|written| *written == frame));
    }
});
