//! Connection tracking of a namespace: how full its table is, and what it could not track.
//!
//! `/proc/net/stat/nf_conntrack` (net/netfilter/nf_conntrack_standalone.c, CONFIG_NF_CONNTRACK_PROCFS) has one
//! line for each CPU, in hexadecimal. Its first column is the same on each: the entries of the namespace.

use std::{fs::File, io, os::unix::fs::FileExt};

use crate::{
    model::{ConntrackCounts, ConntrackReading},
    sys::{clock::monotonic_ns, netns::NetNs},
};

const STAT: &str = "/proc/thread-self/net/stat/nf_conntrack";
const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

/// Reads the state of one namespace repeatedly. The open files belong to it.
#[derive(Debug)]
pub struct ConntrackReader {
    netns: u32,
    stat: File,
    max: Option<File>,
}

impl ConntrackReader {
    /// Opens the files inside `netns`.
    ///
    /// # Errors
    /// NotFound: the kernel does not track connections there, or does not show it in `/proc`.
    pub fn open(netns: &NetNs) -> io::Result<Self> {
        let (stat, max) = netns.run(|| (File::open(STAT), File::open(MAX)))?;
        Ok(Self {
            netns: netns.inode(),
            stat: stat?,
            max: max.ok(),
        })
    }

    /// Reads it.
    ///
    /// # Errors
    /// InvalidData: the text has another form; or the error of read().
    pub fn read(&self, at_drop: bool) -> io::Result<ConntrackReading> {
        let counts = parse(&text(&self.stat)?).ok_or(io::ErrorKind::InvalidData)?;
        let max = self.max.as_ref().and_then(|file| text(file).ok());
        Ok(ConntrackReading {
            netns: self.netns,
            at_ns: monotonic_ns(),
            at_drop,
            max: max.and_then(|max| max.trim().parse().ok()),
            counts,
        })
    }
}

fn text(file: &File) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let got = file.read_at(&mut piece, bytes.len() as u64)?;
        if got == 0 {
            break;
        }
        bytes.extend_from_slice(&piece[..got]);
    }
    String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Sums the CPUs. A column that this kernel does not have is `None`.
fn parse(text: &str) -> Option<ConntrackCounts> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next()?.split_ascii_whitespace().collect();
    let rows: Vec<Vec<u64>> = lines
        .map(|line| {
            let values = line.split_ascii_whitespace();
            values.map(|v| u64::from_str_radix(v, 16).ok()).collect()
        })
        .collect::<Option<_>>()?;
    let column = |name: &str| names.iter().position(|n| *n == name);
    let sum = |name: &str| -> Option<u64> {
        let at = column(name)?;
        rows.iter().map(|row| row.get(at).copied()).sum()
    };
    Some(ConntrackCounts {
        entries: rows.first()?.get(column("entries")?).copied(),
        drop: sum("drop"),
        early_drop: sum("early_drop"),
        insert_failed: sum("insert_failed"),
        invalid: sum("invalid"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_summed_and_entries_are_not() {
        let text = "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop icmp_error\n\
                    00000352  00000000 00000000 00000000 00000002 00000000 00000000 00000000 00000000 00000001 0000000a 00000003 00000000\n\
                    00000352  00000000 00000000 00000000 00000001 00000000 00000000 00000000 00000000 00000010 00000001 00000000 00000000\n";
        assert_eq!(
            parse(text),
            Some(ConntrackCounts {
                entries: Some(0x352),
                drop: Some(11),
                early_drop: Some(3),
                insert_failed: Some(17),
                invalid: Some(3),
            })
        );
    }

    #[test]
    fn another_form_gives_nothing() {
        for text in ["", "entries drop\n", "entries\nxyz\n", "found\n0001\n"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
        let counts = parse("entries\n00000001\n").unwrap();
        assert_eq!((counts.entries, counts.drop), (Some(1), None));
    }

    #[test]
    #[ignore = "needs root"]
    fn a_namespace_has_its_own() {
        let netns = NetNs::new_anonymous().unwrap();
        let Ok(reader) = ConntrackReader::open(&netns) else {
            return;
        };
        let reading = reader.read(false).unwrap();
        assert_eq!(reading.counts.drop, Some(0));
        assert_eq!(reading.netns, netns.inode());
        assert!(reading.max.is_some());
    }
}
