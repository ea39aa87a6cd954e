use std::net::{Ipv4Addr, TcpListener};

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
