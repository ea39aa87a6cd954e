//! Output that cannot be written: a reader that stops reading, a full device, a full disk.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::{fd::AsRawFd, unix::process::CommandExt},
    process::Stdio,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use synprobe_lab::{Lab, PORT, Server, SocketFamily};
use synprobe_tests::{
    agent::{PATIENCE, until},
    binary::{self, command, ended, netns_path, status_kib},
    harness::figure,
    recorded::Scratch,
    schema,
};

/// With little of an address space (ulimit -v) a run works, and a line says what fits.
pub fn address_space_limit() -> Result<()> {
    const LIMIT: u64 = 200 << 20;
    let mut command = binary::command(&["watch", "--format", "json", "--duration", "1s"])?;
    let limit = || {
        let limit = libc::rlimit {
            rlim_cur: LIMIT,
            rlim_max: LIMIT,
        };
        // SAFETY: the limit is alive for the call.
        match unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: it makes one system call.
    unsafe { command.pre_exec(limit) };
    let ran = command.output()?;
    let err = String::from_utf8_lossy(&ran.stderr);
    ensure!(ran.status.code() == Some(0), "{:?}: {err}", ran.status);
    ensure!(err.lines().count() == 1, "{err}");
    ensure!(err.contains("--max-memory 136M"), "{err}");
    Ok(())
}

/// With a stack of 64 KiB (ulimit -s) a run works: the limit is raised. Where it may not be, one line says so.
pub fn stack_limit() -> Result<()> {
    let ran = |limits: &str, before: &[&str], arguments: &[&str]| -> Result<_> {
        let child = std::process::Command::new("sh")
            .args(["-c", &format!("ulimit {limits} 64; exec \"$@\""), "sh"])
            .args(before)
            .arg(binary::path()?)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("sh")?;
        ended(child)
    };
    let run = ran(
        "-S -s",
        &[],
        &["watch", "--format", "json", "--duration", "1s"],
    )?;
    ensure!(run.code == Some(0) && run.err.is_empty(), "{run:?}");
    // Without CAP_SYS_RESOURCE a hard limit stays.
    let refused = ran(
        "-s",
        &["setpriv", "--bounding-set=-sys_resource"],
        &["--help"],
    )?;
    ensure!(refused.code == Some(3), "{refused:?}");
    let line = refused.one_line()?;
    ensure!(
        line.contains("the limit of the stack is 64 KiB, and may not be raised"),
        "{line}"
    );
    Ok(())
}

/// What it may take beyond what it had, KiB: what was read from the ring and not written yet.
const BOUND_KIB: u64 = 16 * 1024;

fn connect_until(lab: &Lab, made: &AtomicU64, stop: &AtomicBool) -> Result<()> {
    lab.client.run(|| {
        while !stop.load(Ordering::Relaxed) {
            drop(TcpStream::connect(lab.server_addr(PORT))?);
            made.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    })
}

/// Connections by which the queue of an output is full: three lines each, 32,768 fit.
const FULL: u64 = 13_000;

/// The pipe fills, the queue of the output fills: memory stands still, the ring is read all the same, and the
/// output is told how many of its lines it did not get.
pub fn nobody_reads() -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    let server = Server::start(vec![lab.listen(PORT, 4096)?])?;
    let netns = netns_path(&lab.client);
    let mut watch = command(&["watch", "--format", "json", "--ring-size", "64K"])?;
    let mut child = watch.args(["--netns", &netns]).spawn()?;
    let pid = child.id();
    let mut out = BufReader::new(child.stdout.take().context("standard output")?);
    let mut text = String::new();
    // Nothing is missed once the first line is there.
    out.read_line(&mut text)?;
    let (made, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let grown = std::thread::scope(|scope| {
        let load = scope.spawn(|| connect_until(&lab, &made, &stop));
        let watch = || -> Result<u64> {
            let patience = Instant::now() + PATIENCE;
            while made.load(Ordering::Relaxed) < FULL {
                ensure!(Instant::now() < patience, "no load");
                std::thread::sleep(Duration::from_millis(20));
            }
            let before = status_kib(pid, "VmRSS")?;
            let goal = made.load(Ordering::Relaxed) + 8_000;
            while made.load(Ordering::Relaxed) < goal {
                ensure!(Instant::now() < patience, "no load");
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok(status_kib(pid, "VmRSS")?.saturating_sub(before))
        };
        let grown = watch();
        stop.store(true, Ordering::Relaxed);
        load.join().map_err(|_| anyhow!("it panicked"))??;
        grown
    })?;
    ensure!(grown < BOUND_KIB, "{grown} KiB more while nobody reads");
    // The reader is back: what was lost is said.
    let reader = std::thread::spawn(move || out.read_to_string(&mut text).map(|_| text));
    binary::signal(&child, libc::SIGINT)?;
    let ran = ended(child)?;
    let text = reader.join().map_err(|_| anyhow!("it panicked"))??;
    ensure!(ran.code == Some(0) && ran.err.is_empty(), "{ran:?}");
    let lines = schema::check(text.lines())?;
    let end = lines.last().context("a line")?;
    let (events, lost) = (end["events"].as_u64(), end["lost"].as_u64());
    let (events, lost) = events.zip(lost).context("totals")?;
    let made = made.load(Ordering::Relaxed);
    ensure!(
        end["type"] == "end" && end["produced"] == events + lost,
        "{end}"
    );
    // Two records for each connection; a ring this small may lose some of them.
    ensure!(
        events > made,
        "{events} events of {made} connections: {end}"
    );
    let not_written: u64 = lines
        .iter()
        .filter(|l| {
            l["type"] == "lost" && l["reason"].as_str().is_some_and(|r| r.contains("output"))
        })
        .filter_map(|l| l["events"].as_u64())
        .sum();
    ensure!(not_written > 0, "no line says what was not written");
    server.stop()?;
    figure(format!(
        "nobody reads: {made} connections, {grown} KiB more memory, {events} records read, {lost} lost, \
         {not_written} lines not written and reported"
    ));
    Ok(())
}

/// What ends a run whose reader never reads again.
#[derive(Clone, Copy, Debug)]
enum EndedBy {
    Duration,
    Signal(libc::c_int),
}

/// A run that nobody reads ends in its time all the same, and says what was not written.
pub fn ends_unread() -> Result<()> {
    /// The output is abandoned after 1.5 s; the last look at the host takes the rest.
    const BOUND: Duration = Duration::from_secs(3);
    const RUN: Duration = Duration::from_secs(8);
    let ways = [
        EndedBy::Duration,
        EndedBy::Signal(libc::SIGTERM),
        EndedBy::Signal(libc::SIGINT),
    ];
    let mut longest = Duration::ZERO;
    for way in ways {
        // One of its own: connections that were closed keep their ports for a minute.
        let lab = Lab::new(SocketFamily::V4)?;
        let server = Server::start(vec![lab.listen(PORT, 4096)?])?;
        let netns = netns_path(&lab.client);
        let mut watch = command(&["watch", "--format", "json", "--netns", &netns])?;
        if matches!(way, EndedBy::Duration) {
            watch.args(["--duration", "8s"]);
        }
        let began = Instant::now();
        let mut child = watch.spawn()?;
        let mut out = BufReader::with_capacity(1, child.stdout.take().context("output")?);
        out.read_line(&mut String::new())?;
        let (made, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let due = std::thread::scope(|scope| {
            let load = scope.spawn(|| connect_until(&lab, &made, &stop));
            let full = || -> Result<()> {
                while made.load(Ordering::Relaxed) < FULL {
                    ensure!(began.elapsed() < PATIENCE, "no load");
                    std::thread::sleep(Duration::from_millis(10));
                }
                Ok(())
            };
            let due = full().and_then(|()| match way {
                EndedBy::Duration => {
                    ensure!(began.elapsed() < RUN, "the pipe is full too late");
                    Ok(began + RUN)
                }
                EndedBy::Signal(signal) => {
                    let now = Instant::now();
                    binary::signal(&child, signal).map(|()| now)
                }
            });
            stop.store(true, Ordering::Relaxed);
            if due.is_ok() {
                let end = Instant::now() + RUN + BOUND;
                while child.try_wait()?.is_none() && Instant::now() < end {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            let took = due.map(|due| due.elapsed());
            load.join().map_err(|_| anyhow!("it panicked"))??;
            took
        })?;
        let over = child.try_wait()?.is_some();
        if !over {
            child.kill()?;
        }
        let mut err = String::new();
        child
            .stderr
            .take()
            .context("errors")?
            .read_to_string(&mut err)?;
        let code = child.wait()?.code();
        ensure!(over && due < BOUND, "{way:?}: not over after {due:?}");
        longest = longest.max(due);
        ensure!(
            code == Some(1) && err.contains("the output accepted nothing for 1.5 s: "),
            "{way:?}: {code:?} {err}"
        );
        drop(out);
        server.stop()?;
    }
    figure(format!(
        "nobody ever reads: over after {longest:?} at the longest"
    ));
    Ok(())
}

/// A pipe that takes nothing more.
fn full_pipe() -> Result<(io::PipeReader, io::PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    let blocking = |flags: libc::c_int| {
        // SAFETY: takes numbers.
        match unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, flags) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    blocking(libc::O_NONBLOCK)?;
    let full = loop {
        if let Err(error) = (&writer).write(&[b'x'; 4096]) {
            break error;
        }
    };
    ensure!(full.kind() == io::ErrorKind::WouldBlock, "{full}");
    blocking(0)?;
    Ok((reader, writer))
}

/// What a run prints at its end is abandoned as its lines are; and a standard error that nobody reads holds up nothing.
pub fn page_unread() -> Result<()> {
    /// The output is abandoned after 1.5 s; the rest is the end of the run, and a busy machine.
    const BOUND: Duration = Duration::from_millis(3000);
    let lab = Lab::new(SocketFamily::V4)?;
    let netns = netns_path(&lab.client);
    let folder = Scratch::new();
    std::fs::create_dir(&folder.0)?;
    let file = |name: &str| folder.0.join(name).to_string_lossy().into_owned();
    let (recording, report) = (file("recording"), file("report.html"));
    let verbs: [&[&str]; 5] = [
        &["watch"],
        &["diagnose", "--duration", "60s"],
        &["diagnose", "--duration", "60s", "--format", "json"],
        &["record", "--output", &recording],
        &["report", "--duration", "60s", "--output", &report],
    ];
    let mut longest = Duration::ZERO;
    for arguments in verbs {
        for is_all in [false, true] {
            let mut verb = command(arguments)?;
            let (_out, full) = full_pipe()?;
            verb.args(["--netns", &netns]).stdout(Stdio::from(full));
            let _err = match is_all {
                true => {
                    let (err, full) = full_pipe()?;
                    verb.stderr(Stdio::from(full));
                    Some(err)
                }
                false => None,
            };
            let child = verb.spawn()?;
            until("SIGTERM is caught", || {
                binary::catches(&child, libc::SIGTERM)
            })?;
            let began = Instant::now();
            binary::signal(&child, libc::SIGTERM)?;
            let reads_errors = child.stderr.is_some();
            let ran = ended(child)?;
            let took = began.elapsed();
            ensure!(
                ran.code == Some(1) && took < BOUND,
                "{arguments:?}: {ran:?} after {took:?}"
            );
            longest = longest.max(took);
            ensure!(
                !reads_errors
                    || ran
                        .err
                        .contains("standard output: the output accepted nothing for 1.5 s: ")
                        && ran.err.contains(" not written"),
                "{arguments:?}: {ran:?}"
            );
        }
    }
    figure(format!(
        "nobody reads the end of a run: over after {longest:?} at the longest"
    ));
    Ok(())
}

/// One line, and exit code 1.
pub fn full_device() -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    let _listener = lab.listen(PORT, 1)?;
    let netns = netns_path(&lab.server);
    let verbs: [&[&str]; 11] = [
        &["watch", "--duration", "5s", "--netns", &netns],
        &[
            "watch",
            "--duration",
            "5s",
            "--format",
            "json",
            "--netns",
            &netns,
        ],
        &["diagnose", "--duration", "100ms", "--netns", &netns],
        &[
            "diagnose",
            "--duration",
            "5s",
            "--format",
            "json",
            "--netns",
            &netns,
        ],
        &["listeners", "--netns", &netns],
        &["listeners", "--format", "json", "--netns", &netns],
        &["states", "--netns", &netns],
        &["states", "--format", "json", "--netns", &netns],
        &["preflight"],
        &["explain"],
        &["lab", "--list"],
    ];
    for arguments in verbs {
        let full = File::options().write(true).open("/dev/full")?;
        let ran = ended(command(arguments)?.stdout(Stdio::from(full)).spawn()?)?;
        ensure!(ran.code == Some(1), "{arguments:?}: {ran:?}");
        let line = ran.one_line()?;
        ensure!(
            line.contains("standard output: No space left on device"),
            "{arguments:?}: {line}"
        );
    }
    Ok(())
}

/// A limit of the size of files (RLIMIT_FSIZE): one line, and no death by a signal.
pub fn file_size_limit() -> Result<()> {
    const SCRIPT: &str = "ulimit -f 0; exec \"$@\"";
    let file = std::env::temp_dir().join(format!("synprobe-limited-{}", std::process::id()));
    let child = std::process::Command::new("sh")
        .args(["-c", SCRIPT, "sh"])
        .arg(binary::path()?)
        .args(["record", "--duration", "1s", "--output"])
        .arg(&file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("sh")?;
    let ran = ended(child)?;
    // It may not exist.
    let _ = std::fs::remove_file(&file);
    ensure!(ran.code == Some(1), "{ran:?}");
    ensure!(ran.err.contains("File too large"), "{ran:?}");
    Ok(())
}

/// A disk that fills while it is written to, in a mount namespace of its own.
pub fn full_disk() -> Result<()> {
    const SCRIPT: &str = "mount -t tmpfs -o size=64k none /tmp && cd /tmp && \"$@\" > lines; \
        code=$?; tail -c 1 lines | od -An -c >&2; wc -c < lines >&2; exit $code";
    let lab = Lab::new(SocketFamily::V4)?;
    let server = Server::start(vec![lab.listen(PORT, 4096)?])?;
    let netns = netns_path(&lab.client);
    // The binary lies in the folder that is mounted over.
    let program = format!("/proc/self/fd/{}", 0);
    let binary = File::open(binary::path()?)?;
    let child = std::process::Command::new("unshare")
        .args(["-m", "sh", "-c", SCRIPT, "sh", &program])
        .args([
            "watch",
            "--format",
            "json",
            "--duration",
            "60s",
            "--netns",
            &netns,
        ])
        .stdin(Stdio::from(binary))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("unshare")?;
    let (made, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let ran = std::thread::scope(|scope| {
        let load = scope.spawn(|| connect_until(&lab, &made, &stop));
        let ran = ended(child);
        stop.store(true, Ordering::Relaxed);
        load.join().map_err(|_| anyhow!("it panicked"))??;
        ran
    })?;
    ensure!(ran.code == Some(1), "{ran:?}");
    let lines: Vec<&str> = ran.err.lines().collect();
    let said = lines.iter().filter(|l| l.starts_with("synprobe:")).count();
    ensure!(said == 1 && lines.len() == 3, "one line: {ran:?}");
    ensure!(
        lines[0] == "synprobe: standard output: No space left on device (os error 28)",
        "{ran:?}"
    );
    // All that there was room for was written.
    ensure!(lines[2].trim() == "65536", "{ran:?}");
    server.stop()?;
    Ok(())
}
