//! The members of JSON lines that a join needs (docs/events.md).

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr};

use serde::Deserialize;

#[derive(Deserialize)]
pub(super) struct LineKind<'a> {
    pub(super) v: u64,
    #[serde(borrow)]
    pub(super) r#type: Cow<'a, str>,
}

#[derive(Deserialize)]
pub(super) struct Timed<'a> {
    #[serde(borrow)]
    pub(super) time: Cow<'a, str>,
}

#[derive(Deserialize)]
pub(super) struct EndLine<'a> {
    #[serde(borrow)]
    pub(super) time: Cow<'a, str>,
    pub(super) listen_drops: Option<u64>,
    pub(super) syn_cookies: Option<u64>,
}

#[derive(Deserialize)]
pub(super) struct StartLine<'a> {
    #[serde(borrow)]
    pub(super) time: Cow<'a, str>,
    #[serde(default)]
    pub(super) filters: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) host: HostOfLine,
    pub(super) handshake_lines: Option<String>,
}

#[derive(Default, Deserialize)]
pub(super) struct HostOfLine {
    pub(super) hostname: Option<String>,
    pub(super) boot_id: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct LostLine<'a> {
    #[serde(borrow)]
    pub(super) time: Cow<'a, str>,
    pub(super) events: u64,
    pub(super) reason: String,
}

#[derive(Deserialize)]
pub(super) struct StateLine<'a> {
    pub(super) id: u64,
    #[serde(borrow)]
    pub(super) old: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) new: Cow<'a, str>,
}

#[derive(Deserialize)]
pub(super) struct RetransmitLine<'a> {
    #[serde(borrow)]
    pub(super) time: Cow<'a, str>,
    pub(super) id: u64,
    #[serde(borrow)]
    pub(super) kind: Cow<'a, str>,
    #[serde(default)]
    pub(super) trigger: Option<String>,
    #[serde(default)]
    pub(super) failed: bool,
}

#[derive(Deserialize)]
pub(super) struct RefusedLine<'a> {
    #[serde(borrow)]
    pub(super) time: Cow<'a, str>,
    pub(super) mono_ns: u64,
    pub(super) peer_addr: Option<IpAddr>,
    pub(super) local_addr: Option<IpAddr>,
    pub(super) local_port: Option<u16>,
    pub(super) what: String,
    pub(super) count: u64,
    pub(super) since: u64,
}

#[derive(Deserialize)]
pub(super) struct ProblemLine<'a> {
    #[serde(borrow)]
    pub(super) time: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) role: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) verdict: Cow<'a, str>,
    pub(super) local_port: Option<u16>,
    pub(super) handshakes: u64,
}

#[derive(Deserialize)]
pub(super) struct FactOfLine<'a> {
    #[serde(borrow)]
    pub(super) fact: Cow<'a, str>,
    pub(super) r#for: bool,
}

#[derive(Deserialize)]
pub(super) struct HandshakeLine<'a> {
    #[serde(borrow)]
    pub(super) time: Cow<'a, str>,
    pub(super) mono_ns: u64,
    pub(super) id: u64,
    #[serde(borrow)]
    pub(super) role: Cow<'a, str>,
    pub(super) local_addr: IpAddr,
    pub(super) local_port: Option<u16>,
    pub(super) peer_addr: IpAddr,
    pub(super) peer_port: Option<u16>,
    #[serde(default)]
    pub(super) netns: u32,
    pub(super) pid: Option<u32>,
    #[serde(borrow)]
    pub(super) comm: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) outcome: Cow<'a, str>,
    pub(super) open_reason: Option<&'a str>,
    pub(super) dwell_us: Option<u64>,
    pub(super) dwell_error_us: Option<u64>,
    pub(super) retransmits: u32,
    #[serde(default)]
    pub(super) retransmits_by_peer: u32,
    #[serde(borrow)]
    pub(super) error: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) verdict: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) confidence: Cow<'a, str>,
    #[serde(default, borrow)]
    pub(super) evidence: Vec<FactOfLine<'a>>,
    #[serde(borrow)]
    pub(super) remedy: Option<Cow<'a, str>>,
    pub(super) syn_seq: Option<u32>,
    pub(super) syn_ack_seq: Option<u32>,
}
