//! The TCP counters of a namespace: `/proc/net/netstat` and `/proc/net/snmp`.
//!
//! They start at zero with the namespace, and the agent's counts are checked against them. Few count
//! exactly what their name says: `TCPSynRetrans`, for example, includes SYNs that could not be sent, and
//! SYN-ACKs.

mod file;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::Arc,
    time::{Duration, Instant},
};

use super::buffers::Scratch;
use crate::sys::netns::NetNs;
use file::{CounterFile, Layout};

/// The files, in the order of reading. The kernel increments `RetransSegs` just before `TCPSynRetrans`: in
/// the other order a retransmission could seem to be in `RetransSegs` alone.
const FILES: [&str; 2] = [
    "/proc/thread-self/net/snmp",
    "/proc/thread-self/net/netstat",
];

/// The counters of IPv6, in another form.
const SNMP6: &str = "/proc/thread-self/net/snmp6";

/// One reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MibCounters {
    snmp: Arc<CounterFile>,
    netstat: Arc<CounterFile>,
}

impl MibCounters {
    /// Reads a text in the form of `/proc/net/netstat`.
    ///
    /// # Errors
    /// InvalidData: lines or columns do not match.
    pub fn parse(text: &[u8]) -> io::Result<Self> {
        Ok(Self {
            netstat: CounterFile::parse_like(text, &Arc::default())?.into(),
            ..Self::default()
        })
    }

    /// A counter of TCP by the kernel's name, of `TcpExt` or `Tcp` (no name is in both):
    /// `get("TCPSynRetrans")`, `get("AttemptFails")`. `None`: this kernel does not have it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u64> {
        self.get_in("TcpExt", name)
            .or_else(|| self.get_in("Tcp", name))
    }

    /// A counter of any protocol: `get_in("IpExt", "InOctets")`.
    #[must_use]
    pub fn get_in(&self, protocol: &str, name: &str) -> Option<u64> {
        let netstat = self.netstat.get_in(protocol, name);
        netstat.or_else(|| self.snmp.get_in(protocol, name))
    }
}

/// So long ago must the last segment have been, before its counters are taken for all that it changed: another CPU may
/// be processing it still.
const PROCESSED: Duration = Duration::from_millis(100);

/// Reads the counters of one namespace repeatedly.
///
/// An open file of `/proc/net` belongs to the namespace where it was opened, and keeps it alive. So it is
/// opened once inside, and read from any thread.
#[derive(Debug)]
pub struct CounterReader {
    files: [File; 2],
    /// `None`: this kernel has no IPv6.
    snmp6: Option<File>,
    layouts: [Arc<Layout>; 2],
    still: Option<Still>,
}

/// What `snmp` shows at one moment.
#[derive(Debug)]
pub struct Snmp {
    file: CounterFile,
    read: Instant,
}

impl Snmp {
    /// Segments of TCP: received and sent. The kernel counts a SYN before it makes a half-open of it (`tcp_v4_rcv()`), and
    /// its own before they leave (`__tcp_transmit_skb()`).
    #[must_use]
    pub fn segments(&self) -> Option<(u64, u64)> {
        let tcp = |name| self.file.get_in("Tcp", name);
        Some((tcp("InSegs")?, tcp("OutSegs")?))
    }
}

/// What was counted while no segment came or went.
#[derive(Debug)]
struct Still {
    of_tcp: Vec<Option<u64>>,
    /// When they were first seen.
    since: Instant,
    /// `netstat`, read well after that.
    netstat: Option<Arc<CounterFile>>,
}

impl CounterReader {
    /// Opens the files inside `netns`.
    ///
    /// # Errors
    /// EPERM: the namespace cannot be entered; NotFound: no `/proc`.
    pub fn open(netns: &NetNs) -> io::Result<Self> {
        let open = || -> io::Result<([File; 2], Option<File>)> {
            let [first, second] = FILES;
            let files = [File::open(first)?, File::open(second)?];
            Ok((files, File::open(SNMP6).ok()))
        };
        let (files, snmp6) = netns.run(open)??;
        Ok(Self {
            files,
            snmp6,
            layouts: Default::default(),
            still: None,
        })
    }

    /// Reads them. The kernel sums per-CPU counters without a lock while it prints: two counters of one
    /// reading may differ by the packets in between.
    ///
    /// # Errors
    /// InvalidData: the text has another form; or the error of read().
    pub fn read(&mut self) -> io::Result<MibCounters> {
        Ok(MibCounters {
            snmp: self.file(0)?.into(),
            netstat: self.file(1)?.into(),
        })
    }

    /// The smaller file alone.
    ///
    /// # Errors
    /// As [`CounterReader::read`].
    pub fn snmp(&mut self) -> io::Result<Snmp> {
        Ok(Snmp {
            read: Instant::now(),
            file: self.file(0)?,
        })
    }

    /// The counters where no handshake is in progress. While nothing is counted of TCP in `snmp`, retransmissions that
    /// fail included, nothing of a handshake is counted in `netstat`: for that the kernel sums some 200 counters of each
    /// CPU, and it is read once.
    ///
    /// # Errors
    /// As [`CounterReader::read`].
    pub fn at_rest(&mut self, snmp: Snmp) -> io::Result<MibCounters> {
        let Snmp { file, read } = snmp;
        let of_tcp = file.of("Tcp");
        let still = self.still.take().filter(|still| still.of_tcp == of_tcp);
        let since = still.as_ref().map_or(read, |still| still.since);
        let (netstat, is_final) = match still.and_then(|still| still.netstat) {
            Some(netstat) => (netstat, true),
            None => (
                self.file(1)?.into(),
                read.duration_since(since) >= PROCESSED,
            ),
        };
        self.still = Some(Still {
            of_tcp,
            since,
            netstat: is_final.then(|| Arc::clone(&netstat)),
        });
        let snmp = file.into();
        Ok(MibCounters { snmp, netstat })
    }

    /// Forgets what [`Self::at_rest`] keeps.
    pub fn forget(&mut self) {
        self.still = None;
    }

    /// One of the two files.
    fn file(&mut self, which: usize) -> io::Result<CounterFile> {
        let (file, known) = (&self.files[which], &mut self.layouts[which]);
        let mut text = Scratch::take();
        let mut len = 0;
        // A read at offset 0 makes the kernel print it anew; the text comes page by page.
        loop {
            if text.len() < len + 4096 {
                text.resize(len + 16 * 1024, 0);
            }
            let got = match file.read_at(&mut text[len..], len as u64) {
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if got == 0 {
                break;
            }
            len += got;
        }
        let counters = CounterFile::parse_like(&text[..len], known)?;
        *known = Arc::clone(&counters.layout);
        Ok(counters)
    }

    /// A counter of IPv6, such as `Ip6OutNoRoutes`; 0 on a kernel without IPv6, `None` where it cannot be
    /// read. The file has a line for each of some hundred counters: it is read only when it is needed.
    pub fn ipv6(&self, name: &str) -> Option<u64> {
        let Some(file) = &self.snmp6 else {
            return Some(0);
        };
        let mut text = Vec::new();
        let mut offset = 0;
        loop {
            text.resize(offset + 8192, 0);
            match file.read_at(&mut text[offset..], offset as u64).ok()? {
                0 => break,
                got => offset += got,
            }
        }
        parse_snmp6(std::str::from_utf8(&text[..offset]).ok()?, name)
    }
}

/// Lines of a name and a value (`snmp6_seq_show_item()`).
fn parse_snmp6(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?;
        rest.starts_with([' ', '\t']).then_some(rest)
    })?;
    line.trim().parse().ok()
}
