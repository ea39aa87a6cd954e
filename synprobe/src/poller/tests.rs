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
