//! The TCP counters of a namespace: `/proc/net/netstat` and `/proc/net/snmp`.
//!
//! They start at zero with the namespace, and the agent's counts are checked against them. Few count
//! exactly what their name says: `TCPSynRetrans`, for example, includes SYNs that could not be sent, and
//! SYN-ACKs.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::buffers::Scratch;
use crate::sys::netns::NetNs;

/// The files, in the order of reading. The kernel increments `RetransSegs` just before `TCPSynRetrans`: in
/// the other order a retransmission could seem to be in `RetransSegs` alone.
const FILES: [&str; 2] = [
    "/proc/thread-self/net/snmp",
    "/proc/thread-self/net/netstat",
];

/// The counters of IPv6, in another form.
const SNMP6: &str = "/proc/thread-self/net/snmp6";

/// Names of the columns. They are the same at every reading, and shared.
#[derive(Debug, Default, PartialEq, Eq)]
struct Layout {
    /// All header lines as read, for comparison with the next reading.
    headers: Vec<u8>,
    /// Protocol (`Tcp`, `TcpExt`) and name to column.
    columns: HashMap<String, HashMap<String, usize>>,
}

/// One reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MibCounters {
    layout: Arc<Layout>,
    /// `None`: negative, which only `Tcp: MaxConn` ever is (-1, no limit).
    values: Vec<Option<u64>>,
}

impl MibCounters {
    /// Reads a text in the form of `/proc/net/netstat`: pairs of lines that start with the same
    /// protocol and a colon, names on the first, values on the second.
    ///
    /// # Errors
    /// InvalidData: lines or columns do not match.
    pub fn parse(text: &[u8]) -> io::Result<Self> {
        Self::parse_like(text, &Arc::default())
    }

    /// As [`MibCounters::parse`]; names are taken from `known` when the header lines are the same.
    fn parse_like(text: &[u8], known: &Arc<Layout>) -> io::Result<Self> {
        let text = std::str::from_utf8(text).map_err(|_| malformed("not text"))?;
        let mut headers = Vec::with_capacity(known.headers.len());
        let mut values = Vec::with_capacity(256);
        let mut lines = text.lines();
        while let Some(names) = lines.next() {
            let row = lines
                .next()
                .ok_or_else(|| malformed("a header without values"))?;
            let (protocol, name_list) = split(names)?;
            let (again, value_list) = split(row)?;
            if protocol != again {
                return Err(malformed("values of another protocol than their header"));
            }
            let first = values.len();
            for value in value_list.split_ascii_whitespace() {
                values.push(match value.starts_with('-') {
                    true => None,
                    false => Some(
                        value
                            .parse()
                            .map_err(|_| malformed("a value is no number"))?,
                    ),
                });
            }
            if name_list.split_ascii_whitespace().count() != values.len() - first {
                return Err(malformed("not one value for each name"));
            }
            headers.extend_from_slice(names.as_bytes());
            headers.push(b'\n');
        }
        let layout = match headers == known.headers {
            true => Arc::clone(known),
            false => Layout::shared(headers)?,
        };
        Ok(Self { layout, values })
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
        let column = *self.layout.columns.get(protocol)?.get(name)?;
        self.values.get(column).copied().flatten()
    }
}

/// The latest layout. All namespaces of a kernel have the same columns, so a thousand readers share one.
static LAST: Mutex<Weak<Layout>> = Mutex::new(Weak::new());

impl Layout {
    fn shared(headers: Vec<u8>) -> io::Result<Arc<Self>> {
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = last.upgrade().filter(|known| known.headers == headers) {
            return Ok(same);
        }
        let layout = Arc::new(Self::new(headers)?);
        *last = Arc::downgrade(&layout);
        Ok(layout)
    }

    fn new(headers: Vec<u8>) -> io::Result<Self> {
        let mut columns: HashMap<String, HashMap<String, usize>> = HashMap::new();
        let mut column = 0;
        let text = std::str::from_utf8(&headers).map_err(|_| malformed("not text"))?;
        for line in text.lines() {
            let (protocol, names) = split(line)?;
            let of_protocol = columns.entry(protocol.to_owned()).or_default();
            for name in names.split_ascii_whitespace() {
                of_protocol.insert(name.to_owned(), column);
                column += 1;
            }
        }
        Ok(Self { headers, columns })
    }
}

fn split(line: &str) -> io::Result<(&str, &str)> {
    line.split_once(':')
        .ok_or_else(|| malformed("a line without a protocol"))
}

fn malformed(why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("/proc/net counters: {why}"),
    )
}

/// Reads the counters of one namespace repeatedly.
///
/// An open file of `/proc/net` belongs to the namespace where it was opened, and keeps it alive. So it is
/// opened once inside, and read from any thread.
#[derive(Debug)]
pub struct CounterReader {
    files: [File; 2],
    /// `None`: this kernel has no IPv6.
    snmp6: Option<File>,
    layout: Arc<Layout>,
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
            layout: Arc::default(),
        })
    }

    /// Reads them. The kernel sums per-CPU counters without a lock while it prints: two counters of one
    /// reading may differ by the packets in between.
    ///
    /// # Errors
    /// InvalidData: the text has another form; or the error of read().
    pub fn read(&mut self) -> io::Result<MibCounters> {
        let mut text = Scratch::take();
        let mut len = 0;
        for file in &self.files {
            // A read at offset 0 makes the kernel print it anew; the text comes page by page.
            let mut offset = 0;
            loop {
                if text.len() < len + 4096 {
                    text.resize(len + 16 * 1024, 0);
                }
                let got = match file.read_at(&mut text[len..], offset) {
                    Ok(got) => got,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                };
                if got == 0 {
                    break;
                }
                len += got;
                offset += got as u64;
            }
        }
        let counters = MibCounters::parse_like(&text[..len], &self.layout)?;
        self.layout = Arc::clone(&counters.layout);
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
