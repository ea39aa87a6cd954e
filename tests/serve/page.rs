//! The page at `/`: what a browser gets while a run goes on.

use std::{
    io::ErrorKind,
    net::TcpStream,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use synprobe_lab::{Lab, PORT, SocketFamily};
use synprobe_tests::{binary::netns_path, harness::Undecided};

use crate::agent::Agent;

/// A page comes within this time: a problem is judged once a second, and a page is used again for five.
const PATIENCE: Duration = Duration::from_secs(90);
/// Longer than a page is used again: each problem is on one. And short: a problem closes soon.
const WINDOW: &str = "20s";
/// Refused connects before the first page.
const FIRST: u64 = 5;
/// And after it.
const MORE: u64 = 37;
/// A thread may call itself so.
const HOSTILE: &str = "<b>&\"'x";
const ESCAPED: &str = "&lt;b&gt;&amp;";

/// Asks for the page until it has all these texts.
fn until(agent: &Agent, path: &str, wanted: &[&str]) -> Result<String> {
    let until = Instant::now() + PATIENCE;
    loop {
        let page = agent.get(path, "")?;
        ensure!(page.status == 200, "{}: {}", page.status, page.head);
        ensure!(
            page.head
                .contains("content-security-policy: default-src 'none'"),
            "{}",
            page.head
        );
        if wanted.iter().all(|text| page.body.contains(text)) {
            return Ok(page.body);
        }
        // Some hosts hide events from programs. The agent says how many, and is less sure then.
        let records = page.body.split("<dt>kernel records</dt><dd>").nth(1);
        let records = records.and_then(|rest| rest.split_once(" lost"));
        let (records, _) = records.context("what was lost")?;
        if !records.ends_with(" 0") {
            return Err(Undecided(format!("{records} lost")).into());
        }
        if Instant::now() > until {
            bail!("{wanted:?} are not on {}", page.body);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// It loads nothing, runs nothing, and leads nowhere else.
fn is_self_contained(page: &str) -> Result<()> {
    let loads = [
        "<script", "src=", "url(", "@import", "<link", "<iframe", "<form", " on",
    ];
    let markup: Vec<&str> = page
        .split('<')
        .filter_map(|tag| tag.split('>').next())
        .collect();
    for load in loads {
        let word = load.trim_start_matches('<');
        ensure!(
            !markup.iter().any(|tag| match load {
                " on" => tag
                    .split(' ')
                    .any(|attribute| { attribute.starts_with("on") && attribute.contains('=') }),
                _ if load.starts_with('<') => tag.starts_with(word),
                _ => tag.contains(word),
            }),
            "{load}"
        );
    }
    for link in page.split("href=\"").skip(1) {
        ensure!(
            link.starts_with('#') || link.starts_with('/') && !link.starts_with("//"),
            "{:.80}",
            link
        );
    }
    Ok(())
}

/// A problem of a real run is there with its handshakes, changes while it goes on, and is among those that have closed
/// when it is over.
pub fn follows_the_run() -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    let netns = netns_path(&lab.client);
    let agent = Agent::start(&["--window", WINDOW, "--netns", &netns, "--format", "none"])?;
    let refuse = |times: u64| {
        let to = lab.server_addr(PORT);
        lab.client.run(|| {
            std::fs::write("/proc/thread-self/comm", HOSTILE).context("a name")?;
            for _ in 0..times {
                let refused = TcpStream::connect(to).map_err(|e| e.kind());
                ensure!(refused.err() == Some(ErrorKind::ConnectionRefused));
            }
            Ok(())
        })
    };
    let page = until(
        &agent,
        "/",
        &["No problem is open.", "<dt>in progress now</dt><dd>0</dd>"],
    )?;
    ensure!(page.contains("No handshake was in trouble."), "{page}");
    is_self_contained(&page)?;

    refuse(FIRST)?;
    let cause = "1 problem. Cause: refused, client (";
    let page = until(
        &agent,
        "/",
        &[cause, &format!("<dt>in trouble</dt><dd>{FIRST}</dd>")],
    )?;
    is_self_contained(&page)?;
    ensure!(page.contains(ESCAPED) && !page.contains("<b>"), "{page}");
    ensure!(page.contains("http-equiv=\"refresh\""), "{page}");
    // Its table and the flow have the same number.
    let rows = page.matches("<strong>certain refused</strong>").count() as u64;
    ensure!(rows == FIRST, "{rows} rows");
    ensure!(
        page.contains("<td>refused</td><td>refused</td><td class=\"n\">5</td>"),
        "{page}"
    );

    refuse(MORE)?;
    let all = FIRST + MORE;
    let in_trouble = format!("<dt>in trouble</dt><dd>{all}</dd>");
    let page = until(&agent, "/?still", &[&in_trouble])?;
    ensure!(!page.contains("http-equiv=\"refresh\""), "{page}");

    // The agent's counters have as many, in a state that is as young as the page.
    let scrape = agent.scrape_since(SystemTime::now().duration_since(UNIX_EPOCH)?)?;
    let ended: f64 = scrape
        .iter()
        .filter(|(name, _)| {
            name.starts_with("synprobe_handshakes_total") && name.contains("refused")
        })
        .map(|(_, n)| n)
        .sum();
    ensure!(ended == all as f64, "{ended}: {scrape:?}");

    let closed = "<h3>Closed in this time</h3>\n<ul>\n<li><code>refused</code> ";
    let page = until(
        &agent,
        "/",
        &["<h1>No problem is open.</h1>", closed, &in_trouble],
    )?;
    is_self_contained(&page)?;
    agent.stop()?;
    Ok(())
}

/// However many ask, a page is drawn once in five seconds; and all get the same.
pub fn drawn_once_for_many() -> Result<()> {
    let agent = Agent::start(&["--format", "none", "--role", "client", "--port", "1"])?;
    let first = agent.get("/", "")?;
    ensure!(first.status == 200, "{first:?}");
    // What the head says of the moment would differ.
    let (mut same, mut asked) = (0, 0);
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        asked += 1;
        same += usize::from(agent.get("/", "")?.body == first.body);
    }
    ensure!(asked > 10, "{asked} replies in 3 s");
    // One who came late may see the next.
    ensure!(same * 10 >= asked * 9, "{same} of {asked} are the same");
    agent.stop()?;
    Ok(())
}
