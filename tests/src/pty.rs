//! A program in a pseudo-terminal, and what its screen shows by another's emulator of terminals.

use std::{
    fs::File,
    io::{self, ErrorKind, Read, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::{fs::OpenOptionsExt, process::CommandExt},
    },
    process::{Child, Command, ExitStatus},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

/// Something that should come has come by then, on the slowest host.
const PATIENCE: Duration = Duration::from_secs(60);

/// See the module.
pub struct Pty {
    ours: File,
    /// Kept open, so that the modes can be read once the program is gone.
    theirs: OwnedFd,
    child: Child,
    /// What the terminal shows.
    pub screen: vt100::Parser,
    /// Everything that was written.
    pub written: Vec<u8>,
    modes: libc::termios,
}

impl Pty {
    /// Starts a program as the leader of a session with this terminal.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn start(mut command: Command, columns: u16, rows: u16) -> Result<Self> {
        // Close-on-exec from the beginning: other threads start programs meanwhile, and would hand them on.
        let ours = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
            .open("/dev/ptmx")
            .context("/dev/ptmx")?;
        let locked: libc::c_int = 0;
        // SAFETY: TIOCSPTLCK reads the number, which is alive.
        let unlocked = unsafe { libc::ioctl(ours.as_raw_fd(), libc::TIOCSPTLCK, &locked) };
        ensure!(unlocked == 0, "TIOCSPTLCK: {}", io::Error::last_os_error());
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
        // SAFETY: TIOCGPTPEER (Linux 4.13) takes a number.
        let theirs = unsafe { libc::ioctl(ours.as_raw_fd(), libc::TIOCGPTPEER, flags) };
        ensure!(theirs >= 0, "TIOCGPTPEER: {}", io::Error::last_os_error());
        // SAFETY: it was opened just now, and nobody else has it.
        let theirs = unsafe { OwnedFd::from_raw_fd(theirs) };
        set_size(&ours, columns, rows)?;
        let modes = modes_of(&theirs)?;
        command
            .stdin(theirs.try_clone()?)
            .stdout(theirs.try_clone()?)
            .stderr(theirs.try_clone()?);
        // SAFETY: setsid() and ioctl() may be called between fork and exec.
        unsafe {
            command.pre_exec(|| {
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn()?;
        Ok(Self {
            ours,
            theirs,
            child,
            screen: vt100::Parser::new(rows, columns, 0),
            written: Vec::new(),
            modes,
        })
    }

    /// The screen, line by line.
    pub fn lines(&self) -> Vec<String> {
        let (_, columns) = self.screen.screen().size();
        let rows = self.screen.screen().rows(0, columns);
        rows.map(|row| row.trim_end().to_owned()).collect()
    }

    /// Reads output until the screen is as wanted.
    ///
    /// # Errors
    ///
    /// It never is.
    pub fn until(&mut self, what: &str, wanted: impl Fn(&[String]) -> bool) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while !self.is_whole() || !wanted(&self.lines()) {
            let left = end.saturating_duration_since(Instant::now());
            if !self.read(left)? {
                bail!("never {what}:\n{}", self.lines().join("\n"));
            }
        }
        Ok(())
    }

    /// Whether no frame is half drawn: each ends by hiding the cursor.
    fn is_whole(&self) -> bool {
        !self.screen.screen().alternate_screen() || self.written.ends_with(b"\x1b[?25l")
    }

    /// The same: until a text is on the screen.
    pub fn until_shown(&mut self, text: &str) -> Result<()> {
        self.until(text, |lines| lines.iter().any(|line| line.contains(text)))
    }

    /// Types.
    pub fn keys(&mut self, keys: &str) -> Result<()> {
        Ok(self.ours.write_all(keys.as_bytes())?)
    }

    /// Another size: the kernel sends SIGWINCH.
    pub fn resize(&mut self, columns: u16, rows: u16) -> Result<()> {
        set_size(&self.ours, columns, rows)?;
        self.screen.screen_mut().set_size(rows, columns);
        Ok(())
    }

    /// Refuses a program that has descriptors of a terminal beside its three: another's, or the other end.
    ///
    /// # Errors
    ///
    /// Which ones.
    pub fn ensure_nothing_inherited(&self) -> Result<()> {
        for entry in std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))? {
            let entry = entry?;
            let number: u32 = entry.file_name().to_string_lossy().parse()?;
            // It may be closed by now.
            let Ok(target) = std::fs::read_link(entry.path()) else {
                continue;
            };
            let is_terminal = target.starts_with("/dev/pts") || target.ends_with("ptmx");
            ensure!(number <= 2 || !is_terminal, "{number}: {target:?}");
        }
        Ok(())
    }

    /// The effective capabilities of the program.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub fn capabilities(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        Ok(u64::from_str_radix(line.context("CapEff")?.trim(), 16)?)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: libc::c_int) -> Result<()> {
        // SAFETY: kill() takes two numbers. The child is not reaped yet, so the number is its own.
        let sent = unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
        ensure!(sent == 0, "kill: {}", io::Error::last_os_error());
        Ok(())
    }

    /// Waits for the end of the program.
    ///
    /// # Errors
    ///
    /// It does not end.
    pub fn ended(&mut self) -> Result<ExitStatus> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                while self.read(Duration::ZERO)? {}
                return Ok(status);
            }
            if Instant::now() > end {
                self.child.kill()?;
                self.child.wait()?;
                bail!("it does not end:\n{}", self.lines().join("\n"));
            }
            self.read(Duration::from_millis(20))?;
        }
    }

    /// Refuses a terminal that is not as it was before.
    ///
    /// # Errors
    ///
    /// What is different.
    pub fn ensure_restored(&self) -> Result<()> {
        let screen = self.screen.screen();
        ensure!(!screen.alternate_screen(), "the alternate screen is left");
        ensure!(!screen.hide_cursor(), "the cursor is shown");
        let now = modes_of(&self.theirs)?;
        let flags =
            |modes: &libc::termios| [modes.c_iflag, modes.c_oflag, modes.c_cflag, modes.c_lflag];
        ensure!(
            flags(&now) == flags(&self.modes),
            "the modes of the terminal are as before"
        );
        ensure!(now.c_cc == self.modes.c_cc, "so are its characters");
        Ok(())
    }

    /// Whether the terminal is raw now.
    pub fn is_raw(&self) -> Result<bool> {
        Ok(modes_of(&self.theirs)?.c_lflag & (libc::ICANON | libc::ECHO) == 0)
    }

    /// Takes in what was written; `false`: nothing within that time.
    fn read(&mut self, patience: Duration) -> Result<bool> {
        let mut ready = libc::pollfd {
            fd: self.ours.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let ms = libc::c_int::try_from(patience.as_millis()).context("a time")?;
        // SAFETY: one entry, alive for the call.
        let polled = unsafe { libc::poll(&mut ready, 1, ms) };
        if polled <= 0 || ready.revents & libc::POLLIN == 0 {
            return Ok(false);
        }
        let mut bytes = [0; 65_536];
        match self.ours.read(&mut bytes) {
            Ok(0) => Ok(false),
            Ok(len) => {
                self.screen.process(&bytes[..len]);
                self.written.extend_from_slice(&bytes[..len]);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        // A test that failed leaves nothing behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn set_size(terminal: &File, columns: u16, rows: u16) -> Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads the size, which is alive.
    let set = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &size) };
    ensure!(set == 0, "TIOCSWINSZ: {}", io::Error::last_os_error());
    Ok(())
}

fn modes_of(terminal: &OwnedFd) -> Result<libc::termios> {
    // SAFETY: all-zero is a value of this plain structure, and tcgetattr() writes all of it.
    let mut modes: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, and the structure is alive.
    let read = unsafe { libc::tcgetattr(terminal.as_raw_fd(), &mut modes) };
    ensure!(read == 0, "tcgetattr: {}", io::Error::last_os_error());
    Ok(modes)
}
