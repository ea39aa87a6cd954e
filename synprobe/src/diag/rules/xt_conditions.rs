//! Matches of x_tables (include/uapi/linux/netfilter/xt_*.h), which iptables-nft uses too: as conditions and as
//! iptables prints them. Numbers in them are in the host's byte order.

use crate::model::{FilterComparison, FilterMatch, PacketField};

/// The bit of INVALID in a mask of states (`NF_CT_STATE_INVALID_BIT`, `XT_CONNTRACK_STATE_INVALID`).
pub(super) const INVALID: u32 = 1;

/// Names of the states of a mask: nf_tables and x_tables number them alike (`NF_CT_STATE_BIT()`).
pub(super) fn states(bits: u32) -> String {
    const NAMES: [(u32, &str); 5] = [
        (1, "invalid"),
        (2, "established"),
        (4, "related"),
        (8, "new"),
        (64, "untracked"),
    ];
    let set = NAMES.iter().filter(|(bit, _)| bits & bit != 0);
    set.map(|(_, name)| *name).collect::<Vec<_>>().join(",")
}

/// A match by its name, revision and data.
pub(super) fn condition(name: &str, revision: u32, info: &[u8]) -> (FilterMatch, String) {
    let known = match (name, revision) {
        ("tcp", 0) => tcp(info),
        ("multiport", 1) => multiport(info),
        ("state", 0) => state(info),
        ("conntrack", 1..=3) => conntrack(revision, info),
        ("comment", _) => Some((FilterMatch::AllOf(Vec::new()), String::new())),
        // Rates, marks and owners: a record of a drop does not have them.
        (
            "limit" | "hashlimit" | "connlimit" | "recent" | "statistic" | "quota" | "mark"
            | "connmark" | "owner" | "cgroup" | "time",
            _,
        ) => Some((FilterMatch::Undecided, format!("-m {name} …"))),
        _ => None,
    };
    known.unwrap_or_else(|| (FilterMatch::Unknown, format!("-m {name} …")))
}

fn half(info: &[u8], at: usize) -> Option<u16> {
    let bytes = info.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_ne_bytes(bytes))
}

fn word(info: &[u8], at: usize) -> Option<u32> {
    let bytes = info.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_ne_bytes(bytes))
}

/// A range of ports at a place of the TCP header.
fn ports(at: u16, from: u16, to: u16) -> FilterMatch {
    let bytes = |how, port: u16| FilterMatch::Bytes {
        field: PacketField::Transport(at),
        mask: vec![0xff; 2],
        how,
        value: port.to_be_bytes().to_vec(),
    };
    match from == to {
        true => bytes(FilterComparison::Is, from),
        false => FilterMatch::AllOf(vec![
            bytes(FilterComparison::AtLeast, from),
            bytes(FilterComparison::AtMost, to),
        ]),
    }
}

fn ports_text(from: u16, to: u16) -> String {
    match from == to {
        true => from.to_string(),
        false => format!("{from}:{to}"),
    }
}

/// `struct xt_tcp`: ranges of source and destination ports, option, mask and value of the flags, inversions.
fn tcp(info: &[u8]) -> Option<(FilterMatch, String)> {
    const SOURCE: u8 = 1;
    const DESTINATION: u8 = 2;
    const FLAGS: u8 = 4;
    let [option, mask, flags, inverted] = *info.get(8..12)?.first_chunk()?;
    let mut all = Vec::new();
    let mut words = Vec::new();
    for (offset, at, bit, name) in [(0, 0, SOURCE, "--sport"), (4, 2, DESTINATION, "--dport")] {
        let (from, to) = (half(info, offset)?, half(info, offset + 2)?);
        if (from, to) == (0, u16::MAX) && inverted & bit == 0 {
            continue;
        }
        let range = ports(at, from, to);
        let not = inverted & bit != 0;
        words.push(format!(
            "{}{name} {}",
            if not { "! " } else { "" },
            ports_text(from, to)
        ));
        all.push(if not {
            FilterMatch::NoneOf(vec![range])
        } else {
            range
        });
    }
    if mask != 0 {
        let not = inverted & FLAGS != 0;
        words.push(format!(
            "{}--tcp-flags {} {}",
            if not { "! " } else { "" },
            super::nft_text::flags(mask),
            super::nft_text::flags(flags)
        ));
        all.push(FilterMatch::Bytes {
            field: PacketField::Transport(13),
            mask: vec![mask],
            how: if not {
                FilterComparison::IsNot
            } else {
                FilterComparison::Is
            },
            value: vec![flags],
        });
    }
    if option != 0 {
        words.push("--tcp-option …".to_owned());
        all.push(FilterMatch::Undecided);
    }
    Some((FilterMatch::AllOf(all), words.join(" ")))
}

/// `struct xt_multiport_v1`: which ports, how many, the ports, whether each begins a range, inversion.
fn multiport(info: &[u8]) -> Option<(FilterMatch, String)> {
    const PORTS: usize = 15;
    let (which, count) = (*info.first()?, usize::from(*info.get(1)?));
    let is_range = info.get(2 + PORTS * 2..2 + PORTS * 3)?;
    let inverted = *info.get(2 + PORTS * 3)? != 0;
    let (places, name): (&[u16], _) = match which {
        0 => (&[0], "--sports"),
        1 => (&[2], "--dports"),
        2 => (&[0, 2], "--ports"),
        _ => return None,
    };
    let mut any = Vec::new();
    let mut words = Vec::new();
    let mut n = 0;
    while n < count.min(PORTS) {
        let from = half(info, 2 + n * 2)?;
        let to = match is_range[n] {
            0 => from,
            _ => {
                n += 1;
                half(info, 2 + n.min(PORTS - 1) * 2)?
            }
        };
        n += 1;
        words.push(ports_text(from, to));
        any.extend(places.iter().map(|at| ports(*at, from, to)));
    }
    let text = format!(
        "-m multiport {}{name} {}",
        if inverted { "! " } else { "" },
        words.join(",")
    );
    let condition = match inverted {
        true => FilterMatch::NoneOf(any),
        false => FilterMatch::AnyOf(any),
    };
    Some((condition, text))
}

/// `struct xt_state_info`.
fn state(info: &[u8]) -> Option<(FilterMatch, String)> {
    let mask = word(info, 0)?;
    let condition = if mask == INVALID {
        FilterMatch::Invalid
    } else {
        FilterMatch::Undecided
    };
    Some((
        condition,
        format!("-m state --state {}", states(mask).to_uppercase()),
    ))
}

/// `struct xt_conntrack_mtinfo1` to `3`: only states are understood.
fn conntrack(revision: u32, info: &[u8]) -> Option<(FilterMatch, String)> {
    const STATE: u16 = 1;
    /// After eight addresses, two expiry times and five numbers.
    const FLAGS: usize = 8 * 16 + 2 * 4 + 5 * 2;
    let (used, inverted) = (half(info, FLAGS)?, half(info, FLAGS + 2)?);
    if used != STATE {
        let text = "-m conntrack …".to_owned();
        return Some((FilterMatch::Undecided, text));
    }
    // Revision 1 has a byte for the states, later ones two.
    let mask = match revision {
        1 => u32::from(*info.get(FLAGS + 4)?),
        _ => u32::from(half(info, FLAGS + 4)?),
    };
    let not = inverted & STATE != 0;
    let condition = match mask == INVALID && !not {
        true => FilterMatch::Invalid,
        false => FilterMatch::Undecided,
    };
    let not = if not { "! " } else { "" };
    let names = states(mask).to_uppercase();
    Some((condition, format!("-m conntrack {not}--ctstate {names}")))
}
