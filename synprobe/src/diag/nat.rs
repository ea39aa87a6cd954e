//! Where this host's NAT sends a connection (REDIRECT, DNAT), as connection tracking has it.
//!
//! `/proc/net/nf_conntrack` (CONFIG_NF_CONNTRACK_PROCFS) needs no capability that a run gives up; ctnetlink
//! asks for CAP_NET_ADMIN. The file has the whole table, so reading it is bounded.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use crate::sys::netns::NetNs;

/// The longest that the table is read.
const PATIENCE: Duration = Duration::from_millis(100);
/// The table of the calling thread's namespace.
const TABLE: &str = "/proc/thread-self/net/nf_conntrack";

/// The real destinations of connections in `netns`, each given by its own end and the address called; `None`
/// for one that is not in the table, or was not found in time.
///
/// # Errors
/// The namespace cannot be entered. A kernel without the table gives `None` for all.
pub fn destinations(
    netns: &NetNs,
    connections: &[(SocketAddr, SocketAddr)],
) -> io::Result<Vec<Option<SocketAddr>>> {
    netns.run(|| destinations_here(connections))
}

/// The same in the calling thread's namespace.
pub fn destinations_here(connections: &[(SocketAddr, SocketAddr)]) -> Vec<Option<SocketAddr>> {
    let flat = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
    let wanted: Vec<_> = connections
        .iter()
        .map(|(local, peer)| (flat(*local), flat(*peer)))
        .collect();
    let mut found = vec![None; wanted.len()];
    let Ok(table) = File::open(TABLE) else {
        return found;
    };
    let deadline = Instant::now() + PATIENCE;
    let mut left = wanted.len();
    for line in BufReader::new(table).lines() {
        let Ok(line) = line else { break };
        if let Some((original, server)) = parse(&line)
            && let Some(at) = wanted.iter().position(|w| *w == original)
            && found[at].is_none()
        {
            found[at] = Some(server);
            left -= 1;
        }
        if left == 0 || Instant::now() > deadline {
            break;
        }
    }
    found
}

/// Both ends of a TCP connection as its client sees them, and the server of the replies.
fn parse(line: &str) -> Option<((SocketAddr, SocketAddr), SocketAddr)> {
    if line.split_whitespace().nth(2) != Some("tcp") {
        return None;
    }
    // The tuple of the original direction comes first, then that of the replies (`ct_seq_show()`).
    let mut tuples = [(None, None, None, None); 2];
    let mut at = 0;
    for word in line.split_whitespace() {
        let Some((name, value)) = word.split_once('=') else {
            continue;
        };
        let tuple = tuples.get_mut(at)?;
        match name {
            "src" => tuple.0 = value.parse::<IpAddr>().ok(),
            "dst" => tuple.1 = value.parse::<IpAddr>().ok(),
            "sport" => tuple.2 = value.parse::<u16>().ok(),
            "dport" => {
                tuple.3 = value.parse::<u16>().ok();
                at += 1;
                if at == tuples.len() {
                    break;
                }
            }
            _ => (),
        }
    }
    let [original, reply] = tuples;
    let client = SocketAddr::new(original.0?, original.2?);
    let called = SocketAddr::new(original.1?, original.3?);
    Some(((client, called), SocketAddr::new(reply.0?, reply.2?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_of_the_replies_is_the_real_destination() {
        let line = "ipv4     2 tcp      6 117 SYN_SENT src=10.244.1.2 dst=10.96.0.99 sport=49754 dport=18111 \
                    [UNREPLIED] src=127.0.0.1 dst=10.244.1.2 sport=15001 dport=49754 mark=0 zone=0 use=2";
        let (original, server) = parse(line).unwrap();
        assert_eq!(original.0, "10.244.1.2:49754".parse().unwrap());
        assert_eq!(original.1, "10.96.0.99:18111".parse().unwrap());
        assert_eq!(server, "127.0.0.1:15001".parse().unwrap());
        let v6 = "ipv6     10 tcp      6 431999 ESTABLISHED \
                  src=fd00:0000:0000:0000:0000:0000:0000:0001 dst=fd00:0000:0000:0000:0000:0000:0000:0002 \
                  sport=40000 dport=80 src=fd00:0000:0000:0000:0000:0000:0000:0002 \
                  dst=fd00:0000:0000:0000:0000:0000:0000:0001 sport=80 dport=40000 [ASSURED] mark=0 use=1";
        assert_eq!(parse(v6).unwrap().1, "[fd00::2]:80".parse().unwrap());
    }

    #[test]
    fn other_protocols_and_lines_cut_short_are_passed_over() {
        let line = "ipv4     2 udp      17 29 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 src=10.0.0.2 \
                    dst=10.0.0.1 sport=2 dport=1 mark=0 use=2";
        assert_eq!(parse(line), None);
        let tcp = line.replace("udp      17", "tcp      6");
        assert!(parse(&tcp).is_some());
        for len in 0..tcp.len() {
            let _ = parse(&tcp[..len]);
        }
    }
}
