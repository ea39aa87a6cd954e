//! A screen with a hundred thousand half-opens.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};

use super::{App, Look, Observed, pane::Pane};
use crate::{
    model::{Role, TcpState, UnderWay},
    status::{RunStatus, fixtures},
    verdict::fixtures::{SEC, connection},
};

const MANY: u64 = 100_000;
/// Frames that are timed.
const FRAMES: u32 = 200;

fn under_way(id: u64) -> UnderWay {
    let peer = std::net::Ipv4Addr::from(0x0a00_0000 + id as u32).to_string();
    let mut c = connection(Role::Server, &peer, 55_555);
    c.id = id;
    UnderWay {
        connection: c,
        state: TcpState::SynRecv,
        // In no order that is the table's.
        began_ns: Some(SEC + (id * 7_919) % MANY * 1_000),
        began_error_us: 0,
        retransmits: (id % 5) as u32,
        retransmits_by_peer: 0,
        gaps_us: vec![1_000_000; (id % 5) as usize],
        next_ns: None,
        gives_up_ns: None,
    }
}

fn observed(at_ns: u64) -> Observed {
    let mut status: RunStatus = fixtures::status();
    status.snapshot.open = (1..=MANY).map(under_way).collect();
    status.snapshot.open_total = MANY as usize;
    status.at_ns = at_ns;
    Observed {
        status: Arc::new(status),
        position: None,
        slow_us: None,
        events: Vec::new(),
        tail: super::EventTail::default(),
        notes: Vec::new(),
    }
}

fn places(app: &App) -> Arc<[u32]> {
    app.rows(Pane::Handshakes).places()
}

/// Scrolling orders nothing anew, and all rows can be reached. `--nocapture` prints how long a frame takes.
#[test]
fn a_frame_costs_what_is_visible() {
    let mut app = App::new(Look::default(), Duration::from_secs(1));
    app.observe(observed(20 * SEC));
    let press = |app: &mut App, code| {
        app.key(KeyEvent::new(code, KeyModifiers::NONE));
    };
    press(&mut app, KeyCode::Char('3'));
    press(&mut app, KeyCode::Char('z'));
    let mut terminal = Terminal::new(TestBackend::new(120, 40)).unwrap();
    terminal.draw(|frame| app.draw(frame)).unwrap();
    let first = places(&app);
    assert_eq!(first.len() as u64, MANY);

    let began = Instant::now();
    for _ in 0..FRAMES {
        press(&mut app, KeyCode::PageDown);
        terminal.draw(|frame| app.draw(frame)).unwrap();
    }
    let frame = began.elapsed() / FRAMES;
    assert!(Arc::ptr_eq(&first, &places(&app)), "ordered anew");

    let began = Instant::now();
    press(&mut app, KeyCode::End);
    terminal.draw(|frame| app.draw(frame)).unwrap();
    let end = began.elapsed();
    let shown = terminal.backend().to_string();
    // The youngest: began_ns is the highest.
    let youngest = (1..=MANY).max_by_key(|id| under_way(*id).began_ns).unwrap();
    let peer = std::net::Ipv4Addr::from(0x0a00_0000 + youngest as u32).to_string();
    assert!(shown.contains(&peer), "{shown}");

    // The next state: the row is found again, once.
    let next = observed(21 * SEC);
    let began = Instant::now();
    app.observe(next);
    terminal.draw(|frame| app.draw(frame)).unwrap();
    let state = began.elapsed();
    assert!(!Arc::ptr_eq(&first, &places(&app)));
    assert!(terminal.backend().to_string().contains(&peer), "{shown}");
    println!("{MANY} rows: a frame {frame:?}, to the end {end:?}, a new state {state:?}");
}

/// The oldest alone are enough until somebody looks for others; the title has the number of all.
#[test]
fn all_are_asked_for_where_somebody_looks_for_them() {
    let mut app = App::new(Look::default(), Duration::from_secs(1));
    let mut part = observed(20 * SEC);
    let status = Arc::make_mut(&mut part.status);
    status.snapshot.open.truncate(500);
    status.snapshot.open_is_part = true;
    app.observe(part);
    assert!(!app.needs_all_open());
    let shown = app.text(120);
    assert!(shown.contains(&format!("IN PROGRESS {MANY}")), "{shown}");
    assert!(!shown.contains(" of the 100000 handshakes"), "{shown}");
    for (keys, needs_all) in [("3", true), ("2", false), ("r", true), ("rr", false)] {
        for key in keys.chars() {
            app.key(KeyEvent::new(KeyCode::Char(key), KeyModifiers::NONE));
        }
        assert_eq!(app.needs_all_open(), needs_all, "{keys}");
    }
}
