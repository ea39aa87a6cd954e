//! The argument of `synprobe connect`: `HOST:PORT`.

use std::{net::IpAddr, str::FromStr};

use thiserror::Error;

/// What is wrong with the argument, in one line with the remedy.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TargetError {
    /// No port.
    #[error("\"{0}\" has no port: give HOST:PORT, such as {0}:443")]
    NoPort(String),
    /// An IPv6 address without brackets: the port cannot be separated.
    #[error("\"{0}\" is an IPv6 address: put it into brackets and add the port, such as [{0}]:443")]
    BareIpv6(String),
    /// Not a port.
    #[error("\"{0}\" is not a port: give a number from 1 to 65535")]
    Port(String),
    /// A service's name instead of a port.
    #[error(
        "\"{0}\" is the name of a service: give the port as a number (see: getent services {0})"
    )]
    Service(String),
    /// Nothing before the port.
    #[error("\"{0}\" has no host: give HOST:PORT, such as localhost{0}")]
    NoHost(String),
    /// A URL.
    #[error("\"{0}\" is a URL: give HOST:PORT only, such as db.internal:5432")]
    Url(String),
    /// Brackets around something else, or only one of them.
    #[error(
        "\"{0}\" is not an IPv6 address in brackets and a port: give one such as [2001:db8::1]:443"
    )]
    Brackets(String),
    /// A zone without an interface's name.
    #[error(
        "\"{0}\" has no interface after the %: give one such as [fe80::1%eth0]:22 (see: ip link)"
    )]
    EmptyZone(String),
    /// A link-local address, which means something on one link only.
    #[error("{0} is link-local: add the interface, such as [{0}%eth0]:{1} (see: ip link)")]
    NoZone(IpAddr, u16),
    /// A character that no name has.
    #[error("\"{0}\" is not a host name: it contains a space or a control character")]
    Name(String),
}

/// The host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetHost {
    /// To be resolved.
    Name(String),
    /// As it is; an IPv6 address may have a zone: an interface's name or number.
    Addr(IpAddr, Option<String>),
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The host.
    pub host: TargetHost,
    /// Port, host order.
    pub port: u16,
}

impl Target {
    /// The host as it was given, without brackets.
    pub fn host_text(&self) -> String {
        match &self.host {
            TargetHost::Name(name) => name.clone(),
            TargetHost::Addr(addr, Some(zone)) => format!("{addr}%{zone}"),
            TargetHost::Addr(addr, None) => addr.to_string(),
        }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let text = text.trim();
        let whole = || text.to_owned();
        if text.contains("://") {
            return Err(TargetError::Url(whole()));
        }
        if text.starts_with('[') {
            return bracketed(text);
        }
        if text.contains(']') {
            return Err(TargetError::Brackets(whole()));
        }
        if is_ipv6(text) || text.bytes().filter(|b| *b == b':').count() > 1 {
            return Err(match text.contains("::") || is_ipv6(text) {
                true => TargetError::BareIpv6(whole()),
                false => TargetError::Brackets(whole()),
            });
        }
        let Some((host, port)) = text.split_once(':') else {
            return Err(match text {
                "" => TargetError::NoHost(":443".to_owned()),
                _ => TargetError::NoPort(whole()),
            });
        };
        if host.is_empty() {
            return Err(TargetError::NoHost(whole()));
        }
        if port.is_empty() {
            return Err(TargetError::NoPort(host.to_owned()));
        }
        let port = parse_port(port)?;
        let host = match host.parse::<IpAddr>() {
            Ok(addr) => TargetHost::Addr(addr, None),
            Err(_) if host.chars().any(|c| c.is_whitespace() || c.is_control()) => {
                return Err(TargetError::Name(host.escape_default().to_string()));
            }
            Err(_) => TargetHost::Name(host.to_owned()),
        };
        Ok(Self { host, port })
    }
}

fn is_ipv6(text: &str) -> bool {
    let addr = text.split_once('%').map_or(text, |(addr, _)| addr);
    addr.parse::<std::net::Ipv6Addr>().is_ok()
}

fn bracketed(text: &str) -> Result<Target, TargetError> {
    let wrong = || TargetError::Brackets(text.to_owned());
    let (inside, port) = text[1..].split_once(']').ok_or_else(wrong)?;
    let (addr, zone) = match inside.split_once('%') {
        Some((addr, zone)) => (addr, Some(zone)),
        None => (inside, None),
    };
    let addr: std::net::Ipv6Addr = addr.parse().map_err(|_| wrong())?;
    if zone == Some("") {
        return Err(TargetError::EmptyZone(text.to_owned()));
    }
    let port = match port.strip_prefix(':') {
        Some("") | None if port.len() < 2 => {
            return Err(TargetError::NoPort(format!("[{inside}]")));
        }
        Some(port) => parse_port(port)?,
        None => return Err(wrong()),
    };
    if addr.is_unicast_link_local() && zone.is_none() {
        return Err(TargetError::NoZone(addr.into(), port));
    }
    Ok(Target {
        host: TargetHost::Addr(addr.into(), zone.map(str::to_owned)),
        port,
    })
}

fn parse_port(text: &str) -> Result<u16, TargetError> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 && !text.starts_with('+') => Ok(port),
        _ => {
            let named = text.starts_with(|c: char| c.is_ascii_alphabetic())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            Err(match named {
                true => TargetError::Service(text.to_owned()),
                false => TargetError::Port(text.to_owned()),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Result<Target, TargetError> {
        text.parse()
    }

    #[test]
    fn hosts_and_ports() {
        let addr = |addr: &str, zone: Option<&str>, port| {
            Ok(Target {
                host: TargetHost::Addr(addr.parse().unwrap(), zone.map(str::to_owned)),
                port,
            })
        };
        assert_eq!(
            target("db.internal:5432"),
            Ok(Target {
                host: TargetHost::Name("db.internal".to_owned()),
                port: 5432
            })
        );
        assert_eq!(target("1.2.3.4:80"), addr("1.2.3.4", None, 80));
        assert_eq!(
            target(" [2001:db8::1]:443 "),
            addr("2001:db8::1", None, 443)
        );
        assert_eq!(
            target("[fe80::1%eth0]:22"),
            addr("fe80::1", Some("eth0"), 22)
        );
        assert_eq!(target("[fe80::1%2]:22"), addr("fe80::1", Some("2"), 22));
        assert_eq!(target("[::ffff:1.2.3.4]:1").unwrap().port, 1);
        assert_eq!(
            target("[fe80::1%eth0]:22").unwrap().host_text(),
            "fe80::1%eth0"
        );
    }

    #[test]
    fn errors_have_a_remedy() {
        let says = |text: &str, words: &[&str]| {
            let line = target(text).unwrap_err().to_string();
            assert!(!line.contains('\n'), "{line}");
            for word in words {
                assert!(line.contains(word), "{text}: no {word} in {line}");
            }
        };
        says("db.internal", &["no port", "db.internal:443"]);
        says("db.internal:", &["no port", "db.internal:443"]);
        says("10.0.0.1", &["no port", "10.0.0.1:443"]);
        says("[::1]", &["no port", "[::1]:443"]);
        says("[::1]:", &["no port", "[::1]:443"]);
        says("2001:db8::1", &["brackets", "[2001:db8::1]:443"]);
        says("fe80::1%eth0", &["brackets", "[fe80::1%eth0]:443"]);
        says("2001:db8::1:443x", &["brackets"]);
        says("a:b:c", &["brackets"]);
        says("[2001:db8::1:443", &["brackets", "[2001:db8::1]:443"]);
        says("2001:db8::1]:443", &["brackets"]);
        says("[1.2.3.4]:80", &["brackets"]);
        says("[::1]443", &["brackets"]);
        says("[fe80::1]:22", &["link-local", "[fe80::1%eth0]:22"]);
        says("[fe80::1%]:22", &["no interface", "ip link"]);
        says("db.internal:0", &["\"0\"", "1 to 65535"]);
        says("db.internal:70000", &["\"70000\"", "1 to 65535"]);
        says("db.internal:-1", &["\"-1\"", "1 to 65535"]);
        says("db.internal:+80", &["\"+80\"", "1 to 65535"]);
        says("db.internal:http", &["service", "getent services http"]);
        says(":443", &["no host"]);
        says("", &["no host"]);
        says("http://db.internal:80/", &["URL", "HOST:PORT"]);
        says("two words:80", &["name"]);
    }
}
