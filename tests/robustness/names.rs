//! Process names are chosen by the process. A malicious name has no effect in any output.

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    os::fd::AsRawFd,
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use synprobe::util::format::is_hazardous;
use synprobe_lab::{Client, Lab, PORT, SocketFamily};
use synprobe_tests::{
    binary::{Ran, command, ended, netns_path, signal},
    schema,
};

/// Set in the process that plays the server, to its backlog.
pub const AS_SERVER: &str = "SYNPROBE_TEST_AS_SERVER";
/// Colour, bell, CSI as one character, a new line, the quotes of JSON and CSV, DEL, and what is no
/// UTF-8: as many bytes as a name may have.
const NAME: &[u8; 15] = b"\x1b[31m\x07\xc2\x9b2J\n\",\x7f\xff";
/// What a terminal is shown of its beginning.
const SHOWN: &str = "\\u{1b}[31m\\u{7}\\u{9b}2J\\n\\\",\\u{7f}\u{fffd}";

fn call_this_thread(name: &[u8; 15]) -> Result<()> {
    let mut with_end = [0_u8; 16];
    with_end[..15].copy_from_slice(name);
    // SAFETY: the name ends with a NUL and is alive for the call.
    let named = unsafe { libc::prctl(libc::PR_SET_NAME, with_end.as_ptr()) };
    ensure!(named == 0, "{}", std::io::Error::last_os_error());
    Ok(())
}

/// A server of that name, in the namespace that it is born in: it never accepts. Ends with its input.
pub fn be_the_server() -> ExitCode {
    let serve = || -> Result<()> {
        call_this_thread(NAME)?;
        let listener = TcpListener::bind(("0.0.0.0", PORT))?;
        let backlog: i32 = env::var(AS_SERVER)?.parse()?;
        // SAFETY: listen() takes two numbers.
        ensure!(unsafe { libc::listen(listener.as_raw_fd(), backlog) } == 0);
        std::io::stdout().write_all(b"listening\n")?;
        std::io::stdin().read_to_end(&mut Vec::new())?;
        Ok(())
    };
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// That process.
struct ServerProcess(Child);

impl ServerProcess {
    fn start(lab: &Lab, backlog: &str) -> Result<Self> {
        let test = env::current_exe()?;
        let mut child = lab.server.run(|| {
            let mut command = Command::new(test);
            command.env(AS_SERVER, backlog).stdin(Stdio::piped());
            Ok(command.stdout(Stdio::piped()).spawn()?)
        })?;
        let mut word = [0; 10];
        let out = child.stdout.as_mut().context("standard output")?;
        out.read_exact(&mut word)?;
        Ok(Self(child))
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Nothing but line ends does anything in what was printed; the colours of a terminal are off.
fn harmless(ran: &Ran) -> Result<()> {
    for text in [&ran.out, &ran.err] {
        let bad = text.chars().find(|c| *c != '\n' && is_hazardous(*c));
        ensure!(bad.is_none(), "{bad:?} in {text:?}");
    }
    Ok(())
}

fn named() -> String {
    String::from_utf8_lossy(NAME).into_owned()
}

/// Whether the name stands in some string of it, as it is.
fn tells_the_name(value: &Value) -> bool {
    match value {
        Value::String(text) => *text == named(),
        Value::Array(all) => all.iter().any(tells_the_name),
        Value::Object(all) => all.values().any(tells_the_name),
        _ => false,
    }
}

/// Calls the server three times, from threads with such a name.
fn trouble(lab: &Lab) -> Result<Vec<Client>> {
    let connect = || {
        call_this_thread(NAME)?;
        Client::connect(&lab.client, lab.server_addr(PORT), |_| Ok(()))
    };
    // The name is this thread's only.
    let mut clients = Vec::new();
    for _ in 0..3 {
        let client = std::thread::scope(|scope| scope.spawn(connect).join());
        clients.push(client.map_err(|_| anyhow!("it panicked"))??);
    }
    Ok(clients)
}

/// `watch`, in both formats.
pub fn lines() -> Result<()> {
    for format in ["text", "json"] {
        // Both sides in turn: by a path, and by a pid, whose process gives the namespace its name.
        for by_pid in [false, true] {
            let lab = Lab::new(SocketFamily::V4)?;
            let server = ServerProcess::start(&lab, "64")?;
            let fixed = ["watch", "--format", format, "--log-level", "info"];
            let netns = &match by_pid {
                false => netns_path(&lab.client),
                true => server.0.id().to_string(),
            };
            let mut child = command(&[&fixed[..], &["--netns", netns]].concat())?
                // Names are left out where they do not fit.
                .env("COLUMNS", "300")
                .spawn()?;
            let mut out = BufReader::new(child.stdout.take().context("standard output")?);
            let mut printed = String::new();
            // Nothing is missed once the first line is there.
            out.read_line(&mut printed)?;
            let reader =
                std::thread::spawn(move || out.read_to_string(&mut printed).map(|_| printed));
            // Whose a listener is that was there before is found out in the first second; those who
            // call then have it on their lines.
            for _ in 0..3 {
                let clients = trouble(&lab)?;
                std::thread::sleep(Duration::from_millis(700));
                drop(clients);
            }
            signal(&child, libc::SIGINT)?;
            let mut ran = ended(child)?;
            ran.out = reader.join().map_err(|_| anyhow!("it panicked"))??;
            ensure!(ran.code == Some(0), "{ran:?}");
            harmless(&ran)?;
            match format {
                "text" => ensure!(ran.out.contains(SHOWN), "{netns}: {}", ran.out),
                _ => {
                    let lines = schema::check(ran.out.lines())?;
                    ensure!(lines.iter().any(tells_the_name), "{netns}: {}", ran.out);
                }
            }
        }
    }
    Ok(())
}

/// `diagnose`, `listeners` and `states`, in both formats.
pub fn pages() -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    let server = ServerProcess::start(&lab, "0")?;
    let clients = trouble(&lab)?;
    let pid = server.0.id().to_string();
    for verb in [
        &["diagnose", "--duration", "4s"][..],
        &["listeners"],
        &["states"],
    ] {
        for format in ["text", "json"] {
            let mut command = command(&[verb, &["--format", format, "--netns", &pid]].concat())?;
            // Long names are cut where they do not fit.
            let ran = ended(command.env("COLUMNS", "300").spawn()?)?;
            ensure!(ran.code == Some(0), "{ran:?}");
            harmless(&ran)?;
            if format == "text" {
                ensure!(ran.out.contains(SHOWN), "{verb:?}: {}", ran.out);
                continue;
            }
            let lines: Vec<Value> = ran
                .out
                .lines()
                .map(serde_json::from_str)
                .collect::<Result<_, _>>()?;
            ensure!(lines.iter().any(tells_the_name), "{verb:?}: {}", ran.out);
        }
    }
    drop(clients);
    Ok(())
}
