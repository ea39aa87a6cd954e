//! The listening sockets of a namespace, and which of them a connection belongs to.

use std::{collections::HashMap, io};

use synprobe_ebpf::event::AF_INET;

use super::{
    inet_diag_msg::{Row, is_v4_mapped, is_wildcard, mask},
    sock_diag::{Dump, Query, SockDiag},
};

/// A socket in LISTEN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenSocket {
    /// Inode number of its namespace.
    pub netns: u32,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// Address it is bound to, network order, IPv4 as `::ffff:a.b.c.d`.
    pub local_addr: [u8; 16],
    /// Port, host order.
    pub local_port: u16,
    /// Device it is bound to; 0: any.
    pub ifindex: u32,
    /// Inode of the socket, which leads to its owner.
    pub inode: u32,
    /// Connections waiting for accept() (`sk_ack_backlog`).
    pub accept_queue: u32,
    /// Their limit (`sk_max_ack_backlog`, the lesser of listen()'s backlog and somaxconn); the queue
    /// counts as full only above it, so one more fits. The SYN queue has the same limit.
    pub accept_queue_max: u32,
    /// User id of the owner.
    pub uid: u32,
    /// IPV6_V6ONLY: an IPv6 wildcard that does not serve IPv4.
    pub v6only: bool,
    /// cgroup v2 id of the socket; `None` before 5.8.
    pub cgroup: Option<u64>,
    /// Packets dropped at it (`sk_drops`), including every SYN and final ACK that one of its queues refused
    /// (`tcp_listendrop()`). `None`: the kernel does not report it.
    pub drops: Option<u32>,
    /// IP_TRANSPARENT is set; `false` also where the kernel does not tell (before 5.10).
    pub transparent: bool,
}

impl ListenSocket {
    fn new(netns: u32, row: &Row) -> Self {
        Self {
            netns,
            family: row.family,
            local_addr: row.local_addr,
            local_port: row.local_port,
            ifindex: row.ifindex,
            inode: row.inode,
            accept_queue: row.rqueue,
            accept_queue_max: row.wqueue,
            uid: row.uid,
            v6only: row.v6only.unwrap_or(false),
            cgroup: row.cgroup,
            drops: row.drops,
            transparent: row.transparent.unwrap_or(false),
        }
    }

    /// How well it serves an address, `None` if not at all: as `__inet_lookup_listener()` and
    /// `compute_score()` rank them (exact address, then bound device, then own family).
    fn score(&self, addr: &[u8; 16], ifindex: u32) -> Option<u8> {
        let v4 = is_v4_mapped(addr);
        let exact = self.local_addr == *addr;
        if !exact && !is_wildcard(&self.local_addr) {
            return None;
        }
        // A wildcard of AF_INET serves IPv4 alone; so does `::ffff:0.0.0.0`; `::` serves both unless
        // IPV6_V6ONLY is set.
        if !exact && v4 && self.v6only || !v4 && is_v4_mapped(&self.local_addr) {
            return None;
        }
        // If the device is unknown (0), a listener bound to a device may serve the address; an unbound
        // one certainly does.
        let device = match (self.ifindex, ifindex) {
            (0, 0) => 2,
            (0, _) => 1,
            (_, 0) => 0,
            (bound, device) if bound == device => 2,
            _ => return None,
        };
        let family = u8::from(v4 && self.family == AF_INET);
        Some(u8::from(exact) * 8 + device * 2 + family)
    }
}

/// The listeners of one namespace at one moment, by port.
#[derive(Clone, Debug, Default)]
pub struct ListenSockets {
    by_port: HashMap<u16, Vec<ListenSocket>>,
    /// When the dump was made, and whether it is complete.
    pub dump: Dump,
}

impl ListenSockets {
    /// Reads them from the kernel. Cheap: only its table of listeners is walked.
    ///
    /// # Errors
    /// As [`SockDiag::dump_with`].
    pub fn read(sock_diag: &mut SockDiag) -> io::Result<Self> {
        Self::read_some(sock_diag, |_| true)
    }

    /// The same, without those that `keep` refuses.
    ///
    /// # Errors
    /// As [`SockDiag::dump_with`].
    pub fn read_some(
        sock_diag: &mut SockDiag,
        mut keep: impl FnMut(&ListenSocket) -> bool,
    ) -> io::Result<Self> {
        let netns = sock_diag.netns();
        let mut listeners = Self::default();
        let query = Query {
            drops: true,
            ..Query::states(mask::LISTEN)
        };
        listeners.dump = sock_diag.dump_with(&query, |row| {
            let listener = ListenSocket::new(netns, row);
            if keep(&listener) {
                listeners.add(listener);
            }
        })?;
        Ok(listeners)
    }

    fn add(&mut self, listener: ListenSocket) {
        self.by_port
            .entry(listener.local_port)
            .or_default()
            .push(listener);
    }

    /// Every listener, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &ListenSocket> {
        self.by_port.values().flatten()
    }

    /// The listener that a SYN to this address and port reaches, as the kernel would choose.
    /// `ifindex` is the device it comes in on, 0 where not known. Of several that share the address by
    /// SO_REUSEPORT any may have it (the kernel picks by hash): this returns the one with the lowest
    /// inode, [`ListenSockets::group`] all.
    #[must_use]
    pub fn find(&self, addr: &[u8; 16], port: u16, ifindex: u32) -> Option<&ListenSocket> {
        self.ranked(addr, port, ifindex)
            .max_by_key(|(score, listener)| (*score, std::cmp::Reverse(listener.inode)))
            .map(|(_, listener)| listener)
    }

    /// All that [`ListenSockets::find`] might have returned: one, or the members of a SO_REUSEPORT group.
    #[must_use]
    pub fn group(&self, addr: &[u8; 16], port: u16, ifindex: u32) -> Vec<&ListenSocket> {
        let best = self
            .ranked(addr, port, ifindex)
            .map(|(score, _)| score)
            .max();
        let mut group: Vec<&ListenSocket> = self
            .ranked(addr, port, ifindex)
            .filter(|(score, _)| Some(*score) == best)
            .map(|(_, listener)| listener)
            .collect();
        group.sort_unstable_by_key(|listener| listener.inode);
        group
    }

    fn ranked(
        &self,
        addr: &[u8; 16],
        port: u16,
        ifindex: u32,
    ) -> impl Iterator<Item = (u8, &ListenSocket)> {
        self.by_port
            .get(&port)
            .into_iter()
            .flatten()
            .filter_map(move |listener| Some((listener.score(addr, ifindex)?, listener)))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv6Addr};

    use synprobe_ebpf::event::AF_INET6;

    use super::*;

    fn addr(text: &str) -> [u8; 16] {
        match text.parse().unwrap() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        }
    }

    fn listener(text: &str, inode: u32) -> ListenSocket {
        let v4 = matches!(text.parse().unwrap(), IpAddr::V4(_));
        ListenSocket {
            netns: 1,
            family: if v4 { AF_INET } else { AF_INET6 },
            local_addr: addr(text),
            local_port: 80,
            ifindex: 0,
            inode,
            accept_queue: 0,
            accept_queue_max: 128,
            uid: 0,
            v6only: false,
            cgroup: None,
            drops: None,
            transparent: false,
        }
    }

    fn with(list: &[ListenSocket]) -> ListenSockets {
        let mut listeners = ListenSockets::default();
        list.iter().for_each(|one| listeners.add(*one));
        listeners
    }

    fn found(list: &[ListenSocket], to: &str) -> Option<u32> {
        with(list)
            .find(&addr(to), 80, 0)
            .map(|listener| listener.inode)
    }

    #[test]
    fn the_exact_address_wins_over_the_wildcard() {
        let list = [
            listener("0.0.0.0", 1),
            listener("10.0.0.1", 2),
            listener("::", 3),
        ];
        assert_eq!(found(&list, "10.0.0.1"), Some(2));
        assert_eq!(found(&list, "10.0.0.2"), Some(1));
        assert_eq!(found(&list, "2001:db8::1"), Some(3));
        assert_eq!(with(&list).find(&addr("10.0.0.1"), 81, 0), None);
    }

    #[test]
    fn a_dual_stack_wildcard_serves_ipv4_unless_v6only() {
        let dual = listener("::", 1);
        assert_eq!(found(&[dual], "10.0.0.1"), Some(1));
        let v6only = ListenSocket {
            v6only: true,
            ..dual
        };
        assert_eq!(found(&[v6only], "10.0.0.1"), None);
        assert_eq!(found(&[v6only], "2001:db8::1"), Some(1));
    }

    #[test]
    fn an_ipv4_wildcard_serves_no_ipv6_however_it_is_written() {
        assert_eq!(found(&[listener("0.0.0.0", 1)], "2001:db8::1"), None);
        let mapped = ListenSocket {
            family: AF_INET6,
            local_addr: Ipv6Addr::from_bits(0xffff_0000_0000).octets(),
            ..listener("::", 1)
        };
        assert_eq!(found(&[mapped], "2001:db8::1"), None);
        assert_eq!(found(&[mapped], "10.0.0.1"), Some(1));
        // Nor does an exact IPv4 address serve the IPv6 one that ends in the same bytes.
        assert_eq!(found(&[listener("10.0.0.1", 1)], "::a00:1"), None);
    }

    #[test]
    fn a_bound_device_decides() {
        let bound = ListenSocket {
            ifindex: 4,
            ..listener("0.0.0.0", 1)
        };
        let list = with(&[bound, listener("0.0.0.0", 2)]);
        let inode = |ifindex| {
            list.find(&addr("10.0.0.1"), 80, ifindex)
                .map(|one| one.inode)
        };
        assert_eq!(inode(4), Some(1));
        assert_eq!(inode(5), Some(2));
        assert_eq!(inode(0), Some(2));
        assert_eq!(with(&[bound]).find(&addr("10.0.0.1"), 80, 5), None);
    }

    #[test]
    fn a_reuseport_group_is_complete_and_found_by_its_lowest_inode() {
        let list = [
            listener("0.0.0.0", 9),
            listener("0.0.0.0", 7),
            listener("0.0.0.0", 8),
            listener("::", 1),
        ];
        assert_eq!(found(&list, "10.0.0.1"), Some(7));
        let listeners = with(&list);
        let group: Vec<u32> = listeners
            .group(&addr("10.0.0.1"), 80, 0)
            .iter()
            .map(|one| one.inode)
            .collect();
        assert_eq!(group, [7, 8, 9]);
        assert_eq!(listeners.iter().count(), 4);
    }

    mod kernel {
        use std::{net::TcpListener, os::fd::AsRawFd};

        use super::*;
        use crate::sys::netns::NetNs;

        #[test]
        #[ignore = "needs root"]
        fn queue_limit_owner_and_v6only_are_the_kernels() {
            let ns = NetNs::new_anonymous().unwrap();
            let (v4, v6) = ns
                .run(|| {
                    (
                        TcpListener::bind("127.0.0.1:0").unwrap(),
                        TcpListener::bind("[::]:0").unwrap(),
                    )
                })
                .unwrap();
            // SAFETY: a second listen() on a live socket only changes its backlog.
            assert_eq!(unsafe { libc::listen(v4.as_raw_fd(), 5) }, 0);
            let mut sock_diag = SockDiag::open(&ns).unwrap();
            let listeners = ListenSockets::read(&mut sock_diag).unwrap();
            assert_eq!(listeners.iter().count(), 2, "{listeners:?}");

            let port = |socket: &TcpListener| socket.local_addr().unwrap().port();
            let got = listeners.find(&addr("127.0.0.1"), port(&v4), 0).unwrap();
            assert_eq!((got.accept_queue, got.accept_queue_max), (0, 5));
            assert_eq!((got.netns, got.family), (ns.inode(), AF_INET));
            let got = listeners.find(&addr("127.0.0.1"), port(&v6), 0).unwrap();
            assert!(!got.v6only, "std binds dual-stack");
            assert_eq!(got.family, AF_INET6);
        }
    }
}
