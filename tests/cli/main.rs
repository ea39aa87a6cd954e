//! The binary from the user's view: exit codes, one line on standard error for an error, the ways a run ends,
//! and that nothing is left behind.

mod language;
mod pages;
mod service;
mod terminal;

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader},
    os::unix::process::CommandExt,
    process::{Child, ChildStdout, ExitCode},
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use synprobe_lab::{Client, ConnectState, Lab, Ns, PORT, Server, SocketFamily, settle};
use synprobe_tests::{
    agent::until,
    binary::{self, Ran, catches, command, ended, netns_path, run, signal},
    harness::{self, Case},
    netns_process::NetnsProcess,
    schema,
};

/// `nobody`, on every system.
const NOBODY: u32 = 65_534;
const DONE: i32 = 0;
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const HOST: i32 = 3;

/// One way to use it.
fn main() -> ExitCode {
    let tests: [(&str, harness::TestFn); 34] = [
        ("bad-usage", bad_usage),
        ("not-root", not_root),
        ("ring-size-rounded-up", ring_size_rounded_up),
        ("closed-pipe", closed_pipe),
        ("no-output", no_output),
        ("duration", duration),
        ("count", count),
        ("few-descriptors", few_descriptors),
        ("listeners-full-queue", pages::full_queue),
        ("diagnose-full-queue", pages::diagnose_full_queue),
        ("report-full-queue", pages::report_full_queue),
        ("diagnose-nothing", pages::diagnose_nothing),
        ("issue14_5_selections", pages::issue14_5_selections),
        ("diagnose-exit-code", terminal::exit_code),
        ("diagnose-countdown", terminal::countdown),
        ("page-fits-the-width", terminal::page_fits),
        ("explain", pages::explain),
        ("language", language::of_the_page),
        ("language-unknown", language::unknown),
        ("listeners-nobody", pages::nobody_listens),
        ("states-port", pages::states_of_a_port),
        ("listeners-not-root", pages::listeners_not_root),
        ("sigint", || ends_with_the_summary(libc::SIGINT)),
        ("sigterm", || ends_with_the_summary(libc::SIGTERM)),
        ("sighup", || ends_with_the_summary(libc::SIGHUP)),
        ("sighup-ignored", sighup_ignored),
        ("sigquit", sigquit),
        ("sigquit-elsewhere", sigquit_elsewhere),
        ("watch-terminal", terminal::watch),
        ("connect-terminal", terminal::connect),
        ("ready-when-attached", service::ready_when_attached),
        ("issue19-journal-priorities", service::issue19_priorities),
        ("killed-watch-leaves-nothing", killed_watch),
        ("killed-lab-leaves-nothing", killed_lab),
    ];
    let cases = tests.map(|(name, test)| Case::new(name, test)).into();
    let code = harness::main(cases);
    binary::remove();
    code
}

/// Arguments, and words that the one line must have.
const WRONG: [(&[&str], &[&str]); 38] = [
    (&["watch", "--port", "0"], &["\"0\"", "1 to 65535"]),
    (&["watch", "--port", "70000"], &["\"70000\"", "1 to 65535"]),
    (
        &["watch", "--local-port", "http"],
        &["\"http\"", "getent services http"],
    ),
    (&["watch", "--peer-port", "90-80"], &["90-80", "80-90"]),
    (
        &["watch", "--peer", "10.0.0.0/33"],
        &["10.0.0.0/33", "CIDR"],
    ),
    (&["watch", "--peer", "10.0.0"], &["10.0.0", "CIDR"]),
    (
        &["watch", "--netns", "no-such-namespace"],
        &["no-such-namespace"],
    ),
    (&["watch", "--netns", "999999999"], &["999999999"]),
    (
        &["watch", "--role", "middle"],
        &["middle", "client", "server"],
    ),
    (&["watch", "--duration", "soon"], &["soon", "30s"]),
    (&["watch", "--ring-size", "9Q"], &["9Q", "8M"]),
    (
        &["watch", "--ring-size", "300M"],
        &[
            "512M",
            "--max-memory 256M",
            "--max-memory 727M",
            "--ring-size 128M",
        ],
    ),
    (
        &[
            "connect",
            "127.0.0.1:1",
            "--ring-size",
            "32M",
            "--max-memory",
            "64M",
        ],
        &["32M", "--max-memory 87M", "--ring-size 8M"],
    ),
    (&["watch", "--no-such-option"], &["--no-such-option"]),
    (
        &["lab", "no-such-scenario"],
        &["no-such-scenario", "--list", "synack-lost"],
    ),
    (&["lab"], &["SCENARIO"]),
    (
        &["explain", "no-such-verdict"],
        &["no-such-verdict", "synack-lost"],
    ),
    (
        &["diagnose", "--duration", "0"],
        &["\"0\"", "too short", "30s"],
    ),
    (&["watch", "--duration", "1d"], &["1d", "24h"]),
    (
        &["watch", "--log-level", "verbose"],
        &["\"verbose\"", "off, error, warn, info, debug, trace"],
    ),
    (&["watch", "--count", "ten"], &["\"ten\"", "1 or more"]),
    (&["watch", "--count", "0"], &["\"0\"", "1 or more"]),
    (
        &["watch", "--max-peers", "0"],
        &["--max-peers", "1 or more"],
    ),
    (&["watch", "--port", "80-"], &["\"80-\"", "last port"]),
    (&["watch", "--port=-80"], &["-80", "first port"]),
    (&["watch", "--port", "80,,443"], &["80,,443", "empty entry"]),
    (&["watch", "--peer", "10.0.0.1/33"], &["too long", "/32"]),
    (&["watch", "--peer", "::/129"], &["too long", "/128"]),
    (&["watch", "--slow", "300ms"], &["--slow needs --quiet"]),
    (
        &["watch", "--prot", "80"],
        &["--prot", "did you mean --port?"],
    ),
    (&["wacth"], &["wacth", "did you mean watch?"]),
    (
        &["explain", "synack-lst"],
        &["synack-lst", "did you mean synack-lost?"],
    ),
    (
        &["lab", "synack-lsot"],
        &["synack-lsot", "did you mean synack-lost?"],
    ),
    (&["lab"], &["--list"]),
    (
        &["lab", "rp-filter", "--family", "ipv6"],
        &["rp-filter", "ipv6"],
    ),
    (&["record"], &["--output", "--rolling", "--cut"]),
    (
        &["watch", "--quiet", "--states", "all"],
        &["--quiet", "--states"],
    ),
    (&["connect"], &["HOST:PORT"]),
];

fn bad_usage() -> Result<()> {
    for (arguments, words) in WRONG {
        let ran = run(arguments)?;
        ensure!(ran.code == Some(USAGE), "{arguments:?}: {ran:?}");
        ensure!(ran.out.is_empty(), "{arguments:?}: {ran:?}");
        // One voice, and one line.
        let line = ran.one_line()?;
        ensure!(line.starts_with("synprobe: "), "{arguments:?}: {ran:?}");
        for word in words {
            ensure!(line.contains(word), "{arguments:?}: no {word} in {line}");
        }
    }
    // `_` stands for `-`.
    ensure!(run(&["explain", "synack_lost"])?.code == Some(DONE));
    let list = run(&["lab", "--list", "--format", "json"])?;
    ensure!(list.code == Some(DONE), "{list:?}");
    for line in list.out.lines() {
        let value: Value = serde_json::from_str(line)?;
        ensure!(
            value["name"].is_string() && value["seconds"].is_u64(),
            "{line}"
        );
    }
    Ok(())
}

fn not_root() -> Result<()> {
    for arguments in [&["watch", "--duration", "1s"][..], &["lab", "healthy"]] {
        let mut nobody = command(arguments)?;
        nobody.uid(NOBODY).gid(NOBODY).current_dir("/");
        let ran = ended(nobody.spawn()?)?;
        ensure!(ran.code == Some(HOST), "{ran:?}");
        ensure!(ran.out.is_empty(), "{ran:?}");
        let line = ran.one_line()?;
        ensure!(line.contains("CAP_"), "the capabilities are named: {line}");
        ensure!(line.contains("sudo"), "the remedy is named: {line}");
    }
    Ok(())
}

/// A run that watches a lab of the test's own.
struct LabWatch {
    lab: Lab,
    child: Child,
    out: BufReader<ChildStdout>,
    lines: Vec<String>,
}

impl LabWatch {
    fn start(arguments: &[&str]) -> Result<Self> {
        let lab = Lab::new(SocketFamily::V4)?;
        let netns = netns_path(&lab.client);
        let fixed = ["watch", "--format", "json", "--netns", &netns];
        let child = command(&[&fixed[..], arguments].concat())?.spawn()?;
        Self::of(lab, child)
    }

    fn of(lab: Lab, mut child: Child) -> Result<Self> {
        let out = BufReader::new(child.stdout.take().context("standard output")?);
        let mut run = Self {
            lab,
            child,
            out,
            lines: Vec::new(),
        };
        // Nothing is missed once the start line is there.
        let start = run.next()?;
        ensure!(start["type"] == "start", "{start}");
        Ok(run)
    }

    fn next(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.out.read_line(&mut line)?;
        let value = serde_json::from_str(&line).with_context(|| format!("line {line:?}"))?;
        self.lines.push(line.trim_end().to_owned());
        Ok(value)
    }

    /// Connects this many times.
    fn connect(&self, times: usize) -> Result<()> {
        let server = Server::start(vec![self.lab.listen(PORT, 64)?])?;
        let mut clients = Vec::new();
        for _ in 0..times {
            let peer = self.lab.server_addr(PORT);
            clients.push(Client::connect(&self.lab.client, peer, |_| Ok(()))?);
        }
        let until = Instant::now() + Duration::from_secs(20);
        settle(&mut clients, &AtomicBool::new(false), until)?;
        ensure!(clients.iter().all(|c| c.seen == ConnectState::Connected));
        server.stop()?;
        Ok(())
    }

    /// Reads to the end; every line holds to the contract, and the last is the summary.
    fn end(mut self) -> Result<(Vec<Value>, Ran)> {
        for line in self.out.lines() {
            self.lines.push(line?);
        }
        let ran = ended(self.child)?;
        let lines = schema::check(self.lines.iter().map(String::as_str))?;
        let last = lines.last().context("a line")?;
        ensure!(last["type"] == "end", "no summary: {last}; {ran:?}");
        let handshakes = lines.iter().filter(|l| l["type"] == "handshake").count();
        ensure!(last["handshakes"] == handshakes, "{handshakes}: {last}");
        ensure!(ran.code == Some(DONE), "{ran:?}");
        ensure!(ran.err.is_empty(), "quietly: {ran:?}");
        Ok((lines, ran))
    }
}

fn peers(lines: &[Value]) -> usize {
    lines.iter().filter(|line| line["type"] == "peer").count()
}

fn ring_size_rounded_up() -> Result<()> {
    let ran = run(&[
        "watch",
        "--ring-size",
        "5000",
        "--duration",
        "100ms",
        "--port",
        "1",
    ])?;
    ensure!(ran.code == Some(DONE), "{ran:?}");
    let line = ran.one_line()?;
    ensure!(line.contains("5000") && line.contains("8192"), "{line}");
    let ran = run(&[
        "watch",
        "--ring-size",
        "8K",
        "--duration",
        "100ms",
        "--port",
        "1",
    ])?;
    ensure!(ran.code == Some(DONE) && ran.err.is_empty(), "{ran:?}");
    Ok(())
}

fn closed_pipe() -> Result<()> {
    for format in ["json", "text"] {
        let mut child = command(&["watch", "--format", format, "--duration", "20s"])?.spawn()?;
        let began = Instant::now();
        drop(child.stdout.take());
        let ran = ended(child)?;
        ensure!(
            ran.code == Some(DONE) && ran.err.is_empty(),
            "{format}: {ran:?}"
        );
        // Something is written at the start already.
        ensure!(
            format == "text" || began.elapsed() < Duration::from_secs(20),
            "it went on without a reader"
        );
    }
    // A lab's lines go nowhere either; its scenario is still made to its end.
    let mut child = command(&["lab", "refused", "--format", "json"])?.spawn()?;
    drop(child.stdout.take());
    let ran = ended(child)?;
    ensure!(ran.code == Some(DONE), "{ran:?}");
    Ok(())
}

/// A closed standard output is refused; /dev/null is somebody's wish, however it was opened.
fn no_output() -> Result<()> {
    let mut closed = command(&["preflight"])?;
    // SAFETY: close() may be called between fork and exec, and the descriptor is the child's own.
    unsafe {
        closed.pre_exec(|| match libc::close(libc::STDOUT_FILENO) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        })
    };
    let ran = ended(closed.spawn()?)?;
    ensure!(
        ran.code == Some(FAILED) && ran.err.contains("standard output is closed"),
        "{ran:?}"
    );
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let ran = ended(command(&["preflight"])?.stdout(null).spawn()?)?;
    ensure!(ran.code == Some(DONE), "{ran:?}");
    Ok(())
}

fn duration() -> Result<()> {
    let run = LabWatch::start(&["--duration", "1500ms"])?;
    run.connect(3)?;
    let (lines, _) = run.end()?;
    let took = lines.last().and_then(|end| end["duration_us"].as_u64());
    let took = Duration::from_micros(took.context("a duration")?);
    // The last look at sock_diag comes on top.
    ensure!(
        (Duration::from_millis(1500)..Duration::from_secs(15)).contains(&took),
        "it took {took:?}"
    );
    ensure!(peers(&lines) == 1, "one peer");
    Ok(())
}

fn count() -> Result<()> {
    // Others end at the same moment: exactly so many have a line.
    for connects in [3, 8] {
        let run = LabWatch::start(&["--count", "3"])?;
        run.connect(connects)?;
        let (lines, _) = run.end()?;
        let end = lines.last().context("a line")?;
        ensure!(end["handshakes"] == 3, "{end}");
    }
    Ok(())
}

/// Under nohup(1) the end of the terminal is no end of the run.
fn sighup_ignored() -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    let netns = netns_path(&lab.client);
    let fixed = ["watch", "--format", "json", "--netns", &netns];
    let mut watch = command(&fixed)?;
    // SAFETY: signal() may be called between fork and exec.
    unsafe {
        watch.pre_exec(|| match libc::signal(libc::SIGHUP, libc::SIG_IGN) {
            libc::SIG_ERR => Err(io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
    let mut run = LabWatch::of(lab, watch.spawn()?)?;
    signal(&run.child, libc::SIGHUP)?;
    run.connect(1)?;
    while run.next()?["type"] != "handshake" {}
    signal(&run.child, libc::SIGINT)?;
    run.end()?;
    Ok(())
}

/// SIGQUIT prints the summary on standard error, and the run goes on.
fn sigquit() -> Result<()> {
    let mut run = LabWatch::start(&[])?;
    run.connect(2)?;
    for _ in 0..2 {
        while run.next()?["type"] != "handshake" {}
    }
    let mut err = BufReader::new(run.child.stderr.take().context("standard error")?);
    signal(&run.child, libc::SIGQUIT)?;
    let mut said = [String::new(), String::new()];
    for line in &mut said {
        err.read_line(line)?;
    }
    let wanted = "synprobe: 2 handshakes ended, 0 in progress; ";
    ensure!(said[0].starts_with(wanted), "{said:?}");
    ensure!(said[1].contains(" client: 2 attempts, 2 ok"), "{said:?}");
    run.connect(1)?;
    while run.next()?["type"] != "handshake" {}
    signal(&run.child, libc::SIGTERM)?;
    let (lines, _) = run.end()?;
    let end = lines.last().context("a line")?;
    ensure!(end["handshakes"] == 3, "{end}");
    Ok(())
}

/// So it is with all that watch until somebody ends them.
fn sigquit_elsewhere() -> Result<()> {
    let file = std::env::temp_dir().join(format!("synprobe-sigquit-{}", std::process::id()));
    let name = file.to_str().context("a name")?;
    let runs: [(&[&str], &str); 4] = [
        (&["diagnose", "--duration", "10m"], "synprobe 0"),
        (&["record", "--output", name], "recorded "),
        (
            &["report", "--duration", "10m", "--output", name],
            "Report: ",
        ),
        (
            &["serve", "--listen", "127.0.0.1:0", "--format", "none"],
            "",
        ),
    ];
    for (args, at_its_end) in runs {
        let mut child = command(args)?.spawn()?;
        // It answers from then on.
        until("SIGQUIT is caught", || catches(&child, libc::SIGQUIT))?;
        let mut err = BufReader::new(child.stderr.take().context("standard error")?);
        signal(&child, libc::SIGQUIT)?;
        let mut said = String::new();
        while !said.contains("so far: ") {
            ensure!(err.read_line(&mut said)? > 0, "{args:?}: {said}");
        }
        ensure!(said.contains(" handshakes ended, "), "{args:?}: {said}");
        signal(&child, libc::SIGHUP)?;
        let ran = ended(child)?;
        ensure!(ran.code == Some(DONE), "{args:?}: {ran:?}");
        ensure!(ran.out.contains(at_its_end), "{args:?}: {ran:?}");
        let _ = fs::remove_file(&file);
    }
    Ok(())
}

/// Every namespace takes descriptors: the soft limit is raised, and at the hard one it is said once.
fn few_descriptors() -> Result<()> {
    const FEW: u64 = 100;
    let inhabitant = |_| NetnsProcess::of(&Ns::new_anonymous("elsewhere")?);
    let elsewhere: Vec<NetnsProcess> = (0..40).map(inhabitant).collect::<Result<_>>()?;
    for (hard, warnings) in [(FEW, 1), (4096, 0)] {
        let mut watch = command(&["watch", "--duration", "1s"])?;
        let limit = libc::rlimit {
            rlim_cur: FEW,
            rlim_max: hard,
        };
        // SAFETY: setrlimit() is one system call with a value that the closure owns.
        unsafe {
            watch.pre_exec(
                move || match libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                },
            );
        }
        let ran = ended(watch.spawn()?)?;
        ensure!(ran.code == Some(DONE), "{ran:?}");
        let said = ran
            .err
            .lines()
            .filter(|l| l.starts_with("[WARN") && l.contains("100 file descriptors"));
        ensure!(said.count() == warnings, "hard limit {hard}: {}", ran.err);
        ensure!(!ran.err.contains("Too many open files"), "{}", ran.err);
    }
    drop(elsewhere);
    Ok(())
}

fn ends_with_the_summary(number: libc::c_int) -> Result<()> {
    let mut run = LabWatch::start(&[])?;
    run.connect(2)?;
    while run.next()?["type"] != "handshake" {}
    signal(&run.child, number)?;
    let (lines, _) = run.end()?;
    let handshakes: Vec<_> = lines.iter().filter(|l| l["type"] == "handshake").collect();
    ensure!(handshakes.len() == 2, "{handshakes:?}");
    ensure!(
        handshakes.iter().all(|h| h["outcome"] == "established"),
        "{handshakes:?}"
    );
    ensure!(peers(&lines) == 1, "the table of peers");
    Ok(())
}

/// Kills a run and waits until the kernel has let go of its programs.
fn kill_and_look(mut child: Child, wanted: usize) -> Result<()> {
    let named = named_namespaces();
    let pid = child.id();
    let programs = binary::programs_of(pid)?;
    ensure!(
        programs.len() >= wanted,
        "{} programs are attached",
        programs.len()
    );
    for id in &programs {
        ensure!(binary::program_exists(*id)?, "program {id} is there");
    }
    signal(&child, libc::SIGKILL)?;
    child.wait()?;
    // Programs are freed after a grace period.
    let until = Instant::now() + Duration::from_secs(20);
    for id in programs {
        while binary::program_exists(id)? {
            ensure!(Instant::now() < until, "program {id} is left behind");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    ensure!(
        named_namespaces() == named,
        "namespaces that have a name: {:?}",
        named_namespaces()
    );
    Ok(())
}

fn named_namespaces() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return Vec::new();
    };
    let names = entries.flatten().map(|e| e.file_name());
    let mut names: Vec<_> = names.map(|n| n.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn killed_watch() -> Result<()> {
    let run = LabWatch::start(&[])?;
    run.connect(1)?;
    kill_and_look(run.child, 5)
}

fn killed_lab() -> Result<()> {
    let mut child = command(&["lab", "synack-lost", "--format", "json"])?.spawn()?;
    let out = child.stdout.take().context("standard output")?;
    // In the middle of it: the fault is in force, and a handshake suffers from it.
    for line in BufReader::new(out).lines() {
        let line: Value = serde_json::from_str(&line?)?;
        if line["type"] == "retransmit" {
            break;
        }
    }
    // The watching programs, and the fault's.
    kill_and_look(child, 6)
}
