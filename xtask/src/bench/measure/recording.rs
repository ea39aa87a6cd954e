//! What recordings cost, how large they are, and how fast they are replayed.

use std::time::Duration;

use anyhow::{Context, Result};

use super::median;
use crate::{
    bench::{
        BenchContext,
        load::{Load, Sample},
        process::{FinishedWatcher, Watcher},
        recorder::{self, RecordedFile, RunTotals},
        report::{PairedCost, QuietRecording, RecordedLoss, RecordingCost, ReplaySpeed, Spread},
        say,
    },
    workspace::target_dir,
};

/// Replays of each kind.
const REPLAYS: u32 = 3;
/// The lines of a run, discarded.
const WATCH: [&str; 3] = ["watch", "--format", "json"];
/// No lines at all.
const DIAGNOSE: [&str; 1] = ["diagnose"];

/// What one turn gave.
struct Turn {
    cpu: Duration,
    sample: Sample,
    /// Of the recording, where there is one.
    recorded: Option<(u64, RunTotals)>,
}

impl Turn {
    fn cpu_ns_per_connection(&self) -> f64 {
        self.cpu.as_nanos() as f64 / self.sample.connections as f64
    }
}

/// Measures everything about recordings.
pub(super) fn recording(bench: &BenchContext, load: &mut Load) -> Result<RecordingCost> {
    say("the cost of recording");
    let (with, alone) = streaming(bench, load)?;
    say("the cost of a quiet recording");
    let quiet = quiet(bench, load)?;
    say("records lost at the highest rate while recording");
    let (loss, recorded) = highest_rate(bench, load)?;
    say("replay");
    let watch = speed(bench, &recorded, &WATCH, loss.records)?;
    let diagnose = speed(bench, &recorded, &DIAGNOSE, loss.records)?;
    Ok(RecordingCost {
        with,
        alone,
        loss,
        watch,
        diagnose,
        quiet,
    })
}

/// `watch --record` and `record --output`, each in pairs with `watch` without a recording.
fn streaming(bench: &BenchContext, load: &mut Load) -> Result<(PairedCost, PairedCost)> {
    let (mut without, mut with, mut alone) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..bench.rounds {
        // Each is first in turn.
        for which in [0, 1, 2].map(|i| (i + round) % 3) {
            match which {
                0 => without.push(turn(bench, load, &WATCH, None)?),
                1 => with.push(turn(bench, load, &WATCH, Some("--record"))?),
                _ => alone.push(turn(bench, load, &["record"], Some("--output"))?),
            }
        }
    }
    Ok((paired(&without, &with), paired(&without, &alone)))
}

/// Runs the load with an agent whose lines are discarded, and which records where `record` names the
/// option.
fn turn(
    bench: &BenchContext,
    load: &mut Load,
    args: &[&str],
    record: Option<&str>,
) -> Result<Turn> {
    let Some(option) = record else {
        let watcher = recorder::start(&bench.synprobe, args, &folder())?;
        let sample = load.run(bench.length)?;
        let cpu = watcher.end()?.cpu;
        return Ok(Turn {
            cpu,
            sample,
            recorded: None,
        });
    };
    let agent = recorder::record(&folder(), |path| {
        let args: Vec<&str> = args.iter().copied().chain([option, path]).collect();
        recorder::start(&bench.synprobe, &args, &folder())
    })?;
    let sample = load.run(bench.length)?;
    let (ended, file) = agent.end()?;
    Ok(Turn {
        cpu: ended.cpu,
        sample,
        recorded: Some((file.bytes()?, file.totals(&bench.synprobe)?)),
    })
}

fn folder() -> std::path::PathBuf {
    target_dir().join("bench")
}

/// The costs of the turns that recorded, beside those that did not.
fn paired(without: &[Turn], with: &[Turn]) -> PairedCost {
    let recorded = || {
        with.iter()
            .filter_map(|turn| Some((turn, turn.recorded.as_ref()?)))
    };
    let mut records_per_connection: Vec<_> = recorded()
        .map(|(turn, (_, totals))| totals.events as f64 / turn.sample.connections as f64)
        .collect();
    let mut bytes_per_handshake: Vec<_> = recorded()
        .map(|(_, (bytes, totals))| *bytes as f64 / totals.handshakes as f64)
        .collect();
    let mut bytes_per_record: Vec<_> = recorded()
        .map(|(_, (bytes, totals))| *bytes as f64 / totals.events as f64)
        .collect();
    let per_record = median(&mut records_per_connection);
    let cpu = |turns: &[Turn]| {
        let mut ns: Vec<_> = turns.iter().map(Turn::cpu_ns_per_connection).collect();
        median(&mut ns) / per_record
    };
    let ratios = without.iter().zip(with);
    let ratios = ratios.map(|(a, b)| b.cpu_ns_per_connection() / a.cpu_ns_per_connection());
    PairedCost {
        without_ns_per_record: cpu(without),
        with_ns_per_record: cpu(with),
        ratio: Spread::of(ratios.collect()),
        bytes_per_handshake: median(&mut bytes_per_handshake),
        bytes_per_record: median(&mut bytes_per_record),
        lost: recorded().map(|(_, (_, totals))| totals.lost).sum(),
    }
}

/// The quiet mode with and without a recording.
fn quiet(bench: &BenchContext, load: &mut Load) -> Result<QuietRecording> {
    let args = ["watch", "--format", "json", "--quiet"];
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for round in 0..bench.rounds {
        for records in [round % 2 == 0, round % 2 != 0] {
            match records {
                true => with.push(turn(bench, load, &args, Some("--record"))?),
                false => without.push(turn(bench, load, &args, None)?),
            }
        }
    }
    let cores = |turns: &[Turn]| {
        let cores = turns
            .iter()
            .map(|turn| turn.cpu.as_secs_f64() / turn.sample.seconds);
        median(&mut cores.collect::<Vec<_>>())
    };
    let recorded = || with.iter().filter_map(|turn| turn.recorded.as_ref());
    let bytes = recorded().map(|(bytes, _)| *bytes as f64);
    let handshakes = recorded().map(|(_, totals)| (totals.handshakes + totals.counted) as f64);
    let seconds = with.iter().map(|turn| turn.sample.seconds);
    Ok(QuietRecording {
        without_cores: cores(&without),
        with_cores: cores(&with),
        bytes: median(&mut bytes.collect::<Vec<_>>()),
        seconds: median(&mut seconds.collect::<Vec<_>>()),
        handshakes: median(&mut handshakes.collect::<Vec<_>>()),
    })
}

/// `watch --record` at the highest rate; the lines go to a file.
fn highest_rate(bench: &BenchContext, load: &mut Load) -> Result<(RecordedLoss, RecordedFile)> {
    let agent = recorder::record(&folder(), |path| {
        Watcher::synprobe(&bench.synprobe, &["--record", path], &folder())
    })?;
    let sample = load.run(bench.loss)?;
    std::thread::sleep(Duration::from_millis(200));
    let peak_bytes = agent.watcher.process.peak_memory()?;
    let (ended, recorded) = agent.end()?;
    let live = totals(&ended)?;
    let replayed = recorded.totals(&bench.synprobe)?;
    let loss = RecordedLoss {
        seconds: sample.seconds,
        connections_per_second: sample.rate(),
        records: live.events,
        lost: live.lost,
        reasons: ended.losses,
        missing: live.events.saturating_sub(replayed.events),
        handshakes: live.handshakes,
        bytes: recorded.bytes()?,
        peak_bytes,
    };
    Ok((loss, recorded))
}

fn totals(ended: &FinishedWatcher) -> Result<RunTotals> {
    serde_json::from_str(&ended.last)
        .with_context(|| format!("the agent's last line: {}", ended.last))
}

/// The speed of a replay: the medians of several.
fn speed(
    bench: &BenchContext,
    recorded: &RecordedFile,
    args: &[&str],
    records: u64,
) -> Result<ReplaySpeed> {
    let (mut wall, mut cpu) = (Vec::new(), Vec::new());
    for _ in 0..REPLAYS {
        let (took, used) = recorded.replay(&bench.synprobe, args)?;
        wall.push(took.as_secs_f64());
        cpu.push(used.as_nanos() as f64);
    }
    let records = records as f64;
    Ok(ReplaySpeed {
        records_per_second: records / median(&mut wall),
        cpu_ns_per_record: median(&mut cpu) / records,
    })
}
