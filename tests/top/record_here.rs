//! The key R: a recording that begins, and ends, while the run goes on.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::PathBuf,
    process::Command,
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use synprobe_lab::{Client, Lab, PORT, Server, SocketFamily, settle};
use synprobe_tests::{
    binary::{self, netns_path, run},
    pty::Pty,
    recorded::Scratch,
    schema,
};

/// Nobody listens there.
const BEFORE: u16 = PORT + 1;
const MEANWHILE: u16 = PORT + 2;
const BETWEEN: u16 = PORT + 3;
const AFTER: u16 = PORT + 4;
const CAP_DAC_OVERRIDE: u64 = 1 << 1;

fn top(lab: &Lab, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(binary::path()?);
    command
        .args(["top", "--netns", &netns_path(&lab.client)])
        .args(arguments)
        .env("TERM", "xterm-256color");
    Ok(command)
}

/// Connects that succeed, and one that is refused: the screen has it when all of them have been taken in.
fn connects(lab: &Lab, pty: &mut Pty, healthy: usize, refused: u16) -> Result<()> {
    let connect = |port| Client::connect(&lab.client, lab.server_addr(port), |_| Ok(()));
    let mut clients: Vec<Client> = (0..healthy)
        .map(|_| connect(PORT))
        .collect::<Result<_, _>>()?;
    let within = Duration::from_secs(10);
    settle(
        &mut clients,
        &AtomicBool::new(false),
        Instant::now() + within,
    )?;
    let mut last = [connect(refused)?];
    settle(&mut last, &AtomicBool::new(false), Instant::now() + within)?;
    pty.until_shown(&format!(">{refused} "))
}

/// How many handshakes there were, by the port that was called and the outcome.
type ByPort = BTreeMap<(u64, String), usize>;

/// The handshakes of a recording, and those that were only counted.
fn replayed(file: &str) -> Result<(ByPort, u64)> {
    let ran = run(&["watch", "--format", "json", "--replay", file])?;
    ensure!(ran.code == Some(0), "{ran:?}");
    ensure!(!ran.err.contains("damaged"), "{}", ran.err);
    let lines = schema::check(ran.out.lines())?;
    let of = |kind: &'static str| lines.iter().filter(move |line| line["type"] == kind);
    let mut handshakes = ByPort::new();
    for h in of("handshake") {
        let outcome = h["outcome"].as_str().context("an outcome")?;
        let port = h["peer_port"].as_u64().context("a port")?;
        *handshakes.entry((port, outcome.to_owned())).or_default() += 1;
    }
    let end = of("end").next().context("an end line")?;
    ensure!(end["lost"] == 0 && of("lost").next().is_none(), "{end}");
    Ok((handshakes, end["counted"].as_u64().unwrap_or(0)))
}

/// What the key records is what came between two of its presses: by the handshakes that were made then.
pub fn what_comes_between(every: bool) -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    let server = Server::start(vec![lab.listen(PORT, 64)?])?;
    let folder = Scratch::new();
    fs::create_dir(&folder.0)?;
    let mut arguments = vec!["--record-dir", folder.text()];
    arguments.extend(every.then_some("--every"));
    let mut pty = Pty::start(top(&lab, &arguments)?, 120, 40)?;
    pty.until_shown("PROBLEMS")?;
    pty.keys("5z")?;
    connects(&lab, &mut pty, 3, BEFORE)?;
    ensure!(pty.capabilities()? & CAP_DAC_OVERRIDE == 0, "given up");
    for (healthy, refused) in [(5, MEANWHILE), (2, AFTER)] {
        pty.keys("R")?;
        pty.until_shown("RECORDING ")?;
        ensure!(pty.lines().iter().any(|line| line.contains(".synrec")));
        connects(&lab, &mut pty, healthy, refused)?;
        pty.keys("R")?;
        pty.until_shown("recorded ")?;
        if refused == MEANWHILE {
            connects(&lab, &mut pty, 4, BETWEEN)?;
        }
    }
    pty.keys("q")?;
    ensure!(pty.ended()?.code() == Some(0));
    pty.ensure_restored()?;
    let said = String::from_utf8_lossy(&pty.written);
    ensure!(
        said.matches("synprobe: recorded into").count() == 2,
        "{said}"
    );
    server.stop()?;

    let mut files: Vec<PathBuf> = fs::read_dir(&folder.0)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.sort();
    ensure!(files.len() == 2, "{files:?}");
    for (file, (healthy, refused)) in files.iter().zip([(5, MEANWHILE), (2, AFTER)]) {
        let mode = fs::metadata(file)?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "{mode:o}");
        let file = file.to_str().context("a name")?;
        let mut expected = ByPort::from([((refused.into(), "refused".to_owned()), 1)]);
        let mut counted = healthy as u64;
        if every {
            expected.insert((PORT.into(), "established".to_owned()), healthy);
            counted = 0;
        }
        let shown = replayed(file)?;
        ensure!(shown == (expected, counted), "{file}: {shown:?}");
        let mut again = Command::new(binary::path()?);
        again
            .args(["top", "--replay", file])
            .env("TERM", "xterm-256color");
        let mut pty = Pty::start(again, 80, 24)?;
        pty.keys("}5z")?;
        pty.until_shown(&format!(">{refused} "))?;
        pty.keys("R")?;
        pty.until_shown("this is a recording")?;
        pty.keys("q")?;
        ensure!(pty.ended()?.code() == Some(0));
    }
    Ok(())
}

/// A recording that goes on when the program ends is whole, by each way to end it.
pub fn goes_on_at_the_end() -> Result<()> {
    for how in ["q", "SIGTERM"] {
        let lab = Lab::new(SocketFamily::V4)?;
        let folder = Scratch::new();
        fs::create_dir(&folder.0)?;
        let mut pty = Pty::start(top(&lab, &["--record-dir", folder.text()])?, 80, 24)?;
        pty.until_shown("PROBLEMS")?;
        pty.keys("5zR")?;
        pty.until_shown("RECORDING ")?;
        connects(&lab, &mut pty, 0, MEANWHILE)?;
        match how {
            "q" => pty.keys("q")?,
            _ => pty.signal(libc::SIGTERM)?,
        }
        ensure!(pty.ended()?.code() == Some(0), "{how}");
        pty.ensure_restored()?;
        let entry = fs::read_dir(&folder.0)?.next().context("a file")??;
        let (handshakes, _) = replayed(entry.path().to_str().context("a name")?)?;
        let expected = ByPort::from([((MEANWHILE.into(), "refused".to_owned()), 1)]);
        ensure!(handshakes == expected, "{how}: {handshakes:?}");
    }
    Ok(())
}

/// A folder of somebody else, for whom root has no privilege left: one line, and the run goes on.
pub fn refused() -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    let folder = Scratch::new();
    fs::create_dir(&folder.0)?;
    chown(&folder.0, Some(65_534), Some(65_534))?;
    let mut named = Pty::start(top(&lab, &["--record-dir", folder.text()])?, 80, 24)?;
    ensure!(named.ended()?.code() == Some(1));
    let said = String::from_utf8_lossy(&named.written);
    ensure!(said.contains("belongs to another user"), "{said}");

    let mut command = top(&lab, &[])?;
    command.current_dir(&folder.0).env("TMPDIR", &folder.0);
    let mut pty = Pty::start(command, 80, 24)?;
    pty.until_shown("PROBLEMS")?;
    pty.keys("R")?;
    pty.until_shown("not recorded: cannot create")?;
    // It is there until the next key.
    pty.keys("2")?;
    pty.until("without it", |lines| {
        !lines.iter().any(|line| line.contains("not recorded"))
    })?;
    pty.keys("q")?;
    ensure!(pty.ended()?.code() == Some(0));
    pty.ensure_restored()?;
    ensure!(fs::read_dir(&folder.0)?.next().is_none(), "no file");

    // The working directory takes no file, the folder for temporary files does.
    let temporary = Scratch::new();
    fs::create_dir(&temporary.0)?;
    let mut command = top(&lab, &[])?;
    command.current_dir(&folder.0).env("TMPDIR", &temporary.0);
    let mut pty = Pty::start(command, 80, 24)?;
    pty.until_shown("PROBLEMS")?;
    pty.keys("R")?;
    pty.until_shown("RECORDING ")?;
    pty.keys("q")?;
    ensure!(pty.ended()?.code() == Some(0));
    ensure!(fs::read_dir(&temporary.0)?.count() == 1);
    Ok(())
}
