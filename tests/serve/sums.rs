//! Sums of a real scrape against `/proc/net/snmp` of the namespace.

use std::{
    io::ErrorKind,
    net::TcpStream,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, ensure};
use synprobe_lab::{Lab, PORT, Server, SocketFamily};
use synprobe_tests::binary::netns_path;

use crate::agent::{Agent, Samples, sum};

/// Connects that a listener accepts, and that none does.
const ACCEPTED: usize = 300;
const REFUSED: usize = 40;

/// The increase of the established handshakes is that of ActiveOpens and PassiveOpens less the failures.
pub fn equal_the_kernels(more: &[&str]) -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    let agent = |netns: &str| {
        let arguments = ["--format", "none", "--netns", netns];
        Agent::start(&[&arguments[..], more].concat())
    };
    let client = agent(&netns_path(&lab.client))?;
    let server = agent(&netns_path(&lab.server))?;
    let listeners = vec![lab.listen(PORT, 64)?, lab.listen(PORT + 1, 64)?];
    let running = Server::start(listeners)?;
    // Once without the measure, so that there is something from which it rises.
    traffic(&lab)?;
    let before = lab.counters()?;
    let began = now()?;
    let (client_before, server_before) = (client.scrape_since(began)?, server.scrape_since(began)?);
    for _ in 0..3 {
        traffic(&lab)?;
    }
    let counted = lab.counters()?.since(&before);
    let ended = now()?;
    let (client_after, server_after) = (client.scrape_since(ended)?, server.scrape_since(ended)?);
    running.stop()?;

    let rose = |after: &Samples, before: &Samples, role: &str, outcome: &str| {
        let words = [format!("role=\"{role}\""), format!("outcome=\"{outcome}\"")];
        let words = [words[0].as_str(), words[1].as_str()];
        let name = "synprobe_handshakes_total";
        (sum(after, name, &words) - sum(before, name, &words)) as u64
    };
    let established = rose(&client_after, &client_before, "client", "established");
    let refused = rose(&client_after, &client_before, "client", "refused");
    let (opens, failures) = (
        counted.client.get("ActiveOpens"),
        counted.client.get("AttemptFails"),
    );
    ensure!(
        opens == 3 * (ACCEPTED + REFUSED) as u64 && failures == 3 * REFUSED as u64,
        "the kernel counted something else: {counted:?}"
    );
    ensure!(
        (established, refused) == (opens - failures, failures),
        "{established} established, {refused} refused: ActiveOpens {opens}, AttemptFails {failures}"
    );
    let accepted = rose(&server_after, &server_before, "server", "established");
    let passive = counted.server.get("PassiveOpens");
    ensure!(
        accepted == passive,
        "{accepted} established: PassiveOpens {passive}"
    );

    // Each completed handshake is in the histogram, with its time.
    for (samples, role, count) in [
        (&client_after, "role=\"client\"", 4 * ACCEPTED),
        (&server_after, "role=\"server\"", 4 * ACCEPTED),
    ] {
        let name = "synprobe_handshake_duration_seconds";
        let of = |suffix: &str, words: &[&str]| sum(samples, &format!("{name}_{suffix}"), words);
        ensure!(of("count", &[role]) == count as f64, "{role}: {samples:?}");
        ensure!(
            of("bucket", &[role, "le=\"+Inf\""]) == count as f64,
            "{role}: {samples:?}"
        );
        let mean = of("sum", &[role]) / count as f64;
        ensure!((1e-6..1.0).contains(&mean), "{role}: a mean of {mean} s");
    }
    for agent in [client, server] {
        let ran = agent.stop()?;
        ensure!(ran.code == Some(0) && ran.out.is_empty(), "{ran:?}");
    }
    Ok(())
}

/// Connects to both listeners and to a closed port, all ended when it returns.
fn traffic(lab: &Lab) -> Result<()> {
    let to = |port| lab.server_addr(port);
    lab.client.run(|| {
        for at in 0..ACCEPTED as u16 {
            drop(TcpStream::connect(to(PORT + at % 2))?);
        }
        for _ in 0..REFUSED {
            let refused = TcpStream::connect(to(PORT + 2)).map_err(|e| e.kind());
            ensure!(refused.err() == Some(ErrorKind::ConnectionRefused));
        }
        Ok(())
    })
}

fn now() -> Result<Duration> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?)
}
