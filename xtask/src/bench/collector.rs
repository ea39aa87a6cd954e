//! A collector that takes every OTLP/HTTP request and keeps nothing.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

/// It lasts as long as this process.
pub struct BenchCollector {
    address: SocketAddr,
    exports: Arc<AtomicU64>,
}

impl BenchCollector {
    /// Listens on a free port of the loopback device.
    ///
    /// # Errors
    ///
    /// When it cannot listen.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let exports = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&exports);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let counted = Arc::clone(&counted);
                // A connection that ends within a request is no request.
                thread::spawn(move || take_all(&stream, &counted));
            }
        });
        Ok(Self { address, exports })
    }

    /// The URL for `--otlp`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests taken so far.
    pub fn exports(&self) -> u64 {
        self.exports.load(Ordering::Relaxed)
    }
}

/// Takes the requests of a connection, one after another.
fn take_all(stream: &TcpStream, counted: &AtomicU64) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
        }
        io::copy(&mut (&mut reader).take(length), &mut io::sink())?;
        let mut stream = stream;
        stream.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n",
        )?;
        counted.fetch_add(1, Ordering::Relaxed);
    }
}
