//! The request-response load: clients that send requests at a fixed rate, and servers that answer.
//!
//! A process and a network namespace of its own, as [`load`](super::load). Each thread of a client has a server's
//! thread; both block. A request is 128 bytes and its answer 1024; nothing is computed for it.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    mem::MaybeUninit,
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::{
    load::{PORT, enter_namespace},
    process::ChildProcess,
};

const REQUEST: [u8; 128] = [b'q'; 128];
const ANSWER: [u8; 1024] = [b'a'; 1024];

/// `cargo xtask bench-requests`: reads lines of milliseconds, requests a second and requests a connection; answers
/// each with a [`RequestSample`].
#[derive(Args)]
pub struct RequestsArgs {
    #[arg(long)]
    threads: u8,
}

/// The result of one period.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct RequestSample {
    /// Requests that were answered.
    pub requests: u64,
    /// Connections that they came on.
    pub connections: u64,
    /// Duration, seconds.
    pub seconds: f64,
    /// CPU time of the load, its softirqs included, nanoseconds.
    pub cpu_ns: u64,
}

/// How the requests come.
#[derive(Clone, Copy)]
pub struct RequestPlan {
    /// Requests a second, of all threads together.
    pub rate: u32,
    /// Requests a connection.
    pub per_connection: u32,
}

/// Handle of the load's process.
pub struct RequestLoad {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// Ends the process when dropped.
    _process: ChildProcess,
}

impl RequestLoad {
    /// Starts the process; it makes no load yet.
    ///
    /// # Errors
    ///
    /// When the process cannot be started.
    pub fn start(threads: usize) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["bench-requests", "--threads", &threads.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = ChildProcess::spawn(&mut command, libc::SIGKILL)?;
        let (input, output) = process.pipes().context("the load's pipes")?;
        Ok(Self {
            input,
            output: BufReader::new(output),
            _process: process,
        })
    }

    /// Makes load for `length`.
    ///
    /// # Errors
    ///
    /// When the load failed; the process prints the reason on standard error.
    pub fn run(&mut self, length: Duration, plan: RequestPlan) -> Result<RequestSample> {
        let millis = length.as_millis();
        let RequestPlan {
            rate,
            per_connection,
        } = plan;
        writeln!(self.input, "{millis} {rate} {per_connection}")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        serde_json::from_str(&line).context("the request load failed")
    }
}

/// The main function of the load process.
///
/// # Errors
///
/// When the namespace cannot be made or a connection fails.
pub fn requests(args: &RequestsArgs) -> Result<()> {
    enter_namespace()?;
    let ports: Vec<u16> = (0..args.threads).map(|i| PORT + u16::from(i)).collect();
    for port in &ports {
        let listener = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, *port))?;
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // A client that went away in an answer has failed too, and reports it.
                let _ = answer(stream);
            }
        });
    }
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let mut numbers = line.split(' ').map(str::parse::<u32>);
        let mut number = || anyhow::Ok(numbers.next().context("three numbers")??);
        let length = Duration::from_millis(number()?.into());
        let plan = RequestPlan {
            rate: number()? / u32::from(args.threads.max(1)),
            per_connection: number()?,
        };
        let (began, cpu) = (Instant::now(), own_cpu()?);
        let results: Vec<io::Result<(u64, u64)>> = thread::scope(|scope| {
            let clients: Vec<_> = ports
                .iter()
                .map(|port| scope.spawn(move || ask_until(*port, began, length, plan)))
                .collect();
            let joined = clients.into_iter().map(|thread| {
                let died = || io::Error::other("a thread of the load panicked");
                thread.join().unwrap_or_else(|_| Err(died()))
            });
            joined.collect()
        });
        let mut sample = RequestSample {
            requests: 0,
            connections: 0,
            seconds: began.elapsed().as_secs_f64(),
            cpu_ns: u64::try_from(own_cpu()?.saturating_sub(cpu).as_nanos())?,
        };
        for result in results {
            let (requests, connections) = result.context("a request of the load")?;
            sample.requests += requests;
            sample.connections += connections;
        }
        writeln!(out, "{}", serde_json::to_string(&sample)?)?;
        out.flush()?;
    }
    Ok(())
}

/// Answers the requests of a connection until the client closes it.
fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = [0; REQUEST.len()];
    loop {
        match stream.read_exact(&mut request) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        stream.write_all(&ANSWER)?;
    }
}

/// One request after another, each at its time or as soon after it as the one before is answered. Returns the
/// requests and the connections.
fn ask_until(
    port: u16,
    began: Instant,
    length: Duration,
    plan: RequestPlan,
) -> io::Result<(u64, u64)> {
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    let gap = Duration::from_secs(1) / plan.rate.max(1);
    let mut answered = [0; ANSWER.len()];
    let (mut requests, mut connections) = (0_u32, 0);
    let mut open: Option<TcpStream> = None;
    loop {
        let due = gap * requests;
        if due >= length || began.elapsed() >= length {
            return Ok((requests.into(), connections));
        }
        thread::sleep((began + due).saturating_duration_since(Instant::now()));
        let mut stream = match open.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                connections += 1;
                stream
            }
        };
        stream.write_all(&REQUEST)?;
        stream.read_exact(&mut answered)?;
        requests += 1;
        if !requests.is_multiple_of(plan.per_connection.max(1)) {
            open = Some(stream);
        }
    }
}

/// CPU time of this process so far.
fn own_cpu() -> Result<Duration> {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the pointer is to a local timespec.
    if unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, time.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error()).context("CPU clock");
    }
    // SAFETY: clock_gettime succeeded and filled it.
    let time = unsafe { time.assume_init() };
    Ok(Duration::new(
        time.tv_sec.cast_unsigned(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    ))
}
