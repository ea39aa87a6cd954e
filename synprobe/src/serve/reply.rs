//! Request → reply. Nothing of a request is in a reply.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Bytes,
    header::{
        ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, VARY,
        X_CONTENT_TYPE_OPTIONS,
    },
};
use tokio::sync::mpsc;

use super::{
    LivePage, OtlpOutput, RunStatus, StatusRequest, metrics::Metrics, negotiate::TextFormat,
    sockets::SocketCounts, source::StatusSource,
};
use crate::{
    sys::netns::NetNs,
    view::{self, WithLife, rfc3339},
};

/// What replies, and exports to a collector, are made of.
pub struct Replier {
    pub(super) source: StatusSource,
    pub(super) metrics: Metrics,
    pub(super) sockets: SocketCounts,
    page: LivePage,
    rendered: Rendered,
}

/// What can be asked for again before there is a newer status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rendering {
    Metrics(TextFormat),
    Problems,
}

/// The bodies that were made of a status. Whoever asks again and again costs no more than the connection.
#[derive(Default)]
struct Rendered(Mutex<Option<RenderedStatus>>);

struct RenderedStatus {
    status: Arc<RunStatus>,
    bodies: Vec<(Rendering, Bytes)>,
}

impl Rendered {
    /// The body of a status, made once.
    fn body<E>(
        &self,
        status: &Arc<RunStatus>,
        what: Rendering,
        make: impl FnOnce() -> Result<String, E>,
    ) -> Result<Bytes, E> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let made = match &mut *last {
            Some(made) if Arc::ptr_eq(&made.status, status) => made,
            last => last.insert(RenderedStatus {
                status: Arc::clone(status),
                bodies: Vec::new(),
            }),
        };
        if let Some((_, body)) = made.bodies.iter().find(|(known, _)| *known == what) {
            return Ok(body.clone());
        }
        let body = Bytes::from(make()?);
        made.bodies.push((what, body.clone()));
        Ok(body)
    }
}

impl Replier {
    /// Asks the run by `requests`. `only`: the namespace whose sockets are counted; `None`: all.
    pub fn new(
        requests: mpsc::Sender<StatusRequest>,
        only: Option<NetNs>,
        otlp: Option<&OtlpOutput>,
        page: LivePage,
    ) -> Arc<Self> {
        Arc::new(Self {
            source: StatusSource::new(requests),
            metrics: Metrics::new(otlp.map(OtlpOutput::losses)),
            sockets: SocketCounts::new(only),
            page,
            rendered: Rendered::default(),
        })
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
/// The page loads nothing, and runs nothing.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; frame-ancestors 'none'";

pub(super) async fn reply<B>(
    replier: &Replier,
    request: &Request<B>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = of(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(response);
    }
    let path = request.uri().path();
    if !matches!(path, "/" | "/metrics" | "/problems" | "/healthz") {
        let text = "not found: /, /metrics, /problems and /healthz are here\n";
        return Ok(of(StatusCode::NOT_FOUND, TEXT, text));
    }
    if path == "/" {
        let is_still = request.uri().query() == Some("still");
        let html = replier.page.html(&replier.source, is_still).await;
        return Ok(html.map_or_else(unavailable, |html| of(StatusCode::OK, HTML, html)));
    }
    let Some(status) = replier.source.status().await else {
        return Ok(unavailable());
    };
    replier.page.observe(&status);
    Ok(match path {
        "/metrics" => metrics(replier, request, &status).await,
        "/problems" => problems(replier, &status),
        _ => of(StatusCode::OK, TEXT, "ok\n"),
    })
}

fn unavailable() -> Response<Full<Bytes>> {
    let text = "the run does not answer: it hangs, or it is over\n";
    of(StatusCode::SERVICE_UNAVAILABLE, TEXT, text)
}

async fn metrics<B>(
    replier: &Replier,
    request: &Request<B>,
    status: &Arc<RunStatus>,
) -> Response<Full<Bytes>> {
    let accepts: Vec<&str> = request
        .headers()
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    let format = TextFormat::preferred(&accepts.join(","));
    let sockets = replier.sockets.read().await;
    let text = || Ok::<_, Infallible>(replier.metrics.text(status, sockets.as_deref(), format));
    let Ok(body) = replier
        .rendered
        .body(status, Rendering::Metrics(format), text);
    let mut response = of(StatusCode::OK, format.content_type(), body);
    response
        .headers_mut()
        .insert(VARY, HeaderValue::from_static("Accept"));
    response
}

/// The problems that are open, as their lines have them.
fn problems(replier: &Replier, status: &Arc<RunStatus>) -> Response<Full<Bytes>> {
    #[derive(serde::Serialize)]
    struct OpenProblems<'a> {
        v: u32,
        time: String,
        problems: Vec<WithLife<'a>>,
    }
    let json = || {
        let open = OpenProblems {
            v: 1,
            time: rfc3339(status.clock, status.at_ns),
            problems: status
                .snapshot
                .problems
                .iter()
                .map(|p| WithLife::new(p, status.clock))
                .collect(),
        };
        view::to_json(&open).map(|json| json + "\n")
    };
    match replier.rendered.body(status, Rendering::Problems, json) {
        Ok(body) => of(StatusCode::OK, JSON, body),
        Err(error) => {
            log::error!("/problems: {error}");
            of(
                StatusCode::INTERNAL_SERVER_ERROR,
                TEXT,
                "an error: see the log\n",
            )
        }
    }
}

fn of(code: StatusCode, media: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::fixtures::status;

    #[test]
    fn issue20_a_status_is_rendered_once_for_all_who_ask() {
        let rendered = Rendered::default();
        let mut made = 0;
        let mut body = |status: &Arc<RunStatus>, what| {
            let Ok(body) = rendered.body(status, what, || {
                made += 1;
                Ok::<_, Infallible>(made.to_string())
            });
            body
        };
        let (first, second) = (Arc::new(status()), Arc::new(status()));
        let metrics = Rendering::Metrics(TextFormat::OpenMetrics);
        for _ in 0..9 {
            assert_eq!(body(&first, metrics), "1");
            assert_eq!(body(&first, Rendering::Problems), "2");
        }
        assert_eq!(body(&second, metrics), "3", "a newer one is shown");
        assert_eq!(body(&first, metrics), "4");
    }
}
