use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr,
};

use super::*;

fn round(poller: &mut Poller) -> Round {
    poller.round(&HashSet::new(), &[], false)
}

#[test]
#[ignore = "needs root"]
fn every_round_tells_the_queues_and_only_the_first_what_is_slow_to_change() {
    let ns = NetNs::new_anonymous().unwrap();
    let listen = || {
        ns.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
            .unwrap()
    };
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let one = listen();
    let mut poller = Poller::new(vec![ns.clone()], true);

    let told = round(&mut poller);
    let [queue] = &told.queues[..] else {
        panic!("{:?}", told.queues);
    };
    assert_eq!((queue.netns, queue.local_port), (ns.inode(), port(&one)));
    assert_eq!((queue.syn_queue, queue.accept_queue), (Some(0), Some(0)));
    assert_eq!(queue.pid, Some(std::process::id()));
    assert_eq!(told.owners.len(), 1);
    let process = told.owners[0].process.as_ref();
    assert_eq!(process.map(|p| p.pid), queue.pid);
    let [counters] = &told.counters[..] else {
        panic!("{:?}", told.counters);
    };
    assert_eq!(counters.netns, ns.inode());
    assert_eq!(counters.listen_overflows, Some(0));
    let [(of, addresses)] = &told.addresses[..] else {
        panic!("{:?}", told.addresses);
    };
    assert_eq!(*of, ns.inode());
    assert!(
        addresses.contains(&Ipv4Addr::LOCALHOST.into()),
        "{addresses:?}"
    );

    let other = listen();
    let client = ns
        .run(|| std::net::TcpStream::connect(one.local_addr().unwrap()).unwrap())
        .unwrap();
    let told = round(&mut poller);
    let mut queues: Vec<_> = told
        .queues
        .iter()
        .map(|q| (q.local_port, q.accept_queue))
        .collect();
    queues.sort_unstable();
    let mut expected = vec![(port(&one), Some(1)), (port(&other), Some(0))];
    expected.sort_unstable();
    assert_eq!(queues, expected);
    assert!(told.owners.is_empty() && told.addresses.is_empty());
    drop(client);
}

/// A given namespace is not found again by a search: what was opened of it stays.
#[test]
#[ignore = "needs root"]
fn issue20_a_look_that_failed_is_told_and_tried_again() {
    let ns = NetNs::new_anonymous().unwrap();
    let _listener = ns
        .run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
        .unwrap();
    let mut poller = Poller::new(vec![ns.clone()], true);
    assert_eq!(round(&mut poller).dumps.len(), 1);
    for _ in 0..2 {
        poller.watched[&ns.inode()].sock_diag.break_it();
        let failed = round(&mut poller);
        let [(inode, error)] = &failed.failed[..] else {
            panic!("{:?}", failed.failed);
        };
        assert!(failed.dumps.is_empty());
        assert!(
            *inode == ns.inode() && error.contains("os error 88"),
            "{error}"
        );
        let again = round(&mut poller);
        assert!(again.failed.is_empty());
        assert_eq!((again.dumps.len(), again.queues.len()), (1, 1));
    }
}

/// A connect that is deferred to its first write is in SYN_SENT, and has sent no segment.
fn deferred_connect(ns: &NetNs) -> OwnedFd {
    let connected = ns.run(|| {
        // Fast Open of clients, without a cookie.
        fs::write("/proc/sys/net/ipv4/tcp_fastopen", "5").unwrap();
        let to = libc::sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: 9_u16.to_be(),
            sin_addr: libc::in_addr {
                s_addr: u32::from(Ipv4Addr::LOCALHOST).to_be(),
            },
            sin_zero: [0; 8],
        };
        let on: libc::c_int = 1;
        // SAFETY: the pointers are to values of the sizes given, and the descriptor is nobody else's.
        unsafe {
            let socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
            assert!(socket >= 0);
            let socket = OwnedFd::from_raw_fd(socket);
            let (fd, option) = (socket.as_raw_fd(), libc::TCP_FASTOPEN_CONNECT);
            let set = libc::setsockopt(fd, libc::IPPROTO_TCP, option, ptr::from_ref(&on).cast(), 4);
            let connected = libc::connect(fd, ptr::from_ref(&to).cast(), 16);
            assert_eq!((set, connected), (0, 0));
            socket
        }
    });
    connected.unwrap()
}

#[test]
#[ignore = "needs root"]
fn the_table_is_not_walked_where_no_segment_came_or_went() {
    let ns = NetNs::new_anonymous().unwrap();
    let mut poller = Poller::new(vec![ns.clone()], true);
    let mut syn_sent = |named: &[u32], all| {
        let named = named.iter().copied().collect();
        let round = poller.round(&named, &[], all);
        round.dumps[0].syn_sent.as_ref().map(Vec::len)
    };
    assert_eq!(syn_sent(&[], false), Some(0));
    let socket = deferred_connect(&ns);
    assert_eq!(syn_sent(&[], false), Some(0), "it rests");
    assert_eq!(syn_sent(&[ns.inode()], false), Some(1), "an event names it");
    assert_eq!(syn_sent(&[], false), Some(1), "the last look showed one");
    drop(socket);
    for _ in 0..2 {
        assert_eq!(syn_sent(&[], false), Some(0));
    }
    let _other = deferred_connect(&ns);
    assert_eq!(syn_sent(&[], false), Some(0), "it rests again");
    assert_eq!(syn_sent(&[], true), Some(1), "the last look of a run");
    // Refused: two segments.
    let closed = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9);
    ns.run(|| std::net::TcpStream::connect(closed).unwrap_err())
        .unwrap();
    assert_eq!(syn_sent(&[], false), Some(1));
}

#[test]
fn issue20_half_of_the_time_is_for_opening() {
    let hurry = Hurry::default();
    let seen = hurry.clone();
    assert!(!seen.is_set() && !seen.opens_no_more(), "any time");
    hurry.within(Duration::from_secs(3600));
    assert!(!seen.is_set() && !seen.opens_no_more());
    hurry.within(Duration::ZERO);
    assert!(seen.is_set() && seen.opens_no_more());
}

/// A round without any time returns, and says what it did not reach.
#[test]
#[ignore = "needs root"]
fn issue20_a_round_without_time_says_what_it_did_not_reach() {
    let ns = NetNs::new_anonymous().unwrap();
    let _listener = ns
        .run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
        .unwrap();
    let mut poller = Poller::new(vec![ns.clone()], true);
    assert_eq!(round(&mut poller).skipped, 0);
    poller.watched.get_mut(&ns.inode()).unwrap().given = false;
    poller.hurry.within(Duration::ZERO);
    let told = poller.round(&HashSet::new(), &[], true);
    assert_eq!((told.dumps.len(), told.skipped), (0, 1));
    assert_eq!(told.idle, [ns.inode()], "it is still there");
}
