//! Whatever happens to the bytes, what is in intact blocks is read.

use super::*;

/// Blocks of a few frames of all sorts.
fn groups() -> Vec<Vec<Owned>> {
    (0..4u64)
        .map(|group| {
            let at_ns = 1000 * (group + 1);
            let mut frames: Vec<Owned> = (0..4)
                .map(|i| {
                    let record = record(1, MAX_RECORD, at_ns + i, (group * i) as u8);
                    Owned::Record(at_ns + i, record)
                })
                .collect();
            frames.push(Owned::Other(at_ns + 9, vec![group as u8; 9]));
            frames
        })
        .collect()
}

/// The frames of the groups whose blocks are intact; the first two blocks are the header.
fn frames_of(groups: &[Vec<Owned>], intact: impl Fn(usize) -> bool) -> Vec<Owned> {
    let groups = groups.iter().enumerate();
    let intact = groups.filter(|(index, _)| intact(index + 2));
    intact.flat_map(|(_, frames)| frames.clone()).collect()
}

#[test]
fn a_recording_may_be_cut_off_at_any_byte() {
    let groups = groups();
    let (bytes, ends) = written(&groups);
    for len in 0..bytes.len() {
        let (read_header, seen) = match read(&bytes[..len]) {
            Ok(read) => read,
            Err(OpenError::NotARecording) if len < MARKER.len() => continue,
            Err(OpenError::NothingIntact) if len >= MARKER.len() && len < ends[0] => continue,
            Err(error) => panic!("{len}: {error}"),
        };
        assert_eq!(read_header, header());
        assert_eq!(
            seen.frames,
            frames_of(&groups, |block| ends[block] <= len),
            "{len}"
        );
        assert!(!seen.complete);
        assert_eq!(seen.damage.open_segments, 1);
        let whole = ends
            .iter()
            .rev()
            .find(|end| **end <= len)
            .copied()
            .unwrap_or(0);
        assert_eq!(seen.damage.skipped_bytes, (len - whole) as u64);
        let last = seen.frames.last().map(|frame| frame.parts().0);
        assert_eq!(seen.damage.whole_until_ns, last);
        let realtime = last.map(|at_ns| header().realtime_ns(at_ns));
        assert_eq!(seen.damage.whole_until_realtime_ns, realtime);
        assert_eq!(seen.gaps.last(), Some(&None));
    }
}

#[test]
fn any_bit_may_be_flipped() {
    let groups = groups();
    let (bytes, ends) = written(&groups);
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let damaged = ends.iter().position(|end| bit / 8 < *end).unwrap();
        let (read_header, seen) = read(&bytes).unwrap();
        assert_eq!(read_header, header());
        assert_eq!(
            seen.frames,
            frames_of(&groups, |block| block != damaged),
            "{bit}"
        );
        assert!(!seen.complete);
        let is_frames = (2..ends.len() - 1).contains(&damaged);
        let lost = if is_frames {
            groups[damaged - 2].len()
        } else {
            0
        };
        assert_eq!(seen.damage.lost_frames, lost as u64, "{bit}");
        // Without its end mark a segment only reads as cut off.
        let damage = &seen.damage;
        assert!(
            damage.lost_blocks == 1 || damage.open_segments == 1,
            "{bit}: {damage}"
        );
        assert_eq!(
            seen.damage.skipped_bytes,
            (ends[damaged] - damaged.checked_sub(1).map_or(0, |block| ends[block])) as u64
        );
    }
}

#[test]
fn a_part_in_the_middle_may_be_overwritten_cut_out_or_doubled() {
    let groups = groups();
    let (bytes, ends) = written(&groups);
    for (from, to) in [
        (ends[2] + 5, ends[3] + 7),
        (ends[1], ends[4]),
        (ends[2] - 1, ends[2] + 1),
    ] {
        let expected = frames_of(&groups, |block| {
            ends[block] <= from || ends[block - 1] >= to
        });
        let mut overwritten = bytes.clone();
        overwritten[from..to].fill(0xa5);
        let removed = [&bytes[..from], &bytes[to..]].concat();
        for damaged in [overwritten, removed] {
            let (_, seen) = read(&damaged).unwrap();
            assert_eq!(seen.frames, expected);
            let lost = groups.concat().len() - expected.len();
            assert_eq!(seen.damage.lost_frames, lost as u64);
            assert_eq!(seen.gaps, [Some(lost as u64)]);
        }
    }
    let doubled = [&bytes[..ends[3]], &bytes[ends[2]..]].concat();
    assert_eq!(read(&doubled).unwrap().1.frames, groups.concat());
}

#[test]
fn frames_of_a_segment_without_header_are_kept_apart() {
    let groups = groups();
    let (bytes, ends) = written(&groups);
    let (read_header, seen) = read(&bytes[ends[1]..]).unwrap();
    assert!(read_header.is_lost());
    assert_eq!(seen.frames, groups.concat());
    assert_eq!((seen.damage.lost_headers, seen.damage.lost_frames), (1, 0));

    let other = SegmentHeader::new([9; 16], 0, Vec::new());
    let (mut file, _) = Writer::new(Vec::new(), &other).unwrap().finish().unwrap();
    file.extend_from_slice(&bytes[ends[1]..]);
    let (read_header, seen) = read(&file).unwrap();
    assert_eq!(read_header, other);
    assert_eq!(seen.segments.len(), 1);
    assert!(seen.segments[0].0.is_lost() && !seen.segments[0].1);
    assert_eq!(seen.frames, groups.concat());
}

#[test]
fn a_block_that_is_torn_is_followed_by_others() {
    let groups = groups();
    let (bytes, ends) = written(&groups);
    // The last block but one was not written to its end; its length covers the start of the next.
    let torn = [&bytes[..ends[3] - 20], &bytes[ends[3]..]].concat();
    let (_, seen) = read(&torn).unwrap();
    assert_eq!(seen.frames, frames_of(&groups, |block| block != 3));
}

#[test]
fn prefixes_that_claim_much_do_not_make_reading_slow() {
    let (bytes, ends) = written(&groups());
    let prefix = Prefix {
        stored: MAX_BLOCK as u32,
        ..Prefix::decode(bytes[ends[1]..].first_chunk().unwrap()).unwrap()
    };
    let mut hostile = bytes[..ends[1]].to_vec();
    while hostile.len() < 8 << 20 {
        hostile.extend_from_slice(&prefix.encode());
    }
    let began = std::time::Instant::now();
    let (_, seen) = read(&hostile).unwrap();
    assert!(seen.frames.is_empty());
    // 116,000 claims of 1 MiB each: each checked on its own they would take minutes.
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
}

#[test]
fn a_reading_error_ends_a_recording_early() {
    struct Failing<'a>(&'a [u8]);
    impl std::io::Read for Failing<'_> {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            match self.0.read(out)? {
                0 => Err(std::io::Error::other("bad sector")),
                read => Ok(read),
            }
        }
    }
    let groups = groups();
    let (bytes, ends) = written(&groups);
    let (_, mut reader) = Reader::open(Failing(&bytes[..ends[3]])).unwrap();
    let mut frames = 0;
    while let Some(item) = reader.next_item() {
        frames += usize::from(matches!(item, Item::Frame { .. }));
    }
    assert_eq!(frames, groups[0].len() + groups[1].len());
    assert!(
        reader
            .damage()
            .to_string()
            .ends_with("reading failed: bad sector")
    );
    assert!(matches!(Reader::open(Failing(b"")), Err(OpenError::Io(_))));
}
