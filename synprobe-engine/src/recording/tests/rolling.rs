//! The bounds of a rolling recording, its restart, its lock, and a disk that is full.

use std::{
    ffi::{CStr, CString},
    os::unix::ffi::OsStrExt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{stream::Random, *};
use crate::recording::folder::segments;

const SECOND: u64 = 1_000_000_000;

/// A header whose times are now, so that ages by file time and by frame time agree.
pub(super) fn header_now(run: u8) -> SegmentHeader {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    SegmentHeader::new([run; 16], now.as_nanos() as i64, b"meta".to_vec())
}

/// An input that does not compress.
pub(super) fn noise(random: &mut Random, len: usize) -> Vec<u8> {
    (0..len).map(|_| random.below(256) as u8).collect()
}

fn occupied(folder: &Path) -> u64 {
    let sizes = segments(folder).unwrap();
    let sizes = sizes
        .iter()
        .map(|segment| fs::metadata(&segment.path).unwrap().len());
    sizes.map(|len| len.next_multiple_of(4096)).sum()
}

fn open(folder: &Path, keep: u64, max_size: u64, run: u8) -> Rolling {
    Rolling::open(folder, Duration::from_secs(keep), max_size, header_now(run)).unwrap()
}

/// Pushes a frame as a caller does, restating `state` where a segment begins.
pub(super) fn push(rolling: &mut Rolling, at_ns: u64, frame: &[u8], state: &[u8]) {
    if rolling.ensure_segment(at_ns).unwrap() {
        rolling.push(at_ns, Frame::Other(state)).unwrap();
    }
    rolling.push(at_ns, Frame::Other(frame)).unwrap();
}

/// The frames of a file.
pub(super) fn frames_in(path: &Path) -> (SegmentHeader, Seen) {
    read(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn age_is_bounded_and_every_segment_stands_alone() {
    let folder = TempFolder::new("age");
    let mut rolling = open(folder.root(), 30, 1 << 20, 1);
    for tick in 0..240 {
        let at_ns = tick * SECOND / 2;
        push(&mut rolling, at_ns, &tick.to_le_bytes(), b"state");
        rolling.flush(at_ns).unwrap();
    }
    let found = segments(folder.root()).unwrap();
    // Of two seconds each; the newest is open.
    assert!((15..=17).contains(&found.len()), "{}", found.len());
    let mut ticks = Vec::new();
    for (index, segment) in found.iter().enumerate() {
        let (header, seen) = frames_in(&segment.path);
        assert_eq!(
            (header.run_id, header.meta.as_slice()),
            ([1; 16], &b"meta"[..])
        );
        assert_eq!(seen.complete, index + 1 < found.len());
        let (state, frames) = seen.frames.split_first().unwrap();
        assert_eq!(state.parts().1, Frame::Other(b"state"));
        for frame in frames {
            ticks.push(u64::from_le_bytes(
                frame.parts().1.bytes().try_into().unwrap(),
            ));
        }
    }
    // The last half minute is there, and hardly more.
    assert!(
        (120 - 31..=120 - 30).contains(&(ticks[0] / 2)) || ticks[0] / 2 >= 87,
        "{}",
        ticks[0]
    );
    assert!(ticks[0] <= 239 - 60);
    assert!(ticks.iter().copied().eq(ticks[0]..240));
    assert_eq!(
        rolling.stats().deleted_segments + found.len() as u64,
        rolling.stats().segments
    );
}

#[test]
fn size_is_bounded_at_every_moment() {
    let folder = TempFolder::new("size");
    const MAX: u64 = 256 << 10;
    let mut rolling = open(folder.root(), 3600, MAX, 1);
    let mut random = Random(77);
    for tick in 0..3000 {
        // All in one second.
        push(&mut rolling, tick, &noise(&mut random, 1000), b"state");
        if tick % 10 == 0 {
            assert!(occupied(folder.root()) <= MAX);
        }
    }
    let stats = rolling.finish().unwrap();
    assert!(stats.folder_bytes <= MAX && stats.folder_bytes == occupied(folder.root()));
    assert!(stats.folder_bytes > MAX * 3 / 4);
    assert_eq!(
        (stats.written.lost_frames, stats.written.frames),
        (0, 3000 + stats.segments)
    );
}

#[test]
fn a_block_larger_than_the_bound_is_dropped_and_counted() {
    let folder = TempFolder::new("large");
    const MAX: u64 = 64 << 10;
    let mut rolling = open(folder.root(), 3600, MAX, 1);
    let mut random = Random(78);
    for tick in 0..4u64 {
        push(&mut rolling, tick, &noise(&mut random, 100_000), b"s");
        rolling.flush(tick).unwrap();
        push(&mut rolling, tick, b"small", b"s");
        rolling.flush(tick).unwrap();
        assert!(occupied(folder.root()) <= MAX);
    }
    let stats = rolling.finish().unwrap();
    assert_eq!(stats.written.lost_blocks, 4);
    let found = segments(folder.root()).unwrap();
    let (_, seen) = frames_in(&found.last().unwrap().path);
    assert!(seen.damage.dropped_frames >= 1, "{}", seen.damage);
}

#[test]
fn a_state_larger_than_a_segment_does_not_begin_one_for_each_frame() {
    let folder = TempFolder::new("state");
    let mut rolling = open(folder.root(), 3600, 256 << 10, 1);
    let mut random = Random(79);
    let state = noise(&mut random, 40_000);
    for tick in 0..400 {
        push(&mut rolling, tick, &noise(&mut random, 100), &state);
    }
    // 40,000 bytes of frames, 16 KiB a segment.
    assert!(rolling.stats().segments <= 4, "{:?}", rolling.stats());
}

#[test]
fn a_restart_keeps_the_segments_and_the_bounds() {
    let folder = TempFolder::new("restart");
    const MAX: u64 = 128 << 10;
    let mut random = Random(80);
    let mut rolling = open(folder.root(), 3600, MAX, 1);
    for tick in 0..60 {
        push(&mut rolling, tick, &noise(&mut random, 1000), b"s");
    }
    rolling.flush(60).unwrap();
    // Killed: no end mark.
    drop(rolling);
    let before = segments(folder.root()).unwrap();
    let mut rolling = open(folder.root(), 3600, MAX, 2);
    for tick in 0..60 {
        push(&mut rolling, tick, &noise(&mut random, 1000), b"s");
        assert!(occupied(folder.root()) <= MAX);
    }
    let after = segments(folder.root()).unwrap();
    assert!(after.contains(before.last().unwrap()) && !after.contains(&before[0]));
    let runs: Vec<u8> = after
        .iter()
        .map(|segment| frames_in(&segment.path).0.run_id[0])
        .collect();
    assert!(
        runs.is_sorted() && runs.contains(&1) && runs.contains(&2),
        "{runs:?}"
    );
    drop(rolling);

    // What is too old goes, whichever run wrote it; other files stay.
    fs::write(folder.path("incident.synrec"), "mine").unwrap();
    for segment in &after {
        let file = fs::File::options().write(true).open(&segment.path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(7200))
            .unwrap();
    }
    drop(open(folder.root(), 3600, MAX, 3));
    assert_eq!(segments(folder.root()).unwrap(), []);
    assert!(folder.path("incident.synrec").exists());
}

#[test]
fn names_sort_by_time_though_the_clock_goes_back() {
    let folder = TempFolder::new("clock");
    let mut rolling = open(folder.root(), 3600, 1 << 20, 1);
    let mut closed = Vec::new();
    for round in 0..3u64 {
        rolling.set_realtime_offset_ns(
            header_now(1).realtime_offset_ns - (round * 1000 * SECOND) as i64,
        );
        push(&mut rolling, round, b"x", b"s");
        closed.push(rolling.close_segment().unwrap().unwrap());
    }
    assert!(closed.is_sorted());
    assert_eq!(rolling.close_segment().unwrap(), None);
    let found = segments(folder.root()).unwrap();
    assert!(found.iter().map(|segment| &segment.path).eq(&closed));
    assert!(frames_in(&closed[2]).1.complete);
    let numbers = closed.iter().map(|path| frames_in(path).0.segment);
    assert!(numbers.eq(0..3));
}

#[test]
fn a_step_of_the_clock_makes_no_segment_older_or_younger() {
    let keep_s = 60;
    for step_s in [-7200i64, 7200] {
        let folder = TempFolder::new("step");
        let mut rolling = open(folder.root(), keep_s, 1 << 20, 1);
        let offset_ns = header_now(1).realtime_offset_ns;
        rolling.set_realtime_offset_ns(offset_ns);
        push(&mut rolling, SECOND, b"x", b"s");
        rolling.close_segment().unwrap();
        rolling.set_realtime_offset_ns(offset_ns + step_s * SECOND as i64);
        rolling.flush((keep_s - 1) * SECOND).unwrap();
        assert_eq!(segments(folder.root()).unwrap().len(), 1, "{step_s}");
        rolling.flush((keep_s + 2) * SECOND).unwrap();
        assert_eq!(segments(folder.root()).unwrap(), [], "{step_s}");
        push(&mut rolling, (keep_s + 3) * SECOND, b"x", b"s");
        let later = rolling.close_segment().unwrap().unwrap();
        assert_eq!(
            frames_in(&later).0.realtime_offset_ns,
            offset_ns + step_s * SECOND as i64
        );
    }
}

#[test]
fn a_second_recorder_and_bounds_that_are_too_small_are_refused() {
    let folder = TempFolder::new("refuse");
    let rolling = open(folder.root(), 60, 1 << 20, 1);
    let second = Rolling::open(folder.root(), Duration::from_secs(60), 1 << 20, header());
    let refused = second.err().unwrap().to_string();
    assert!(
        refused.contains(&format!("(pid {})", std::process::id())),
        "{refused}"
    );
    assert!(
        refused.ends_with(&folder.root().display().to_string()),
        "{refused}"
    );
    drop(rolling);
    let small = Rolling::open(folder.root(), Duration::from_secs(60), 1000, header());
    assert!(matches!(
        small.err(),
        Some(RollingError::TooSmall { least: 65_536, .. })
    ));
    let short = Rolling::open(folder.root(), Duration::from_millis(1), 1 << 20, header());
    assert!(matches!(short.err(), Some(RollingError::TooShort)));
    let file = folder.path("file");
    fs::write(&file, "").unwrap();
    let no_folder = Rolling::open(&file, Duration::from_secs(60), 1 << 20, header());
    assert!(
        no_folder
            .err()
            .unwrap()
            .to_string()
            .ends_with("is not a folder")
    );
}

#[test]
fn files_and_folder_are_closed_to_others() {
    use std::os::unix::fs::PermissionsExt;
    let folder = TempFolder::new("modes");
    let path = folder.path("new");
    let mut rolling = open(&path, 60, 1 << 20, 1);
    push(&mut rolling, 0, b"x", b"s");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for entry in fs::read_dir(&path).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
}

#[test]
fn when_no_segment_can_begin_frames_are_counted_and_it_is_tried_again() {
    let folder = TempFolder::new("gone");
    let path = folder.path("dir");
    let mut rolling = open(&path, 60, 1 << 20, 1);
    push(&mut rolling, 0, b"one", b"s");
    rolling.close_segment().unwrap();
    fs::rename(&path, folder.path("away")).unwrap();
    assert!(rolling.ensure_segment(10).is_err());
    for at_ns in 11..20 {
        assert!(!rolling.ensure_segment(at_ns).unwrap());
        rolling.push(at_ns, Frame::Other(b"lost")).unwrap();
    }
    assert_eq!(rolling.stats().written.lost_frames, 9);
    fs::rename(folder.path("away"), &path).unwrap();
    push(&mut rolling, 2 * SECOND, b"two", b"s");
    let last = rolling.close_segment().unwrap().unwrap();
    let (header, seen) = frames_in(&last);
    // A number is left out, so that what is missing between them shows in a cut, too.
    assert_eq!((header.segment, seen.damage.dropped_frames), (2, 9));
    super::super::cut(&path, None, &folder.path("out.synrec")).unwrap();
    let (_, seen) = frames_in(&folder.path("out.synrec"));
    assert_eq!(seen.damage.lost_segments, 1);
    assert_eq!(seen.gaps, [None]);
    assert!(!seen.segments[0].1);
}

/// Mounts a file system of `size` on `path`, seen by this thread alone, and gone with it.
fn mount_small(path: &Path, size: &CStr) {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let (none, tmpfs) = (std::ptr::null(), c"tmpfs".as_ptr());
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: every pointer is to a C string that lives long enough, or null where that is allowed.
    let results = unsafe {
        [
            libc::unshare(libc::CLONE_NEWNS),
            libc::mount(none, c"/".as_ptr(), none, private, none.cast()),
            libc::mount(tmpfs, path.as_ptr(), tmpfs, 0, size.as_ptr().cast()),
        ]
    };
    assert_eq!(results, [0; 3], "{}", std::io::Error::last_os_error());
}

#[test]
#[ignore = "needs root"]
fn on_a_full_disk_the_newest_frames_are_kept() {
    let folder = TempFolder::new("full");
    let path = folder.path("mount");
    fs::create_dir(&path).unwrap();
    let last = std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            mount_small(&path, c"size=400k");
            // The bound is larger than the disk.
            let mut rolling = open(&path, 3600, 1 << 20, 1);
            let mut random = Random(81);
            let mut errors = 0;
            for tick in 0..2000u64 {
                let at_ns = tick * SECOND / 100;
                errors += u64::from(rolling.ensure_segment(at_ns).is_err());
                let mut frame = noise(&mut random, 1000);
                frame[..8].copy_from_slice(&tick.to_le_bytes());
                errors += u64::from(rolling.push(at_ns, Frame::Other(&frame)).is_err());
            }
            errors += u64::from(rolling.flush(20 * SECOND).is_err());
            let stats = rolling.stats();
            assert!(stats.deleted_segments > 0, "{stats:?}");
            assert_eq!((errors, stats.written.lost_frames), (0, 0));
            // Now others fill it. What fails is counted, and the rest goes on.
            fs::write(path.join("foreign"), vec![0; 399 << 10]).unwrap_err();
            for tick in 2000..2200u64 {
                let at_ns = tick * SECOND / 100;
                let _ = rolling.ensure_segment(at_ns);
                let frame = noise(&mut random, 1000);
                let _ = rolling.push(at_ns, Frame::Other(&frame));
            }
            fs::remove_file(path.join("foreign")).unwrap();
            for tick in 2200..2500u64 {
                let mut frame = noise(&mut random, 1000);
                frame[..8].copy_from_slice(&tick.to_le_bytes());
                push(&mut rolling, tick * SECOND / 100, &frame, b"state of it");
            }
            rolling.flush(25 * SECOND).unwrap();
            drop(rolling);
            let out = folder.path("out.synrec");
            super::super::cut(&path, None, &out).unwrap();
            let (_, seen) = frames_in(&out);
            let ticks: Vec<u64> = seen
                .frames
                .iter()
                .map(|frame| u64::from_le_bytes(*frame.parts().1.bytes().first_chunk().unwrap()))
                .collect();
            *ticks.last().unwrap()
        });
        run.join().unwrap()
    });
    assert_eq!(last, 2499);
}
