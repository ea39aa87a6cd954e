//! Section: recordings and their replay, beside the targets.

use std::fmt::{self, Write};

use serde::Serialize;

use super::{Spread, mib};

/// Bytes a handshake, at most.
const BYTES_PER_HANDSHAKE: f64 = 40.0;
/// Agent CPU with a recording, as a multiple of that without, at most.
const CPU_RATIO: f64 = 1.15;
/// Records replayed a second, at least.
const REPLAY_RATE: f64 = 1e6;

/// What recordings cost, and how fast they are replayed.
#[derive(Serialize)]
pub struct RecordingCost {
    /// `watch --record` beside `watch`, lines to /dev/null.
    pub with: PairedCost,
    /// `record --output` beside the same.
    pub alone: PairedCost,
    /// `watch --record` at the highest rate.
    pub loss: RecordedLoss,
    /// `watch --replay`, JSON to /dev/null.
    pub watch: ReplaySpeed,
    /// `diagnose --replay`, which writes one page.
    pub diagnose: ReplaySpeed,
    /// The quiet mode with and without a recording.
    pub quiet: QuietRecording,
}

/// The agent with and without a recording, in alternating turns on one load.
#[derive(Serialize)]
pub struct PairedCost {
    /// CPU time per record without a recording, nanoseconds; median.
    pub without_ns_per_record: f64,
    /// CPU time per record with a recording, nanoseconds; median.
    pub with_ns_per_record: f64,
    /// CPU time per connection, with / without, turn by turn.
    pub ratio: Spread,
    /// Size of the recording per handshake; a connection has two. Median of the turns.
    pub bytes_per_handshake: f64,
    /// Size of the recording per record. Median of the turns.
    pub bytes_per_record: f64,
    /// Records and inputs lost in all turns that recorded.
    pub lost: u64,
}

/// The agent at the highest rate while it records and writes JSON to a file.
#[derive(Serialize)]
pub struct RecordedLoss {
    /// Duration, seconds.
    pub seconds: f64,
    /// Connections per second.
    pub connections_per_second: f64,
    /// Records that the agent read.
    pub records: u64,
    /// Records that the agent lost; must be 0.
    pub lost: u64,
    /// The agent's `lost` lines.
    pub reasons: Vec<String>,
    /// Records that the agent read and the recording does not have; must be 0.
    pub missing: u64,
    /// `handshake` lines.
    pub handshakes: u64,
    /// Size of the recording, bytes.
    pub bytes: u64,
    /// VmHWM of the agent, bytes.
    pub peak_bytes: u64,
}

/// How fast a recording is replayed: medians.
#[derive(Serialize)]
pub struct ReplaySpeed {
    /// Records per second of wall-clock time, start and end of the process included.
    pub records_per_second: f64,
    /// CPU time per record, nanoseconds.
    pub cpu_ns_per_record: f64,
}

/// The quiet mode on the same load, with and without a recording: medians.
#[derive(Serialize)]
pub struct QuietRecording {
    /// Cores busy without a recording.
    pub without_cores: f64,
    /// Cores busy with one.
    pub with_cores: f64,
    /// Size of a recording, bytes.
    pub bytes: f64,
    /// Length of a recording, seconds.
    pub seconds: f64,
    /// Handshakes that a recording counts.
    pub handshakes: f64,
}

pub(super) fn write(out: &mut String, recording: &RecordingCost) -> fmt::Result {
    let (with, alone, loss) = (&recording.with, &recording.alone, &recording.loss);
    writeln!(
        out,
        "\nRecordings; lines to /dev/null, in turns on one load"
    )?;
    let long = loss.bytes as f64 / loss.handshakes as f64;
    writeln!(
        out,
        "  size                  {:>8.1} bytes a handshake, {:.1} a record; {long:.1} over {:.0} s{}",
        with.bytes_per_handshake,
        with.bytes_per_record,
        loss.seconds,
        target("at most 40", long <= BYTES_PER_HANDSHAKE),
    )?;
    writeln!(
        out,
        "  watch --record        {:>8.0} ns of CPU a record, {:.0} without: {}{}",
        with.with_ns_per_record,
        with.without_ns_per_record,
        spread(&with.ratio),
        target("at most 1.15", with.ratio.median <= CPU_RATIO),
    )?;
    writeln!(
        out,
        "  record --output       {:>8.0} ns of CPU a record: {} of watch",
        alone.with_ns_per_record,
        spread(&alone.ratio),
    )?;
    writeln!(out, "  lost in these turns   {:>8}", with.lost + alone.lost)?;
    writeln!(
        out,
        "  the highest rate      {:>8.0} connections a second for {:.0} s, JSON to a file: {} records, {} lost, {} not recorded{}",
        loss.connections_per_second,
        loss.seconds,
        loss.records,
        loss.lost,
        loss.missing,
        target("0", loss.lost + loss.missing == 0),
    )?;
    for reason in &loss.reasons {
        writeln!(out, "    {reason}")?;
    }
    writeln!(
        out,
        "                        {:>8.0} MiB recorded, {:.1} MiB peak memory",
        mib(loss.bytes),
        mib(loss.peak_bytes)
    )?;
    for (name, speed) in [
        ("watch --replay", &recording.watch),
        ("diagnose --replay", &recording.diagnose),
    ] {
        writeln!(
            out,
            "  {name:<21} {:>8.2} million records a second, {:.0} ns of CPU a record{}",
            speed.records_per_second / 1e6,
            speed.cpu_ns_per_record,
            target(
                "at least 1 million",
                speed.records_per_second >= REPLAY_RATE
            ),
        )?;
    }
    let quiet = &recording.quiet;
    writeln!(
        out,
        "  watch --quiet         {:>8.0} bytes for {:.0} handshakes in {:.0} s; {:.4} cores, {:.4} without recording",
        quiet.bytes, quiet.handshakes, quiet.seconds, quiet.with_cores, quiet.without_cores
    )
}

fn spread(ratio: &Spread) -> String {
    format!("{:.3} ({:.3} … {:.3})", ratio.median, ratio.min, ratio.max)
}

fn target(aim: &str, met: bool) -> String {
    format!(" (target: {aim}; {})", if met { "met" } else { "NOT met" })
}
