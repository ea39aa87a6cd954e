//! Conditions as nft prints them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::{FilterComparison, PacketField};

/// A rule's words in one line. The protocol is left out where a port says it.
pub(super) fn joined(mut words: Vec<String>) -> String {
    const TCP: &str = "meta l4proto tcp";
    if words.iter().any(|word| word.starts_with("tcp ")) {
        words.retain(|word| word != TCP);
    }
    let names_family = |word: &String| word.starts_with("ip ") || word.starts_with("ip6 ");
    if words.iter().any(names_family) {
        words.retain(|word| !word.starts_with("meta nfproto "));
    }
    words.retain(|word| !word.is_empty());
    words.join(" ")
}

/// Key of a meta expression.
pub(super) fn meta_name(key: u32) -> String {
    let name = match key as i32 {
        libc::NFT_META_MARK => "mark",
        libc::NFT_META_OIF => "oif",
        libc::NFT_META_SKUID => "skuid",
        libc::NFT_META_SKGID => "skgid",
        libc::NFT_META_PKTTYPE => "pkttype",
        libc::NFT_META_CPU => "cpu",
        libc::NFT_META_CGROUP => "cgroup",
        libc::NFT_META_LEN => "length",
        libc::NFT_META_PRIORITY => "priority",
        libc::NFT_META_NFTRACE => "nftrace",
        _ => return format!("key {key}"),
    };
    name.to_owned()
}

/// Bytes of a meta expression's value; `None`: not known.
pub(super) fn meta_len(key: u32) -> Option<usize> {
    match key as i32 {
        libc::NFT_META_PKTTYPE | libc::NFT_META_NFTRACE => Some(1),
        libc::NFT_META_MARK
        | libc::NFT_META_OIF
        | libc::NFT_META_SKUID
        | libc::NFT_META_SKGID
        | libc::NFT_META_CPU
        | libc::NFT_META_CGROUP
        | libc::NFT_META_LEN
        | libc::NFT_META_PRIORITY => Some(4),
        _ => None,
    }
}

/// `tcp dport`, `ip saddr`
pub(super) fn field_name(family: u8, field: PacketField) -> String {
    let v6 = i32::from(family) == libc::NFPROTO_IPV6;
    match field {
        PacketField::Transport(0) => "tcp sport".to_owned(),
        PacketField::Transport(2) => "tcp dport".to_owned(),
        PacketField::Transport(13) => "tcp flags".to_owned(),
        PacketField::Transport(at) => format!("tcp byte {at}"),
        // In a family of both, IPv6 has its addresses at other places.
        PacketField::Network(8) => "ip6 saddr".to_owned(),
        PacketField::Network(24) => "ip6 daddr".to_owned(),
        PacketField::Network(12) if !v6 => "ip saddr".to_owned(),
        PacketField::Network(16) if !v6 => "ip daddr".to_owned(),
        PacketField::Network(9) if !v6 => "ip protocol".to_owned(),
        PacketField::Network(6) => "ip6 nexthdr".to_owned(),
        PacketField::Network(at) => format!("ip byte {at}"),
        PacketField::Protocol => "meta l4proto".to_owned(),
        PacketField::NetfilterFamily => "meta nfproto".to_owned(),
        PacketField::EtherType => "meta protocol".to_owned(),
        PacketField::CameByIndex => "iif".to_owned(),
    }
}

fn operator(how: FilterComparison) -> &'static str {
    match how {
        FilterComparison::Is => "",
        FilterComparison::IsNot => "!= ",
        FilterComparison::Below => "< ",
        FilterComparison::AtMost => "<= ",
        FilterComparison::Above => "> ",
        FilterComparison::AtLeast => ">= ",
    }
}

/// A value that has no better form.
pub(super) fn hex(how: FilterComparison, value: &[u8]) -> String {
    let digits: String = value.iter().map(|b| format!("{b:02x}")).collect();
    format!("{}0x{digits}", operator(how))
}

/// `tcp dport != 80`, `ip saddr 10.0.0.0/8`
pub(super) fn comparison(
    family: u8,
    field: PacketField,
    mask: &[u8],
    how: FilterComparison,
    value: &[u8],
) -> String {
    let name = field_name(family, field);
    let shown = match field {
        PacketField::Transport(0 | 2) => port(value),
        PacketField::Transport(13) if value.len() == 1 && mask.len() == 1 => {
            if how == FilterComparison::IsNot && value[0] == 0 {
                // Any of them is set: nft(8) writes `tcp flags syn`.
                return format!("{name} {}", flags(mask[0]));
            }
            let of = flags(value[0]);
            let of = if of.is_empty() { "0x0".to_owned() } else { of };
            Some(match mask[0] {
                0xff => of,
                mask => format!("{of} / {}", flags(mask)),
            })
        }
        PacketField::Network(8 | 12 | 16 | 24) if name.ends_with("addr") => {
            network(name.starts_with("ip6"), mask, value)
        }
        PacketField::Protocol | PacketField::Network(6 | 9) => Some(match value {
            [6] => "tcp".to_owned(),
            [17] => "udp".to_owned(),
            [1] => "icmp".to_owned(),
            [58] => "ipv6-icmp".to_owned(),
            [other] => other.to_string(),
            _ => return format!("{name} {}", hex(how, value)),
        }),
        PacketField::NetfilterFamily => match value {
            [2] => Some("ipv4".to_owned()),
            [10] => Some("ipv6".to_owned()),
            _ => None,
        },
        PacketField::EtherType => match value {
            [8, 0] => Some("ip".to_owned()),
            [0x86, 0xdd] => Some("ip6".to_owned()),
            _ => None,
        },
        PacketField::CameByIndex => value
            .first_chunk()
            .map(|index| u32::from_ne_bytes(*index).to_string()),
        _ => None,
    };
    match shown {
        Some(shown) => format!("{name} {}{shown}", operator(how)),
        None => format!("{name} {}", hex(how, value)),
    }
}

/// `tcp dport 10-20`
pub(super) fn range(
    family: u8,
    field: PacketField,
    from: &[u8],
    to: &[u8],
    is_not: bool,
) -> String {
    let name = field_name(family, field);
    let not = if is_not { "!= " } else { "" };
    let is_v6 = name.starts_with("ip6");
    let shown = |value: &[u8]| {
        let whole = vec![0xff; value.len()];
        let text = match field {
            PacketField::Transport(0 | 2) => port(value),
            PacketField::Network(_) => network(is_v6, &whole, value),
            _ => None,
        };
        text.unwrap_or_else(|| hex(FilterComparison::Is, value))
    };
    format!("{name} {not}{}-{}", shown(from), shown(to))
}

/// A value of a set, or the values from one to another: `80`, `80-90`, `10.0.0.0/8`; `None`: it has no better form
/// than its bytes.
pub(super) fn element(family: u8, field: PacketField, from: &[u8], to: &[u8]) -> Option<String> {
    let is_v6 = field_name(family, field).starts_with("ip6");
    let differs: Vec<u8> = from.iter().zip(to).map(|(a, b)| a ^ b).collect();
    let mask: Vec<u8> = differs.iter().map(|b| !b).collect();
    let one = |value: &[u8], mask: &[u8]| match field {
        PacketField::Transport(0 | 2) => port(value),
        PacketField::Network(8 | 12 | 16 | 24) => network(is_v6, mask, value),
        PacketField::Protocol | PacketField::Network(6 | 9) => match value {
            [6] => Some("tcp".to_owned()),
            [17] => Some("udp".to_owned()),
            [other] => Some(other.to_string()),
            _ => None,
        },
        _ => None,
    };
    if from == to {
        return one(from, &mask);
    }
    let is_address = matches!(field, PacketField::Network(8 | 12 | 16 | 24));
    let whole = vec![0xff; from.len()];
    let is_network = is_address && from.iter().zip(&differs).all(|(from, d)| from & d == 0);
    let network = is_network.then(|| one(from, &mask)).flatten();
    let network = network.filter(|text| !text.contains('&'));
    network.or_else(|| Some(format!("{}-{}", one(from, &whole)?, one(to, &whole)?)))
}

fn port(value: &[u8]) -> Option<String> {
    let bytes = <[u8; 2]>::try_from(value).ok()?;
    Some(u16::from_be_bytes(bytes).to_string())
}

/// Names of TCP flags.
pub(super) fn flags(bits: u8) -> String {
    const NAMES: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"];
    let set = NAMES.iter().enumerate().filter(|(n, _)| bits >> n & 1 == 1);
    set.map(|(_, name)| *name).collect::<Vec<_>>().join(",")
}

/// An address, or a network: of its first bytes, or under a mask.
pub(super) fn network(is_v6: bool, mask: &[u8], value: &[u8]) -> Option<String> {
    let whole = if is_v6 { 16 } else { 4 };
    if value.is_empty() || value.len() > whole || mask.len() != value.len() {
        return None;
    }
    let bits: u32 = mask.iter().map(|b| b.leading_ones()).sum();
    let ones: u32 = mask.iter().map(|b| b.count_ones()).sum();
    let is_prefix = bits == ones && {
        let at = (bits / 8) as usize;
        mask.iter().skip(at + 1).all(|b| *b == 0)
    };
    let mut bytes = [0; 16];
    bytes[..value.len()].copy_from_slice(value);
    let address: IpAddr = match is_v6 {
        true => Ipv6Addr::from(bytes).into(),
        false => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
    };
    Some(match (is_prefix, bits as usize == whole * 8) {
        (true, true) => address.to_string(),
        (true, false) => format!("{address}/{bits}"),
        (false, _) => {
            let digits: String = mask.iter().map(|b| format!("{b:02x}")).collect();
            format!("{address} & 0x{digits}")
        }
    })
}
