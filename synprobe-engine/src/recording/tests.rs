//! The format as a whole: what is written is read back, damaged or not.

mod cut;
mod damage;
mod rolling;
mod speed;
mod stream;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use synprobe_ebpf::event::MAX_RECORD;

use super::{
    block::{EndMark, KIND_FRAMES, MARKER, PREFIX_LEN, Prefix},
    *,
};

/// A folder that is deleted at the end.
pub(super) struct TempFolder(PathBuf);

impl TempFolder {
    pub(super) fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("synrec-{name}-{}-{count}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(super) fn root(&self) -> &Path {
        &self.0
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A frame with its time, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owned {
    Record(u64, Vec<u8>),
    Other(u64, Vec<u8>),
}

impl Owned {
    fn new(at_ns: u64, frame: Frame<'_>) -> Self {
        match frame {
            Frame::Record(bytes) => Self::Record(at_ns, bytes.to_vec()),
            Frame::Other(bytes) => Self::Other(at_ns, bytes.to_vec()),
        }
    }

    fn parts(&self) -> (u64, Frame<'_>) {
        match self {
            Self::Record(at_ns, bytes) => (*at_ns, Frame::Record(bytes)),
            Self::Other(at_ns, bytes) => (*at_ns, Frame::Other(bytes)),
        }
    }
}

fn header() -> SegmentHeader {
    SegmentHeader::new(
        [7; 16],
        1_700_000_000_000_000_000,
        b"meta of a run".to_vec(),
    )
}

/// A recording with one block for each group of frames, and where each of its blocks ends.
fn written(groups: &[Vec<Owned>]) -> (Vec<u8>, Vec<usize>) {
    let mut writer = Writer::new(Vec::new(), &header()).unwrap();
    let mut ends = vec![writer.get_ref().len() / 2, writer.get_ref().len()];
    for frame in groups {
        for (at_ns, frame) in frame.iter().map(Owned::parts) {
            writer.push(at_ns, frame).unwrap();
        }
        writer.flush().unwrap();
        ends.push(writer.get_ref().len());
    }
    let (bytes, stats) = writer.finish().unwrap();
    assert_eq!(stats.written_bytes, bytes.len() as u64);
    assert_eq!(
        stats.frames as usize,
        groups.iter().map(Vec::len).sum::<usize>()
    );
    ends.push(bytes.len());
    (bytes, ends)
}

/// What a reader gives.
#[derive(Debug, Default)]
struct Seen {
    frames: Vec<Owned>,
    segments: Vec<(SegmentHeader, bool)>,
    gaps: Vec<Option<u64>>,
    damage: Damage,
    complete: bool,
}

fn read(bytes: &[u8]) -> Result<(SegmentHeader, Seen), OpenError> {
    let (header, mut reader) = Reader::open(bytes)?;
    let mut seen = Seen::default();
    while let Some(item) = reader.next_item() {
        match item {
            Item::Frame { at_ns, frame } => seen.frames.push(Owned::new(at_ns, frame)),
            Item::Segment { header, continues } => seen.segments.push((header, continues)),
            Item::Gap { frames, .. } => seen.gaps.push(frames),
        }
    }
    seen.complete = reader.is_complete();
    seen.damage = reader.into_damage();
    Ok((header, seen))
}

fn record(kind: u16, len: usize, ts_ns: u64, fill: u8) -> Vec<u8> {
    let mut bytes = vec![fill; len];
    for (place, byte) in bytes.iter_mut().zip(kind.to_le_bytes()) {
        *place = byte;
    }
    if let Some(place) = bytes.get_mut(8..16) {
        place.copy_from_slice(&ts_ns.to_le_bytes());
    }
    bytes
}

/// Every kind of record, kinds that do not exist, lengths that none has, and inputs.
fn all_sorts() -> Vec<Owned> {
    let mut frames = Vec::new();
    for round in 0..300u64 {
        for (kind, len) in [
            (1, MAX_RECORD),
            (2, 120),
            (3, 120),
            (4, 80),
            (5, 88),
            (6, 120),
            (7, 112),
        ] {
            let at_ns = 1_000_000 + round * 1000;
            let ts_ns = at_ns - 10 * u64::from(kind);
            let mut bytes = record(kind, len, ts_ns, (round / 100) as u8);
            bytes[20 + round as usize % 50] ^= round as u8;
            frames.push(Owned::Record(at_ns, bytes));
        }
    }
    for len in (0..40).chain([255, 256, 257, 300, 70_000, MAX_FRAME]) {
        for fill in [0, 1] {
            frames.push(Owned::Record(
                2_000_000,
                record(99, len, u64::MAX - len as u64, fill),
            ));
            frames.push(Owned::Other(2_000_000 + len as u64, vec![fill; len]));
        }
    }
    // Times that go back, and the extremes.
    for at_ns in [5, u64::MAX, 0, 1 << 63, 7] {
        frames.push(Owned::Record(at_ns, record(1, MAX_RECORD, at_ns ^ 1, 3)));
    }
    frames
}

#[test]
fn every_frame_comes_back_byte_for_byte() {
    let frames = all_sorts();
    let (bytes, _) = written(std::slice::from_ref(&frames));
    let (read_header, seen) = read(&bytes).unwrap();
    assert_eq!(read_header, header());
    assert_eq!(seen.frames.len(), frames.len());
    assert!(seen.frames == frames);
    assert!(seen.complete && seen.damage.is_none(), "{:?}", seen.damage);
    assert_eq!((seen.segments.len(), seen.gaps.len()), (0, 0));
    assert_eq!(seen.damage.to_string(), "the recording is complete");
}

#[test]
fn a_frame_or_header_that_is_too_long_is_refused() {
    let mut writer = Writer::new(Vec::new(), &header()).unwrap();
    let frame = vec![0; MAX_FRAME + 1];
    let refused = writer.push(0, Frame::Other(&frame));
    assert!(matches!(refused, Err(WriteError::FrameTooLong { len }) if len == MAX_FRAME + 1));
    let long = SegmentHeader::new([1; 16], 0, vec![0; MAX_META + 1]);
    assert!(matches!(
        Writer::new(Vec::new(), &long),
        Err(WriteError::MetaTooLong { .. })
    ));
    let most = SegmentHeader::new(
        [1; 16],
        0,
        (0..MAX_META).map(|i| (i * i / 7) as u8).collect(),
    );
    let (bytes, _) = Writer::new(Vec::new(), &most).unwrap().finish().unwrap();
    assert_eq!(read(&bytes).unwrap().0, most);
}

#[test]
fn a_block_is_shared_between_two_recordings() {
    let frames = all_sorts();
    let mut encoder = BlockEncoder::default();
    let mut writers = [(); 2].map(|()| Writer::new(Vec::new(), &header()).unwrap());
    for (at_ns, frame) in frames.iter().map(Owned::parts) {
        if let Some(block) = encoder.push(at_ns, frame).unwrap() {
            for writer in &mut writers {
                writer.write_block(&block).unwrap();
            }
        }
    }
    let last = encoder.finish().unwrap();
    for mut writer in writers {
        writer.write_block(&last.clone()).unwrap();
        assert!(read(&writer.finish().unwrap().0).unwrap().1.frames == frames);
    }
}

/// Changes a block in place, and makes its checksums hold again.
fn rewrite(bytes: &mut [u8], change: impl FnOnce(&mut [u8])) {
    change(bytes);
    let (payload, stored) = {
        let stored = u32::from_le_bytes(bytes[20..24].try_into().unwrap()) as usize;
        (
            crc32fast::hash(&bytes[PREFIX_LEN..PREFIX_LEN + stored]),
            stored,
        )
    };
    assert!(stored > 0);
    bytes[36..40].copy_from_slice(&payload.to_le_bytes());
    let prefix = crc32fast::hash(&bytes[..PREFIX_LEN - 4]);
    bytes[PREFIX_LEN - 4..PREFIX_LEN].copy_from_slice(&prefix.to_le_bytes());
}

fn two_frames() -> Vec<Vec<Owned>> {
    vec![
        vec![Owned::Other(5, b"first".to_vec())],
        vec![Owned::Other(6, b"second".to_vec())],
    ]
}

#[test]
fn a_later_minor_version_is_read() {
    let (mut bytes, ends) = written(&two_frames());
    for start in [0]
        .into_iter()
        .chain(ends[..ends.len() - 1].iter().copied())
    {
        rewrite(&mut bytes[start..], |block| {
            block[10..12].copy_from_slice(&(MINOR + 3).to_le_bytes());
            // Reserved today.
            block[14] = 1;
            block[64] = 1;
        });
    }
    // A block of a kind that only a later version knows.
    let unknown = Prefix {
        kind: 77,
        sequence: 4,
        first_frame: 2,
        first_ns: 6,
        ..Prefix::decode(bytes[ends[1]..].first_chunk().unwrap()).unwrap()
    };
    let mut unknown = [
        unknown.encode().as_slice(),
        &bytes[ends[1] + PREFIX_LEN..ends[2]],
    ]
    .concat();
    rewrite(&mut unknown, |block| block[28..32].fill(0));
    let end = ends[ends.len() - 2];
    rewrite(&mut bytes[end..], |block| {
        block[32..36].copy_from_slice(&5u32.to_le_bytes())
    });
    bytes.splice(end..end, unknown);

    let (header, seen) = read(&bytes).unwrap();
    assert_eq!((header.major, header.minor), (MAJOR, MINOR + 3));
    assert_eq!(seen.frames, two_frames().concat());
    assert!(seen.complete, "{}", seen.damage);
}

#[test]
fn a_frame_type_of_a_later_minor_version_is_skipped() {
    let mut coded = Vec::new();
    coded.extend_from_slice(&[0xc0, 2, b'o', b'k']);
    coded.extend_from_slice(&[0xc9, 3, 1, 2, 3]);
    coded.extend_from_slice(&[0xe0, 4, 1, b'!']);
    let (bytes, ends) = written(&two_frames());
    let prefix = Prefix {
        stored: coded.len() as u32,
        raw: coded.len() as u32,
        frames: 3,
        codec: block::CODEC_NONE,
        ..Prefix::decode(bytes[ends[1]..].first_chunk().unwrap()).unwrap()
    };
    let mut block = [prefix.encode().as_slice(), &coded].concat();
    rewrite(&mut block, |_| ());
    let (_, seen) = read(&[&bytes[..ends[1]], &block].concat()).unwrap();
    let expected = [
        Owned::Other(5, b"ok".to_vec()),
        Owned::Other(7, b"!".to_vec()),
    ];
    assert_eq!(seen.frames, expected);
    assert_eq!((seen.damage.lost_blocks, seen.damage.open_segments), (0, 1));
}

#[test]
fn a_later_major_version_is_refused() {
    let (mut bytes, ends) = written(&two_frames());
    for start in [0]
        .into_iter()
        .chain(ends[..ends.len() - 1].iter().copied())
    {
        rewrite(&mut bytes[start..], |block| {
            block[8..10].copy_from_slice(&2u16.to_le_bytes())
        });
    }
    let refused = read(&bytes).unwrap_err();
    assert!(matches!(refused, OpenError::Newer { major: 2 }));
    assert_eq!(
        refused.to_string(),
        "a recording of format version 2: this synprobe reads version 1"
    );
    // Of a later version nothing but the first ten bytes is known.
    assert!(matches!(
        read(&bytes[..10]),
        Err(OpenError::Newer { major: 2 })
    ));
}

#[test]
fn what_is_no_recording_is_refused() {
    for bytes in [&b""[..], b"PK\x03\x04", &[0; 100_000], &MARKER[..7]] {
        let refused = read(bytes).unwrap_err();
        assert!(matches!(refused, OpenError::NotARecording), "{refused}");
    }
    assert!(matches!(read(&MARKER), Err(OpenError::NothingIntact)));
    // An input without an end is given up.
    assert!(matches!(
        Reader::open(std::io::repeat(1)),
        Err(OpenError::NotARecording)
    ));
}

#[test]
fn two_recordings_follow_each_other_in_one_file() {
    let (first, _) = written(&two_frames());
    let other = SegmentHeader::new([8; 16], 5, Vec::new());
    let mut writer = Writer::new(first.clone(), &other).unwrap();
    writer.push(1, Frame::Other(b"third")).unwrap();
    let (bytes, _) = writer.finish().unwrap();
    let (_, seen) = read(&bytes).unwrap();
    assert_eq!(seen.segments, [(other, false)]);
    assert_eq!(seen.frames.len(), 3);
    assert!(seen.complete, "{}", seen.damage);
}

#[test]
fn an_end_mark_says_how_many_frames_were_dropped() {
    let mark = EndMark { dropped_frames: 9 };
    assert_eq!(EndMark::decode(&mark.encode()), Ok(mark));
    assert_eq!(KIND_FRAMES, 2);
}

/// Takes part of what it is given, then is full.
struct Small(Vec<u8>, usize);

impl std::io::Write for Small {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let len = bytes
            .len()
            .min(self.1.saturating_sub(self.0.len()))
            .min(100);
        if len == 0 {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.0.extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_loses_blocks_and_nothing_else() {
    let blocks: Vec<Owned> = (0..6u8)
        .map(|i| {
            Owned::Other(
                u64::from(i),
                (0..200u8).map(|j| j.wrapping_mul(i + 3)).collect(),
            )
        })
        .collect();
    let mut writer = Writer::new(Small(Vec::new(), 1000), &header()).unwrap();
    let mut failed = 0;
    for (index, (at_ns, frame)) in blocks.iter().map(Owned::parts).enumerate() {
        if index == 5 {
            writer.get_mut().1 = 10_000;
        }
        writer.push(at_ns, frame).unwrap();
        failed += u64::from(writer.flush().is_err());
    }
    assert!(failed > 0);
    assert_eq!(writer.stats().lost_frames, failed);
    let (out, _) = writer.finish().unwrap();
    let (_, seen) = read(&out.0).unwrap();
    assert_eq!(seen.frames.len() as u64, 6 - failed);
    assert_eq!(seen.frames.last(), blocks.last());
    assert_eq!(seen.damage.lost_frames, failed);
    assert_eq!(seen.damage.dropped_frames, failed);
    assert_eq!(seen.gaps, [Some(failed)]);
}
