//! Keys, and what they show. The frames themselves are compared in tests/top/.

use std::{sync::Arc, time::Duration};

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};

use super::{App, KeyRequest, Look, Observed, ReplayPosition, pane::Pane};
use crate::{
    model::{Peer, Role, TcpState, UnderWay, VerdictKind},
    status::RunStatus,
    verdict::fixtures::{NETNS, SEC, connection, listener, problem},
};

fn under_way(id: u64, began_ns: u64) -> UnderWay {
    let mut c = connection(Role::Server, "10.0.0.9", 55_555);
    c.id = id;
    UnderWay {
        connection: c,
        state: TcpState::SynRecv,
        began_ns: Some(began_ns),
        began_error_us: 0,
        retransmits: id as u32,
        retransmits_by_peer: 0,
        gaps_us: vec![1_000_000; id as usize],
        next_ns: None,
        gives_up_ns: Some(100_000_000_000),
    }
}

/// Half-opens that began one second after the other, and three problems.
fn observed(count: u64) -> Observed {
    let mut status: RunStatus = crate::status::fixtures::status();
    let snapshot = &mut status.snapshot;
    snapshot.open = (1..=count).map(|id| under_way(id, id * SEC)).collect();
    snapshot.open_total = snapshot.open.len();
    snapshot.listeners = vec![listener(200, 3), listener(0, 100)];
    snapshot.listeners[1].local_port = 443;
    for (n, kind) in [
        VerdictKind::AcceptQueueFull,
        VerdictKind::SynackLost,
        VerdictKind::PeerSilent,
    ]
    .into_iter()
    .enumerate()
    {
        let mut p = problem();
        p.verdict = Some(kind);
        p.local_port = Some(8080);
        p.netns = NETNS;
        (p.open, p.handshakes) = (n as u64, 10 - n as u64);
        p.life.id = format!("p-{n}");
        snapshot.problems.push(p);
    }
    status.at_ns = 20 * SEC;
    Observed {
        status: Arc::new(status),
        position: None,
        slow_us: None,
        events: Vec::new(),
        tail: super::EventTail::default(),
        notes: Vec::new(),
    }
}

fn peer() -> Peer {
    Peer {
        peer_addr: [10, 0, 0, 1].into(),
        role: Role::Server,
        attempts: 9,
        established: 0,
        failed: 0,
        open: 0,
        dwell_p50_us: None,
        dwell_p99_us: None,
        dwell_max_us: None,
        syn_retransmits: 0,
        synack_retransmits: 0,
        rto_retransmits: 0,
        tlp_retransmits: 0,
        fast_retransmits: 0,
        recovery_retransmits: 0,
        syns_refused_accept_queue: None,
        syns_refused_syn_queue: None,
        verdicts: Default::default(),
    }
}

fn app(count: u64) -> App {
    let mut app = App::new(Look::default(), Duration::from_secs(1));
    app.observe(observed(count));
    app
}

fn press(app: &mut App, code: KeyCode) -> KeyRequest {
    app.key(code.into())
}

fn type_text(app: &mut App, text: &str) {
    text.chars().for_each(|c| {
        press(app, KeyCode::Char(c));
    });
}

fn shown(app: &App, columns: u16, rows: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| app.draw(frame)).unwrap();
    let buffer = terminal.backend().buffer();
    let row = |y| -> String { (0..columns).map(|x| buffer[(x, y)].symbol()).collect() };
    (0..rows).map(|y| row(y).trim_end().to_owned()).collect()
}

#[test]
fn a_selection_follows_its_row() {
    let mut app = app(5);
    press(&mut app, KeyCode::Char('3'));
    assert_eq!(app.pane, Pane::Handshakes);
    press(&mut app, KeyCode::Down);
    press(&mut app, KeyCode::Down);
    let chosen = |app: &App| {
        let rows = app.rows(Pane::Handshakes);
        format!("{:?}", rows.get(app.cursors[2].place(&rows)).unwrap().id())
    };
    assert_eq!(chosen(&app), "Handshake(3)");
    // By retransmissions it is another place, and the same row.
    press(&mut app, KeyCode::Char('s'));
    assert_eq!(chosen(&app), "Handshake(3)");
    // Where it has ended, the row in its place is selected.
    let mut fewer = observed(5);
    Arc::get_mut(&mut fewer.status)
        .unwrap()
        .snapshot
        .open
        .remove(2);
    app.observe(fewer);
    assert_eq!(chosen(&app), "Handshake(2)");
    press(&mut app, KeyCode::End);
    assert_eq!(chosen(&app), "Handshake(1)");
    press(&mut app, KeyCode::Down);
    assert_eq!(chosen(&app), "Handshake(1)");
    press(&mut app, KeyCode::Home);
    assert_eq!(chosen(&app), "Handshake(5)");
}

#[test]
fn orders_go_round_and_the_default_is_the_engines() {
    let mut app = app(3);
    let order = |app: &App| -> Vec<String> {
        app.rows(app.pane)
            .iter()
            .map(|item| format!("{:?}", item.id()))
            .collect()
    };
    let first = order(&app);
    assert_eq!(first[0], "Problem(\"p-0\")");
    press(&mut app, KeyCode::Char('s'));
    assert_eq!(order(&app)[0], "Problem(\"p-2\")", "by those in progress");
    assert!(
        shown(&app, 80, 24)
            .iter()
            .any(|line| line.contains("PROBLEMS 3 by now"))
    );
    for _ in 1..4 {
        press(&mut app, KeyCode::Char('s'));
    }
    assert_eq!(order(&app), first);
    press(&mut app, KeyCode::Tab);
    // 200 of 128 in the accept queue come before 100 of 128 in the SYN queue, and the other way round.
    assert!(order(&app)[0].contains("8080"), "{:?}", order(&app));
    press(&mut app, KeyCode::Char('s'));
    assert!(order(&app)[0].contains("443"), "{:?}", order(&app));
}

#[test]
fn a_filter_narrows_every_pane_and_a_wrong_one_is_told() {
    let mut app = app(3);
    type_text(&mut app, "/port:443");
    press(&mut app, KeyCode::Enter);
    assert_eq!(app.rows(Pane::Problems).len(), 0);
    assert_eq!(app.rows(Pane::Listeners).len(), 1);
    assert_eq!(app.rows(Pane::Handshakes).len(), 0);
    let lines = shown(&app, 80, 24);
    assert!(lines[1].ends_with("filter port:443"), "{lines:?}");
    type_text(&mut app, "/x");
    press(&mut app, KeyCode::Enter);
    let last = shown(&app, 100, 24).pop().unwrap();
    assert!(last.starts_with("/port:443x_   "), "{last}");
    assert!(app.typing.is_some());
    // Esc keeps the one before, and once more takes it off.
    press(&mut app, KeyCode::Esc);
    assert_eq!(app.query.text, "port:443");
    press(&mut app, KeyCode::Esc);
    assert_eq!(app.rows(Pane::Handshakes).len(), 3);
    type_text(&mut app, "rr");
    assert_eq!(app.role, Some(Role::Client));
    assert_eq!(app.rows(Pane::Handshakes).len(), 0);
    assert_eq!(app.rows(Pane::Problems).len(), 0);
    // q in the line of the filter is a letter.
    type_text(&mut app, "/q");
    assert!(app.typing.is_some());
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(app.key(control_c), KeyRequest::Quit);
}

#[test]
fn enter_goes_down_and_esc_back() {
    let mut app = app(3);
    press(&mut app, KeyCode::Enter);
    assert_eq!(app.pages.len(), 1);
    assert!(
        shown(&app, 80, 24)
            .iter()
            .any(|line| line.starts_with("accept-queue-full, likely"))
    );
    press(&mut app, KeyCode::Char('e'));
    press(&mut app, KeyCode::Char('e'));
    assert_eq!(app.pages.len(), 2, "the same page is opened once");
    press(&mut app, KeyCode::Char('G'));
    let last = shown(&app, 80, 24);
    assert!(
        last.iter().any(|line| line.contains("synprobe lab ")),
        "{last:?}"
    );
    // Esc and another key in one piece.
    app.key(KeyEvent::new(KeyCode::Char('n'), KeyModifiers::ALT));
    assert!(
        shown(&app, 80, 24)
            .iter()
            .any(|line| line.starts_with("Not seen"))
    );
    press(&mut app, KeyCode::Esc);
    press(&mut app, KeyCode::Enter);
    assert_eq!((app.pane, app.pages.len()), (Pane::Handshakes, 0));
    assert!(shown(&app, 80, 24)[1].ends_with("handshakes of accept-queue-full"));
    press(&mut app, KeyCode::Esc);
    assert_eq!((app.pane, app.narrowed.is_none()), (Pane::Problems, true));
}

#[test]
fn a_paused_screen_stays_and_a_paused_replay_moves() {
    let mut app = app(3);
    assert_eq!(press(&mut app, KeyCode::Char(' ')), KeyRequest::Pause(true));
    app.observe(observed(1));
    assert_eq!(app.rows(Pane::Handshakes).len(), 3);
    assert!(shown(&app, 80, 24)[1].starts_with("PAUSED"));
    let mut moved = observed(1);
    moved.position = Some(ReplayPosition {
        at_us: 5_000_000,
        length_us: 8_000_000,
        is_last: false,
    });
    app.observe(moved);
    assert_eq!(app.rows(Pane::Handshakes).len(), 1);
    assert!(shown(&app, 80, 24)[0].contains("replay 5.0 s of 8.0 s"));
    assert_eq!(
        press(&mut app, KeyCode::Char(' ')),
        KeyRequest::Pause(false)
    );
    assert_eq!(
        press(&mut app, KeyCode::Char('[')),
        KeyRequest::Skip(-10_000_000)
    );
}

/// A problem that was not found again keeps the number that was found last: what has ended since is no part of it.
#[test]
fn handshakes_that_ended_are_not_now() {
    let mut app = app(0);
    let row = shown(&app, 80, 24)
        .into_iter()
        .find(|line| line.contains("peer-silent"));
    assert!(
        row.unwrap().contains(" 0   8 "),
        "{:?}",
        shown(&app, 80, 24)
    );
    app.observe(Observed {
        status: Arc::new(RunStatus {
            at_ns: 21 * SEC,
            ..(*observed(1).status).clone()
        }),
        ..observed(1)
    });
    let row = shown(&app, 80, 24)
        .into_iter()
        .find(|line| line.contains("peer-silent"));
    assert!(
        row.unwrap().contains(" 1   8 "),
        "{:?}",
        shown(&app, 80, 24)
    );
}

#[test]
fn every_size_can_be_drawn() {
    let mut app = app(300);
    let sizes = [
        (1, 1),
        (2, 1),
        (10, 3),
        (80, 2),
        (300, 100),
        (79, 24),
        (80, 23),
    ];
    for keys in ["", "3", "\n", "?", "/abc"] {
        for key in keys.chars() {
            let code = if key == '\n' {
                KeyCode::Enter
            } else {
                KeyCode::Char(key)
            };
            press(&mut app, code);
        }
        for (columns, rows) in sizes {
            assert_eq!(shown(&app, columns, rows).len(), usize::from(rows));
        }
        press(&mut app, KeyCode::Esc);
    }
    assert!(App::default().text(80).contains("synprobe top"));
    shown(&App::default(), 80, 24);
}

#[test]
fn the_commands_of_a_remedy_are_copied() {
    let mut app = app(0);
    let mut with_remedy = observed(0);
    let status = Arc::get_mut(&mut with_remedy.status).unwrap();
    status.at_ns += 1;
    status.snapshot.problems[0].remedy = Some(
        "let the application accept faster; raise the limit: sysctl -w net.core.somaxconn=1024; ss -ltn"
            .to_owned(),
    );
    status.snapshot.problems[1].remedy = Some("ask the network's owner".to_owned());
    app.observe(with_remedy);
    let copied = press(&mut app, KeyCode::Char('c'));
    let expected = "sysctl -w net.core.somaxconn=1024\nss -ltn";
    assert_eq!(copied, KeyRequest::Copy(expected.to_owned()));
    let last = shown(&app, 80, 24).pop().unwrap();
    assert!(last.contains("2 commands"), "{last}");
    press(&mut app, KeyCode::Down);
    let last = shown(&app, 80, 24).pop().unwrap();
    assert!(
        last.ends_with("q quit"),
        "the next key ends the notice: {last}"
    );
    assert_eq!(press(&mut app, KeyCode::Char('c')), KeyRequest::Nothing);
    let last = shown(&app, 80, 24).pop().unwrap();
    assert!(last.contains("no command"), "{last}");
}

#[test]
fn peers_are_added_up_by_network_and_one_by_one_again() {
    let peer = |addr: &str, role, failed| Peer {
        peer_addr: addr.parse().unwrap(),
        role,
        failed,
        verdicts: [(VerdictKind::PeerSilent, failed)].into(),
        ..peer()
    };
    let mut app = app(0);
    let mut many = observed(0);
    let status = Arc::get_mut(&mut many.status).unwrap();
    status.at_ns += 1;
    status.snapshot.peers = vec![
        peer("10.0.3.1", Role::Server, 5),
        peer("10.0.4.1", Role::Server, 4),
        peer("10.0.3.200", Role::Server, 3),
        peer("10.0.3.1", Role::Client, 2),
        peer("fd00::1", Role::Server, 1),
    ];
    app.observe(many);
    press(&mut app, KeyCode::Char('w'));
    let rows = |app: &App| -> Vec<String> {
        let lines = shown(app, 100, 40);
        let first = lines
            .iter()
            .position(|line| line.trim_start().starts_with("4 PEERS"));
        let rows = lines.iter().skip(first.unwrap() + 1);
        rows.take_while(|line| line.contains("peer-silent"))
            .map(|line| line.trim_start_matches(['>', ' ']).to_owned())
            .collect()
    };
    let listed = rows(&app);
    assert_eq!(listed.len(), 4, "{listed:?}");
    assert!(listed[0].starts_with("10.0.3.0/24 (2 peers)"), "{listed:?}");
    assert!(listed[0].ends_with("peer-silent ×8"), "{listed:?}");
    assert!(
        listed[2].starts_with("10.0.3.0/24 (1 peer)"),
        "a role of its own"
    );
    assert!(listed[3].starts_with("fd00::/64 (1 peer)"), "{listed:?}");
    press(&mut app, KeyCode::Enter);
    assert_eq!(app.query.text, "peer:10.0.3.0/24");
    assert_eq!(rows(&app).len(), 3, "{:?}", rows(&app));
    press(&mut app, KeyCode::Esc);
    assert_eq!(rows(&app).len(), 5);
}
