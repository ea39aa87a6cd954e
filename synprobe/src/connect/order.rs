//! The order and timing in which an application tries the addresses of a name (RFC 8305, section 4).

use std::{net::SocketAddr, time::Duration};

/// Time between the starts of two attempts, unless the first has failed by then: the "Connection
/// Attempt Delay" that RFC 8305, section 8 recommends.
pub const STAGGER: Duration = Duration::from_millis(250);

/// Alternates the families, starting with that of the first address (a "First Address Family Count" of
/// 1). Within a family the resolver's order stays (RFC 6724). Duplicates are removed.
pub fn interleave(sorted: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut seen = Vec::new();
    for addr in sorted {
        if !seen.contains(addr) {
            seen.push(*addr);
        }
    }
    let Some(first) = seen.first().copied() else {
        return seen;
    };
    let (first_family, other): (Vec<_>, Vec<_>) = seen
        .into_iter()
        .partition(|addr| addr.is_ipv4() == first.is_ipv4());
    let (mut a, mut b) = (first_family.into_iter(), other.into_iter());
    let mut order = Vec::new();
    loop {
        let turn = [a.next(), b.next()];
        if turn == [None, None] {
            return order;
        }
        order.extend(turn.into_iter().flatten());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(text: &str) -> Vec<SocketAddr> {
        let addr = |word: &str| SocketAddr::new(word.parse().unwrap(), 80);
        text.split_whitespace().map(addr).collect()
    }

    #[test]
    fn families_take_turns_from_the_first_one_s() {
        let ordered = |given: &str| interleave(&addrs(given));
        assert_eq!(
            ordered("::1 ::2 ::3 1.1.1.1 2.2.2.2"),
            addrs("::1 1.1.1.1 ::2 2.2.2.2 ::3")
        );
        assert_eq!(ordered("1.1.1.1 ::1 ::2 ::3"), addrs("1.1.1.1 ::1 ::2 ::3"));
        assert_eq!(ordered("1.1.1.1 2.2.2.2 ::1"), addrs("1.1.1.1 ::1 2.2.2.2"));
        assert_eq!(ordered("::2 ::1"), addrs("::2 ::1"), "as sorted");
        assert_eq!(ordered("::1 1.1.1.1 ::1 1.1.1.1"), addrs("::1 1.1.1.1"));
        assert_eq!(ordered(""), []);
    }
}
