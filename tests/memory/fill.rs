//! What fills the tables: half-opens, active opens that fail, and connections, each from and to addresses of its
//! own.

use std::{fs::File, path::Path};

use anyhow::Result;
use synprobe::{
    decode::Event,
    engine::{Engine, Input, RunConfig},
    filter::Selection,
    model::{Body, Detail, HalfOpenSource, Missed, Start, TcpState, Trigger, WallClock},
    recording::{SegmentHeader, Writer, inputs::encode},
    track::TrackConfig,
    util::table_bounds::TableBounds,
    verdict::Mode,
};
use synprobe_ebpf::event::{
    AF_INET, ErrorRecord, Flow, Header, StateRecord, SynAckRecord, TRIGGER_TIMER, Wire,
};

const SEC: u64 = 1_000_000_000;
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

const SYN_SENT: u8 = 2;
const SYN_RECV: u8 = 3;
const ESTABLISHED: u8 = 1;
const CLOSE: u8 = 7;
const LISTEN: u8 = 10;

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
    at_ns: u64,
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

    /// What fills the tables of its replay.
    pub fn recorded(to: &Path) -> Result<Self> {
        let config = Self::config(TableBounds::default(), false);
        let header = SegmentHeader::new([1; 16], OFFSET_NS, serde_json::to_vec(&config)?);
        let mut filled = Self::of(&config, Mode::AtOnce);
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
        let offset_ns = self.recording.as_ref().map_or(0, |_| OFFSET_NS);
        self.input(Input::BatchEnds(offset_ns));
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
            header: self.header::<SynAckRecord>(),
            flow,
            req: 0xbeef_0000 + u64::from(self.next),
            sock: 0xfeed,
            snt_synack_us: (self.at_ns - SEC) / 1000,
            timeout_jiffies: 250,
            max_ack_backlog: 128,
            trigger: TRIGGER_TIMER,
            sysctl_synack_retries: 5,
            sock_state: LISTEN,
            ..SynAckRecord::default()
        }
    }

    fn half_opens(&mut self, room: usize) {
        for _ in 0..2 * room {
            let record = self.half_open();
            self.feed(Event::SynAck(record, Trigger::Timer));
        }
        self.judge();
    }

    fn state(&mut self, flow: Flow, sock: u64, (old, new): (u8, u8), tgid: u32) {
        let mut record = StateRecord {
            header: self.header::<StateRecord>(),
            flow,
            sock,
            old,
            new,
            tgid,
            ..StateRecord::default()
        };
        let name = format!("worker-{tgid}");
        for (to, from) in record.comm.iter_mut().zip(name.bytes()) {
            *to = from as _;
        }
        // All of them are states of TCP.
        if let (Some(old), Some(new)) = (TcpState::from_kernel(old), TcpState::from_kernel(new)) {
            self.feed(Event::State(record, old, new));
        }
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
            let error = ErrorRecord {
                header: self.header::<ErrorRecord>(),
                flow,
                sock,
                sk_err: libc::ECONNREFUSED.unsigned_abs(),
                sk_err_soft: 0,
                state: SYN_SENT,
                _pad: [0; 7],
            };
            self.feed(Event::Error(error, TcpState::SynSent));
            self.state(flow, sock, (SYN_SENT, CLOSE), tgid);
        }
        self.judge();
    }

    /// Half-opens that had to repeat their SYN-ACK, and then were connected.
    pub fn repeated(&mut self, number: usize) {
        for _ in 0..number {
            let record = self.half_open();
            self.feed(Event::SynAck(record, Trigger::Timer));
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
