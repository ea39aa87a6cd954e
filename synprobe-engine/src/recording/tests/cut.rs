//! Joining segments, while a recorder writes, of several runs, damaged ones.

use std::{sync::atomic::AtomicBool, thread, time::Duration};

use super::{
    rolling::{frames_in, header_now, noise, push},
    stream::Random,
    *,
};
use crate::recording::folder::segments;

const SECOND: u64 = 1_000_000_000;

fn recorder(folder: &Path, run: u8) -> Rolling {
    Rolling::open(folder, Duration::from_secs(150), 1 << 20, header_now(run)).unwrap()
}

/// A frame a second; segments of ten.
fn record_seconds(rolling: &mut Rolling, seconds: std::ops::Range<u64>) {
    for second in seconds {
        push(rolling, second * SECOND, &second.to_le_bytes(), b"s");
        rolling.flush(second * SECOND).unwrap();
    }
}

fn seconds(seen: &Seen) -> Vec<u64> {
    let bytes = seen.frames.iter().map(|frame| frame.parts().1.bytes());
    bytes
        .filter_map(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)))
        .collect()
}

#[test]
fn all_segments_of_a_run_continue_each_other() {
    let folder = TempFolder::new("cut-all");
    let out = folder.path("out.synrec");
    let mut rolling = recorder(&folder.path("dir"), 1);
    record_seconds(&mut rolling, 0..45);
    let report = cut(&folder.path("dir"), None, &out).unwrap();
    let (header, seen) = frames_in(&out);
    assert_eq!(header.segment, 0);
    assert!(seconds(&seen).into_iter().eq(0..45));
    let numbers: Vec<_> = seen
        .segments
        .iter()
        .map(|(header, continues)| (header.segment, *continues))
        .collect();
    assert_eq!(numbers, [(1, true), (2, true), (3, true), (4, true)]);
    // The recorder goes on, but this is all of it up to now.
    assert!(seen.complete, "{}", seen.damage);
    assert_eq!(
        (report.segments, report.frames, report.damaged_segments),
        (5, 50, 0)
    );
    assert_eq!(report.bytes, fs::metadata(&out).unwrap().len());
    let length_ns = report.last_realtime_ns.unwrap() - report.first_realtime_ns.unwrap();
    assert_eq!(length_ns as u64, 44 * SECOND);
}

#[test]
fn the_last_part_begins_with_a_segment() {
    let folder = TempFolder::new("cut-last");
    let out = folder.path("out.synrec");
    let mut rolling = recorder(&folder.path("dir"), 1);
    record_seconds(&mut rolling, 0..100);
    for (last, first) in [(0, 90), (9, 90), (10, 80), (25, 70), (1000, 0)] {
        let last = Duration::from_secs(last);
        cut(&folder.path("dir"), Some(last), &out).unwrap();
        let (_, seen) = frames_in(&out);
        assert!(seconds(&seen).into_iter().eq(first..100), "{last:?}");
        assert_eq!(seen.frames[0].parts().1, Frame::Other(b"s"));
        assert!(seen.complete);
    }
}

#[test]
fn runs_are_kept_apart() {
    let folder = TempFolder::new("cut-runs");
    let out = folder.path("out.synrec");
    let mut rolling = recorder(&folder.path("dir"), 1);
    record_seconds(&mut rolling, 0..5);
    // Killed.
    drop(rolling);
    let mut rolling = recorder(&folder.path("dir"), 2);
    record_seconds(&mut rolling, 3..6);
    rolling.finish().unwrap();
    let report = cut(&folder.path("dir"), None, &out).unwrap();
    let (header, seen) = frames_in(&out);
    assert_eq!((header.run_id[0], seen.segments[0].0.run_id[0]), (1, 2));
    assert!(!seen.segments[0].1);
    assert_eq!(seconds(&seen), [0, 1, 2, 3, 4, 3, 4, 5]);
    assert_eq!((seen.damage.open_segments, report.damaged_segments), (1, 1));
}

#[test]
fn damaged_segments_give_their_intact_blocks() {
    let folder = TempFolder::new("cut-damage");
    let (dir, out) = (folder.path("dir"), folder.path("out.synrec"));
    let mut rolling = recorder(&dir, 1);
    record_seconds(&mut rolling, 0..30);
    rolling.finish().unwrap();
    let found = segments(&dir).unwrap();
    let mut bytes = fs::read(&found[1].path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&found[1].path, bytes).unwrap();
    fs::write(&found[2].path, b"\x93SYNREC\n\x01\x00 then nothing").unwrap();
    let report = cut(&dir, None, &out).unwrap();
    assert_eq!((report.segments, report.damaged_segments), (2, 2));
    assert!(report.skipped_bytes > 0);
    let (_, seen) = frames_in(&out);
    assert_eq!(seconds(&seen).len(), 19);
    assert_eq!((seen.damage.lost_blocks, seen.damage.lost_frames), (1, 1));
}

#[test]
fn what_cannot_be_cut_is_said() {
    let folder = TempFolder::new("cut-refused");
    let (dir, out) = (folder.path("dir"), folder.path("out.synrec"));
    assert!(matches!(cut(&dir, None, &out), Err(CutError::Folder(_))));
    drop(recorder(&dir, 1));
    let empty = cut(&dir, None, &out).unwrap_err();
    assert!(empty.to_string().ends_with("holds no recording"), "{empty}");
    let mut rolling = recorder(&dir, 1);
    record_seconds(&mut rolling, 0..2);
    rolling.finish().unwrap();
    let segment = segments(&dir).unwrap()[0].path.clone();
    let before = fs::read(&segment).unwrap();
    assert!(matches!(
        cut(&dir, None, &segment),
        Err(CutError::OutputIsSegment(_))
    ));
    assert_eq!(fs::read(&segment).unwrap(), before);
    let mut newer = before;
    newer.truncate(PREFIX_LEN);
    newer[8] = 2;
    fs::write(&segment, newer).unwrap();
    let refused = cut(&dir, None, &out).unwrap_err();
    assert!(matches!(
        refused,
        CutError::Segment {
            source: OpenError::Newer { major: 2 },
            ..
        }
    ));
}

#[test]
fn a_cut_while_the_recorder_writes_is_complete() {
    let folder = TempFolder::new("cut-live");
    let dir = folder.path("dir");
    let mut rolling =
        Rolling::open(&dir, Duration::from_secs(3600), 256 << 10, header_now(1)).unwrap();
    push(&mut rolling, 0, &0u64.to_le_bytes(), b"s");
    rolling.flush(0).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random(5);
            for at_ns in 1.. {
                push(&mut rolling, at_ns, &at_ns.to_le_bytes(), b"s");
                push(&mut rolling, at_ns, &noise(&mut random, 500), b"s");
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        // Also when an assertion fails: the scope waits for the writer.
        let _stop = StopsOnDrop(&stop);
        for round in 0..30 {
            let out = folder.path(&format!("out-{round}.synrec"));
            cut(&dir, None, &out).unwrap();
            let (_, seen) = frames_in(&out);
            let seconds = seconds(&seen);
            let first = seconds[0];
            assert!(
                seconds
                    .iter()
                    .copied()
                    .eq(first..first + seconds.len() as u64)
            );
            assert!(seen.complete, "{}", seen.damage);
        }
    });
}

struct StopsOnDrop<'a>(&'a AtomicBool);

impl Drop for StopsOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
