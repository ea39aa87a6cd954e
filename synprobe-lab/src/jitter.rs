//! Variations of a scenario that do not change its results: pauses and background handshakes.

use std::{
    cell::Cell,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use synprobe_common::sys::sockopts::with_sockaddr;

use crate::{
    Lab, Server, SocketFamily,
    socket::{self, Client, ConnectState},
};

/// How a run varies.
#[derive(Clone, Copy, Debug, Default)]
pub struct Jitter {
    /// Seed of the factor, 0.85 to 1.25, that pauses are multiplied with; 0: no variation.
    pub seed: u64,
    /// Healthy handshakes run in parallel on [`BACKGROUND_PORT`]. The counters of a namespace are not
    /// predicted then.
    pub background: bool,
}

/// The server's port of the background handshakes.
pub const BACKGROUND_PORT: u16 = 9;

/// First client port of the background handshakes. It is above the default ephemeral range (32768 to
/// 60999), so that the background does not use up a scenario's ports.
const FIRST_PORT: u16 = 61_001;

/// Time limit of a background handshake.
const DEADLINE: Duration = Duration::from_secs(5);

/// Pseudo-random numbers from a seed (splitmix64).
#[derive(Debug)]
pub(super) struct JitterRng {
    state: Cell<u64>,
    disabled: bool,
}

impl JitterRng {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            state: Cell::new(seed),
            disabled: seed == 0,
        }
    }

    fn next(&self) -> u64 {
        let state = self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.set(state);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 (included) to 1 (excluded).
    fn fraction(&self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Multiplies a pause by 0.85 to 1.25, or by 1 for the seed 0.
    pub(super) fn vary(&self, pause: Duration) -> Duration {
        match self.disabled {
            true => pause,
            false => pause.mul_f64(0.85 + 0.4 * self.fraction()),
        }
    }
}

/// Healthy handshakes in parallel to a scenario.
pub(super) struct Background {
    over: Arc<AtomicBool>,
    server: Option<Server>,
    thread: Option<JoinHandle<Result<u64>>>,
}

impl Background {
    /// Starts them, one every 20 to 50 ms.
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        let server = Server::start(vec![lab.listen(BACKGROUND_PORT, 128)?])?;
        let over = Arc::new(AtomicBool::new(false));
        let caller = BackgroundClient {
            client: lab.client.clone(),
            server: lab.server_addr(BACKGROUND_PORT),
            any: match lab.family {
                SocketFamily::V4 => Ipv4Addr::UNSPECIFIED.into(),
                SocketFamily::V6 | SocketFamily::V4Mapped => Ipv6Addr::UNSPECIFIED.into(),
            },
            rng: JitterRng::new(lab.jitter.seed),
            over: Arc::clone(&over),
        };
        let thread = thread::Builder::new()
            .name("lab-background".into())
            .spawn(move || caller.connect_until_over())
            .context("starting the background handshakes")?;
        Ok(Self {
            over,
            server: Some(server),
            thread: Some(thread),
        })
    }

    /// Stops them and returns their number.
    pub(super) fn stop(mut self) -> Result<u64> {
        let made = self
            .end()
            .unwrap_or(Ok(0))
            .context("background handshakes")?;
        let served = match self.server.take() {
            Some(server) => server.stop()?.accepted,
            None => made,
        };
        if served != made {
            bail!("of {made} background handshakes the server accepted {served}");
        }
        Ok(made)
    }

    fn end(&mut self) -> Option<Result<u64>> {
        let thread = self.thread.take()?;
        self.over.store(true, Ordering::Relaxed);
        Some(
            thread
                .join()
                .unwrap_or_else(|_| Err(anyhow!("the thread panicked"))),
        )
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // stop() returns the error; here another error is being returned already.
        let _ = self.end();
    }
}

struct BackgroundClient {
    client: crate::Ns,
    server: SocketAddr,
    any: IpAddr,
    rng: JitterRng,
    over: Arc<AtomicBool>,
}

impl BackgroundClient {
    fn connect_until_over(&self) -> Result<u64> {
        let never = AtomicBool::new(false);
        let mut made = 0;
        for port in FIRST_PORT..=u16::MAX {
            if self.over.load(Ordering::Relaxed) {
                break;
            }
            let local = SocketAddr::new(self.any, port);
            let mut client = Client::connect(&self.client, self.server, |fd| bind(fd, local))?;
            let deadline = Instant::now() + DEADLINE;
            socket::settle([&mut client], &never, deadline)?;
            if client.seen != ConnectState::Connected {
                bail!("a background handshake ended as {:?}", client.seen);
            }
            made += 1;
            client.finish(&never, deadline)?;
            let spacing =
                Duration::from_millis(20) + Duration::from_millis(30).mul_f64(self.rng.fraction());
            socket::pause(spacing, &self.over)?;
        }
        Ok(made)
    }
}

/// Binds a socket.
fn bind(fd: &OwnedFd, local: SocketAddr) -> io::Result<()> {
    let bound = with_sockaddr(local, |address, len| {
        // SAFETY: the address is alive for the call and its length is its own.
        unsafe { libc::bind(fd.as_raw_fd(), address, len) }
    });
    match bound {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_vary_within_bounds_and_equally_for_one_seed() {
        let second = Duration::from_secs(1);
        let of = |seed| {
            let rng = JitterRng::new(seed);
            [(); 200].map(|()| rng.vary(second))
        };
        assert!(of(0).iter().all(|&pause| pause == second));
        let varied = of(7);
        let (least, most) = (varied.iter().min().unwrap(), varied.iter().max().unwrap());
        assert!(*least >= second.mul_f64(0.85) && *most <= second.mul_f64(1.25));
        assert!(*least < second.mul_f64(0.9) && *most > second.mul_f64(1.2));
        assert_eq!(varied, of(7));
        assert_ne!(varied, of(8));
    }

    #[test]
    #[ignore = "needs root"]
    fn the_background_is_counted_by_the_kernel_and_not_by_the_run() {
        for family in SocketFamily::ALL {
            let mut lab = Lab::new(family).unwrap();
            lab.jitter = Jitter {
                seed: 3,
                background: true,
            };
            let before = lab.counters().unwrap();
            let made = crate::find("healthy")
                .unwrap()
                .run(&lab, &AtomicBool::new(false))
                .unwrap();
            let moved = lab.counters().unwrap().since(&before);
            assert!(made.counters.is_empty() && made.retransmits.is_empty());
            let background = made.background.unwrap();
            assert!(background > 5, "{background}");
            assert_eq!(moved.client.get("ActiveOpens"), 20 + background);
            assert_eq!(moved.server.get("PassiveOpens"), 20 + background);
            assert_eq!(moved.client.get("AttemptFails"), 0);
            assert_eq!(made.handshakes.len(), 40);
        }
    }
}
