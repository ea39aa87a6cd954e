//! The thread that serves HTTP.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{
    Bound,
    accept::Clients,
    listen::Socket,
    reply::{Replier, reply},
};

/// A client has this time to send the head of its request.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// A connection lasts so long at most, whatever it does.
const WHOLE_TIME: Duration = Duration::from_secs(15);
/// Bytes of a request's head, at most; hyper answers a longer one with 431.
const HEAD_BYTES: usize = 16 << 10;
/// Header fields of a request, at most.
const HEADERS: usize = 64;
/// The pause after accept() failed: mostly there are no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// Begins the thread that answers requests. It ends with the process.
///
/// # Errors
///
/// The thread or its runtime cannot be created.
pub fn begin(bound: Bound, replier: Arc<Replier>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()?;
    thread::Builder::new().name("http".into()).spawn(move || {
        if let Err(error) = runtime.block_on(accept(bound, replier)) {
            log::error!("HTTP is not served: {error}");
        }
    })?;
    Ok(())
}

async fn accept(mut bound: Bound, replier: Arc<Replier>) -> io::Result<()> {
    let mut clients = Clients::default();
    match &mut bound.socket {
        Socket::Tcp(socket) => {
            let socket = TcpListener::from_std(socket.try_clone()?)?;
            loop {
                let accepted = socket.accept().await.map(|(stream, _)| stream);
                take(accepted, &mut clients, &replier).await;
            }
        }
        Socket::Unix(socket) => {
            let socket = UnixListener::from_std(socket.try_clone()?)?;
            loop {
                let accepted = socket.accept().await.map(|(stream, _)| stream);
                take(accepted, &mut clients, &replier).await;
            }
        }
    }
}

async fn take<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    accepted: io::Result<S>,
    clients: &mut Clients,
    replier: &Arc<Replier>,
) {
    match accepted {
        Ok(stream) => {
            clients.make_room();
            let asked = Arc::new(AtomicBool::new(false));
            let task = serve(stream, Arc::clone(&asked), Arc::clone(replier));
            clients.add(&task, asked);
        }
        Err(error) => {
            log::debug!("accept(): {error}");
            sleep(PAUSE).await;
        }
    }
}

/// Answers one request: a scraper that comes every few seconds gains nothing from keeping its connection.
fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    asked: Arc<AtomicBool>,
    replier: Arc<Replier>,
) -> JoinHandle<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        let replier = Arc::clone(&replier);
        async move { reply(&replier, &request).await }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    tokio::spawn(async move {
        // What a client does wrong, or that it went away, is its own affair.
        let _ = timeout(WHOLE_TIME, connection).await;
    })
}
