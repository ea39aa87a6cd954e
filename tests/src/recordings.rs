//! The recordings of `tests/recordings/`: one of every scenario in each family, with what its replay prints.
//! `cargo xtask recordings` makes them.

use std::{
    collections::HashMap,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use synprobe::{
    decode::Event,
    engine::{Input, RunConfig},
    filter::{Detail, Selection},
    model::{HostIdentity, Process},
    probe::half_open_source::RequestedMode,
    recording::{
        Item, Reader, SegmentHeader, Writer,
        inputs::{Decoded, InputDecoder, encode},
    },
    verdict::Mode,
};
use synprobe_lab::{Lab, Scenario, SocketFamily};

use crate::{
    harness::{family_name, host},
    pipeline_run::options_for,
    recorded::{Scratch, replay, run_scenario, watch},
};

/// How long an incident is recorded.
const LOOK: Duration = Duration::from_secs(5);
/// `handshake` lines that an expectation quotes. The checksum is over all lines.
const QUOTED: usize = 8;
/// What stands for every process name, and for every cgroup.
const NEUTRAL: &str = "lab";

/// The folder.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings")
}

/// Every recording, in alphabetical order.
///
/// # Errors
///
/// When the folder cannot be read.
pub fn all() -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder()).context("tests/recordings")? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "synrec") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Where the expectation of a recording is.
pub fn expectation_of(recording: &Path) -> PathBuf {
    recording.with_extension("jsonl")
}

/// What the replay prints: a line with the number of lines and the checksum of each output, then the first
/// `handshake` lines of `watch`, then the `problem` lines of `diagnose`.
///
/// # Errors
///
/// When it cannot be replayed, or something of it cannot be read.
pub fn expectation(recording: &Path) -> Result<String> {
    let (at_once, replayed) = replay(recording, Mode::AtOnce, Selection::default(), None)?;
    let (at_the_end, _) = replay(recording, Mode::AtTheEnd, Selection::default(), None)?;
    ensure!(replayed.damage.is_none(), "{:?}", replayed.damage);
    let sum = |text: &str| {
        let crc = crc32fast::hash(text.as_bytes());
        format!(
            "{{\"lines\":{},\"crc32\":\"{crc:08x}\"}}",
            text.lines().count()
        )
    };
    let mut expectation = format!(
        "{{\"watch_json\":{},\"watch\":{},\"diagnose_json\":{},\"diagnose\":{}}}\n",
        sum(&at_once.json),
        sum(&at_once.text),
        sum(&at_the_end.json),
        sum(&at_the_end.page)
    );
    let of = |json: &str, kind: &str, most: usize| -> Vec<String> {
        let such = json
            .lines()
            .filter(|line| line.contains(&format!("\"type\":\"{kind}\"")));
        such.take(most).map(str::to_owned).collect()
    };
    for line in of(&at_once.json, "handshake", QUOTED).into_iter().chain(of(
        &at_the_end.json,
        "problem",
        usize::MAX,
    )) {
        expectation.push_str(&line);
        expectation.push('\n');
    }
    Ok(expectation)
}

/// Writes the expectations of all recordings anew. How many changed.
///
/// # Errors
///
/// When one cannot be replayed or written.
pub fn bless() -> Result<usize> {
    let mut changed = 0;
    for recording in all()? {
        let name = recording.display().to_string();
        let expectation = expectation(&recording).context(name)?;
        let path = expectation_of(&recording);
        if fs::read_to_string(&path).ok().as_ref() != Some(&expectation) {
            fs::write(&path, expectation)?;
            changed += 1;
        }
    }
    Ok(changed)
}

/// Records a scenario anew. Needs root.
///
/// # Errors
///
/// When the scenario or the recording failed.
pub fn make(scenario: &'static dyn Scenario, family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let mut options = options_for(&lab)?;
    // Both modes are among the recordings, where this host has them.
    let is_exact = host()?.exact_by(RequestedMode::Exact, Detail::Handshakes);
    options.requested_mode = match (family, is_exact) {
        (SocketFamily::V4, Ok(_)) => RequestedMode::Exact,
        _ => RequestedMode::Tracepoints,
    };
    let raw = Scratch::new();
    let runs = vec![(options, &*raw.0)];
    if scenario.is_incident() {
        run_scenario(scenario, lab, || {
            let look = || {
                thread::sleep(LOOK);
                Ok(())
            };
            watch(runs, look).map(drop)
        })?;
    } else {
        watch(runs, || run_scenario(scenario, lab, || Ok(())))?;
    }
    let name = format!("{}-{}.synrec", scenario.name(), family_name(family));
    neutral(&raw.0, &folder().join(name))
}

/// Copies a recording without what belongs to this machine: its identity, names of processes and cgroups,
/// kernel addresses.
fn neutral(from: &Path, to: &Path) -> Result<()> {
    let (header, mut reader) = Reader::open(File::open(from)?)?;
    let mut config: RunConfig = serde_json::from_slice(&header.meta)?;
    config.start.host = HostIdentity::default();
    let release = &mut config.start.kernel;
    let is_version = |c: char| c.is_ascii_digit() || c == '.';
    release.truncate(release.find(|c| !is_version(c)).unwrap_or(release.len()));
    let mut meta = header.meta;
    meta.clear();
    serde_json::to_writer(&mut meta, &config)?;
    let header = SegmentHeader::new([1; 16], header.realtime_offset_ns, meta);
    let mut writer = Writer::new(File::create(to)?, &header)?;
    let (mut decoder, mut blank) = (InputDecoder::default(), Blank::default());
    while let Some(item) = reader.next_item() {
        let Item::Frame { at_ns, frame } = item else {
            bail!("{}: not whole", from.display());
        };
        match decoder.frame(frame) {
            None => (),
            Some(Decoded::Lost(_)) => bail!("{}: not whole", from.display()),
            Some(Decoded::Input(mut input)) => {
                blank.input(&mut input);
                let mut written = Ok(());
                encode(&input, |frame| {
                    if written.is_ok() {
                        written = writer.push(at_ns, frame);
                    }
                })?;
                written?;
            }
        }
    }
    writer.finish()?;
    Ok(())
}

/// Takes out what belongs to a machine.
#[derive(Default)]
struct Blank {
    /// Kernel addresses, by number.
    addresses: HashMap<u64, u64>,
}

impl Blank {
    fn input(&mut self, input: &mut Input) {
        match input {
            Input::CgroupPath(_, path) => path_is_neutral(path),
            Input::NetnsName(_, name) => {
                // A path of this machine's /proc is no name.
                name.take_if(|name| name.starts_with('/'));
            }
            Input::Owners(owners) => {
                for owner in owners {
                    path_is_neutral(&mut owner.cgroup);
                    if let Some(Process { comm, .. }) = &mut owner.process {
                        *comm = NEUTRAL.into();
                    }
                }
            }
            Input::ListenSockets { listeners, .. } => {
                for listener in listeners {
                    path_is_neutral(&mut listener.cgroup);
                    listener.netns_name.take_if(|name| name.starts_with('/'));
                    if let Some(comm) = &mut listener.comm {
                        *comm = NEUTRAL.into();
                    }
                }
            }
            Input::SocketStates(counted) => {
                for netns in &mut counted.namespaces {
                    netns.name = netns.netns.to_string();
                    for port in &mut netns.listeners {
                        if let Some(comm) = &mut port.comm {
                            *comm = NEUTRAL.to_owned();
                        }
                    }
                }
            }
            Input::Holder(_, Some(holder)) => {
                if let Some(Process { comm, .. }) = &mut holder.process {
                    *comm = NEUTRAL.into();
                }
            }
            Input::Callers(callers) => {
                for caller in callers {
                    path_is_neutral(&mut caller.cgroup);
                    caller.process.comm = NEUTRAL.into();
                }
            }
            Input::AcceptCounts(counts) => {
                for Process { comm, .. } in counts.iter_mut().filter_map(|c| c.accepted_by.as_mut())
                {
                    *comm = NEUTRAL.into();
                }
            }
            Input::Workload { cgroup, names, .. } => {
                path_is_neutral(cgroup);
                *names = None;
            }
            Input::Event(event) => self.event(event),
            Input::Drop(record, _) => record.location = self.address(record.location),
            _ => (),
        }
    }

    fn event(&mut self, event: &mut Event) {
        match event {
            Event::State(r, ..) => {
                r.sock = self.address(r.sock);
                if r.tgid != 0 {
                    r.comm = neutral_comm();
                }
            }
            Event::Retransmit(r, _) => r.sock = self.address(r.sock),
            Event::SynAck(r, _) => {
                r.req = self.address(r.req);
                r.sock = self.address(r.sock);
            }
            Event::Reset(r, _) => r.sock = self.address(r.sock),
            Event::EarlyReset(r, _) => {
                r.sock = self.address(r.sock);
                if r.tgid != 0 {
                    r.comm = neutral_comm();
                }
            }
            Event::Error(r, _) => r.sock = self.address(r.sock),
            Event::Drop(r) => r.location = self.address(r.location),
            Event::Request(r, _) => r.req = self.address(r.req),
        }
    }

    /// The same address has the same number; 0 stays.
    fn address(&mut self, address: u64) -> u64 {
        if address == 0 {
            return 0;
        }
        let next = 64 * (self.addresses.len() as u64 + 1);
        *self.addresses.entry(address).or_insert(next)
    }
}

fn neutral_comm() -> [u8; 16] {
    let mut comm = [0; 16];
    comm[..NEUTRAL.len()].copy_from_slice(NEUTRAL.as_bytes());
    comm
}

fn path_is_neutral(path: &mut Option<Arc<str>>) {
    if let Some(path) = path {
        *path = format!("/{NEUTRAL}").into();
    }
}
