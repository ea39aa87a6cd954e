//! What may differ between two runs of a scenario without changing what they show.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::socket::{self, Client, Seen};
use super::{Family, Lab, Server};
use synprobe_common::sys::sockopts::with_sockaddr;

/// How a run differs from the plain one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Variation {
    /// Pauses last 0.85 to 1.25 times as long as usual, as this number decides; 0: as usual.
    pub seed: u64,
    /// Healthy handshakes go on beside the scenario's, on [`BACKGROUND_PORT`]. What the kernel counts
    /// for a whole namespace is then not predicted.
    pub background: bool,
}

/// The server's port of the background's handshakes.
pub const BACKGROUND_PORT: u16 = 9;

/// The background's ports on the client's side: above those that the kernel hands out (32768 to 60999
/// unless a scenario says otherwise), so that it takes none from a scenario that runs short of them.
const FIRST_PORT: u16 = 61_001;

/// A background handshake that is not over by then has gone wrong.
const DEADLINE: Duration = Duration::from_secs(5);

/// The numbers that follow from a seed (splitmix64).
#[derive(Debug)]
pub(super) struct Dice {
    state: Cell<u64>,
    still: bool,
}

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            state: Cell::new(seed),
            still: seed == 0,
        }
    }

    fn next(&self) -> u64 {
        let state = self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.set(state);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 (included) to 1 (not included).
    fn fraction(&self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// 0.85 to 1.25 times as long; as long as it is, for the seed 0.
    pub(super) fn vary(&self, pause: Duration) -> Duration {
        match self.still {
            true => pause,
            false => pause.mul_f64(0.85 + 0.4 * self.fraction()),
        }
    }
}

/// Healthy handshakes beside a scenario's own.
pub(super) struct Background {
    over: Arc<AtomicBool>,
    server: Option<Server>,
    thread: Option<JoinHandle<Result<u64>>>,
}

impl Background {
    /// Starts them: one every 20 to 50 ms.
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        let server = Server::start(vec![lab.listen(BACKGROUND_PORT, 128)?])?;
        let over = Arc::new(AtomicBool::new(false));
        let caller = Caller {
            client: lab.client.clone(),
            server: lab.server_addr(BACKGROUND_PORT),
            any: match lab.family {
                Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
                Family::V6 | Family::V4Mapped => Ipv6Addr::UNSPECIFIED.into(),
            },
            dice: Dice::new(lab.variation.seed),
            over: Arc::clone(&over),
        };
        let thread = thread::Builder::new()
            .name("lab-background".into())
            .spawn(move || caller.call())
            .context("starting the background")?;
        Ok(Self {
            over,
            server: Some(server),
            thread: Some(thread),
        })
    }

    /// Ends them; how many there were.
    pub(super) fn stop(mut self) -> Result<u64> {
        let made = self.end().unwrap_or(Ok(0)).context("the background")?;
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
                .unwrap_or_else(|_| Err(anyhow!("it panicked"))),
        )
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Whoever wants its error calls stop(); here an earlier one is already on its way.
        let _ = self.end();
    }
}

struct Caller {
    client: super::Ns,
    server: SocketAddr,
    any: IpAddr,
    dice: Dice,
    over: Arc<AtomicBool>,
}

impl Caller {
    fn call(&self) -> Result<u64> {
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
            if client.seen != Seen::Connected {
                bail!("a healthy handshake saw {:?}", client.seen);
            }
            made += 1;
            client.finish(&never, deadline)?;
            let spacing =
                Duration::from_millis(20) + Duration::from_millis(30).mul_f64(self.dice.fraction());
            socket::pause(spacing, &self.over)?;
        }
        Ok(made)
    }
}

/// Chooses a socket's own address.
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
    fn pauses_vary_within_bounds_and_alike_for_one_seed() {
        let second = Duration::from_secs(1);
        let of = |seed| {
            let dice = Dice::new(seed);
            [(); 200].map(|()| dice.vary(second))
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
        for family in Family::ALL {
            let mut lab = Lab::new(family).unwrap();
            lab.variation = Variation {
                seed: 3,
                background: true,
            };
            let before = lab.counters().unwrap();
            let made = super::super::find("healthy")
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
