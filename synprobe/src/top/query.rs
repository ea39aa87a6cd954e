//! The filter: terms such as `port:8080 verdict:synack`, all of which a row must match.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{
    filter::{PortSet, parse_cidr},
    model::Role,
};

/// What a term can ask of a row. `None`: the row has no such property, and every term of it is met.
#[derive(Clone, Debug, Default)]
pub(super) struct RowFacts<'a> {
    /// Its ports, of either end.
    pub ports: Option<Vec<u16>>,
    /// Its namespace: inode, and name where it has one.
    pub netns: Option<(u32, Option<&'a str>)>,
    /// Its verdicts.
    pub verdicts: Option<Vec<&'a str>>,
    /// The process's command and its unit, container or pod.
    pub process: Option<String>,
    /// Its peers; there may be more that are not named (`peers_more`).
    pub peers: Option<Vec<IpAddr>>,
    /// Peers that are not named.
    pub peers_more: bool,
    /// This host's role; a router has none.
    pub role: Option<Option<Role>>,
}

/// One condition.
#[derive(Clone, Debug, PartialEq)]
enum QueryTerm {
    Port(PortSet),
    Netns(String),
    Verdict(String),
    Comm(String),
    Peer(IpNet),
    Role(Role),
}

impl QueryTerm {
    fn parse(text: &str) -> Result<Self, String> {
        let Some((key, value)) = text.split_once(':') else {
            return Err(format!("\"{text}\" has no key: {KEYS}"));
        };
        if value.is_empty() {
            return Err(format!("\"{text}\" has no value"));
        }
        let lower = value.to_lowercase();
        match key {
            "port" => value.parse().map(Self::Port).map_err(|e| format!("{e}")),
            "netns" => Ok(Self::Netns(lower)),
            "verdict" => Ok(Self::Verdict(lower.replace('_', "-"))),
            "comm" => Ok(Self::Comm(lower)),
            "peer" => parse_cidr(value)
                .map(Self::Peer)
                .map_err(|e| format!("{e}")),
            "role" => match &*lower {
                "client" => Ok(Self::Role(Role::Client)),
                "server" => Ok(Self::Role(Role::Server)),
                _ => Err(format!("\"{value}\" is no role: client or server")),
            },
            _ => Err(format!("\"{key}\" is no key: {KEYS}")),
        }
    }

    fn matches(&self, row: &RowFacts<'_>) -> bool {
        match self {
            Self::Port(set) => any(&row.ports, |port| set.contains(*port)),
            Self::Netns(wanted) => row.netns.is_none_or(|(inode, name)| {
                name.is_some_and(|name| name.to_lowercase().contains(wanted))
                    || inode.to_string() == *wanted
            }),
            Self::Verdict(wanted) => any(&row.verdicts, |v| v.contains(&**wanted)),
            Self::Comm(wanted) => row
                .process
                .as_ref()
                .is_none_or(|process| process.to_lowercase().contains(wanted)),
            Self::Peer(net) => row.peers_more || any(&row.peers, |peer| net.contains(peer)),
            Self::Role(role) => row.role.is_none_or(|of| of == Some(*role)),
        }
    }
}

const KEYS: &str = "port: netns: verdict: comm: peer: role:";

fn any<T>(values: &Option<Vec<T>>, matches: impl Fn(&T) -> bool) -> bool {
    values
        .as_ref()
        .is_none_or(|values| values.iter().any(matches))
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct RowQuery {
    terms: Vec<QueryTerm>,
    /// As it was typed.
    pub text: String,
}

impl RowQuery {
    /// From what was typed. Empty: every row matches.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in one line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let terms: Result<Vec<_>, _> = text.split_whitespace().map(QueryTerm::parse).collect();
        Ok(Self {
            terms: terms?,
            text: text.trim().to_owned(),
        })
    }

    /// Whether it lets every row through.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether a row matches all terms.
    pub fn matches(&self, row: &RowFacts<'_>) -> bool {
        self.terms.iter().all(|term| term.matches(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> RowFacts<'static> {
        RowFacts {
            ports: Some(vec![8080, 40_000]),
            netns: Some((4_026_532_001, Some("web-1"))),
            verdicts: Some(vec!["synack-lost"]),
            process: Some("nginx/812 of nginx.service".to_owned()),
            peers: Some(vec!["10.1.2.3".parse().unwrap()]),
            peers_more: false,
            role: Some(Some(Role::Server)),
        }
    }

    #[test]
    fn each_term_takes_and_leaves() {
        for (taken, left) in [
            ("port:8080", "port:80"),
            ("port:8000-9000", "port:443"),
            ("netns:WEB", "netns:db"),
            ("netns:4026532001", "netns:402653200"),
            ("verdict:synack", "verdict:filtered"),
            ("verdict:synack_lost", "verdict:lost-synack"),
            ("comm:NGINX", "comm:java"),
            ("peer:10.0.0.0/8", "peer:192.168.0.0/16"),
            ("peer:10.1.2.3", "peer:10.1.2.4"),
            ("role:server", "role:client"),
        ] {
            assert!(RowQuery::parse(taken).unwrap().matches(&row()), "{taken}");
            assert!(!RowQuery::parse(left).unwrap().matches(&row()), "{left}");
            let both = RowQuery::parse(&format!("  {taken}   {left} ")).unwrap();
            assert!(!both.matches(&row()), "{both:?}");
        }
        assert!(RowQuery::parse("").unwrap().matches(&row()));
    }

    #[test]
    fn what_a_row_does_not_have_is_no_reason_to_leave_it_out() {
        let nothing = RowFacts::default();
        for text in [
            "port:1",
            "netns:a",
            "verdict:x",
            "comm:y",
            "peer:::1",
            "role:client",
        ] {
            assert!(RowQuery::parse(text).unwrap().matches(&nothing), "{text}");
        }
        let more = RowFacts {
            peers_more: true,
            ..row()
        };
        assert!(RowQuery::parse("peer:192.168.0.1").unwrap().matches(&more));
        let router = RowFacts {
            role: Some(None),
            ..row()
        };
        assert!(!RowQuery::parse("role:server").unwrap().matches(&router));
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, said) in [
            ("8080", "no key"),
            ("prot:80", "no key: port:"),
            ("port:", "no value"),
            ("role:router", "client or server"),
        ] {
            let error = RowQuery::parse(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
        assert!(RowQuery::parse("port:http").is_err() && RowQuery::parse("peer:10/8").is_err());
    }
}
