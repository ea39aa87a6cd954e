//! The outputs of the agent, and what must hold of them: scrapes, a collector, a rolling recording.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use synprobe_tests::collector::{Collector, TAKEN};

/// Pause between two scrapes, and between two exports.
pub const INTERVAL: Duration = Duration::from_secs(15);
/// Bound of the folder with the recording.
const MOST_RECORDED: u64 = 16 << 20;
/// What a recorder may have in a file beyond its bound: the segment that is written.
const UNFINISHED: u64 = 4 << 20;
/// A scrape that takes longer never comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Everything that an agent sends or writes to.
pub struct Outputs {
    /// Where it sends to.
    pub collector: Collector,
    folder: PathBuf,
    scraped: Option<BTreeMap<String, f64>>,
    next: Instant,
    scrapes: u32,
    longest: Duration,
}

impl Outputs {
    pub fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("synprobe-soak-{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        Ok(Self {
            collector: Collector::start(|_, _| Some(TAKEN))?,
            folder,
            scraped: None,
            next: Instant::now() + INTERVAL / 2,
            scrapes: 0,
            longest: Duration::ZERO,
        })
    }

    /// Half-opens in progress, as the agent has them.
    pub fn half_opens(&self, agent: SocketAddr) -> Result<u64> {
        let mut all = 0.0;
        for line in metrics(agent)?.lines() {
            if line.starts_with("synprobe_half_open{")
                && let Some((_, value)) = line.rsplit_once(' ')
            {
                all += value.parse::<f64>()?;
            }
        }
        Ok(all as u64)
    }

    /// The options of `serve` for them.
    pub fn options(&self) -> Vec<String> {
        let interval = format!("{}s", INTERVAL.as_secs());
        let size = format!("{}M", MOST_RECORDED >> 20);
        let folder = self.folder.display().to_string();
        let options = [
            ("--listen", "127.0.0.1:0"),
            ("--format", "json"),
            ("--otlp", &self.collector.url()),
            ("--otlp-interval", &interval),
            ("--rolling", &folder),
            ("--keep", "2m"),
            ("--max-size", &size),
        ];
        let words = options.into_iter().flat_map(|(name, value)| [name, value]);
        words.map(str::to_owned).collect()
    }

    /// Scrapes where it is time to. No counter may go back.
    pub fn scrape_in_time(&mut self, agent: SocketAddr) -> Result<()> {
        if Instant::now() < self.next {
            return Ok(());
        }
        self.next += INTERVAL;
        let began = Instant::now();
        let counters = counters(agent)?;
        self.longest = self.longest.max(began.elapsed());
        self.scrapes += 1;
        for (name, before) in self.scraped.iter().flatten() {
            let now = counters.get(name);
            ensure!(now >= Some(before), "{name} was {before}, and is {now:?}");
        }
        self.scraped = Some(counters);
        Ok(())
    }

    /// After the agent has ended: the folder keeps to its bound, and each line in trouble is a log record.
    pub fn check(&self, lines_in_trouble: usize) -> Result<()> {
        let lost = self
            .scraped
            .as_ref()
            .and_then(|all| all.get("synprobe_lost_records_total{kind=\"otlp\"}"));
        let not_exported = lost.map_or(0, |n| *n as u64);
        let mut bytes = 0;
        let mut files = 0;
        for file in fs::read_dir(&self.folder)? {
            bytes += file?.metadata()?.len();
            files += 1;
        }
        let records = self.collector.records()?.len();
        let exports = self.collector.metrics()?.len();
        println!(
            "{} scrapes, the longest {:.1} ms; {exports} exports, {records} log records of {lines_in_trouble} lines; \
             {:.1} MiB in {files} files of the recording",
            self.scrapes,
            self.longest.as_secs_f64() * 1e3,
            bytes as f64 / f64::from(1 << 20)
        );
        ensure!(
            bytes <= MOST_RECORDED + UNFINISHED && files > 0,
            "{bytes} bytes in {files} files of the recording"
        );
        ensure!(
            self.scrapes > 0 && exports > 0,
            "no scrape, or no export of metrics"
        );
        ensure!(
            records as u64 + not_exported == lines_in_trouble as u64,
            "{records} log records, {not_exported} lost and reported, for {lines_in_trouble} lines"
        );
        Ok(())
    }
}

impl Drop for Outputs {
    fn drop(&mut self) {
        // What cannot be removed stays.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Descriptors of a process.
#[derive(Clone, Copy, Debug)]
pub struct Descriptors {
    all: usize,
    namespaces: usize,
}

/// What each network namespace that is watched takes, at most.
const A_NAMESPACE: usize = 9;
/// A connection to the collector, to a scraper and so on, which may be open at one of two moments.
const OTHERS: usize = 8;

impl Descriptors {
    pub fn of(pid: u32) -> Result<Self> {
        let (mut all, mut namespaces) = (0, 0);
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
            all += 1;
            // It may close one at any time.
            if let Ok(target) = fs::read_link(entry?.path()) {
                let target = target.to_string_lossy();
                namespaces += usize::from(target.starts_with("net:"));
            }
        }
        Ok(Self { all, namespaces })
    }

    /// Whether all namespaces of this run are closed again.
    pub fn has_closed(self, before: Self) -> bool {
        self.namespaces <= before.namespaces + 1
    }

    /// None was leaked since `before`. Namespaces that are still watched count with what they take.
    pub fn check(self, before: Self) -> Result<()> {
        println!(
            "descriptors: {} with {} namespaces at first, {} with {} at the end",
            before.all, before.namespaces, self.all, self.namespaces
        );
        let more = self.namespaces.saturating_sub(before.namespaces);
        ensure!(
            self.all <= before.all + more * A_NAMESPACE + OTHERS,
            "descriptors were leaked: {before:?}, then {self:?}"
        );
        Ok(())
    }
}

/// The text of a scrape.
fn metrics(agent: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&agent, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: soak\r\n\r\n")?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    ensure!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    Ok(reply)
}

/// The counters of a scrape, histograms included.
fn counters(agent: SocketAddr) -> Result<BTreeMap<String, f64>> {
    let reply = metrics(agent)?;
    let mut counters = BTreeMap::new();
    let mut counts = false;
    for line in reply.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            counts = kind.ends_with(" counter") || kind.ends_with(" histogram");
        } else if counts
            && !line.starts_with('#')
            && let Some((name, value)) = line.rsplit_once(' ')
        {
            counters.insert(name.to_owned(), value.parse()?);
        }
    }
    ensure!(!counters.is_empty(), "no counters: {reply}");
    Ok(counters)
}
