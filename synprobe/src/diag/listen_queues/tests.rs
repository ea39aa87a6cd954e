use super::*;

fn settings(somaxconn: u32, max_syn_backlog: u32, cookies: u32) -> QueueSettings {
    QueueSettings {
        somaxconn: Some(somaxconn),
        tcp_max_syn_backlog: Some(max_syn_backlog),
        tcp_syncookies: Some(cookies),
        full_at_backlog: false,
    }
}

fn limits(backlog: u32, settings: &QueueSettings) -> (Option<u32>, Option<LimitedBy>) {
    let limits = Limits::of(backlog, settings);
    (limits.syn_queue_max, limits.limited_by)
}

#[test]
fn with_cookies_the_backlog_limits_both_queues() {
    for cookies in [1, 2] {
        let settings = settings(4096, 8, cookies);
        let listen = Some(LimitedBy::ListenBacklog);
        assert_eq!(limits(128, &settings), (Some(128), listen));
        assert_eq!(limits(0, &settings), (Some(0), listen));
        let somaxconn = Some(LimitedBy::Somaxconn);
        assert_eq!(limits(4096, &settings), (Some(4096), somaxconn));
        // somaxconn was lowered after listen(): the listener keeps what it had.
        assert_eq!(limits(8192, &settings), (Some(8192), listen));
    }
}

#[test]
fn what_holds_more_than_the_backlog_takes_one_more() {
    let before = QueueSettings {
        full_at_backlog: true,
        ..settings(4096, 512, 1)
    };
    for (syn_queue, max) in [(None, 63), (Some(64), 63), (Some(65), 64)] {
        let settings = corrected_by(before, syn_queue, 64);
        assert_eq!(limits(64, &settings).0, Some(max), "{syn_queue:?}");
    }
    assert!(!corrected_by(settings(4096, 512, 1), Some(3), 64).full_at_backlog);
}

#[test]
fn without_cookies_three_quarters_of_tcp_max_syn_backlog_limit_the_syn_queue() {
    let syn_backlog = Some(LimitedBy::TcpMaxSynBacklog);
    // 7 are taken of 8 (docs/kernel-facts.md, section 6): full above 6.
    assert_eq!(limits(128, &settings(4096, 8, 0)), (Some(6), syn_backlog));
    assert_eq!(limits(128, &settings(128, 8, 0)), (Some(6), syn_backlog));
    assert_eq!(
        limits(98, &settings(4096, 130, 0)),
        (Some(98), Some(LimitedBy::ListenBacklog))
    );
    assert_eq!(limits(99, &settings(4096, 130, 0)), (Some(98), syn_backlog));
    // At 3 and less a quarter is nothing.
    assert_eq!(limits(128, &settings(4096, 3, 0)), (Some(3), syn_backlog));
    assert_eq!(limits(128, &settings(4096, 0, 0)), (Some(0), syn_backlog));
}

#[test]
fn linux_5_15_takes_one_half_open_less() {
    let settings = |cookies, max_syn_backlog| QueueSettings {
        full_at_backlog: true,
        ..settings(4096, max_syn_backlog, cookies)
    };
    let listen = Some(LimitedBy::ListenBacklog);
    assert_eq!(limits(128, &settings(1, 8)), (Some(127), listen));
    assert_eq!(limits(128, &settings(0, 4096)), (Some(127), listen));
    // The rule of tcp_max_syn_backlog is the same on every kernel.
    let syn_backlog = Some(LimitedBy::TcpMaxSynBacklog);
    assert_eq!(limits(128, &settings(0, 8)), (Some(6), syn_backlog));
}

#[test]
fn what_could_not_be_read_is_not_known() {
    assert_eq!(limits(128, &QueueSettings::default()), (None, None));
    let no_cookies = QueueSettings {
        tcp_max_syn_backlog: None,
        ..settings(128, 0, 0)
    };
    assert_eq!(limits(128, &no_cookies), (None, Some(LimitedBy::Somaxconn)));
}

mod kernel {
    use std::{
        net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpStream},
        os::fd::{AsRawFd, FromRawFd, OwnedFd},
    };

    use synprobe_lab as lab;

    use super::*;
    use crate::{
        diag::{
            counters::CounterReader,
            fixtures::{Forger, connect_nonblocking, eventually, netns_with_void, nobody},
            sock_diag::SockDiag,
        },
        sys::sysctl::set_sysctl,
    };

    /// A namespace, and everything that looks into it.
    struct QueueBench {
        ns: NetNs,
        sock_diag: SockDiag,
        counters: CounterReader,
    }

    impl QueueBench {
        fn new() -> Self {
            let ns = netns_with_void();
            Self {
                sock_diag: SockDiag::open(&ns).unwrap(),
                counters: CounterReader::open(&ns).unwrap(),
                ns,
            }
        }

        fn set(&self, name: &str, value: u32) {
            set_sysctl(&self.ns, name, &value.to_string()).unwrap();
        }

        fn listen(&self, port: u16, backlog: i32) -> OwnedFd {
            self.ns.run(|| listening(port, backlog, false)).unwrap()
        }

        fn look(&mut self) -> Vec<Listener> {
            let half_opens = self.sock_diag.half_opens().unwrap();
            let look = ListenQueues {
                listeners: &ListenSockets::read(&mut self.sock_diag).unwrap(),
                half_opens: &half_opens.rows,
                counters: Some(&self.counters.read().unwrap()),
                settings: &read_settings(&self.ns).unwrap(),
            };
            look.lines(&"bench".into(), |_| None)
        }

        fn only(&mut self) -> Listener {
            let mut lines = self.look();
            assert_eq!(lines.len(), 1, "{lines:?}");
            lines.remove(0)
        }

        /// Sends that many SYNs with forged sources.
        fn flood(&self, port: u16, syns: u32) {
            let forger = Forger::new(&self.ns);
            for n in 0..syns {
                forger.syn(nobody(n), SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
            }
        }

        fn counter(&mut self, name: &str) -> u64 {
            self.counters.read().unwrap().get(name).unwrap()
        }
    }

    #[test]
    #[ignore = "needs root"]
    fn somaxconn_below_the_backlog_is_what_limits() {
        let mut bench = QueueBench::new();
        bench.set("net.core.somaxconn", 5);
        let listener = bench.listen(8080, 64);
        let line = bench.only();
        assert_eq!(line.local_addr, IpAddr::from(Ipv4Addr::UNSPECIFIED));
        assert_eq!((line.local_port, line.netns), (8080, bench.ns.inode()));
        assert_eq!(
            (line.accept_queue, line.accept_queue_max),
            (Some(0), Some(5))
        );
        assert_eq!((line.syn_queue, line.syn_queue_max), (Some(0), Some(5)));
        assert_eq!(line.limited_by, Some(LimitedBy::Somaxconn));
        assert_eq!((line.overflows, line.drops), (Some(0), Some(0)));
        // SAFETY: a second listen() on a live socket only changes its backlog.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 4) }, 0);
        let line = bench.only();
        assert_eq!(line.accept_queue_max, Some(4));
        assert_eq!(line.limited_by, Some(LimitedBy::ListenBacklog));
    }

    #[test]
    #[ignore = "needs root"]
    fn a_full_accept_queue_holds_one_more_and_every_refusal_is_counted() {
        let mut bench = QueueBench::new();
        let _listener = bench.listen(8080, 3);
        let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8080);
        let queued: Vec<TcpStream> = bench
            .ns
            .run(|| (0..4).map(|_| TcpStream::connect(to).unwrap()).collect())
            .unwrap();
        let line = bench.only();
        assert_eq!(
            (line.accept_queue, line.accept_queue_max),
            (Some(4), Some(3))
        );
        assert_eq!((line.overflows, line.drops), (Some(0), Some(0)));
        // Loopback is synchronous: the SYN was refused when connect() returns, and comes again.
        let shut_out = bench.ns.run(|| connect_nonblocking(to)).unwrap();
        eventually("the SYN is refused a second time", || {
            let counters = CounterReader::open(&bench.ns).unwrap().read().unwrap();
            counters.get("ListenOverflows") >= Some(2)
        });
        drop(shut_out);
        let line = bench.only();
        assert_eq!(line.overflows, Some(bench.counter("ListenOverflows")));
        assert_eq!(
            line.drops,
            Some(bench.counter("ListenDrops")),
            "the only listener"
        );
        assert_eq!((line.accept_queue, line.syn_queue), (Some(4), Some(0)));
        drop(queued);
    }

    #[test]
    #[ignore = "needs root"]
    fn a_syn_queue_with_cookies_is_full_at_one_above_the_backlog() {
        let mut bench = QueueBench::new();
        bench.set("net.ipv4.tcp_max_syn_backlog", 4);
        let _listener = bench.listen(8080, 10);
        bench.flood(8080, 30);
        let line = bench.only();
        assert_eq!((line.syn_queue, line.syn_queue_max), (Some(11), Some(10)));
        assert_eq!(line.limited_by, Some(LimitedBy::ListenBacklog));
        assert_eq!(line.syn_cookies, Some(19));
        assert_eq!((line.overflows, line.drops), (Some(0), Some(0)));
    }

    #[test]
    #[ignore = "needs root"]
    fn without_cookies_the_queue_takes_exactly_one_more_than_the_limit_says() {
        // backlog, tcp_max_syn_backlog → half-opens that fit
        for (backlog, max, fit) in [
            (64, 8, 7),
            (64, 130, 65),
            (64, 32, 25),
            (64, 3, 4),
            (2, 8, 3),
        ] {
            let mut bench = QueueBench::new();
            bench.set("net.ipv4.tcp_syncookies", 0);
            bench.set("net.ipv4.tcp_max_syn_backlog", max);
            let _listener = bench.listen(8080, backlog);
            bench.flood(8080, 100);
            let line = bench.only();
            let case = format!("backlog {backlog}, tcp_max_syn_backlog {max}: {line:?}");
            assert_eq!(line.syn_queue, Some(fit), "{case}");
            assert_eq!(line.syn_queue_max, Some(fit - 1), "{case}");
            let by_max = fit - 1 < backlog as u32;
            assert_eq!(
                line.limited_by == Some(LimitedBy::TcpMaxSynBacklog),
                by_max,
                "{case}"
            );
            assert_eq!(line.syn_cookies, Some(0), "{case}");
            assert_eq!(line.drops, Some(100 - u64::from(fit)), "{case}");
            assert_eq!(line.drops, Some(bench.counter("ListenDrops")), "{case}");
        }
    }

    #[test]
    #[ignore = "needs root"]
    fn drops_and_half_opens_are_of_their_own_listener() {
        let mut bench = QueueBench::new();
        bench.set("net.ipv4.tcp_syncookies", 0);
        let _one = bench.listen(8080, 2);
        let _other = bench.listen(8081, 50);
        bench.flood(8080, 10);
        bench.flood(8081, 10);
        let mut lines = bench.look();
        lines.sort_by_key(|l| l.local_port);
        let figures: Vec<_> = lines.iter().map(|l| (l.syn_queue, l.drops)).collect();
        assert_eq!(figures, [(Some(3), Some(7)), (Some(10), Some(0))]);
        assert_eq!(bench.counter("ListenDrops"), 7);
    }

    #[test]
    #[ignore = "needs root"]
    fn the_syn_queues_of_a_reuseport_group_are_known_together_and_when_empty() {
        let mut bench = QueueBench::new();
        let _group = bench
            .ns
            .run(|| [8080, 8080, 8081].map(|port| listening(port, 16, true)))
            .unwrap();
        let figures = |bench: &mut QueueBench| {
            let mut lines = bench.look();
            lines.sort_by_key(|l| l.local_port);
            let figures = lines.iter().map(|l| (l.local_port, l.syn_queue));
            figures.collect::<Vec<_>>()
        };
        bench.flood(8081, 4);
        assert_eq!(
            figures(&mut bench),
            [(8080, Some(0)), (8080, Some(0)), (8081, Some(4))]
        );
        bench.flood(8080, 5);
        assert_eq!(
            figures(&mut bench),
            [(8080, None), (8080, None), (8081, Some(4))]
        );
        let half_opens = bench.sock_diag.half_opens().unwrap().rows;
        let listeners = ListenSockets::read(&mut bench.sock_diag).unwrap();
        let queues = syn_queues(&listeners, &half_opens);
        let [group] = &queues.shared[..] else {
            panic!("{queues:?}");
        };
        assert_eq!((group.members.len(), group.half_opens), (2, 5));
    }

    /// A listener on every IPv4 address of the calling thread's namespace.
    fn listening(port: u16, backlog: libc::c_int, reuseport: bool) -> OwnedFd {
        // SAFETY: no memory is involved.
        let raw = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) };
        assert!(raw >= 0);
        // SAFETY: it was just opened, and nothing else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let on = libc::c_int::from(reuseport);
        lab::set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, &on).unwrap();
        let at = libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: port.to_be(),
            sin_addr: libc::in_addr { s_addr: 0 },
            sin_zero: [0; 8],
        };
        let len = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        // SAFETY: the address is a live value of the size given.
        assert_eq!(unsafe { libc::bind(raw, (&raw const at).cast(), len) }, 0);
        // SAFETY: no memory is involved.
        assert_eq!(unsafe { libc::listen(raw, backlog) }, 0);
        fd
    }
}
