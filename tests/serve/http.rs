//! What HTTP clients may do, and what they get.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use synprobe_lab::{Lab, SocketFamily};
use synprobe_tests::binary::{command, netns_path, status_kib};

use crate::agent::{Agent, reply_on, samples};

/// Clients that send the beginning of a request and nothing more.
const SLOW: usize = 300;
/// An honest client's reply comes within this time beside them.
const SOON: Duration = Duration::from_secs(5);

fn agent() -> Result<Agent> {
    Agent::start(&["--format", "none", "--role", "client", "--port", "1"])
}

pub fn replies() -> Result<()> {
    let agent = agent()?;
    let health = agent.get("/healthz", "")?;
    ensure!(
        (health.status, &*health.body) == (200, "ok\n"),
        "{health:?}"
    );
    let problems: Value = serde_json::from_str(&agent.get("/problems", "")?.body)?;
    ensure!(
        problems["v"] == 1 && problems["problems"] == serde_json::json!([]),
        "{problems}"
    );
    let page = agent.get("/", "")?;
    ensure!(
        page.status == 200 && page.head.contains("text/html"),
        "{page:?}"
    );
    ensure!(page.body.contains("No problem is open"), "{page:?}");
    ensure!(page.head.contains("default-src 'none'"), "{page:?}");
    let loads = ["<script", "src=", "url(", "@import", "<link"];
    ensure!(
        loads.iter().all(|load| !page.body.contains(load)),
        "{page:?}"
    );
    ensure!(agent.get("/nothing", "")?.status == 404);
    ensure!(
        agent
            .ask("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nabcd")?
            .status
            == 405
    );
    let head = agent.ask("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n")?;
    ensure!(head.status == 200 && head.body.is_empty(), "{head:?}");
    ensure!(agent.ask("nonsense\r\n\r\n")?.status == 400);
    let ran = agent.stop()?;
    ensure!(ran.code == Some(0) && ran.err.is_empty(), "{ran:?}");
    Ok(())
}

pub fn formats() -> Result<()> {
    let agent = agent()?;
    let old = agent.get("/metrics", "")?;
    ensure!(
        old.head.contains("content-type: text/plain; version=0.0.4"),
        "{}",
        old.head
    );
    ensure!(
        old.body
            .contains("# TYPE synprobe_handshakes_total counter")
            || old
                .body
                .contains("# TYPE synprobe_retransmits_total counter")
    );
    ensure!(!old.body.contains("# EOF"));
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let new = agent.get("/metrics", accept)?;
    let wanted = "content-type: application/openmetrics-text; version=1.0.0";
    ensure!(new.head.contains(wanted), "{}", new.head);
    ensure!(
        new.body.contains("# TYPE synprobe_retransmits counter"),
        "{}",
        new.body
    );
    ensure!(new.body.ends_with("# EOF\n"));
    // The sockets are read beside the scrape: where that takes long, the first ones come without them.
    let names = |text: &str| {
        let names = samples(text)?.into_keys();
        anyhow::Ok(
            names
                .filter(|name| !name.starts_with("synprobe_tcp_sockets"))
                .collect::<Vec<_>>(),
        )
    };
    ensure!(names(&old.body)? == names(&new.body)?, "{old:?} {new:?}");
    let now = samples(&new.body)?;
    let rss = now["process_resident_memory_bytes"];
    let kib = status_kib(agent.pid(), "VmRSS")? as f64;
    ensure!(
        (rss / 1024.0 - kib).abs() < kib / 4.0,
        "{rss} bytes: VmRSS {kib} KiB"
    );
    agent.stop()?;
    Ok(())
}

/// Slowloris: connections that send a little and then nothing, or never read their reply.
pub fn slow_clients() -> Result<()> {
    let agent = agent()?;
    let before = agent.scrape()?["process_open_fds"];
    let mut slow = Vec::new();
    for n in 0..SLOW {
        let mut stream = TcpStream::connect(agent.address)?;
        match n % 3 {
            0 => stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: ")?,
            1 => stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")?,
            _ => (),
        }
        slow.push(stream);
        if n % 10 == 9 {
            let asked = Instant::now();
            let reply = agent.get("/metrics", "")?;
            ensure!(reply.status == 200, "{reply:?}");
            ensure!(
                asked.elapsed() < SOON,
                "beside {n} slow clients: {:?}",
                asked.elapsed()
            );
        }
    }
    let open = agent.scrape()?["process_open_fds"];
    // 64 connections, and what the watching needs meanwhile: namespaces come and go.
    ensure!(
        open < before + SLOW as f64 / 2.0,
        "from {before} to {open} descriptors"
    );
    // Each is closed, none is kept for longer than its time.
    for stream in &mut slow {
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut rest = Vec::new();
        // A reset is an end too.
        match stream.read_to_end(&mut rest) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                anyhow::bail!("a slow client is kept");
            }
            _ => (),
        }
    }
    agent.stop()?;
    Ok(())
}

pub fn large_requests() -> Result<()> {
    // What happens in other namespaces takes memory too.
    let lab = Lab::new(SocketFamily::V4)?;
    let agent = Agent::start(&["--format", "none", "--netns", &netns_path(&lab.client)])?;
    // What a run takes once, its first rounds and a first status, is no request's.
    agent.scrape()?;
    let before = status_kib(agent.pid(), "VmRSS")?;
    for _ in 0..20 {
        let mut stream = TcpStream::connect(agent.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut sent = stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ");
        // The kernel's buffers alone take up to 10 MiB of it.
        for _ in 0..64 {
            if sent.is_ok() {
                sent = stream.write_all(&[b'a'; 1 << 20]);
            }
        }
        ensure!(sent.is_err(), "64 MiB of a head were taken");
    }
    let many: String = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect();
    let reply = agent.get("/metrics", &many)?;
    ensure!(reply.status == 431, "{reply:?}");
    let after = status_kib(agent.pid(), "VmRSS")?;
    ensure!(after < before + 4096, "from {before} to {after} KiB");
    ensure!(agent.get("/healthz", "")?.status == 200);
    agent.stop()?;
    Ok(())
}

pub fn nothing_reflected() -> Result<()> {
    let agent = agent()?;
    let mark = "zq9<script>";
    for path in [
        "/zq9<script>".to_owned(),
        "/?zq9<script>".to_owned(),
        "/metrics?zq9<script>".to_owned(),
        "/problems?x=zq9<script>#zq9<script>".to_owned(),
        "/%7aq9%3cscript%3e".to_owned(),
    ] {
        let headers = format!(
            "Accept: {mark}\r\nUser-Agent: {mark}\r\n{}: 1\r\n",
            "zq9-name"
        );
        let reply = agent.get(&path, &headers)?;
        let all = reply.head.clone() + &reply.body;
        ensure!(
            !all.contains("zq9") && !all.contains("%7aq9"),
            "{path}: {reply:?}"
        );
    }
    agent.stop()?;
    Ok(())
}

/// A process may have any name, and a socket in the file system serves as well as a port.
pub fn unix_socket() -> Result<()> {
    let path = std::env::temp_dir().join(format!("synprobe-http-{}", std::process::id()));
    let listen = format!("unix:{}", path.display());
    let lab = Lab::new(SocketFamily::V4)?;
    let netns = netns_path(&lab.client);
    let arguments = [
        "serve", "--listen", &listen, "--format", "none", "--netns", &netns,
    ];
    let agent = Agent::spawned(command(&arguments)?.spawn()?)?;
    let mut stream = UnixStream::connect(&path)?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let reply = reply_on(&mut stream)?;
    ensure!(reply.status == 200, "{reply:?}");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path)?);
    ensure!(mode & 0o777 == 0o660, "{mode:o}");
    let ran = agent.stop()?;
    ensure!(ran.code == Some(0), "{ran:?}");
    // What is left of a killed one does not hinder the next.
    let agent = Agent::spawned(command(&arguments)?.spawn()?).context("the second")?;
    agent.stop()?;
    // The file may be left behind.
    let _ = std::fs::remove_file(&path);
    Ok(())
}
