//! The screen on a terminal: frames, keys, changes of size.

use std::{
    io,
    ops::ControlFlow,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use ratatui::crossterm::event::{self, Event};

use super::{feed::Feed, session::ScreenSession};
use crate::top::{App, KeyRequest};

/// A signal is noticed within this time.
const ATTENTION: Duration = Duration::from_millis(100);
/// While a state is on its way.
const SOON: Duration = Duration::from_millis(5);

/// Shows the states of `feed` until a key, `ending`, or the end of the run.
///
/// # Errors
///
/// The terminal cannot be written or read.
pub(super) fn show(
    mut app: App,
    feed: &mut dyn Feed,
    interval: Duration,
    ending: &AtomicBool,
) -> io::Result<()> {
    let mut session = ScreenSession::begin()?;
    let (mut asked, mut due) = (Instant::now(), Instant::now());
    let mut is_changed = true;
    while !ending.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now >= due {
            feed.ask(now - asked);
            (asked, due) = (now, now + interval);
        }
        match feed.poll() {
            ControlFlow::Continue(None) => (),
            ControlFlow::Continue(Some(observed)) => {
                app.observe(observed);
                is_changed = true;
            }
            ControlFlow::Break(()) => return Ok(()),
        }
        if is_changed {
            session.terminal.draw(|frame| app.draw(frame))?;
            is_changed = false;
        }
        let patience = if feed.is_waiting() { SOON } else { ATTENTION };
        let mut wait = patience.min(due.saturating_duration_since(Instant::now()));
        // All keys that are there, then one frame.
        while event::poll(wait)? {
            wait = Duration::ZERO;
            let request = match event::read()? {
                Event::Key(key) => app.key(key),
                Event::Resize(..) => KeyRequest::Nothing,
                _ => continue,
            };
            is_changed = true;
            match request {
                KeyRequest::Nothing => (),
                KeyRequest::Quit => return Ok(()),
                KeyRequest::Redraw => {
                    let size = session.terminal.size()?;
                    session.terminal.resize(size.into())?;
                }
                KeyRequest::Copy(text) => session.copy(text)?,
                KeyRequest::Record => feed.switch_recording(),
                KeyRequest::Pause(is_paused) => feed.pause(is_paused),
                KeyRequest::Skip(by_us) => {
                    feed.skip(by_us);
                    (asked, due) = (Instant::now(), Instant::now());
                }
            }
            feed.list_all(app.needs_all_open());
        }
    }
    Ok(())
}
