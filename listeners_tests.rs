use super::*;

fn listener(port: u16) -> Listener {
    Listener {
        local_addr: "10.0.0.1".parse().unwrap(),
        local_port: port,
        netns: 7,
        netns_name: Some("blue".into()),
        pid: Some(99),
        comm: Some("ngi\u{1b}nx".into()),
        cgroup: None,
        syn_queue: Some(0),
        syn_queue_max: Some(128),
        accept_queue: Some(129),
        accept_queue_max: Some(128),
        limited_by: Some(LimitedBy::ListenBacklog),
        overflows: Some(52),
        syn_cookies: Some(0),
        drops: Some(52),
    }
}

fn found() -> Found {
    let unknown = Listener {
        local_addr: "::".parse().unwrap(),
        pid: None,
        comm: None,
        syn_queue: None,
        syn_queue_max: None,
        accept_queue: Some(0),
        limited_by: None,
        drops: None,
        ..listener(443)
    };
    Found {
        namespaces: vec![Namespace {
            netns: 7,
            name: "blue".to_owned(),
            at_ns: 1_000,
            listeners: vec![unknown, listener(8080)],
            shared: Vec::new(),
            limits: Limits {
                somaxconn: Some(4096),
                syncookies: Some(1),
                max_syn_backlog: None,
            },
            counters: Counters::parse(b"TcpExt: ListenOverflows\nTcpExt: 52\n").ok(),
        }],
        looked: true,
        failures: Vec::new(),
    }
}

#[test]
fn the_table_is_aligned_worst_first_and_unknown_is_a_question_mark() {
    assert_eq!(
        text(&found()),
        "\
LISTENER       NETNS  PROCESS          SYN-QUEUE  ACCEPT-QUEUE  REFUSED  LIMITED BY
10.0.0.1:8080  blue   ngi\\u{1b}nx/99      0/128  FULL 129/128       52  listen backlog
[::]:443       blue   ?                      ?/?         0/128        ?  ?
Queues as now/limit; one more than the limit fits. REFUSED: SYNs and final ACKs, since listen().
netns blue, all its listeners since it began: ListenOverflows 52, ListenDrops ?, SyncookiesSent ?, \
SyncookiesRecv ?; somaxconn 4096, tcp_syncookies 1, tcp_max_syn_backlog ?
"
    );
}

#[test]
fn each_line_has_the_time_of_its_namespace() {
    let lines = lines(&found());
    let ports: Vec<_> = lines
        .iter()
        .map(|line| match &line.body {
            Body::Listener(l) => (line.mono_ns, l.local_port),
            _ => unreachable!("only listeners"),
        })
        .collect();
    assert_eq!(ports, [(1_000, 8080), (1_000, 443)]);
    assert!(text(&Found::default()).starts_with("no TCP listeners"));
}
