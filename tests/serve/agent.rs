//! A running `synprobe serve`, and a plain HTTP client.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, ChildStderr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use synprobe_tests::binary::{Ran, command, ended, signal};

/// A reply that takes longer than this never comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A reply.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// A running agent.
pub struct Agent {
    /// `None`: it was ended.
    child: Option<Child>,
    /// Kept open: the agent must not meet a closed pipe.
    err: BufReader<ChildStderr>,
    pub address: SocketAddr,
}

/// A scrape: each sample's value by its name and labels.
pub type Samples = BTreeMap<String, f64>;

impl Agent {
    /// Starts `serve` on a free port of the loopback device, and waits until it serves.
    pub fn start(arguments: &[&str]) -> Result<Self> {
        let listen = ["serve", "--listen", "127.0.0.1:0"];
        Self::spawned(command(&[&listen[..], arguments].concat())?.spawn()?)
    }

    /// Waits until a started agent serves.
    pub fn spawned(mut child: Child) -> Result<Self> {
        let mut err = BufReader::new(child.stderr.take().context("standard error")?);
        let mut line = String::new();
        err.read_line(&mut line)?;
        let address = line.trim().strip_prefix("synprobe: serving ");
        let address = address.with_context(|| format!("it does not serve: {line:?}"))?;
        Ok(Self {
            child: Some(child),
            err,
            address: address
                .parse()
                .unwrap_or_else(|_| SocketAddr::from(([0; 4], 0))),
        })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Sends bytes and reads the reply to its end.
    pub fn ask(&self, request: &str) -> Result<Reply> {
        let mut stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        reply_on(&mut stream)
    }

    /// GET, with more header lines, each with its end.
    pub fn get(&self, path: &str, headers: &str) -> Result<Reply> {
        self.ask(&format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"
        ))
    }

    /// The samples of a scrape.
    pub fn scrape(&self) -> Result<Samples> {
        let reply = self.get("/metrics", "")?;
        ensure!(reply.status == 200, "{reply:?}");
        samples(&reply.body)
    }

    /// A scrape of a state that is younger than this moment. The agent reads its state at most once a second.
    pub fn scrape_since(&self, moment: Duration) -> Result<Samples> {
        self.until("a newer state", |problems| {
            let time = problems["time"].as_str().unwrap_or_default();
            Ok((seconds(time)? > moment.as_secs_f64()).then_some(()))
        })?;
        self.scrape()
    }

    /// Asks for the problems until `wanted` finds something in them.
    pub fn until<T>(
        &self,
        what: &str,
        mut wanted: impl FnMut(&Value) -> Result<Option<T>>,
    ) -> Result<T> {
        let until = Instant::now() + 2 * PATIENCE;
        loop {
            let reply = self.get("/problems", "")?;
            ensure!(reply.status == 200, "{reply:?}");
            let problems: Value = serde_json::from_str(&reply.body)?;
            if let Some(found) = wanted(&problems)? {
                return Ok(found);
            }
            if Instant::now() > until {
                bail!("{what} did not come: {problems}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The next line on standard error.
    pub fn error_line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.err.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    /// Ends it, and returns what it printed.
    pub fn stop(mut self) -> Result<Ran> {
        let child = self.child.take().context("it was ended")?;
        signal(&child, libc::SIGTERM)?;
        let mut ran = ended_with(child, &mut self.err)?;
        ran.err = ran.err.trim().to_owned();
        Ok(ran)
    }
}

/// A test that fails leaves none behind.
impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn ended_with(child: Child, err: &mut impl Read) -> Result<Ran> {
    let mut ran = ended(child)?;
    err.read_to_string(&mut ran.err)?;
    Ok(ran)
}

/// Reads a reply to its end.
pub fn reply_on(stream: &mut impl Read) -> Result<Reply> {
    let mut bytes = Vec::new();
    stream
        .read_to_end(&mut bytes)
        .context("reading the reply")?;
    let text = String::from_utf8(bytes)?;
    let (head, body) = text.split_once("\r\n\r\n").context("a head")?;
    let status = head.split(' ').nth(1).context("a status")?;
    Ok(Reply {
        status: status.parse()?,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}

/// The samples of a text in either format.
pub fn samples(text: &str) -> Result<Samples> {
    let mut samples = Samples::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').with_context(|| line.to_owned())?;
        let value = value.parse().with_context(|| line.to_owned())?;
        ensure!(
            samples.insert(name.to_owned(), value).is_none(),
            "twice: {line}"
        );
    }
    Ok(samples)
}

/// The sum of the samples whose name and labels have all these words.
pub fn sum(samples: &Samples, name: &str, words: &[&str]) -> f64 {
    let of_name = |key: &str| key == name || key.starts_with(&format!("{name}{{"));
    samples
        .iter()
        .filter(|(key, _)| of_name(key) && words.iter().all(|word| key.contains(word)))
        .map(|(_, value)| value)
        .sum()
}

/// RFC 3339 as seconds since 1970, for times of one day apart at most: enough to compare with now.
fn seconds(time: &str) -> Result<f64> {
    let output = std::process::Command::new("date")
        .args(["-u", "-d", time, "+%s.%N"])
        .output()?;
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}
