//! The terminal as a screen, and as it was before.

use std::{
    io::{self, BufWriter, Stdout, Write},
    panic,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        clipboard::CopyToClipboard,
        cursor, execute,
        terminal::{
            Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
            enable_raw_mode,
        },
    },
};

/// The terminal is a screen now.
static IS_SCREEN: AtomicBool = AtomicBool::new(false);
static PANIC_HOOK: Once = Once::new();

/// Output of one frame goes out at once.
const FRAME_BYTES: usize = 64 << 10;

/// The terminal as a screen, for as long as this lives: raw, the alternate screen, no cursor. A panic of any thread
/// ends it before the panic is printed.
pub struct ScreenSession {
    /// The screen.
    pub terminal: Terminal<CrosstermBackend<BufWriter<Stdout>>>,
}

impl ScreenSession {
    /// Makes the terminal of standard output a screen.
    ///
    /// # Errors
    ///
    /// It is no terminal, or takes nothing.
    pub fn begin() -> io::Result<Self> {
        PANIC_HOOK.call_once(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                restore();
                before(info);
            }));
        });
        enable_raw_mode()?;
        IS_SCREEN.store(true, Ordering::SeqCst);
        // Terminal::clear() would ask the terminal where its cursor is, and wait for the answer.
        let entered = execute!(
            io::stdout(),
            EnterAlternateScreen,
            Clear(ClearType::All),
            cursor::Hide
        )
        .and_then(|()| {
            let out = BufWriter::with_capacity(FRAME_BYTES, io::stdout());
            Terminal::new(CrosstermBackend::new(out))
        });
        match entered {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                restore();
                Err(error)
            }
        }
    }
}

impl ScreenSession {
    /// Asks the terminal to put a text into the clipboard of whoever sits before it, also over ssh (OSC 52). One that
    /// does not know this ignores it; tmux passes it on with `set-clipboard on`.
    ///
    /// # Errors
    ///
    /// The terminal takes nothing.
    pub fn copy(&mut self, text: String) -> io::Result<()> {
        execute!(
            self.terminal.backend_mut(),
            CopyToClipboard::to_clipboard_from(text)
        )
    }
}

impl Drop for ScreenSession {
    fn drop(&mut self) {
        restore();
    }
}

/// Makes the terminal what it was before, once.
pub fn restore() {
    if !IS_SCREEN.swap(false, Ordering::SeqCst) {
        return;
    }
    // The terminal may be gone: nobody sees it then.
    let mut out = io::stdout();
    let _ = execute!(out, LeaveAlternateScreen, cursor::Show);
    let _ = out.flush();
    let _ = disable_raw_mode();
}

/// The same where the terminal takes no output: only its modes.
pub(super) fn restore_modes() {
    if IS_SCREEN.swap(false, Ordering::SeqCst) {
        let _ = disable_raw_mode();
    }
}
