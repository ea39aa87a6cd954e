//! `synprobe serve` as it runs on a host: scraped, with a collector and a rolling recording.

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};

use super::{
    collector::BenchCollector,
    process::{FinishedWatcher, Watcher, unlinked_file},
};

/// A reply that takes longer never comes.
const PATIENCE: Duration = Duration::from_secs(10);
/// What `serve` prints once it serves, before the address.
const SERVING: &str = "synprobe: serving ";

/// A running agent.
pub struct ServeAgent {
    pub watcher: Watcher,
    address: SocketAddr,
    collector: BenchCollector,
    recording: RecordingFolder,
}

/// Removes the folder when dropped.
struct RecordingFolder(PathBuf);

/// One scrape.
pub struct TimedScrape {
    pub took: Duration,
    pub body: String,
}

/// A thread that scrapes.
pub struct Scraper {
    stop: mpsc::Sender<()>,
    thread: thread::JoinHandle<Result<Vec<Duration>>>,
}

impl Drop for RecordingFolder {
    fn drop(&mut self) {
        // What cannot be removed stays in the target directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl ServeAgent {
    /// Starts it with all its outputs, which send every `interval`; returns once it serves.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start(program: &Path, folder: &Path, interval: Duration) -> Result<Self> {
        let recording = RecordingFolder(folder.join(format!("rolling-{}", std::process::id())));
        let _ = fs::remove_dir_all(&recording.0);
        fs::create_dir_all(&recording.0).with_context(|| recording.0.display().to_string())?;
        let collector = BenchCollector::start().context("a collector")?;
        let mut command = Command::new(program);
        command.args(["serve", "--listen", "127.0.0.1:0", "--otlp"]);
        command.arg(collector.url());
        command.args(["--otlp-interval", &format!("{}s", interval.as_secs())]);
        command.arg("--rolling").arg(&recording.0);
        let messages = unlinked_file(folder)?;
        command.stderr(messages.try_clone()?);
        let serving = || -> Result<Option<SocketAddr>> {
            let mut text = vec![0; 512];
            let read = messages.read_at(&mut text, 0)?;
            let text = String::from_utf8_lossy(&text[..read]).into_owned();
            let Some((line, _)) = text.split_once('\n') else {
                return Ok(None);
            };
            let address = line.strip_prefix(SERVING);
            let address = address.with_context(|| format!("it does not serve: {text}"))?;
            Ok(Some(address.parse()?))
        };
        let watcher = Watcher::start(
            command,
            unlinked_file(folder)?,
            |_| Ok(serving()?.is_some()),
        )?;
        Ok(Self {
            watcher,
            address: serving()?.context("its address")?,
            collector,
            recording,
        })
    }

    /// The process, and what it needs for as long as it runs.
    pub fn into_parts(self) -> (Watcher, impl Sized) {
        (self.watcher, (self.collector, self.recording))
    }

    /// One GET of `/metrics`, from connect() to the end of the reply.
    ///
    /// # Errors
    ///
    /// When it fails, or the status is not 200.
    pub fn scrape(&self) -> Result<TimedScrape> {
        scrape(self.address)
    }

    /// Scrapes every `interval`, from half of one on.
    pub fn scraper(&self, interval: Duration) -> Scraper {
        let (stop, stopped) = mpsc::channel();
        let address = self.address;
        let thread = thread::spawn(move || {
            let mut took = Vec::new();
            let mut next = Instant::now() + interval / 2;
            loop {
                match stopped.recv_timeout(next.saturating_duration_since(Instant::now())) {
                    Err(RecvTimeoutError::Timeout) => took.push(scrape(address)?.took),
                    _ => return Ok(took),
                }
                next += interval;
            }
        });
        Scraper { stop, thread }
    }

    /// Exports that the collector took.
    pub fn exports(&self) -> u64 {
        self.collector.exports()
    }

    /// Bytes of the recording.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read.
    pub fn recorded(&self) -> Result<u64> {
        let mut bytes = 0;
        for file in fs::read_dir(&self.recording.0)? {
            bytes += file?.metadata()?.len();
        }
        Ok(bytes)
    }

    /// Ends it.
    ///
    /// # Errors
    ///
    /// When it exits with an error.
    pub fn end(self) -> Result<FinishedWatcher> {
        self.watcher.end()
    }
}

impl Scraper {
    /// Ends it. Returns how long each scrape took.
    ///
    /// # Errors
    ///
    /// When a scrape failed.
    pub fn stop(self) -> Result<Vec<Duration>> {
        // It has ended already where a scrape failed.
        let _ = self.stop.send(());
        self.thread
            .join()
            .map_err(|_| anyhow!("the scraper panicked"))?
    }
}

fn scrape(address: SocketAddr) -> Result<TimedScrape> {
    let began = Instant::now();
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut reply = String::new();
    stream
        .read_to_string(&mut reply)
        .or_else(|e| match e.kind() {
            io::ErrorKind::ConnectionReset => Ok(0),
            _ => Err(e),
        })
        .context("reading a scrape")?;
    let took = began.elapsed();
    let (head, body) = reply.split_once("\r\n\r\n").context("no head")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    let body = body.to_owned();
    Ok(TimedScrape { took, body })
}

impl TimedScrape {
    /// Its series.
    pub fn series(&self) -> usize {
        self.samples().count()
    }

    /// The sum of the samples of `name` whose labels contain each of `labels`.
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let of_name = self.samples().filter(|(sample, _)| {
            let labelled = sample.strip_prefix(name);
            labelled.is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
                && labels.iter().all(|label| sample.contains(label))
        });
        of_name.filter_map(|(_, n)| n.parse::<f64>().ok()).sum()
    }

    fn samples(&self) -> impl Iterator<Item = (&str, &str)> {
        let lines = self.body.lines().filter(|line| !line.starts_with('#'));
        lines.filter_map(|line| line.rsplit_once(' '))
    }
}
