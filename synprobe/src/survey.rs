//! What sock_diag and /proc tell, asked for on a thread of its own: a dump walks the kernel's whole
//! connection table and must not hold up the ring.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use synprobe_ebpf::event::state;
use tokio::sync::mpsc;

use crate::{
    diag::{
        cgroup,
        counters::CounterReader,
        listeners::Listeners,
        monotonic_ns,
        owner::{self, Bounds, OwnerCache},
        row::{Row, mask},
        sock_diag::{Query, SockDiag},
        sysctl::sysctl_numbers,
        thread_cpu,
    },
    model::Process,
    netns::{self, NetNs},
    track::{Count, Fate, HalfOpenRow, Listener, Snapshot, Tuple},
};

/// How often namespaces are looked for anew.
const DISCOVER: Duration = Duration::from_secs(10);
/// A namespace that nobody lives in and no event names is let go after this.
const FORGET: Duration = Duration::from_secs(60);
/// Half-opens asked for one by one in a round, at most; about a microsecond each, the rest waits for
/// the next round.
const ASKED: usize = 65_536;

/// What to do.
pub enum Request {
    /// Dump every namespace; also look for these, which events have named.
    Survey(HashSet<u32>),
    /// What became of these?
    Ask(Vec<Tuple>),
}

/// What came of it.
pub enum Report {
    /// One round.
    Survey {
        /// One for each namespace.
        snapshots: Vec<Snapshot>,
        /// Listeners of namespaces that were not known before.
        listeners: Vec<Listener>,
        /// What the dumps took, time on the CPU.
        took: Duration,
    },
    /// One for each that could be asked for.
    Fates(Vec<(Tuple, Fate)>),
}

/// A namespace that is watched.
struct Station {
    netns: NetNs,
    sock_diag: SockDiag,
    counters: Option<CounterReader>,
    /// `tcp_synack_retries`, `tcp_syn_linear_timeouts`, as last read.
    settings: [Option<u64>; 2],
    /// Whether its SYN_SENT were asked for.
    begun: bool,
    /// Whether the caller holds the namespace anyway.
    given: bool,
    /// When it was last known to be somebody else's too.
    in_use: Instant,
}

/// The state of the thread.
pub struct Surveyor {
    /// Namespaces named by the caller; only these if `only`.
    given: Vec<NetNs>,
    only: bool,
    stations: HashMap<u32, Station>,
    refused: HashSet<u32>,
    owners: OwnerCache,
    discovered: Option<Instant>,
}

impl Surveyor {
    /// Watches `given`, and unless `only` every other namespace that can be found.
    pub fn new(given: Vec<NetNs>, only: bool) -> Self {
        Self {
            given,
            only,
            stations: HashMap::new(),
            refused: HashSet::new(),
            owners: OwnerCache::new(),
            discovered: None,
        }
    }

    /// Answers requests until their sender is gone.
    pub fn serve(mut self, mut requests: mpsc::Receiver<Request>, reports: mpsc::Sender<Report>) {
        while let Some(request) = requests.blocking_recv() {
            let report = match request {
                Request::Survey(named) => self.survey(&named),
                Request::Ask(tuples) => Report::Fates(self.ask(&tuples)),
            };
            if reports.blocking_send(report).is_err() {
                return;
            }
        }
    }

    /// One round.
    pub fn survey(&mut self, named: &HashSet<u32>) -> Report {
        let new = self.discover(named);
        let mut listeners = Vec::new();
        for inode in new {
            listeners.extend(self.listeners(inode).unwrap_or_else(|error| {
                log::warn!("listeners of namespace {inode}: {error}");
                Vec::new()
            }));
        }
        // Its own time on the CPU, not the clock's: a busy host must not make it look dear.
        let began = thread_cpu();
        let mut snapshots = Vec::new();
        self.stations
            .retain(|inode, station| match snapshot(*inode, station) {
                Ok(snapshot) => {
                    snapshots.push(snapshot);
                    true
                }
                Err(error) => {
                    log::warn!("half-opens of namespace {}: {error}", station.netns.name());
                    false
                }
            });
        Report::Survey {
            snapshots,
            listeners,
            took: thread_cpu().saturating_sub(began),
        }
    }

    /// Opens what is new; its inodes.
    fn discover(&mut self, named: &HashSet<u32>) -> Vec<u32> {
        let due = self.discovered.is_none_or(|at| at.elapsed() >= DISCOVER);
        let mut found: Vec<NetNs> = self.given.drain(..).collect();
        let given: HashSet<u32> = found.iter().map(NetNs::inode).collect();
        if due {
            self.discovered = Some(Instant::now());
            for station in self.stations.values_mut() {
                station.settings = settings(&station.netns);
            }
            if !self.only {
                found.extend(netns::discover().namespaces);
            }
            // Our sockets would keep a namespace alive that everybody else has left.
            for inode in found.iter().map(NetNs::inode).chain(named.iter().copied()) {
                if let Some(station) = self.stations.get_mut(&inode) {
                    station.in_use = Instant::now();
                }
            }
            self.stations
                .retain(|_, s| s.given || s.in_use.elapsed() < FORGET);
        }
        for inode in named {
            if !self.only && !self.stations.contains_key(inode) && !self.refused.contains(inode) {
                found.extend(netns::find(*inode));
            }
        }
        let mut new = Vec::new();
        for netns in found {
            let inode = netns.inode();
            if self.stations.contains_key(&inode) {
                continue;
            }
            match SockDiag::open(&netns) {
                Ok(sock_diag) => {
                    let counters = CounterReader::open(&netns).ok();
                    self.stations.insert(
                        inode,
                        Station {
                            settings: settings(&netns),
                            netns,
                            sock_diag,
                            counters,
                            begun: false,
                            given: given.contains(&inode),
                            in_use: Instant::now(),
                        },
                    );
                    new.push(inode);
                }
                Err(error) => {
                    if self.refused.insert(inode) {
                        log::warn!("namespace {} cannot be looked into: {error}", netns.name());
                    }
                }
            }
        }
        new
    }

    fn listeners(&mut self, inode: u32) -> io::Result<Vec<Listener>> {
        let Some(station) = self.stations.get_mut(&inode) else {
            return Ok(Vec::new());
        };
        let listeners = Listeners::read(&mut station.sock_diag)?;
        let inodes: Vec<u32> = listeners.iter().map(|l| l.inode).collect();
        let owners = self.owners.find(&inodes, Bounds::default());
        Ok(listeners
            .iter()
            .map(|l| {
                let owner: Option<&owner::Owner> = owners.by_inode.get(&l.inode);
                Listener {
                    netns: inode,
                    local_addr: l.local_addr,
                    local_port: l.local_port,
                    process: owner.map(|o| Process {
                        pid: o.pid,
                        comm: o.comm.as_str().into(),
                    }),
                    cgroup: owner
                        .and_then(|o| cgroup::of_pid(o.pid).ok())
                        .map(Arc::from),
                }
            })
            .collect())
    }

    fn ask(&mut self, tuples: &[Tuple]) -> Vec<(Tuple, Fate)> {
        let mut fates = Vec::new();
        for tuple in tuples.iter().take(ASKED) {
            let Some(station) = self.stations.get_mut(&tuple.netns) else {
                continue;
            };
            // An error says nothing; the next round asks again.
            let Ok(row) = station.sock_diag.get(&tuple.flow(), 0) else {
                continue;
            };
            let fate = match row.map(|row| row.state) {
                // The look-up falls back to the listener where the connection is gone.
                None | Some(state::LISTEN) => Fate::Gone,
                Some(state::SYN_RECV | state::NEW_SYN_RECV) => Fate::HalfOpen,
                Some(_) => Fate::Connected,
            };
            fates.push((*tuple, fate));
        }
        fates
    }
}

fn settings(netns: &NetNs) -> [Option<u64>; 2] {
    let names = [
        "net/ipv4/tcp_synack_retries",
        "net/ipv4/tcp_syn_linear_timeouts",
    ];
    sysctl_numbers(netns, names).unwrap_or_default()
}

fn snapshot(inode: u32, station: &mut Station) -> io::Result<Snapshot> {
    let dump = station.sock_diag.half_opens()?;
    let counters = station
        .counters
        .as_mut()
        .and_then(|reader| reader.read().ok());
    let counted_ns = monotonic_ns();
    let as_row = |row: &Row| HalfOpenRow {
        tuple: Tuple {
            netns: inode,
            local_addr: row.local_addr,
            peer_addr: row.peer_addr,
            local_port: row.local_port,
            peer_port: row.peer_port,
        },
        family: row.family,
        retrans: row.retrans,
        expires_ms: row.expires_ms,
    };
    let mut syn_sent = Vec::new();
    if !station.begun {
        station.begun = true;
        station
            .sock_diag
            .dump_with(&Query::states(mask::SYN_SENT), |row| {
                syn_sent.push(as_row(row))
            })?;
    }
    let [synack_retries, syn_linear] = station.settings;
    let small = |value: Option<u64>| value.and_then(|v| u32::try_from(v).ok());
    Ok(Snapshot {
        netns: inode,
        before_ns: dump.before_ns,
        after_ns: dump.after_ns,
        rows: dump.rows.iter().map(as_row).collect(),
        syn_sent,
        synack_retries: small(synack_retries),
        syn_linear: small(syn_linear).unwrap_or(0),
        syn_retrans: counters
            .as_ref()
            .and_then(|c| c.get("TCPSynRetrans"))
            .map(|value| Count {
                before_ns: dump.after_ns,
                after_ns: counted_ns,
                value,
            }),
        retrans_fail: counters
            .as_ref()
            .and_then(|c| c.get("TCPRetransFail"))
            .unwrap_or(0),
        embryonic_rsts: counters.as_ref().and_then(|c| c.get("EmbryonicRsts")),
        fates: Vec::new(),
        asked_ns: 0,
    })
}
