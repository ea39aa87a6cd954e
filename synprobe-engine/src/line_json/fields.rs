//! Lines written field by field, without checking the known names for escapes.

use std::{
    io::{self, Write},
    net::IpAddr,
    ops::Range,
};

use super::write;
use crate::model::{Connection, Family, Handshake, OpenReason, State, VerdictKind, Workload};

const NO_WORKLOAD: &str = ",\"unit\":null,\"container_id\":null,\"pod_uid\":null,\"container\":null,\"pod\":null,\
                           \"namespace\":null";

/// A line under way. Field names are given with their punctuation: `,"name":`.
pub struct Fields<'a> {
    out: &'a mut Vec<u8>,
}

/// The connection that was written last, and its bytes in the output. A transition and the end of its
/// handshake follow each other, and half of each line is the connection: it is copied.
#[derive(Default)]
pub struct LastConnection<'l>(Option<(&'l Connection, Range<usize>)>);

impl<'a> Fields<'a> {
    /// The fields that every line starts with.
    pub fn begin(out: &'a mut Vec<u8>, kind: &str, time: &str, mono_ns: u64) -> Self {
        Self { out }
            .word("{\"v\":1,\"type\":", kind)
            .word(",\"time\":", time)
            .number(",\"mono_ns\":", mono_ns)
    }

    // Inlined, so that a name of known length is stored without a call.
    #[inline(always)]
    fn raw(self, text: &str) -> Self {
        self.out.extend_from_slice(text.as_bytes());
        self
    }

    #[inline(always)]
    fn number(self, name: &str, value: impl Into<u64>) -> Self {
        self.raw(name).raw(itoa::Buffer::new().format(value.into()))
    }

    #[inline(always)]
    fn maybe(self, name: &str, value: Option<impl Into<u64>>) -> Self {
        match value {
            Some(value) => self.number(name, value),
            None => self.raw(name).raw("null"),
        }
    }

    /// A word that needs no escapes.
    #[inline(always)]
    fn word(self, name: &str, value: &str) -> Self {
        self.raw(name).raw("\"").raw(value).raw("\"")
    }

    fn addr(self, name: &str, value: IpAddr) -> io::Result<Self> {
        let IpAddr::V4(v4) = value else {
            let quoted = self.raw(name);
            write!(quoted.out, "\"{value}\"")?;
            return Ok(quoted);
        };
        let [a, b, c, d] = v4.octets();
        Ok(self
            .raw(name)
            .number("\"", a)
            .number(".", b)
            .number(".", c)
            .number(".", d)
            .raw("\""))
    }

    /// Text that may need escapes.
    fn text(self, name: &str, value: Option<&str>) -> io::Result<Self> {
        let harmless = |b: u8| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\';
        match value {
            None => Ok(self.raw(name).raw("null")),
            Some(text) if text.bytes().all(harmless) => Ok(self.word(name, text)),
            Some(text) => {
                let named = self.raw(name);
                write(named.out, &text)?;
                Ok(named)
            }
        }
    }

    fn connection<'l>(self, c: &'l Connection, last: &mut LastConnection<'l>) -> io::Result<Self> {
        if let Some((_, at)) = last.0.as_ref().filter(|(last, _)| *last == c) {
            self.out.extend_from_within(at.clone());
            return Ok(self);
        }
        let begin = self.out.len();
        let written = self.whole_connection(c)?;
        *last = LastConnection(Some((c, begin..written.out.len())));
        Ok(written)
    }

    fn whole_connection(self, c: &Connection) -> io::Result<Self> {
        let family = match c.family {
            Family::Ipv4 => "ipv4",
            Family::Ipv6 => "ipv6",
        };
        let mapped = match c.v4_mapped {
            true => ",\"v4_mapped\":true",
            false => "",
        };
        self.number(",\"id\":", c.id)
            .word(",\"role\":", c.role.name())
            .word(",\"family\":", family)
            .raw(mapped)
            .addr(",\"local_addr\":", c.local_addr)?
            .maybe(",\"local_port\":", c.local_port)
            .addr(",\"peer_addr\":", c.peer_addr)?
            .maybe(",\"peer_port\":", c.peer_port)
            .number(",\"netns\":", c.netns)
            .text(",\"netns_name\":", c.netns_name.as_deref())?
            .maybe(",\"pid\":", c.pid)
            .text(",\"comm\":", c.comm.as_deref())?
            .text(",\"cgroup\":", c.cgroup.as_deref())?
            .workload(&c.workload)
    }

    fn workload(self, workload: &Workload) -> io::Result<Self> {
        let Some(names) = workload.0.as_deref() else {
            return Ok(self.raw(NO_WORKLOAD));
        };
        self.text(",\"unit\":", names.unit.as_deref())?
            .text(",\"container_id\":", names.container_id.as_deref())?
            .text(",\"pod_uid\":", names.pod_uid.as_deref())?
            .text(",\"container\":", names.container.as_deref())?
            .text(",\"pod\":", names.pod.as_deref())?
            .text(",\"namespace\":", names.namespace.as_deref())
    }

    /// The rest of a transition's line.
    ///
    /// # Errors
    ///
    /// A text has no JSON form.
    pub fn state<'l>(self, s: &'l State, last: &mut LastConnection<'l>) -> io::Result<()> {
        self.connection(&s.connection, last)?
            .word(",\"old\":", s.old.name())
            .word(",\"new\":", s.new.name())
            .maybe(",\"dwell_us\":", s.dwell_us)
            .raw("}");
        Ok(())
    }

    /// The rest of a handshake's line.
    ///
    /// # Errors
    ///
    /// A text or a fact has no JSON form.
    pub fn handshake<'l>(self, h: &'l Handshake, last: &mut LastConnection<'l>) -> io::Result<()> {
        let judged = self
            .connection(&h.connection, last)?
            .community_id(&h.connection)?
            .word(",\"outcome\":", h.outcome.name())
            .text(",\"open_reason\":", h.open_reason.map(OpenReason::name))?
            .maybe(",\"dwell_us\":", h.dwell_us)
            .text(",\"dwell_source\":", h.dwell_source.map(|s| s.name()))?
            .maybe(",\"dwell_error_us\":", h.dwell_error_us)
            .maybe(",\"dwell_at_least_us\":", h.dwell_at_least_us)
            .number(",\"retransmits\":", h.retransmits)
            .number(",\"retransmits_by_peer\":", h.retransmits_by_peer)
            .text(",\"error\":", h.error.as_deref())?
            .text(",\"verdict\":", h.verdict.map(VerdictKind::name))?
            .word(",\"confidence\":", h.confidence.name())
            .raw(",\"evidence\":");
        match h.evidence.is_empty() {
            true => judged.out.extend_from_slice(b"[]"),
            false => write(judged.out, &h.evidence)?,
        }
        judged
            .text(",\"remedy\":", h.remedy.as_deref())?
            .maybe(",\"syn_seq\":", h.facts.syn_seq)
            .maybe(",\"syn_ack_seq\":", h.facts.syn_ack_seq)
            .raw("}");
        Ok(())
    }

    fn community_id(self, c: &Connection) -> io::Result<Self> {
        let named = self.raw(",\"community_id\":");
        match c.community_id() {
            Some(id) => write!(named.out, "\"{id}\"")?,
            None => named.out.extend_from_slice(b"null"),
        }
        Ok(named)
    }
}
