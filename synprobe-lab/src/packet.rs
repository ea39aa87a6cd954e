//! Builds and parses TCP segments in IPv4, IPv6 and Ethernet.

use std::net::{IpAddr, SocketAddr};

pub use synprobe_ebpf::lab_config::flags;

/// Length of an Ethernet header.
pub const ETH_LEN: usize = 14;

/// A TCP segment with its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpSegment {
    /// Source address and port.
    pub source: SocketAddr,
    /// Destination address and port, of the same family.
    pub destination: SocketAddr,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// TCP flags: [`flags`].
    pub flags: u8,
    /// Length of the payload, bytes.
    pub payload_len: usize,
}

impl TcpSegment {
    /// Builds the IP packet without payload. `None` where the address families differ. A SYN carries only
    /// the MSS option.
    pub fn to_ip(&self) -> Option<Vec<u8>> {
        self.to_ip_with(None)
    }

    /// As [`Self::to_ip`], with the TCP timestamps option (value, echo), RFC 7323.
    pub fn to_ip_with(&self, timestamps: Option<(u32, u32)>) -> Option<Vec<u8>> {
        let mut tcp = Vec::with_capacity(36);
        tcp.extend_from_slice(&self.source.port().to_be_bytes());
        tcp.extend_from_slice(&self.destination.port().to_be_bytes());
        tcp.extend_from_slice(&self.seq.to_be_bytes());
        tcp.extend_from_slice(&self.ack.to_be_bytes());
        let syn = self.flags & flags::SYN != 0;
        let words = 5 + u8::from(syn) + if timestamps.is_some() { 3 } else { 0 };
        tcp.push(words << 4);
        tcp.push(self.flags);
        tcp.extend_from_slice(&64240u16.to_be_bytes());
        tcp.extend_from_slice(&[0; 4]);
        if syn {
            tcp.extend_from_slice(&[2, 4]);
            tcp.extend_from_slice(&1400u16.to_be_bytes());
        }
        if let Some((value, echo)) = timestamps {
            tcp.extend_from_slice(&[1, 1, 8, 10]);
            tcp.extend_from_slice(&value.to_be_bytes());
            tcp.extend_from_slice(&echo.to_be_bytes());
        }
        let (mut packet, pseudo) = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut ip = vec![0x45, 0];
                ip.extend_from_slice(&((20 + tcp.len()) as u16).to_be_bytes());
                // No identification, do not fragment, 64 hops, TCP.
                ip.extend_from_slice(&[0, 0, 0x40, 0, 64, 6, 0, 0]);
                ip.extend_from_slice(&source.octets());
                ip.extend_from_slice(&destination.octets());
                let sum = checksum(&[&ip]).to_be_bytes();
                ip[10..12].copy_from_slice(&sum);
                let addresses = ip[12..20].to_vec();
                (ip, addresses)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut ip = vec![0x60, 0, 0, 0];
                ip.extend_from_slice(&(tcp.len() as u16).to_be_bytes());
                ip.extend_from_slice(&[6, 64]);
                ip.extend_from_slice(&source.octets());
                ip.extend_from_slice(&destination.octets());
                let addresses = ip[8..40].to_vec();
                (ip, addresses)
            }
            _ => return None,
        };
        let length = (tcp.len() as u16).to_be_bytes();
        let sum = checksum(&[&pseudo, &[0, 6], &length, &tcp]).to_be_bytes();
        tcp[16..18].copy_from_slice(&sum);
        packet.extend_from_slice(&tcp);
        Some(packet)
    }

    /// The Ethernet frame around [`Self::to_ip`].
    pub fn to_frame(&self, from: [u8; 6], to: [u8; 6]) -> Option<Vec<u8>> {
        self.to_frame_with(from, to, None)
    }

    /// The Ethernet frame around [`Self::to_ip_with`].
    pub fn to_frame_with(
        &self,
        from: [u8; 6],
        to: [u8; 6],
        timestamps: Option<(u32, u32)>,
    ) -> Option<Vec<u8>> {
        let mut frame = Vec::with_capacity(ETH_LEN + 64);
        frame.extend_from_slice(&to);
        frame.extend_from_slice(&from);
        let kind: u16 = if self.source.is_ipv4() {
            0x0800
        } else {
            0x86dd
        };
        frame.extend_from_slice(&kind.to_be_bytes());
        frame.extend_from_slice(&self.to_ip_with(timestamps)?);
        Some(frame)
    }

    /// The value of the TCP timestamps option of a frame that [`Self::from_frame`] parses.
    pub fn timestamp_of(frame: &[u8]) -> Option<u32> {
        let ip = match frame.get(12..ETH_LEN)? {
            [0x08, 0x00] => usize::from(frame.get(ETH_LEN)? & 0xf) * 4,
            _ => 40,
        };
        let tcp = frame.get(ETH_LEN + ip..)?;
        let mut options = tcp.get(20..usize::from(tcp.get(12)? >> 4) * 4)?;
        loop {
            match options {
                [8, 10, rest @ ..] => return Some(u32::from_be_bytes(array(rest, 0)?)),
                [1, rest @ ..] => options = rest,
                [0, ..] | [] => return None,
                [_, len, ..] => options = options.get(usize::from(*len).max(2)..)?,
                [_] => return None,
            }
        }
    }

    /// Parses an Ethernet frame. `None` unless it has a whole TCP header in IPv4, or in IPv6 without
    /// extension headers.
    pub fn from_frame(frame: &[u8]) -> Option<Self> {
        let kind = frame.get(12..ETH_LEN)?;
        match (kind, frame.get(ETH_LEN..)?) {
            ([0x08, 0x00], ip) => Self::from_ipv4(ip),
            ([0x86, 0xdd], ip) => Self::from_ipv6(ip),
            _ => None,
        }
    }

    fn from_ipv4(ip: &[u8]) -> Option<Self> {
        let header = usize::from(ip.first()? & 0xf) * 4;
        let total = usize::from(u16::from_be_bytes(array(ip, 2)?));
        if *ip.get(9)? != 6 || header < 20 {
            return None;
        }
        let source: [u8; 4] = array(ip, 12)?;
        let destination: [u8; 4] = array(ip, 16)?;
        let length = total.checked_sub(header)?;
        Self::from_tcp(ip.get(header..)?, length, source.into(), destination.into())
    }

    fn from_ipv6(ip: &[u8]) -> Option<Self> {
        if *ip.get(6)? != 6 {
            return None;
        }
        let length = usize::from(u16::from_be_bytes(array(ip, 4)?));
        let source: [u8; 16] = array(ip, 8)?;
        let destination: [u8; 16] = array(ip, 24)?;
        Self::from_tcp(ip.get(40..)?, length, source.into(), destination.into())
    }

    fn from_tcp(tcp: &[u8], length: usize, source: IpAddr, destination: IpAddr) -> Option<Self> {
        let header = usize::from(tcp.get(12)? >> 4) * 4;
        Some(Self {
            source: SocketAddr::new(source, u16::from_be_bytes(array(tcp, 0)?)),
            destination: SocketAddr::new(destination, u16::from_be_bytes(array(tcp, 2)?)),
            seq: u32::from_be_bytes(array(tcp, 4)?),
            ack: u32::from_be_bytes(array(tcp, 8)?),
            flags: *tcp.get(13)?,
            payload_len: length.checked_sub(header)?,
        })
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// The Internet checksum (RFC 1071) of the concatenated parts. All but the last have even length.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(source: &str, destination: &str, flags: u8) -> TcpSegment {
        TcpSegment {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            seq: 0x0102_0304,
            ack: 0x0a0b_0c0d,
            flags,
            payload_len: 0,
        }
    }

    #[test]
    pub fn checksum_is_that_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&[&bytes]), !0xddf2);
        assert_eq!(checksum(&[&[0xff, 0xff, 0x01]]), !0x0100);
    }

    #[test]
    fn a_well_known_ipv4_header_gets_its_checksum() {
        let header = [
            0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0,
            0xc7,
        ];
        assert_eq!(checksum(&[&header]), 0xb861);
    }

    #[test]
    fn what_is_built_sums_to_zero_and_reads_back() {
        for (source, destination) in [
            ("198.18.128.9:4321", "198.18.0.2:8080"),
            ("[fd00:5950:f::9]:4321", "[fd00:5950::2]:8080"),
        ] {
            for flags in [flags::SYN, flags::RST, flags::ACK, flags::SYN | flags::ACK] {
                let built = segment(source, destination, flags);
                let ip = built.to_ip().unwrap();
                let header = if built.source.is_ipv4() { 20 } else { 40 };
                if header == 20 {
                    assert_eq!(checksum(&[&ip[..20]]), 0);
                }
                let addresses = if header == 20 {
                    &ip[12..20]
                } else {
                    &ip[8..40]
                };
                let tcp = &ip[header..];
                let length = (tcp.len() as u16).to_be_bytes();
                assert_eq!(checksum(&[addresses, &[0, 6], &length, tcp]), 0);
                let frame = built.to_frame([2; 6], [4; 6]).unwrap();
                assert_eq!(TcpSegment::from_frame(&frame), Some(built));
            }
        }
    }

    #[test]
    fn timestamps_are_built_and_read_back() {
        for flags in [flags::SYN | flags::ACK, flags::ACK] {
            let built = segment("198.18.128.9:4321", "198.18.0.2:8080", flags);
            let frame = built.to_frame_with([2; 6], [4; 6], Some((7, 9))).unwrap();
            assert_eq!(TcpSegment::from_frame(&frame), Some(built));
            assert_eq!(TcpSegment::timestamp_of(&frame), Some(7));
            let ip = &frame[ETH_LEN..];
            let length = (ip.len() as u16 - 20).to_be_bytes();
            assert_eq!(checksum(&[&ip[12..20], &[0, 6], &length, &ip[20..]]), 0);
            let plain = built.to_frame([2; 6], [4; 6]).unwrap();
            assert_eq!(TcpSegment::timestamp_of(&plain), None);
        }
    }

    #[test]
    fn two_families_do_not_mix() {
        assert_eq!(segment("1.2.3.4:1", "[::1]:2", flags::SYN).to_ip(), None);
    }

    #[test]
    fn a_frame_cut_short_is_not_read_past_its_end() {
        let frame = segment("[fd00::9]:1", "[fd00::2]:2", flags::ACK).to_frame([2; 6], [4; 6]);
        let frame = frame.unwrap();
        for len in 0..ETH_LEN + 40 + 14 {
            assert_eq!(TcpSegment::from_frame(&frame[..len]), None);
        }
    }
}
