//! The kernel's counters of a namespace, which every scenario is compared with.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::ns::Ns;

/// The TCP counters of one namespace (`Tcp` and `TcpExt` of the MIB), by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpCounters(BTreeMap<String, u64>);

impl TcpCounters {
    /// Reads the counters of a namespace.
    pub fn read(ns: &Ns) -> Result<Self> {
        let mut all = Self::default();
        for file in ["net/snmp", "net/netstat"] {
            all.parse(&ns.read_proc(file)?);
        }
        Ok(all)
    }

    /// Parses pairs of lines with the same prefix: names, then values.
    fn parse(&mut self, text: &str) {
        let mut lines = text.lines();
        while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
            let mut names = names.split_whitespace();
            if !matches!(names.next(), Some("Tcp:" | "TcpExt:")) {
                continue;
            }
            for (name, value) in names.zip(values.split_whitespace().skip(1)) {
                // MaxConn is -1, not a count.
                if let Ok(value) = value.parse() {
                    self.0.insert(name.to_owned(), value);
                }
            }
        }
    }

    /// A counter's value; 0 where this kernel does not have it.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Whether this kernel has the counter.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The increases since `before`.
    pub fn since(&self, before: &Self) -> Self {
        let moved = self.0.iter().map(|(name, now)| {
            let moved = now.saturating_sub(before.get(name));
            (name.clone(), moved)
        });
        Self(moved.collect())
    }

    /// Name and value of every counter that is not 0.
    pub fn moved(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0
            .iter()
            .filter(|&(_, &value)| value != 0)
            .map(|(name, &value)| (name.as_str(), value))
    }
}

/// The counters of both of the lab's namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabCounters {
    /// The client namespace.
    pub client: TcpCounters,
    /// The server namespace.
    pub server: TcpCounters,
}

impl LabCounters {
    /// The increases since `before`.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            client: self.client.since(&before.client),
            server: self.server.since(&before.server),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_pairs_of_lines() {
        let mut counters = TcpCounters::default();
        counters.parse(
            "Ip: Forwarding\nIp: 1\nTcp: MaxConn ActiveOpens AttemptFails\nTcp: -1 5 2\n\
             TcpExt: SyncookiesSent\nTcpExt: 7\n",
        );
        assert_eq!(counters.get("ActiveOpens"), 5);
        assert_eq!(counters.get("SyncookiesSent"), 7);
        assert!(!counters.has("MaxConn") && !counters.has("Forwarding"));
        let mut later = counters.clone();
        later.0.insert("AttemptFails".into(), 3);
        assert_eq!(
            later.since(&counters).moved().collect::<Vec<_>>(),
            [("AttemptFails", 1)]
        );
    }

    #[test]
    fn an_odd_line_at_the_end_is_left_out() {
        let mut counters = TcpCounters::default();
        counters.parse("Tcp: ActiveOpens");
        assert_eq!(counters, TcpCounters::default());
    }
}
