//! What a record costs: `cargo test --release -p synprobe --lib recording -- --ignored --nocapture`.

use super::{stream::handshakes, *};

/// Processor time of this thread, nanoseconds.
fn cpu_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one timespec.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The best of five.
fn best<T>(mut run: impl FnMut() -> T) -> (u64, T) {
    let mut runs = (0..5).map(|_| {
        let began = cpu_ns();
        let result = run();
        (cpu_ns() - began, result)
    });
    let first = runs.next().unwrap();
    runs.fold(first, |best, run| if run.0 < best.0 { run } else { best })
}

#[test]
#[ignore = "measures; needs --release"]
fn what_a_record_costs() {
    // Without optimising, only that it works.
    const COUNT: usize = if cfg!(debug_assertions) {
        20_000
    } else {
        1_000_000
    };
    const BATCH: usize = 16;
    for random_ports in [false, true] {
        let records = handshakes(COUNT, random_ports);
        // A batch is read from the ring at one time.
        let at_ns = |index: usize| {
            let last = (index / BATCH * BATCH + BATCH - 1).min(COUNT - 1);
            u64::from_le_bytes(records[last][8..16].try_into().unwrap()) + 3000
        };
        let (write_ns, (bytes, stats)) = best(|| {
            let mut writer = Writer::new(Vec::with_capacity(16 << 20), &header()).unwrap();
            for (index, record) in records.iter().enumerate() {
                writer.push(at_ns(index), Frame::Record(record)).unwrap();
            }
            writer.finish().unwrap()
        });
        let (read_ns, count) = best(|| {
            let (_, mut reader) = Reader::open(bytes.as_slice()).unwrap();
            let mut count = 0;
            while let Some(item) = reader.next_item() {
                count += usize::from(
                    matches!(item, Item::Frame { frame: Frame::Record(record), .. } if record == records[count]),
                );
            }
            assert!(reader.is_complete());
            count
        });
        assert_eq!(count, COUNT);
        let each = |total: u64| total as f64 / COUNT as f64;
        println!(
            "random ports {random_ports}: {:.2} bytes a record of {}, {} blocks; write {:.1} ns, read {:.1} ns ({:.1} million/s)",
            each(stats.written_bytes),
            stats.frame_bytes / COUNT as u64,
            stats.blocks,
            each(write_ns),
            each(read_ns),
            1000.0 / each(read_ns),
        );
        assert!(each(stats.written_bytes) <= 20.0);
    }
}

#[test]
fn a_handshake_is_small() {
    let records = handshakes(20_000, true);
    let mut writer = Writer::new(Vec::new(), &header()).unwrap();
    for record in &records {
        let at_ns = u64::from_le_bytes(record[8..16].try_into().unwrap());
        writer.push(at_ns, Frame::Record(record)).unwrap();
    }
    let (bytes, stats) = writer.finish().unwrap();
    assert!(stats.written_bytes <= 14 * 20_000, "{stats:?}");
    let (_, seen) = read(&bytes).unwrap();
    assert_eq!(seen.frames.len(), records.len());
}
