//! POST over HTTP/1.1, one request at a time on a connection that is kept open.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, StatusCode,
    client::conn::http1::{self, SendRequest},
    header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use prost::Message;
use thiserror::Error;
use tokio::{net::TcpStream, time::timeout};

use super::{endpoint::OtlpUrl, messages::ExportResponse};

/// A request, from the name of the host to the end of the reply, takes so long at most.
const WHOLE_TIME: Duration = Duration::from_secs(10);
/// Bytes of a reply that are read, at most.
const REPLY: usize = 64 << 10;
/// A collector may ask for a pause of so long at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
const MEDIA: &str = "application/x-protobuf";
const AGENT: &str = concat!("synprobe/", env!("CARGO_PKG_VERSION"));

/// What a collector says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CollectorReply {
    /// It has taken them, but for `rejected` items.
    Taken { rejected: u64, why: String },
    /// Not now: the request may be retried, after this time if one is named.
    Later {
        why: String,
        after: Option<Duration>,
    },
    /// Never.
    Refused(String),
}

/// Why there is no reply. The request may be retried.
#[derive(Debug, Error)]
pub(super) enum NoReply {
    #[error("{0}")]
    Connect(std::io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("the request: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("no reply within {} s", WHOLE_TIME.as_secs())]
    TimedOut,
}

/// A client of one collector.
pub(super) struct CollectorClient {
    target: Arc<OtlpUrl>,
    path: String,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl CollectorClient {
    /// Not connected yet.
    pub fn new(target: Arc<OtlpUrl>, path: String) -> Self {
        Self {
            target,
            path,
            connection: None,
        }
    }

    /// The URL to which it sends.
    pub fn url(&self) -> String {
        format!("http://{}{}", self.target.authority, self.path)
    }

    /// Sends one request.
    ///
    /// # Errors
    ///
    /// [`NoReply`].
    pub async fn post(&mut self, body: Bytes) -> Result<CollectorReply, NoReply> {
        let sent = timeout(WHOLE_TIME, self.post_once_or_twice(body)).await;
        let result = sent.unwrap_or(Err(NoReply::TimedOut));
        if result.is_err() {
            self.connection = None;
        }
        result
    }

    async fn post_once_or_twice(&mut self, body: Bytes) -> Result<CollectorReply, NoReply> {
        if let Some(mut kept) = self.connection.take() {
            // The collector may have closed it while nothing was sent: then a new one decides.
            if kept.ready().await.is_ok()
                && let Ok(reply) = self.ask(&mut kept, body.clone()).await
            {
                self.connection = Some(kept);
                return Ok(reply);
            }
        }
        let mut fresh = self.connect().await?;
        let reply = self.ask(&mut fresh, body).await?;
        self.connection = Some(fresh);
        Ok(reply)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, NoReply> {
        let address = (self.target.host.as_str(), self.target.port);
        let stream = TcpStream::connect(address)
            .await
            .map_err(NoReply::Connect)?;
        // A request is written at once.
        stream.set_nodelay(true).map_err(NoReply::Connect)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Its errors are those of the request.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }

    async fn ask(
        &self,
        connection: &mut SendRequest<Full<Bytes>>,
        body: Bytes,
    ) -> Result<CollectorReply, NoReply> {
        let request = Request::post(self.path.as_str())
            .header(HOST, self.target.authority.as_str())
            .header(CONTENT_TYPE, MEDIA)
            .header(USER_AGENT, AGENT)
            .body(Full::new(body))?;
        let reply = connection.send_request(request).await?;
        let (head, body) = reply.into_parts();
        let after = head.headers.get(RETRY_AFTER);
        let after = after.and_then(|value| pause(value.to_str().ok()?));
        // What cannot be read, or is too long, is not needed: the status has decided.
        let body = Limited::new(body, REPLY).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        Ok(reply_of(head.status, after, &body))
    }
}

/// By the rules of OTLP/HTTP: which requests may be retried.
fn reply_of(status: StatusCode, after: Option<Duration>, body: &[u8]) -> CollectorReply {
    let why = format!("HTTP {status}");
    match status.as_u16() {
        200..300 => {
            let partial = ExportResponse::decode(body).unwrap_or_default();
            let partial = partial.partial_success.unwrap_or_default();
            CollectorReply::Taken {
                rejected: u64::try_from(partial.rejected).unwrap_or(0),
                why: partial.error_message,
            }
        }
        429 | 502 | 503 | 504 => CollectorReply::Later { why, after },
        _ => CollectorReply::Refused(why),
    }
}

/// `Retry-After`: seconds, or a date (RFC 9110, 10.2.3).
fn pause(value: &str) -> Option<Duration> {
    let pause = match value.trim().parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until = jiff::fmt::rfc2822::parse(value.trim()).ok()?.timestamp();
            let left = until.duration_since(jiff::Timestamp::now());
            Duration::try_from(left).unwrap_or(Duration::ZERO)
        }
    };
    Some(pause.min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::{super::messages::PartialSuccess, *};

    #[test]
    fn what_may_be_sent_again() {
        let of =
            |status: u16, body: &[u8]| reply_of(StatusCode::from_u16(status).unwrap(), None, body);
        for status in [429, 502, 503, 504] {
            assert!(matches!(of(status, b""), CollectorReply::Later { .. }));
        }
        for status in [301, 400, 401, 404, 413, 500] {
            assert!(matches!(of(status, b""), CollectorReply::Refused(_)));
        }
        let partial = ExportResponse {
            partial_success: Some(PartialSuccess {
                rejected: 3,
                error_message: "too old".to_owned(),
            }),
        };
        let taken = |rejected, why: &str| CollectorReply::Taken {
            rejected,
            why: why.to_owned(),
        };
        assert_eq!(of(200, &partial.encode_to_vec()), taken(3, "too old"));
        assert_eq!(of(200, b"{}"), taken(0, ""));
        assert_eq!(of(202, b""), taken(0, ""));
    }

    #[test]
    fn pauses_that_a_collector_asks_for() {
        assert_eq!(pause("2"), Some(Duration::from_secs(2)));
        assert_eq!(pause("99999"), Some(LONGEST_PAUSE));
        assert_eq!(pause("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        let later = jiff::Timestamp::now() + Duration::from_secs(60);
        let later = later.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let left = pause(&later).unwrap();
        assert!((58..=60).contains(&left.as_secs()), "{later}: {left:?}");
        assert_eq!(pause("soon"), None);
    }
}
