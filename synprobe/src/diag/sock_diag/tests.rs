use super::*;

#[test]
fn requests_are_laid_out_as_the_kernel_reads_them() {
    let request = InetDiagRequest::one(NLM_F_DUMP, AF_INET6, 2, mask::LISTEN);
    let b = &request.bytes;
    assert_eq!(request.len, 72);
    assert_eq!(b[..4], 72u32.to_ne_bytes());
    assert_eq!(b[4..6], 20u16.to_ne_bytes());
    assert_eq!(b[6..8], 0x301u16.to_ne_bytes());
    assert_eq!(b[16..20], [10, 6, 2, 0]);
    assert_eq!(b[20..24], (1u32 << 10).to_ne_bytes());
    assert_eq!(b[24..64], [0; 40]);
    assert_eq!(b[64..72], [0xff; 8]);

    let request = InetDiagRequest::both(2, mask::SYN_RECV);
    let b = &request.bytes;
    assert_eq!(request.len, 76);
    assert_eq!(b[4..6], 18u16.to_ne_bytes());
    assert_eq!(b[16..20], [0, 0, 0, 2]);
    assert_eq!(b[60..68], [0xff; 8]);
    assert_eq!(b[68..72], (1u32 << 3).to_ne_bytes());
}

#[test]
fn the_mask_of_all_states_has_each_once() {
    assert_eq!(mask::ALL, 0b1111_1111_1110);
}

#[test]
fn codes_of_done_and_error() {
    let message = |payload| NetlinkMessage {
        kind: NLMSG_DONE,
        flags: 0,
        seq: 0,
        payload,
    };
    let code = (-libc::ENOENT).to_ne_bytes();
    let error = message(&code).errno().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    for fine in [&[][..], &[0; 4], &[0; 3], &[1; 3]] {
        assert!(message(fine).errno().is_ok());
    }
    assert!(message(&i32::MIN.to_ne_bytes()).errno().is_err());
}

mod kernel {
    use std::{
        collections::HashSet,
        net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, TcpListener, TcpStream},
        os::fd::AsRawFd,
    };

    use synprobe_ebpf::event::state;

    use super::{
        super::super::{
            inet_diag_msg::is_wildcard,
            socket_owner::{Bounds, OwnerCache},
        },
        *,
    };
    use crate::{
        diag::fixtures::{self, Forger, nobody},
        sys::sysctl::set_sysctl,
    };

    fn mapped(ip: Ipv4Addr) -> [u8; 16] {
        ip.to_ipv6_mapped().octets()
    }

    fn count_states(sock_diag: &mut SockDiag) -> ([u64; 13], u64) {
        let mut by_state = [0; 13];
        let count = |row: &Row| by_state[usize::from(row.state)] += 1;
        let dump = sock_diag
            .dump_with(&Query::states(mask::ALL), count)
            .unwrap();
        (by_state, dump.rows)
    }

    fn inode(fd: &impl AsRawFd) -> u32 {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
        let digits = link
            .to_str()
            .unwrap()
            .strip_prefix("socket:[")
            .unwrap()
            .strip_suffix(']');
        digits.unwrap().parse().unwrap()
    }

    fn only(snapshot: &SockDump, pick: impl Fn(&Row) -> bool) -> Row {
        let rows: Vec<&Row> = snapshot.rows.iter().filter(|row| pick(row)).collect();
        assert_eq!(rows.len(), 1, "{snapshot:#?}");
        *rows[0]
    }

    #[test]
    #[ignore = "needs root"]
    fn listener_both_ends_and_syn_sent_have_ports_inodes_and_owner() {
        let ns = fixtures::netns_with_void();
        let (listener, client, server, stuck) = ns
            .run(|| {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let server = listener.accept().unwrap().0;
                (
                    listener,
                    client,
                    server,
                    fixtures::connect_nonblocking(nobody(0)),
                )
            })
            .unwrap();
        let port = listener.local_addr().unwrap().port();
        let client_port = client.local_addr().unwrap().port();
        let mut sock_diag = SockDiag::open(&ns).unwrap();
        let query = Query {
            tcp_info: true,
            ..Query::states(mask::ALL)
        };
        let before = monotonic_ns();
        let all = sock_diag.dump(&query).unwrap();
        assert!(before <= all.before_ns && all.before_ns < all.after_ns);
        assert!(all.after_ns <= monotonic_ns());
        assert!(!all.interrupted);
        assert_eq!(all.rows.len(), 4, "{all:#?}");

        let row = only(&all, |row| row.state == state::LISTEN);
        assert_eq!(
            (row.local_port, row.peer_port, row.inode),
            (port, 0, inode(&listener))
        );
        assert!(is_wildcard(&row.peer_addr) && !is_wildcard(&row.local_addr));
        let info = row.tcp_info.unwrap();
        assert_eq!((info.unacked, info.sacked), (row.rqueue, row.wqueue));

        let row = only(&all, |row| row.inode == inode(&client));
        assert_eq!(
            (row.state, row.local_port, row.peer_port),
            (state::ESTABLISHED, client_port, port)
        );
        let row = only(&all, |row| row.inode == inode(&server));
        assert_eq!(
            (row.state, row.local_port, row.peer_port),
            (state::ESTABLISHED, port, client_port)
        );
        assert_eq!(row.local_addr, mapped(Ipv4Addr::LOCALHOST));
        assert!(row.tcp_info.unwrap().rtt_us > 0);

        let row = only(&all, |row| row.state == state::SYN_SENT);
        assert_eq!(
            (row.inode, row.peer_port),
            (inode(&stuck), nobody(0).port())
        );
        assert_eq!(
            (row.peer_addr, row.timer, row.retrans),
            (mapped(*nobody(0).ip()), 1, 0)
        );
        assert!((1..=1100).contains(&row.expires_ms), "{row:?}");
        assert_eq!(row.tcp_info.unwrap().rto_us, 1_000_000);

        let inodes = [inode(&listener), inode(&client), inode(&stuck)];
        let owners = OwnerCache::new().find(&inodes, Bounds::default());
        for inode in inodes {
            assert_eq!(owners.by_inode[&inode].pid, std::process::id());
        }

        let mut expected = [0; 13];
        expected[usize::from(state::LISTEN)] = 1;
        expected[usize::from(state::ESTABLISHED)] = 2;
        expected[usize::from(state::SYN_SENT)] = 1;
        assert_eq!(count_states(&mut sock_diag), (expected, 4));

        // Filters are the kernel's, and each family sees its own.
        let by_port = Query {
            local_port: client_port,
            ..Query::states(mask::ALL)
        };
        let one = sock_diag.dump(&by_port).unwrap();
        assert_eq!(only(&one, |_| true).inode, inode(&client));
        let query = Query {
            families: Families::V6,
            ..Query::states(mask::ALL)
        };
        assert_eq!(sock_diag.dump(&query).unwrap().rows, []);
        let query = Query {
            families: Families::V4,
            ..Query::states(mask::ALL)
        };
        assert_eq!(sock_diag.dump(&query).unwrap().rows.len(), 4);
    }

    #[test]
    #[ignore = "needs root"]
    fn get_finds_the_one_or_its_listener_or_nothing() {
        let ns = NetNs::new_anonymous().unwrap();
        let (listener, client, server) = ns
            .run(|| {
                let listener = TcpListener::bind("[::]:0").unwrap();
                let port = listener.local_addr().unwrap().port();
                let client = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
                let server = listener.accept().unwrap().0;
                (listener, client, server)
            })
            .unwrap();
        let mut sock_diag = SockDiag::open(&ns).unwrap();
        let flow = Flow {
            local_addr: Ipv6Addr::LOCALHOST.octets(),
            peer_addr: Ipv6Addr::LOCALHOST.octets(),
            local_port: listener.local_addr().unwrap().port(),
            peer_port: client.local_addr().unwrap().port(),
            family: AF_INET6,
            ..Flow::default()
        };
        let row = sock_diag.get(&flow, 0).unwrap().unwrap();
        assert_eq!((row.state, row.inode), (state::ESTABLISHED, inode(&server)));
        assert_eq!(row.flow(0), flow);

        // The client's port belongs to nobody else: another peer of the server's port is a stranger.
        let stranger = Flow {
            peer_port: flow.local_port,
            ..flow
        };
        let row = sock_diag.get(&stranger, 0).unwrap().unwrap();
        assert_eq!((row.state, row.inode), (state::LISTEN, inode(&listener)));
        assert_eq!(row.v6only, Some(false));
        let nothing = Flow {
            local_port: flow.peer_port,
            peer_port: 1,
            ..flow
        };
        assert_eq!(sock_diag.get(&nothing, 0).unwrap(), None);
    }

    #[test]
    #[ignore = "needs root"]
    fn half_opens_of_both_families_are_dumped_and_found() {
        let ns = fixtures::netns_with_void();
        let (v4, v6) = ns
            .run(|| {
                (
                    TcpListener::bind("127.0.0.1:0").unwrap(),
                    TcpListener::bind("[::]:0").unwrap(),
                )
            })
            .unwrap();
        let forger = Forger::new(&ns);
        let to = |listener: &TcpListener| {
            SocketAddrV4::new(Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port())
        };
        forger.syn(nobody(1), to(&v4));
        forger.syn(nobody(2), to(&v6));
        let mut sock_diag = SockDiag::open(&ns).unwrap();
        let half_opens = sock_diag.half_opens().unwrap();
        assert_eq!(half_opens.rows.len(), 2, "{half_opens:#?}");
        for (n, listener, family) in [(1, &v4, AF_INET), (2, &v6, AF_INET6)] {
            let row = only(&half_opens, |row| row.peer_port == nobody(n).port());
            assert_eq!(row.family, family, "the listener's");
            assert_eq!((row.state, row.inode, row.uid), (state::SYN_RECV, 0, 0));
            assert_eq!((row.timer, row.retrans), (1, 0));
            assert_eq!(row.local_addr, mapped(Ipv4Addr::LOCALHOST));
            assert_eq!(row.peer_addr, mapped(*nobody(n).ip()));
            assert_eq!(row.local_port, to(listener).port());
            assert_ne!(row.cookie, 0);
            let found = sock_diag.get(&row.flow(ns.inode()), 0).unwrap().unwrap();
            assert_eq!((found.state, found.cookie), (state::SYN_RECV, row.cookie));
        }
        let (by_state, _) = count_states(&mut sock_diag);
        assert_eq!(by_state[usize::from(state::SYN_RECV)], 2);
    }

    #[test]
    #[ignore = "needs root"]
    fn a_dump_larger_than_the_buffer_is_whole_and_one_left_off_does_no_harm() {
        const MANY: u32 = 3_000;
        let ns = fixtures::netns_with_void();
        let listener = crowded(&ns, MANY);
        let mut sock_diag = SockDiag::open(&ns).unwrap();
        let mut flows = HashSet::new();
        let dump = sock_diag
            .dump_with(&Query::states(mask::SYN_RECV), |row| {
                assert!(
                    flows.insert((row.peer_addr, row.peer_port)),
                    "told twice: {row:?}"
                );
            })
            .unwrap();
        assert_eq!((dump.rows, flows.len()), (u64::from(MANY), MANY as usize));

        let left_off = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = sock_diag.dump_with(&Query::states(mask::SYN_RECV), |_| panic!("left off"));
        }));
        assert!(left_off.is_err() && sock_diag.unfinished);
        assert_eq!(sock_diag.half_opens().unwrap().rows.len(), MANY as usize);
        drop(listener);
    }

    #[test]
    #[ignore = "needs root"]
    fn another_process_cannot_forge_a_row() {
        let sock_diag = SockDiag::open(&NetNs::current().unwrap()).unwrap();
        let forger = open_socket().unwrap();
        // SAFETY: sockaddr_nl is plain integers; all zero is a valid value.
        let mut victim: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        let mut len = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        // SAFETY: no more than the length given is written to a live value.
        let got = unsafe {
            let fd = sock_diag.fd.as_raw_fd();
            libc::getsockname(fd, (&raw mut victim).cast(), &raw mut len)
        };
        assert_eq!(got, 0);
        // SAFETY: buffer and address are live values of the sizes given.
        let sent = unsafe {
            libc::sendto(
                forger.as_raw_fd(),
                [0u8; 16].as_ptr().cast(),
                16,
                0,
                (&raw const victim).cast(),
                len,
            )
        };
        assert_eq!(sent, -1);
    }

    /// A listener with this many half-opens.
    fn crowded(ns: &NetNs, half_opens: u32) -> TcpListener {
        for (name, value) in [
            ("net.core.somaxconn", "1000000"),
            ("net.ipv4.tcp_max_syn_backlog", "4000000"),
            ("net.ipv4.tcp_syncookies", "0"),
        ] {
            set_sysctl(ns, name, value).unwrap();
        }
        let listener = ns
            .run(|| TcpListener::bind("127.0.0.1:0").unwrap())
            .unwrap();
        // SAFETY: a second listen() on a live socket only changes its backlog.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 1_000_000) }, 0);
        let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port());
        let forger = Forger::new(ns);
        (0..half_opens).for_each(|n| forger.syn(nobody(n), to));
        listener
    }
}
