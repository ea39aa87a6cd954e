//! What fills the tables: half-opens, active opens that fail, and connections, each from and to addresses of its
//! own.

use std::{
    fs::File,
    hash::{DefaultHasher, Hash, Hasher},
    path::Path,
};

use anyhow::Result;
use synprobe::{
    decode::Event,
    engine::{Engine, Input, RunConfig},
    filter::Selection,
    model::{
        Body, Detail, HalfOpenRow, HalfOpenSource, LaterCounters, ListenCounters, Missed,
        SocketDump, Start, TcpState, Trigger, Tuple, WallClock,
    },
    recording::{SegmentHeader, Writer, inputs::encode},
    track::TrackConfig,
    util::table_bounds::TableBounds,
    verdict::Mode,
};
use synprobe_ebpf::event::{
    AF_INET, ErrorRecord, Flow, Header, RetransmitRecord, SYN_BUILT, SYN_UNKNOWN, StateRecord,
    SynAckRecord, TRIGGER_TIMER, Wire,
};

pub const SEC: u64 = 1_000_000_000;
/// From the monotonic to the wall clock, of recordings.
const OFFSET_NS: i64 = 1_795_939_200_000_000_000;
const NETNS: u32 = 4_026_531_833;
/// Ports and processes that a stranger chooses.
const PORTS: u32 = 3000;
const PROCESSES: u32 = 900;
/// Inputs that are judged together.
const BATCH: u64 = 512;
/// Those in progress when the run ends that are judged together.
const LAST_BATCH: u32 = 65_536;

pub const SYN_SENT: u8 = 2;
pub const SYN_RECV: u8 = 3;
pub const ESTABLISHED: u8 = 1;
pub const CLOSE: u8 = 7;
pub const LISTEN: u8 = 10;

/// One step: its name, how many entries its table has at most, and what fills it.
pub type Step = (&'static str, usize, fn(&mut FilledEngine, usize));

/// The steps, one after the other.
pub fn steps(bounds: &TableBounds) -> [Step; 5] {
    [
        ("half-opens", bounds.half_opens, FilledEngine::half_opens),
        ("active opens", bounds.clients, FilledEngine::active_opens),
        ("failures", bounds.held, FilledEngine::failures),
        ("destinations", bounds.destinations, FilledEngine::failures),
        ("completed", bounds.sources, FilledEngine::completed),
    ]
}

/// An engine, and what it said of evictions.
pub struct FilledEngine {
    engine: Engine,
    /// Then nothing is judged.
    recording: Option<Writer<File>>,
    failed: Result<()>,
    offset_ns: i64,
    /// What the time is.
    pub at_ns: u64,
    inputs: u64,
    next: u32,
    /// Handshakes that the full table evicted.
    pub evicted: u64,
    /// The same, as `lost` lines have it.
    pub told: u64,
}

impl FilledEngine {
    pub fn new(tables: TableBounds, mode: Mode, windowed: bool) -> Self {
        Self::of(&Self::config(tables, windowed), mode)
    }

    /// What fills the tables of its replay. Its wall clock is `ahead_ns` ahead.
    pub fn recorded(to: &Path, ahead_ns: i64) -> Result<Self> {
        let config = Self::config(TableBounds::default(), false);
        let offset_ns = OFFSET_NS + ahead_ns;
        let header = SegmentHeader::new([1; 16], offset_ns, serde_json::to_vec(&config)?);
        let mut filled = Self::of(&config, Mode::AtOnce);
        filled.offset_ns = offset_ns;
        filled.recording = Some(Writer::new(File::create(to)?, &header)?);
        Ok(filled)
    }

    fn config(tables: TableBounds, windowed: bool) -> RunConfig {
        RunConfig {
            start: Start::default(),
            track: TrackConfig {
                hz: 250,
                synack_rto_max: false,
                sees_failures: true,
                sees_resets: true,
                source: HalfOpenSource::Tracepoints,
                detail: Detail::Handshakes,
                tables,
                began_ns: SEC,
                hash_seed: 7,
                selection: Selection::default(),
            },
            sees_drops: true,
            window: windowed.then_some(std::time::Duration::from_secs(60)),
        }
    }

    fn of(config: &RunConfig, mode: Mode) -> Self {
        Self {
            engine: Engine::new(config, mode, WallClock::default()),
            recording: None,
            failed: Ok(()),
            offset_ns: 0,
            at_ns: 1000 * SEC,
            inputs: 0,
            next: 0,
            evicted: 0,
            told: 0,
        }
    }

    fn feed(&mut self, event: Event) {
        self.input(Input::Event(event));
        self.inputs += 1;
        if self.inputs.is_multiple_of(BATCH) {
            self.judge();
        }
    }

    fn input(&mut self, input: Input) {
        match &mut self.recording {
            None => self.engine.feed(input),
            Some(writer) => {
                let (at_ns, mut pushed) = (self.at_ns, Ok(()));
                let encoded = encode(&input, |frame| pushed = writer.push(at_ns, frame));
                if let Err(error) = encoded.map_err(Into::into).and(pushed.map_err(Into::into)) {
                    self.failed = Err(error);
                }
            }
        }
    }

    fn judge(&mut self) {
        self.input(Input::BatchEnds(self.offset_ns));
        for batch in self.engine.take_lines() {
            for line in &batch.lines {
                if let Body::Lost(lost) = &line.body
                    && lost.of == Missed::Evicted
                {
                    self.told += lost.events;
                }
            }
        }
        self.evicted = self.engine.totals().evicted;
    }

    /// The run is over: what was held back is told.
    pub fn ends(&mut self) -> Result<()> {
        let at_ns = self.at_ns;
        self.input(Input::EndOpen {
            at_ns,
            most: LAST_BATCH,
        });
        let produced = self.inputs * u64::from(self.recording.is_some());
        self.input(Input::End { at_ns, produced });
        self.judge();
        if let Some(writer) = self.recording.take() {
            writer.finish()?;
        }
        std::mem::replace(&mut self.failed, Ok(()))
    }

    /// The ends of the next connection. The number is in every address and port that a stranger chooses.
    fn flow(&mut self, local_port: u16, peer_port: u16) -> Flow {
        self.next += 1;
        self.at_ns += 2_000;
        let address = |n: u32| {
            let [a, b, c, d] = n.to_be_bytes();
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
        };
        Flow {
            local_addr: address(0x0a00_0001),
            peer_addr: address(0x0b00_0000 + self.next),
            local_port,
            peer_port,
            family: AF_INET,
            netns: NETNS,
            ..Flow::default()
        }
    }

    fn header<R: Wire>(&self) -> Header {
        Header {
            ts_ns: self.at_ns,
            kind: R::KIND,
            len: size_of::<R>() as u16,
            ..Header::default()
        }
    }

    fn port(&self) -> u16 {
        1 + (self.next % PORTS) as u16
    }

    fn half_open(&mut self) -> SynAckRecord {
        let (port, peer_port) = (self.port(), (self.next >> 3) as u16 | 1024);
        let flow = self.flow(port, peer_port);
        SynAckRecord {
            flow,
            req: 0xbeef_0000 + u64::from(self.next),
            sock: 0xfeed,
            snt_synack_us: (self.at_ns - SEC) / 1000,
            timeout_jiffies: 250,
            max_ack_backlog: 128,
            trigger: TRIGGER_TIMER,
            sysctl_synack_retries: 5,
            sock_state: LISTEN,
            rcv_isn: self.number(true),
            snt_isn: self.number(false) | 1,
            ..SynAckRecord::default()
        }
    }

    /// Initial sequence numbers of the next connection, as random as real ones: a recording cannot compress them.
    /// Those of SYNs that came are odd, and of those that were sent even: two hosts have none in common.
    fn number(&self, came: bool) -> u32 {
        let mut hasher = DefaultHasher::new();
        (self.next, came).hash(&mut hasher);
        hasher.finish() as u32 & !1 | u32::from(came)
    }

    fn half_opens(&mut self, room: usize) {
        for _ in 0..2 * room {
            let record = self.half_open();
            self.repeats_answer(record, Trigger::Timer);
        }
        self.judge();
    }

    /// A transition in the context of a process.
    pub fn state(&mut self, flow: Flow, sock: u64, states: (u8, u8), tgid: u32) {
        self.left(flow, sock, states, |record| {
            record.tgid = tgid;
            let name = format!("worker-{tgid}");
            for (to, from) in record.comm.iter_mut().zip(name.bytes()) {
                *to = from as _;
            }
        });
    }

    /// A transition with more that its record has.
    pub fn left(
        &mut self,
        flow: Flow,
        sock: u64,
        (old, new): (u8, u8),
        more: impl FnOnce(&mut StateRecord),
    ) {
        let mut record = StateRecord {
            header: self.header::<StateRecord>(),
            flow,
            sock,
            old,
            new,
            ..StateRecord::default()
        };
        let sent = old == SYN_SENT;
        if sent || (old, new) == (SYN_RECV, ESTABLISHED) {
            let own = self.number(false);
            record.snd_first_or_backlog = if sent { own } else { (own | 1).wrapping_add(1) };
            record.syn = if sent { SYN_BUILT } else { SYN_UNKNOWN };
        }
        if new == ESTABLISHED {
            record.rcv_first_or_half_open = self.number(!sent).wrapping_add(1);
        }
        more(&mut record);
        // All of them are states of TCP.
        if let (Some(old), Some(new)) = (TcpState::from_kernel(old), TcpState::from_kernel(new)) {
            self.feed(Event::State(record, old, new));
        }
    }

    /// A round of the poller in a namespace whose listeners refuse nothing.
    pub fn round(&mut self, netns: u32) {
        let at_ns = self.at_ns;
        self.input(Input::PollBegins);
        self.input(Input::ListenSockets {
            before_ns: at_ns,
            at_ns,
            listeners: Vec::new(),
            counters: vec![ListenCounters {
                netns,
                listen_overflows: Some(0),
                listen_drops: Some(0),
                syncookies_sent: Some(0),
                syncookies_recv: Some(0),
                req_q_full_drop: Some(0),
                out_no_routes: Some(0),
                out_rsts: Some(0),
                migrate_req: Some(0),
                later: LaterCounters::default(),
            }],
        });
        self.input(Input::PollEnds { at_ns });
    }

    /// A dump of sock_diag that has this number of half-opens.
    pub fn dump(&mut self, rows: usize) {
        let half_open = |flow: Flow| HalfOpenRow {
            tuple: Tuple::from(&flow),
            family: AF_INET,
            retrans: 1,
            expires_ms: 2000,
        };
        let rows = (0..rows)
            .map(|_| half_open(self.half_open().flow))
            .collect();
        let dump = SocketDump {
            netns: NETNS,
            before_ns: self.at_ns,
            after_ns: self.at_ns + SEC / 10,
            rows,
            ..SocketDump::default()
        };
        self.at_ns += SEC;
        self.input(Input::PollBegins);
        self.input(Input::Dump(Box::new(dump)));
        self.input(Input::PollEnds { at_ns: self.at_ns });
        self.judge();
    }

    /// A retransmitted SYN.
    pub fn repeats_syn(&mut self, mut record: RetransmitRecord) {
        record.header = self.header::<RetransmitRecord>();
        self.feed(Event::Retransmit(record, TcpState::SynSent));
    }

    /// A SYN-ACK that is sent again.
    pub fn repeats_answer(&mut self, mut record: SynAckRecord, trigger: Trigger) {
        record.header = self.header::<SynAckRecord>();
        self.feed(Event::SynAck(record, trigger));
    }

    /// A connect that has an error.
    pub fn fails(&mut self, mut record: ErrorRecord) {
        record.header = self.header::<ErrorRecord>();
        self.feed(Event::Error(record, TcpState::SynSent));
    }

    fn called(&mut self) -> (Flow, u64, u32) {
        let (port, tgid) = (self.port(), 1000 + self.next % PROCESSES);
        let flow = self.flow(0, port);
        (flow, 0x1000_0000 + u64::from(self.next) * 8, tgid)
    }

    fn active_opens(&mut self, room: usize) {
        for _ in 0..2 * room {
            let (flow, sock, tgid) = self.called();
            self.state(flow, sock, (CLOSE, SYN_SENT), tgid);
        }
        self.judge();
    }

    fn failures(&mut self, room: usize) {
        for _ in 0..2 * room {
            let (mut flow, sock, tgid) = self.called();
            self.state(flow, sock, (CLOSE, SYN_SENT), tgid);
            flow.local_port = 40_000 + (self.next % 20_000) as u16;
            self.at_ns += 1_000;
            self.state(flow, sock, (SYN_SENT, CLOSE), tgid);
        }
        self.judge();
    }

    /// Connects that are refused: their verdicts are quoted wherever they are joined.
    pub fn refused(&mut self, number: usize) {
        for _ in 0..number {
            let (mut flow, sock, tgid) = self.called();
            self.state(flow, sock, (CLOSE, SYN_SENT), tgid);
            flow.local_port = 40_000 + (self.next % 20_000) as u16;
            self.at_ns += 1_000;
            self.fails(ErrorRecord {
                flow,
                sock,
                sk_err: libc::ECONNREFUSED.unsigned_abs(),
                state: SYN_SENT,
                ..ErrorRecord::default()
            });
            self.state(flow, sock, (SYN_SENT, CLOSE), tgid);
        }
        self.judge();
    }

    /// Half-opens that had to repeat their SYN-ACK, and then were connected.
    pub fn repeated(&mut self, number: usize) {
        for _ in 0..number {
            let record = self.half_open();
            self.repeats_answer(record, Trigger::Timer);
            let sock = 0x3000_0000 + u64::from(self.next) * 8;
            self.state(record.flow, sock, (LISTEN, SYN_RECV), 0);
            self.state(record.flow, sock, (SYN_RECV, ESTABLISHED), 0);
        }
        self.judge();
    }

    /// Active opens that nobody answers while the run lasts.
    pub fn unanswered(&mut self, number: usize) {
        self.active_opens(number / 2);
    }

    /// Half-opens that stay so while the run lasts.
    pub fn never_completed(&mut self, number: usize) {
        self.half_opens(number / 2);
    }

    fn completed(&mut self, room: usize) {
        for _ in 0..2 * room {
            let port = self.port();
            let flow = self.flow(port, 2000);
            let sock = 0x2000_0000 + u64::from(self.next) * 8;
            self.state(flow, sock, (LISTEN, SYN_RECV), 0);
            self.state(flow, sock, (SYN_RECV, ESTABLISHED), 0);
        }
        self.judge();
    }
}
