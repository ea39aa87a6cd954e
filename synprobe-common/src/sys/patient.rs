//! Writes to a descriptor whose reader may have stopped reading: nobody waits for it for long.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::poll;

/// At the end of a run, an output that accepts nothing for this time is abandoned: the run ends within 2 s.
pub const PATIENCE: Duration = Duration::from_millis(1500);
/// The same for a message on standard error: a run that goes on writes it too.
const OF_MESSAGES: Duration = Duration::from_millis(250);
/// A pipe that poll(2) calls writable takes this many bytes without waiting (`PIPE_BUF`).
const PIECE: usize = 4096;

/// Writes all, as long as something is accepted now and then.
///
/// # Errors
/// Of write(2); TimedOut: nothing was accepted for `patience`. The error says how many bytes are left.
pub fn write_all(to: &impl AsFd, mut bytes: &[u8], patience: Duration) -> io::Result<()> {
    let fd = to.as_fd().as_raw_fd();
    let mut until = Instant::now() + patience;
    while !bytes.is_empty() {
        let mut polled = [poll::interest(fd, libc::POLLOUT)];
        if poll::wait(&mut polled, until)? == 0 {
            if Instant::now() < until {
                continue;
            }
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!(
                    "the output accepted nothing for {:.1} s: {} bytes are not written",
                    patience.as_secs_f64(),
                    bytes.len()
                ),
            ));
        }
        let piece = &bytes[..bytes.len().min(PIECE)];
        // SAFETY: the piece is alive, and its length is its own.
        let written = unsafe { libc::write(fd, piece.as_ptr().cast(), piece.len()) };
        match usize::try_from(written) {
            Ok(written) => {
                bytes = &bytes[written..];
                until = Instant::now() + patience;
            }
            Err(_) => {
                let error = io::Error::last_os_error();
                let again = [io::ErrorKind::Interrupted, io::ErrorKind::WouldBlock];
                if !again.contains(&error.kind()) {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// Messages that standard error did not take, since it last took one.
static LEFT_OUT: Mutex<u64> = Mutex::new(0);

/// Writes a message to standard error. While nobody reads there it is left out, and the next one that is taken says so.
pub fn message(text: &str) {
    let mut left_out = LEFT_OUT.lock().unwrap_or_else(PoisonError::into_inner);
    let (patience, told) = match *left_out {
        0 => (OF_MESSAGES, String::new()),
        1 => (
            Duration::ZERO,
            "synprobe: a message before this one was not read\n".to_owned(),
        ),
        n => (
            Duration::ZERO,
            format!("synprobe: {n} messages before this one were not read\n"),
        ),
    };
    // Nobody can be told of another error.
    match write_all(&io::stderr(), format!("{told}{text}").as_bytes(), patience) {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => *left_out += 1,
        _ => *left_out = 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issue20_a_pipe_that_nobody_reads_is_given_up() {
        let (reader, writer) = io::pipe().unwrap();
        let began = Instant::now();
        let patience = Duration::from_millis(50);
        let error = write_all(&writer, &[b'x'; 1 << 20], patience).unwrap_err();
        assert!(began.elapsed() >= patience);
        let left = (1 << 20) - (64 << 10);
        assert!(
            error
                .to_string()
                .ends_with(&format!("0.1 s: {left} bytes are not written")),
            "{error}"
        );
        drop(reader);
        let error = write_all(&writer, b"x", patience).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn one_that_is_read_slowly_is_waited_for() {
        let (mut reader, writer) = io::pipe().unwrap();
        let patience = Duration::from_millis(400);
        let reading = std::thread::spawn(move || {
            let mut read = 0;
            let mut piece = vec![0; 64 << 10];
            while let Ok(n @ 1..) = io::Read::read(&mut reader, &mut piece) {
                read += n;
                std::thread::sleep(Duration::from_millis(20));
            }
            read
        });
        let all = vec![0; 2 << 20];
        let began = Instant::now();
        write_all(&writer, &all, patience).unwrap();
        drop(writer);
        assert_eq!(reading.join().unwrap(), all.len());
        assert!(began.elapsed() > patience);
    }
}
