//! The path of a packet that this host dropped, or whose answer leaves by another way, as the facts of its problem tell
//! it.

use crate::model::Problem;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketFate {
    /// It arrives.
    Arrives,
    /// Dropped where it was sent.
    DroppedAtSender,
    /// Dropped where it came in.
    DroppedAtReceiver,
    /// Dropped by a router between.
    DroppedBetween,
    /// It left, and nothing more is seen of it.
    Unknown,
}

/// A packet on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRow {
    /// `SYN`, `SYN-ACK`.
    pub packet: String,
    /// It goes from the client to the server.
    pub is_of_client: bool,
    /// Its device, and the next router; or why it was dropped.
    pub by: String,
    /// What becomes of it.
    pub fate: PacketFate,
}

/// The rows of a problem; none: no fact names the place.
pub fn rows(p: &Problem) -> Vec<PathRow> {
    let facts = p.evidence.iter().filter(|e| e.supports);
    let facts: Vec<&str> = facts
        .map(|e| e.fact.strip_prefix("for example: ").unwrap_or(&e.fact))
        .collect();
    let row = |packet: &str, by: String, fate| PathRow {
        packet: packet.to_owned(),
        is_of_client: packet != "SYN-ACK",
        by,
        fate,
    };
    if let Some((came_by, leaves_by)) = facts.iter().find_map(|fact| ways(fact)) {
        let came_by = match came_by {
            CameBy::Seen(device) => device,
            CameBy::ByAddress(device) => format!("{device}?"),
        };
        return vec![
            row("SYN", came_by, PacketFate::Arrives),
            row("SYN-ACK", leaves_by, PacketFate::Unknown),
        ];
    }
    let Some((packet, why, at)) = facts.iter().find_map(|fact| dropped(fact)) else {
        return Vec::new();
    };
    let mut rows = Vec::new();
    if packet == "SYN-ACK" {
        rows.push(row("SYN", String::new(), PacketFate::Arrives));
    }
    rows.push(row(packet, why, at));
    rows
}

/// How the SYN came.
#[derive(Clone, Debug, PartialEq, Eq)]
enum CameBy {
    Seen(String),
    /// Not seen: the device has the address that was called.
    ByAddress(String),
}

/// By which way the SYN came, and by which the answer leaves, of a fact that says so.
fn ways(fact: &str) -> Option<(CameBy, String)> {
    let between = |begin: &str, end: &str| {
        let (_, after) = fact.split_once(begin)?;
        Some(after.split_once(end)?.0.to_owned())
    };
    // `lab0, to router 10.0.0.1`: what follows the next comma is another matter.
    let leaves = |begin: &str| {
        let (_, after) = fact.split_once(begin)?;
        let mut parts = after.split(", ");
        let device = parts.next()?;
        let device = match device.split_once(" (") {
            Some((_, name)) => name.trim_end_matches(')'),
            None => device,
        };
        let via = parts.next().and_then(|to| to.strip_prefix("to router "));
        let via = via.map(|via| via.split([':', ';', ' ']).next().unwrap_or(via));
        // An IPv6 address has colons of its own.
        let via = via.map(|_| {
            let (_, router) = after.split_once("to router ").unwrap_or_default();
            let end = router.find([',', ';', ' ']).unwrap_or(router.len());
            router[..end].trim_end_matches(':')
        });
        Some(match via {
            Some(via) => format!("{device} → {via}"),
            None => device.split(':').next().unwrap_or(device).to_owned(),
        })
    };
    if fact.contains("the answer leaves by ") && fact.starts_with("its SYN came in by ") {
        let came_by = CameBy::Seen(between("its SYN came in by ", ", the answer")?);
        return Some((came_by, leaves("the answer leaves by ")?));
    }
    if fact.starts_with("its SYN came in on interface ") {
        let came_by = CameBy::Seen(between("its SYN came in on interface ", ", the answer")?);
        return Some((came_by, leaves("the answer leaves on ")?));
    }
    if fact.contains(" is an address of ") && fact.contains("is answered by another way") {
        let came_by = CameBy::ByAddress(between(" is an address of ", ", and the answer")?);
        return Some((came_by, leaves(" leaves by ")?));
    }
    None
}

/// Which packet this host dropped, the kernel's name of the reason, and where.
fn dropped(fact: &str) -> Option<(&'static str, String, PacketFate)> {
    let rest = fact.strip_prefix("this host dropped ")?;
    // `24 SYN-ACKs`, `the SYN`.
    let what = rest.split(' ').nth(1)?.trim_end_matches('s');
    let packet = ["SYN-ACK", "SYN", "ACK", "RST"]
        .into_iter()
        .find(|packet| *packet == what)?;
    let has = |words: &str| {
        rest.split_once(": ")
            .is_some_and(|(way, _)| way.contains(words))
    };
    let fate = match () {
        () if has("way out") => PacketFate::DroppedAtSender,
        () if has("that came in") => PacketFate::DroppedAtReceiver,
        () if has("forward") => PacketFate::DroppedBetween,
        () => return None,
    };
    // `… (NETFILTER_DROP at nft_do_chain)`
    let (_, last) = rest.rsplit_once(" (")?;
    let reason = last.split([' ', ')']).next().unwrap_or_default();
    let is_name = reason
        .bytes()
        .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    let why = if is_name { reason } else { "" };
    Some((packet, why.to_owned(), fate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_read_from_the_facts_that_name_them() {
        let way = |fact: &str| ways(fact).unwrap();
        let owned = |came: &str, leaves: &str| (CameBy::Seen(came.to_owned()), leaves.to_owned());
        assert_eq!(
            way("its SYN came in by lab2, the answer leaves by lab0, to the peer directly"),
            owned("lab2", "lab0")
        );
        assert_eq!(
            way("its SYN came in on interface 3, the answer leaves on 2 (lab0), to router fd00::1"),
            owned("3", "lab0 → fd00::1")
        );
        assert_eq!(
            way(
                "198.18.2.1 is an address of lab2, and the answer to 198.18.0.1 leaves by lab0, to \
                 router 10.0.0.1: a SYN that comes by lab2 is answered by another way"
            ),
            (
                CameBy::ByAddress("lab2".to_owned()),
                "lab0 → 10.0.0.1".to_owned()
            )
        );
        assert_eq!(ways("the SYN-ACK was sent twice, and no ACK came"), None);
    }

    #[test]
    fn the_place_of_a_drop_is_read_from_its_fact() {
        let at = dropped;
        assert_eq!(
            at(
                "this host dropped 24 SYN-ACKs on their way out, of 3 connections: a rule (NETFILTER_DROP at nft_do_chain)"
            ),
            Some((
                "SYN-ACK",
                "NETFILTER_DROP".to_owned(),
                PacketFate::DroppedAtSender
            ))
        );
        assert_eq!(
            at(
                "this host dropped the SYN that came in, from a to b, twice: the reverse-path filter (rp_filter): \
                the route (IP_RPFILTER at ip_rcv_finish_core); in namespace blue"
            ),
            Some((
                "SYN",
                "IP_RPFILTER".to_owned(),
                PacketFate::DroppedAtReceiver
            ))
        );
        assert_eq!(
            at(
                "this host dropped 2 SYNs of 2 connections that it was to forward: no route (IP_INNOROUTES at ip_error)"
            ),
            Some((
                "SYN",
                "IP_INNOROUTES".to_owned(),
                PacketFate::DroppedBetween
            ))
        );
        assert_eq!(at("this host dropped nothing"), None);
    }
}
