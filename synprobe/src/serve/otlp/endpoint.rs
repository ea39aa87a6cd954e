//! Where a collector takes OTLP: the URL of `--otlp`.

use std::{fmt, str::FromStr};

use hyper::Uri;

/// Where the metrics go, below the base of the URL (OTLP/HTTP, "Endpoint URLs for OTLP/HTTP").
const METRICS: &str = "/v1/metrics";
/// Where the log records go.
const LOGS: &str = "/v1/logs";

/// The URL of a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpUrl {
    /// Name or address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// `host:port` as an HTTP request names it.
    pub(super) authority: String,
    base: String,
}

impl OtlpUrl {
    /// The path that takes metrics.
    pub(super) fn metrics_path(&self) -> String {
        format!("{}{METRICS}", self.base)
    }

    /// The path that takes log records.
    pub(super) fn logs_path(&self) -> String {
        format!("{}{LOGS}", self.base)
    }
}

impl FromStr for OtlpUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            |why: &str| format!("\"{text}\" {why}: give a URL such as http://127.0.0.1:4318");
        let uri: Uri = text.parse().map_err(|_| wrong("is not a URL"))?;
        match uri.scheme_str() {
            Some("http") => (),
            Some("https") => {
                return Err(format!(
                    "\"{text}\": synprobe does not encrypt: name a collector on this host, which sends on over TLS"
                ));
            }
            Some(_) => return Err(wrong("is not a URL of HTTP")),
            None => return Err(wrong("has no http:// in front")),
        }
        let authority = uri.authority().ok_or_else(|| wrong("names no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("has a user name, which is not supported"));
        }
        if uri.query().is_some() || text.contains('#') {
            return Err(wrong("has a query or a fragment, which is not supported"));
        }
        let host = authority.host();
        if host.is_empty() {
            return Err(wrong("names no host"));
        }
        let after_host = &authority.as_str()[host.len()..];
        let port = match (after_host, authority.port_u16()) {
            ("", _) => 80,
            (_, Some(port @ 1..)) => port,
            _ => return Err(wrong("has no port from 1 to 65535")),
        };
        let path = uri.path();
        let base = [METRICS, LOGS]
            .iter()
            .find_map(|end| path.trim_end_matches('/').strip_suffix(end))
            .unwrap_or(path);
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            authority: authority.as_str().to_owned(),
            base: base.trim_end_matches('/').to_owned(),
        })
    }
}

impl fmt::Display for OtlpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_appended_to_the_base() {
        for (text, host, port, metrics, logs) in [
            ("http://c", "c", 80, "/v1/metrics", "/v1/logs"),
            ("http://c:4318/", "c", 4318, "/v1/metrics", "/v1/logs"),
            (
                "http://[::1]:4318/a/b/",
                "::1",
                4318,
                "/a/b/v1/metrics",
                "/a/b/v1/logs",
            ),
            (
                "http://10.0.0.1:9/x/v1/metrics",
                "10.0.0.1",
                9,
                "/x/v1/metrics",
                "/x/v1/logs",
            ),
            ("http://c/v1/logs/", "c", 80, "/v1/metrics", "/v1/logs"),
        ] {
            let url: OtlpUrl = text.parse().unwrap();
            assert_eq!((url.host.as_str(), url.port), (host, port), "{text}");
            assert_eq!(url.metrics_path(), metrics, "{text}");
            assert_eq!(url.logs_path(), logs, "{text}");
        }
    }

    #[test]
    fn what_is_no_such_url_is_refused_in_one_line() {
        for (text, word) in [
            ("", "not a URL"),
            ("collector:4318", "http://"),
            ("http://", "not a URL"),
            ("http://:4318", "names no host"),
            ("http://c:0", "1 to 65535"),
            ("http://c:99999", "URL"),
            ("http://c:", "1 to 65535"),
            ("ftp://c", "URL of HTTP"),
            ("https://c:4318", "on this host"),
            ("http://u:p@c", "user name"),
            ("http://c/?x=1", "query"),
            ("http://c/#x", "query"),
            ("http://a b", "not a URL"),
        ] {
            let error = text.parse::<OtlpUrl>().unwrap_err();
            assert!(
                error.contains(word) && !error.contains('\n'),
                "{text}: {error}"
            );
        }
    }
}
