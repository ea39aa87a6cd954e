use super::*;

const TEXT: &str = "\
TcpExt: SyncookiesSent ListenOverflows TCPSynRetrans
TcpExt: 1 2 3
Tcp: MaxConn ActiveOpens AttemptFails CurrEstab InErrs
Tcp: -1 4 5 6 0
Udp: InErrors
Udp: 18446744073709551615
";

#[test]
fn by_the_kernels_names() {
    let counters = MibCounters::parse(TEXT.as_bytes()).unwrap();
    assert_eq!(counters.get("TCPSynRetrans"), Some(3));
    assert_eq!(counters.get("AttemptFails"), Some(5));
    assert_eq!(counters.get("InErrs"), Some(0));
    assert_eq!(counters.get_in("Udp", "InErrors"), Some(u64::MAX));
    // Unknown is none, never zero; so is "no limit".
    assert_eq!(counters.get("InErrors"), None);
    assert_eq!(counters.get("NoSuchCounter"), None);
    assert_eq!(counters.get("MaxConn"), None);
}

fn growth(before: &MibCounters, after: &MibCounters, name: &str) -> Option<u64> {
    after.get(name)?.checked_sub(before.get(name)?)
}

#[test]
fn growth_since_an_earlier_reading() {
    let before = MibCounters::parse(TEXT.as_bytes()).unwrap();
    let later = TEXT
        .replace("TcpExt: 1 2 3", "TcpExt: 1 4 3")
        .replace("-1 4 5 6 0", "-1 4 6 5 0");
    let after = MibCounters::parse(later.as_bytes()).unwrap();
    assert_eq!(growth(&before, &after, "AttemptFails"), Some(1));
    assert_eq!(growth(&before, &after, "ListenOverflows"), Some(2));
    assert_eq!(growth(&before, &after, "CurrEstab"), None, "it went down");
    assert_eq!(growth(&before, &after, "SyncookiesSent"), Some(0));
}

#[test]
fn names_are_shared_while_the_headers_stay_the_same() {
    let parse = |text: &str, known| CounterFile::parse_like(text.as_bytes(), known).unwrap();
    let unknown = Arc::default();
    let first = parse(TEXT, &unknown);
    let again = parse(TEXT, &first.layout);
    assert!(Arc::ptr_eq(&first.layout, &again.layout));
    assert_eq!(first, again);
    // Another name, more names, fewer or more lines.
    for (other, name, value) in [
        (
            TEXT.replace("ListenOverflows", "ListenDrops"),
            "ListenDrops",
            2,
        ),
        (
            TEXT.replace("Errors\nUdp:", "Errors X\nUdp: 9"),
            "X",
            u64::MAX,
        ),
        (
            TEXT.replace("TcpExt: 1 2 3\n", "TcpExt: 1 2 3\nA: B\nA: 7\n"),
            "B",
            7,
        ),
        (format!("{TEXT}A: B\nA: 8\n"), "B", 8),
    ] {
        let other = parse(&other, &first.layout);
        let found: Vec<u64> = ["TcpExt", "Udp", "A"]
            .iter()
            .filter_map(|protocol| other.get_in(protocol, name))
            .collect();
        assert_eq!(found, [value]);
        assert_eq!(other.get_in("Tcp", "AttemptFails"), Some(5));
        assert_eq!(other.layout.lines.len(), other.layout.columns.len());
    }
    let fewer = parse(&TEXT[..TEXT.find("Tcp:").unwrap()], &first.layout);
    assert_eq!(fewer.get_in("TcpExt", "TCPSynRetrans"), Some(3));
    assert_eq!(fewer.get_in("Tcp", "AttemptFails"), None);
    assert_eq!(first.of("Tcp"), [None, Some(4), Some(5), Some(6), Some(0)]);
    assert_eq!(first.of("Tc"), []);
}

#[test]
fn what_does_not_pair_up_is_refused() {
    for text in [
        "TcpExt: A B\n",
        "TcpExt: A B\nTcpExt: 1\n",
        "TcpExt: A\nTcpExt: 1 2\n",
        "TcpExt: A\nTcp: 1\n",
        "TcpExt: A\nTcpExt: x\n",
        "TcpExt A\nTcpExt 1\n",
        "TcpExt: A\nTcpExt: 18446744073709551616\n",
    ] {
        let error = MibCounters::parse(text.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{text}");
    }
    assert!(MibCounters::parse(b"\xff").is_err());
    assert_eq!(MibCounters::parse(b"").unwrap(), MibCounters::default());
}

#[test]
fn every_truncation_is_read_or_refused() {
    for len in 0..TEXT.len() {
        let _ = MibCounters::parse(&TEXT.as_bytes()[..len]);
    }
}

mod kernel {
    use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};

    use super::*;
    use crate::diag::fixtures;

    /// Prints what a reading costs on this host; run it with `--nocapture`, in release.
    #[test]
    #[ignore = "needs root; a measurement"]
    fn measure_reading() {
        let mut reader = CounterReader::open(&NetNs::current().unwrap()).unwrap();
        reader.read().unwrap();
        let start = std::time::Instant::now();
        for _ in 0..1000 {
            reader.read().unwrap();
        }
        println!("a reading: {:?}", start.elapsed() / 1000);
    }

    #[test]
    #[ignore = "needs root"]
    fn a_fresh_namespace_counts_from_zero_and_is_read_from_any_thread() {
        let ns = NetNs::new_anonymous().unwrap();
        let mut reader = CounterReader::open(&ns).unwrap();
        // The thread that opened the files is gone, and this one is in another namespace.
        let before = reader.read().unwrap();
        for name in [
            "ActiveOpens",
            "PassiveOpens",
            "AttemptFails",
            "TCPSynRetrans",
            "TCPTimeouts",
        ] {
            assert_eq!(before.get(name), Some(0), "{name}");
        }
        ns.run(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let to = listener.local_addr().unwrap();
            TcpStream::connect(to).unwrap();
            drop(listener);
            let refused = TcpStream::connect(to).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        })
        .unwrap();
        let after = reader.read().unwrap();
        assert!(Arc::ptr_eq(&before.netstat.layout, &after.netstat.layout));
        assert_eq!(growth(&before, &after, "ActiveOpens"), Some(2));
        assert_eq!(growth(&before, &after, "PassiveOpens"), Some(1));
        assert_eq!(growth(&before, &after, "AttemptFails"), Some(1));
        // The open files alone keep it alive.
        drop(ns);
        assert_eq!(reader.read().unwrap().get("AttemptFails"), Some(1));
    }

    #[test]
    #[ignore = "needs root"]
    fn where_nothing_moves_the_larger_file_is_read_once() {
        let ns = NetNs::new_anonymous().unwrap();
        let mut reader = CounterReader::open(&ns).unwrap();
        let at_rest = |reader: &mut CounterReader| {
            let snmp = reader.snmp().unwrap();
            reader.at_rest(snmp).unwrap()
        };
        let first = at_rest(&mut reader);
        assert!(!Arc::ptr_eq(&first.netstat, &at_rest(&mut reader).netstat));
        reader.still.as_mut().unwrap().since -= PROCESSED;
        let kept = at_rest(&mut reader);
        assert!(!Arc::ptr_eq(&first.netstat, &kept.netstat));
        for _ in 0..2 {
            assert!(Arc::ptr_eq(&kept.netstat, &at_rest(&mut reader).netstat));
        }
        // A refused connection: two segments.
        ns.run(|| TcpStream::connect("127.0.0.1:9").unwrap_err())
            .unwrap();
        let moved = at_rest(&mut reader);
        assert!(!Arc::ptr_eq(&kept.netstat, &moved.netstat));
        assert_eq!(growth(&kept, &moved, "AttemptFails"), Some(1));
        assert_eq!(moved, reader.read().unwrap());
    }

    #[test]
    #[ignore = "needs root"]
    fn a_full_syn_queue_is_counted_where_it_happened() {
        let ns = fixtures::netns_with_void();
        crate::sys::sysctl::set_sysctl(&ns, "net.ipv4.tcp_syncookies", "0").unwrap();
        let listener = ns
            .run(|| TcpListener::bind("127.0.0.1:0").unwrap())
            .unwrap();
        // SAFETY: a second listen() on a live socket only changes its backlog.
        unsafe { libc::listen(std::os::fd::AsRawFd::as_raw_fd(&listener), 1) };
        let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port());
        let mut here = CounterReader::open(&ns).unwrap();
        let mut elsewhere = CounterReader::open(&NetNs::new_anonymous().unwrap()).unwrap();
        let forger = fixtures::Forger::new(&ns);
        for n in 0..5 {
            forger.syn(fixtures::nobody(n), to);
        }
        // Backlog 1 takes two (qlen > max); before 6.13 one (qlen >= max).
        let dropped = here.read().unwrap().get("TCPReqQFullDrop").unwrap();
        assert!((3..=4).contains(&dropped), "{dropped}");
        assert_eq!(elsewhere.read().unwrap().get("TCPReqQFullDrop"), Some(0));
    }
}

#[test]
fn a_counter_of_ipv6_is_found_by_its_whole_name() {
    let text = "Ip6OutNoRoutes2                 \t9\nIp6OutNoRoutes                  \t4\n";
    assert_eq!(super::parse_snmp6(text, "Ip6OutNoRoutes"), Some(4));
    assert_eq!(super::parse_snmp6(text, "Ip6InReceives"), None);
}
