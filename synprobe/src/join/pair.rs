//! One connect with both its ends, as it is printed.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::fact::SideHandshake;
use crate::{
    model::{Confidence, Evidence, OpenReason, Outcome},
    util::format::plural,
};

/// By what two ends were found to be one connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum PairKey {
    /// The client's initial sequence number: also through NAT.
    #[serde(rename = "syn_seq")]
    SynSeq,
    /// Addresses and ports of both ends.
    #[serde(rename = "4-tuple")]
    Ends,
}

/// Names of segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SegmentKind {
    /// Client to server.
    Syn,
    /// Server to client.
    SynAck,
    /// Client to server.
    Ack,
}

/// What became of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SegmentFate {
    /// The other end's TCP took it.
    Arrived,
    /// The other end's TCP never got it.
    Lost,
    /// It arrived at the other host, which refused it.
    Refused,
    /// Not known, or it no longer mattered.
    Unknown,
}

/// One segment on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Transmission {
    /// What it was.
    pub segment: SegmentKind,
    /// When it was sent, microseconds since the client's first SYN, on the client's clock.
    pub sent_us: Option<i64>,
    /// When the other end saw it, on the same clock.
    pub seen_us: Option<i64>,
    /// What became of it.
    pub fate: SegmentFate,
}

/// How many were sent, and how many arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub sent: u32,
    pub arrived: u32,
}

impl Sent {
    /// Both in words; `what`: one of them.
    pub fn words(self, what: &str) -> String {
        format!("{} sent, {} arrived", plural(self.sent, what), self.arrived)
    }
}

/// Segments that never arrived; `None`: not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LostSegments {
    /// SYNs and ACKs.
    pub toward_server: Option<u32>,
    /// SYN-ACKs.
    pub toward_client: Option<u32>,
    /// SYNs.
    pub syns: Option<u32>,
    /// SYN-ACKs.
    pub syn_acks: Option<u32>,
    /// ACKs: at least.
    pub acks: Option<u32>,
}

impl LostSegments {
    /// Known counts.
    pub(super) fn of(syns: u32, syn_acks: u32, acks: u32) -> Self {
        Self {
            toward_server: Some(syns + acks),
            toward_client: Some(syn_acks),
            syns: Some(syns),
            syn_acks: Some(syn_acks),
            acks: Some(acks),
        }
    }
}

/// A connect with both its ends.
#[derive(Clone, Debug, Serialize)]
pub struct Pair {
    /// By what the ends were matched; of one end alone, by what the other was looked for.
    pub key: PairKey,
    /// Both hosts called each other at once: `server` is the active open of the second file.
    pub simultaneous: bool,
    /// The client's end; `None`: only the server's file has it.
    #[serde(serialize_with = "one_end")]
    pub client: Option<Box<SideHandshake>>,
    /// The half-opens of this connect at the server.
    #[serde(serialize_with = "ends")]
    pub server: Vec<SideHandshake>,
    /// Each segment of the handshake.
    pub transmissions: Vec<Transmission>,
    /// What was lost, and where.
    pub lost: LostSegments,
    /// Server's clock − client's clock.
    pub clock_offset_us: Option<i64>,
    /// Bound of its error.
    pub clock_error_us: Option<i64>,
    /// The cause; `None`: nothing to report.
    pub verdict: Option<Arc<str>>,
    /// How sure.
    pub confidence: Confidence,
    /// The facts.
    pub evidence: Vec<Evidence>,
    /// What to do.
    pub remedy: Option<Arc<str>>,
}

impl Pair {
    /// Whether both ends have it.
    pub fn is_joined(&self) -> bool {
        self.client.is_some() && !self.server.is_empty()
    }

    /// The end that the line's time is of: the client's, where there is one.
    pub fn main_end(&self) -> Option<&SideHandshake> {
        self.client.as_deref().or(self.server.first())
    }
}

/// One end, as a pair has it.
#[derive(Serialize)]
struct PairEnd<'a> {
    id: u64,
    time: UtcTime,
    mono_ns: u64,
    local_addr: std::net::IpAddr,
    local_port: Option<u16>,
    peer_addr: std::net::IpAddr,
    peer_port: Option<u16>,
    netns: u32,
    pid: Option<u32>,
    comm: &'a Option<Arc<str>>,
    outcome: Outcome,
    open_reason: Option<OpenReason>,
    dwell_us: Option<u64>,
    retransmits: u32,
    retransmits_by_peer: u32,
    error: &'a Option<Arc<str>>,
    verdict: &'a Option<Arc<str>>,
    confidence: Confidence,
    syn_seq: Option<u32>,
    syn_ack_seq: Option<u32>,
}

impl<'a> From<&'a SideHandshake> for PairEnd<'a> {
    fn from(h: &'a SideHandshake) -> Self {
        Self {
            id: h.id,
            time: UtcTime(h.at_ns),
            mono_ns: h.mono_ns,
            local_addr: h.local_addr,
            local_port: h.local_port,
            peer_addr: h.peer_addr,
            peer_port: h.peer_port,
            netns: h.netns,
            pid: h.pid,
            comm: &h.comm,
            outcome: h.outcome,
            open_reason: h.open_reason,
            dwell_us: h.dwell_us,
            retransmits: h.retransmits,
            retransmits_by_peer: h.by_peer,
            error: &h.error,
            verdict: &h.verdict,
            confidence: h.confidence,
            syn_seq: h.syn_seq,
            syn_ack_seq: h.syn_ack_seq,
        }
    }
}

fn one_end<S: Serializer>(
    end: &Option<Box<SideHandshake>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    end.as_deref().map(PairEnd::from).serialize(serializer)
}

fn ends<S: Serializer>(ends: &[SideHandshake], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(ends.iter().map(PairEnd::from))
}

/// A time, written as RFC 3339 with microseconds, UTC. Of a million pairs each has several.
pub struct UtcTime(pub i64);

impl UtcTime {
    /// `2026-01-02T03:04:05.123456Z`. Nanoseconds since 1970 in 64 bits reach from 1677 to 2262.
    fn text(&self) -> [u8; 27] {
        let time = jiff::Timestamp::from_microsecond(self.0.div_euclid(1000)).unwrap_or_default();
        let time = jiff::tz::Offset::UTC.to_datetime(time);
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let mut put = |at: usize, digits: usize, mut value: i32| {
            for place in text[at..at + digits].iter_mut().rev() {
                *place = b'0' + (value % 10) as u8;
                value /= 10;
            }
        };
        put(0, 4, time.year().into());
        put(5, 2, time.month().into());
        put(8, 2, time.day().into());
        put(11, 2, time.hour().into());
        put(14, 2, time.minute().into());
        put(17, 2, time.second().into());
        put(20, 6, time.subsec_nanosecond() / 1000);
        text
    }
}

impl Serialize for UtcTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.text();
        serializer.serialize_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

/// The same as a text.
pub fn utc(at_ns: i64) -> String {
    String::from_utf8_lossy(&UtcTime(at_ns).text()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_jiff_writes_them() {
        const DAY_NS: i64 = 86_400_000_000_000;
        // Each day of 400 years: at its last microsecond, and at its first.
        for day in -100_000..46_097 {
            for at_ns in [day * DAY_NS - 1, day * DAY_NS] {
                let time = jiff::Timestamp::from_microsecond(at_ns.div_euclid(1000)).unwrap();
                assert_eq!(utc(at_ns), format!("{time:.6}"), "{at_ns}");
            }
        }
    }
}
