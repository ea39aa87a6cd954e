//! Whether a condition of a rule fits a packet that was dropped, as far as its record shows it.

use std::net::{IpAddr, SocketAddr};

use super::super::DroppedPacket;
use crate::model::{FilterComparison, FilterFamily, FilterMatch, PacketField};

/// Flags that the record of a drop decides: FIN, SYN, RST, ACK. The others may differ between packets of a kind.
const FLAGS_KNOWN: u8 = 0x17;
/// Where the flags stand in the TCP header.
const FLAGS_AT: usize = 13;

/// A truth value of what is known in part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    No,
    Maybe,
    Yes,
}

impl Fit {
    fn of(is: bool) -> Self {
        if is { Self::Yes } else { Self::No }
    }

    fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Maybe => Self::Maybe,
            Self::Yes => Self::No,
        }
    }
}

/// Bytes of which some bits are known.
#[derive(Clone, Debug, Default)]
struct KnownBytes {
    value: Vec<u8>,
    known: Vec<u8>,
}

impl KnownBytes {
    fn unknown(len: usize) -> Self {
        Self {
            value: vec![0; len],
            known: vec![0; len],
        }
    }

    fn whole(bytes: &[u8]) -> Self {
        Self {
            value: bytes.to_vec(),
            known: vec![0xff; bytes.len()],
        }
    }

    fn set(&mut self, at: usize, bytes: &[u8], known: u8) {
        for (n, byte) in bytes.iter().enumerate() {
            self.value[at + n] = *byte;
            self.known[at + n] = known;
        }
    }

    /// A part of it. Beyond its end nothing is known.
    fn part(&self, at: usize, len: usize) -> Self {
        let byte = |from: &[u8], n: usize| from.get(at + n).copied().unwrap_or(0);
        Self {
            value: (0..len).map(|n| byte(&self.value, n)).collect(),
            known: (0..len).map(|n| byte(&self.known, n)).collect(),
        }
    }

    fn compare(&self, mask: &[u8], how: FilterComparison, value: &[u8]) -> Fit {
        let bits = || self.value.iter().zip(&self.known).zip(mask).zip(value);
        let equal = if bits().any(|(((is, known), mask), value)| (is & mask ^ value) & known != 0) {
            Fit::No
        } else {
            // A bit of the value outside the mask is compared too: the masked bit is 0.
            let differs = bits().any(|(((_, _), mask), value)| value & !mask != 0);
            let all = bits().all(|(((_, known), mask), _)| mask & !known == 0);
            match (differs, all) {
                (true, _) => Fit::No,
                (false, true) => Fit::Yes,
                (false, false) => Fit::Maybe,
            }
        };
        match how {
            FilterComparison::Is => return equal,
            FilterComparison::IsNot => return equal.not(),
            _ if bits().any(|(((_, known), mask), _)| mask & !known != 0) => return Fit::Maybe,
            _ => (),
        }
        let masked: Vec<u8> = self.value.iter().zip(mask).map(|(v, m)| v & m).collect();
        let order = masked.as_slice().cmp(value);
        Fit::of(match how {
            FilterComparison::Below => order.is_lt(),
            FilterComparison::AtMost => order.is_le(),
            FilterComparison::Above => order.is_gt(),
            FilterComparison::AtLeast => order.is_ge(),
            FilterComparison::Is | FilterComparison::IsNot => order.is_eq(),
        })
    }
}

/// The device by which a packet leaves, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeavesBy {
    /// It does not leave: it is for this host.
    Nothing,
    /// The loopback device.
    Loopback,
    /// Any device but loopback.
    NotLoopback,
    /// Not known.
    Unknown,
}

/// A dropped packet as rules see it.
pub(super) struct DroppedHeaders {
    is_v6: bool,
    network: KnownBytes,
    transport: KnownBytes,
    /// `None`: not known. Empty: it came by none, this host was sending it.
    came_by: Option<String>,
    came_by_index: u32,
    leaves_by: LeavesBy,
    /// Whether conntrack found it INVALID; `None`: not known.
    invalid: Option<bool>,
}

impl DroppedHeaders {
    pub fn of(d: &DroppedPacket, leaves_by: LeavesBy) -> Self {
        const TCP: u8 = 6;
        let plain = |end: SocketAddr| end.ip().to_canonical();
        let mut network = KnownBytes::unknown(40);
        let is_v6 = match (plain(d.from), plain(d.to)) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                network.set(9, &[TCP], 0xff);
                network.set(12, &from.octets(), 0xff);
                network.set(16, &to.octets(), 0xff);
                false
            }
            (from, to) => {
                let octets = |ip: IpAddr| match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                    IpAddr::V6(ip) => ip.octets(),
                };
                // The record is of a packet without extension headers.
                network.set(6, &[TCP], 0xff);
                network.set(8, &octets(from), 0xff);
                network.set(24, &octets(to), 0xff);
                true
            }
        };
        let mut transport = KnownBytes::unknown(20);
        transport.set(0, &d.from.port().to_be_bytes(), 0xff);
        transport.set(2, &d.to.port().to_be_bytes(), 0xff);
        transport.set(FLAGS_AT, &[d.flags], FLAGS_KNOWN);
        let came_by = match d.came_by {
            0 => Some(String::new()),
            _ => d.device.as_deref().map(str::to_owned),
        };
        Self {
            is_v6,
            network,
            transport,
            came_by,
            came_by_index: d.came_by,
            leaves_by,
            invalid: d.invalid,
        }
    }

    /// The device by which it came; empty: none; `None`: not known.
    pub fn came_by(&self) -> Option<&str> {
        self.came_by.as_deref()
    }

    /// Whether a chain of this family sees it.
    pub fn is_of(&self, family: FilterFamily) -> bool {
        match family {
            FilterFamily::V4 => !self.is_v6,
            FilterFamily::V6 => self.is_v6,
            FilterFamily::Any => true,
        }
    }

    /// Whether all conditions of a rule fit.
    pub fn fit_all(&self, conditions: &[FilterMatch]) -> Fit {
        let each = conditions.iter().map(|condition| self.fit(condition));
        each.min().unwrap_or(Fit::Yes)
    }

    fn fit(&self, condition: &FilterMatch) -> Fit {
        match condition {
            FilterMatch::Bytes {
                field,
                mask,
                how,
                value,
            } => {
                let known = self.field(*field, value.len());
                match known.value.len() == value.len() && mask.len() == value.len() {
                    true => known.compare(mask, *how, value),
                    false => Fit::Maybe,
                }
            }
            FilterMatch::AllOf(all) => self.fit_all(all),
            FilterMatch::AnyOf(any) => self.fit_any(any),
            FilterMatch::NoneOf(any) => self.fit_any(any).not(),
            FilterMatch::Device {
                came_by,
                name,
                is_prefix,
                is_not,
            } => {
                let fit = self.fit_device(*came_by, name, *is_prefix);
                if *is_not { fit.not() } else { fit }
            }
            FilterMatch::Invalid => self.invalid.map_or(Fit::Maybe, |invalid| match invalid {
                // Its counter is the namespace's: another packet may have raised it.
                true => Fit::Maybe,
                false => Fit::No,
            }),
            FilterMatch::Undecided | FilterMatch::Unknown => Fit::Maybe,
        }
    }

    fn fit_any(&self, any: &[FilterMatch]) -> Fit {
        any.iter().map(|one| self.fit(one)).max().unwrap_or(Fit::No)
    }

    fn field(&self, field: PacketField, len: usize) -> KnownBytes {
        const IPV4: u8 = libc::NFPROTO_IPV4 as u8;
        const IPV6: u8 = libc::NFPROTO_IPV6 as u8;
        match field {
            PacketField::Network(at) => self.network.part(at.into(), len),
            PacketField::Transport(at) => self.transport.part(at.into(), len),
            PacketField::Protocol => KnownBytes::whole(&[6]),
            PacketField::NetfilterFamily => {
                KnownBytes::whole(&[[IPV4, IPV6][usize::from(self.is_v6)]])
            }
            PacketField::EtherType => {
                let kind: [u16; 2] = [0x0800, 0x86dd];
                KnownBytes::whole(&kind[usize::from(self.is_v6)].to_be_bytes())
            }
            PacketField::CameByIndex if self.came_by_index != 0 => {
                KnownBytes::whole(&self.came_by_index.to_ne_bytes())
            }
            PacketField::CameByIndex => KnownBytes::unknown(len),
        }
    }

    fn fit_device(&self, came_by: bool, name: &str, is_prefix: bool) -> Fit {
        let is = |device: &str| match is_prefix {
            true => device.starts_with(name),
            false => device == name,
        };
        if came_by {
            return self
                .came_by
                .as_deref()
                .map_or(Fit::Maybe, |d| Fit::of(is(d)));
        }
        match self.leaves_by {
            LeavesBy::Nothing => Fit::of(is("")),
            LeavesBy::Loopback => Fit::of(is("lo")),
            LeavesBy::NotLoopback if !is_prefix && name == "lo" => Fit::No,
            LeavesBy::NotLoopback | LeavesBy::Unknown => Fit::Maybe,
        }
    }
}
