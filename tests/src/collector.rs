//! A collector that takes OTLP/HTTP, decodes it by the published definition, and answers as it is told.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest},
    logs::v1::LogRecord,
};
use prost::Message;

/// What has not come within this time never will.
const PATIENCE: Duration = Duration::from_secs(30);

/// How to answer a request.
#[derive(Clone, Copy)]
pub struct Answer {
    pub status: &'static str,
    /// More header lines, each with its end.
    pub headers: &'static str,
}

/// It is taken.
pub const TAKEN: Answer = Answer {
    status: "200 OK",
    headers: "",
};

/// One request.
#[derive(Clone)]
pub struct Export {
    pub path: String,
    pub when: Instant,
    pub taken: bool,
    pub body: Vec<u8>,
}

/// A running collector.
pub struct Collector {
    pub address: SocketAddr,
    exports: Arc<Mutex<Vec<Export>>>,
    ended: Arc<AtomicBool>,
}

impl Collector {
    /// `answer`: by the path of a request, and how many came to it before.
    pub fn start(
        answer: impl Fn(&str, usize) -> Option<Answer> + Send + Sync + 'static,
    ) -> Result<Self> {
        let socket = TcpListener::bind("127.0.0.1:0")?;
        let collector = Self {
            address: socket.local_addr()?,
            exports: Arc::default(),
            ended: Arc::default(),
        };
        let exports = Arc::clone(&collector.exports);
        let ended = Arc::clone(&collector.ended);
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in socket.incoming().map_while(std::result::Result::ok) {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                let (exports, answer) = (Arc::clone(&exports), Arc::clone(&answer));
                // Its errors are seen by what does not come.
                std::thread::spawn(move || take(stream, &exports, &*answer));
            }
        });
        Ok(collector)
    }

    /// The URL for `--otlp`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far.
    pub fn exports(&self) -> Vec<Export> {
        self.exports
            .lock()
            .map(|all| all.clone())
            .unwrap_or_default()
    }

    /// The metrics that were taken.
    pub fn metrics(&self) -> Result<Vec<ExportMetricsServiceRequest>> {
        let taken = self.exports().into_iter();
        taken
            .filter(|export| export.taken && export.path == "/v1/metrics")
            .map(|export| Ok(ExportMetricsServiceRequest::decode(&*export.body)?))
            .collect()
    }

    /// The log records that were taken.
    pub fn records(&self) -> Result<Vec<LogRecord>> {
        let mut records = Vec::new();
        for export in self.exports() {
            if export.taken && export.path == "/v1/logs" {
                records.extend(records_of(&export)?);
            }
        }
        Ok(records)
    }

    /// Waits until `wanted` finds something in the requests.
    pub fn until<T>(&self, what: &str, wanted: impl Fn(&[Export]) -> Option<T>) -> Result<T> {
        let until = Instant::now() + PATIENCE;
        loop {
            let exports = self.exports();
            if let Some(found) = wanted(&exports) {
                return Ok(found);
            }
            if Instant::now() > until {
                bail!("{what} did not come in {} requests", exports.len());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes accept().
        let _ = TcpStream::connect(self.address);
    }
}

/// The log records of a request.
pub fn records_of(export: &Export) -> Result<Vec<LogRecord>> {
    let request = ExportLogsServiceRequest::decode(&*export.body)?;
    let scopes = request
        .resource_logs
        .into_iter()
        .flat_map(|of| of.scope_logs);
    Ok(scopes.flat_map(|scope| scope.log_records).collect())
}

fn take(
    stream: TcpStream,
    exports: &Mutex<Vec<Export>>,
    answer: &dyn Fn(&str, usize) -> Option<Answer>,
) -> Result<()> {
    let mut from = BufReader::new(stream.try_clone()?);
    let mut to = stream;
    loop {
        let mut first = String::new();
        if from.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut words = first.split(' ');
        ensure!(words.next() == Some("POST"), "{first}");
        let path = words.next().context("a path")?.to_owned();
        let (mut length, mut media) = (0, false);
        loop {
            let mut line = String::new();
            from.read_line(&mut line)?;
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(": ").context("a header")?;
            match name {
                "content-length" => length = value.parse()?,
                "content-type" => media = value == "application/x-protobuf",
                _ => (),
            }
        }
        ensure!(media, "no protobuf");
        let mut body = vec![0; length];
        from.read_exact(&mut body)?;
        let mut all = exports.lock().map_err(|_| anyhow!("poisoned"))?;
        let before = all.iter().filter(|export| export.path == path).count();
        let answer = answer(&path, before);
        all.push(Export {
            path,
            when: Instant::now(),
            taken: answer.is_some_and(|answer| answer.status == TAKEN.status),
            body,
        });
        drop(all);
        let Some(Answer { status, headers }) = answer else {
            // It never answers.
            std::thread::sleep(PATIENCE);
            return Ok(());
        };
        write!(
            to,
            "HTTP/1.1 {status}\r\nContent-Length: 0\r\n{headers}\r\n"
        )?;
    }
}
