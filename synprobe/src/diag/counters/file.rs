//! One file of counters: its text, and the names of its columns.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// Names of the columns. They are the same at every reading, and shared.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// All header lines as read, for comparison with the next reading.
    headers: Vec<u8>,
    /// Of each of them the protocol, and how many names it has.
    pub(super) lines: Vec<(String, usize)>,
    /// Protocol (`Tcp`, `TcpExt`) and name to column.
    pub(super) columns: HashMap<String, HashMap<String, usize>>,
}

/// One file of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CounterFile {
    pub(super) layout: Arc<Layout>,
    /// `None`: negative, which only `Tcp: MaxConn` ever is (-1, no limit).
    values: Vec<Option<u64>>,
}

impl CounterFile {
    /// Reads a text in the form of `/proc/net/netstat`: pairs of lines that start with the same protocol and a colon,
    /// names on the first, values on the second. The names are taken from `known` when the header lines are the same.
    pub fn parse_like(text: &[u8], known: &Arc<Layout>) -> io::Result<Self> {
        let mut lines = text
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        let mut values = Vec::with_capacity(known.lines.iter().map(|(_, width)| width).sum());
        // Bytes of the known headers that were found again; all headers, once one is another.
        let (mut same, mut other, mut line) = (0, None::<Vec<u8>>, 0);
        while let Some(names) = lines.next() {
            let row = lines
                .next()
                .ok_or_else(|| malformed("a header without values"))?;
            let (protocol, name_list) = split(names)?;
            let (again, value_list) = split(row)?;
            if protocol != again {
                return Err(malformed("values of another protocol than their header"));
            }
            let is_known = other.is_none()
                && known.headers[same..].starts_with(names)
                && known.headers.get(same + names.len()) == Some(&b'\n');
            let width = match known.lines.get(line) {
                // Counting names takes longer than reading values.
                Some((_, width)) if is_known => {
                    same += names.len() + 1;
                    *width
                }
                _ => {
                    let headers = other.get_or_insert_with(|| known.headers[..same].to_vec());
                    headers.extend_from_slice(names);
                    headers.push(b'\n');
                    words(name_list).count()
                }
            };
            let first = values.len();
            for value in words(value_list) {
                values.push(number(value)?);
            }
            if width != values.len() - first {
                return Err(malformed("not one value for each name"));
            }
            line += 1;
        }
        let layout = match other {
            None if same == known.headers.len() => Arc::clone(known),
            None => Layout::shared(known.headers[..same].to_vec())?,
            Some(headers) => Layout::shared(headers)?,
        };
        Ok(Self { layout, values })
    }

    /// All counters of a protocol.
    pub fn of(&self, protocol: &str) -> Vec<Option<u64>> {
        let lines = &self.layout.lines;
        let before = lines.iter().take_while(|(of, _)| of != protocol);
        let first = before.map(|(_, width)| width).sum();
        let width = lines.iter().find(|(of, _)| of == protocol);
        let width = width.map_or(0, |(_, width)| *width);
        let values = self.values.get(first..first + width);
        values.unwrap_or_default().to_vec()
    }

    pub fn get_in(&self, protocol: &str, name: &str) -> Option<u64> {
        let column = *self.layout.columns.get(protocol)?.get(name)?;
        self.values.get(column).copied().flatten()
    }
}

/// The layouts that are in use. All namespaces of a kernel have the same columns, so a thousand readers share them.
static LAYOUTS: Mutex<Vec<Weak<Layout>>> = Mutex::new(Vec::new());

impl Layout {
    fn shared(headers: Vec<u8>) -> io::Result<Arc<Self>> {
        let mut layouts = LAYOUTS.lock().unwrap_or_else(PoisonError::into_inner);
        layouts.retain(|layout| layout.strong_count() > 0);
        let known = layouts.iter().find_map(|layout| {
            let layout = layout.upgrade()?;
            (layout.headers == headers).then_some(layout)
        });
        if let Some(known) = known {
            return Ok(known);
        }
        let layout = Arc::new(Self::new(headers)?);
        layouts.push(Arc::downgrade(&layout));
        Ok(layout)
    }

    fn new(headers: Vec<u8>) -> io::Result<Self> {
        let mut columns: HashMap<String, HashMap<String, usize>> = HashMap::new();
        let (mut column, mut lines) = (0, Vec::new());
        for line in headers.split_inclusive(|byte| *byte == b'\n') {
            let (protocol, names) = split(line)?;
            let of_protocol = columns.entry(text(protocol)?.to_owned()).or_default();
            let first = column;
            for name in words(names) {
                of_protocol.insert(text(name)?.to_owned(), column);
                column += 1;
            }
            lines.push((text(protocol)?.to_owned(), column - first));
        }
        Ok(Self {
            headers,
            lines,
            columns,
        })
    }
}

fn split(line: &[u8]) -> io::Result<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':');
    let colon = colon.ok_or_else(|| malformed("a line without a protocol"))?;
    Ok((&line[..colon], &line[colon + 1..]))
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
}

fn text(bytes: &[u8]) -> io::Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| malformed("not text"))
}

/// `None`: negative.
fn number(word: &[u8]) -> io::Result<Option<u64>> {
    if word.first() == Some(&b'-') {
        return Ok(None);
    }
    let mut number = 0_u64;
    for byte in word {
        let next = byte
            .is_ascii_digit()
            .then(|| number.checked_mul(10)?.checked_add((byte - b'0').into()));
        number = next
            .flatten()
            .ok_or_else(|| malformed("a value is no number"))?;
    }
    Ok(Some(number))
}

fn malformed(why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("/proc/net counters: {why}"),
    )
}
