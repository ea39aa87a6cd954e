//! Commands for another network namespace.
//!
//! The text of a remedy is steps, separated by `; `. A step is a command, a sentence, or a sentence and a command
//! after `: `. A comment after ` # ` ends it. Commands run as they are printed, from the namespace of this host's
//! first process; those of a step that begins `on the peer` run there.

use std::net::IpAddr;

use crate::model::Connection;

/// What a command begins with that is to run in a namespace of this name, with a space at its end; empty for the
/// host's own. `None`: the name leads to no command.
fn in_netns(name: &str) -> Option<String> {
    let plain = |s: &str, more: &[u8]| {
        let ok = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b) || more.contains(&b);
        !s.is_empty() && s.bytes().all(ok)
    };
    if name == "host" {
        return Some(String::new());
    }
    if let Some(pid) = name.strip_prefix("pid ") {
        let pid = pid.split(' ').next().unwrap_or_default();
        let is_pid = !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit());
        return is_pid.then(|| format!("nsenter -t {pid} -n "));
    }
    if let Some(docker) = name.strip_prefix("docker ") {
        return plain(docker, b"").then(|| format!("nsenter --net=/run/docker/netns/{docker} "));
    }
    // `--netns PATH`
    if name.starts_with('/') {
        return plain(name, b"/").then(|| format!("nsenter --net={name} "));
    }
    (plain(name, b"") && !name.starts_with('-')).then(|| format!("ip netns exec {name} "))
}

/// As [`in_netns`]. Where no command leads into the namespace, words say that the command belongs there. A name
/// that is not known is left out.
pub fn enter(name: Option<&str>) -> String {
    let Some(name) = name else {
        return String::new();
    };
    in_netns(name).unwrap_or_else(|| {
        let inode = name
            .strip_prefix("netns:[")
            .and_then(|rest| rest.strip_suffix(']'));
        match inode.is_some_and(|inode| inode.bytes().all(|b| b.is_ascii_digit())) {
            true => format!("in {name}: "),
            false => "in its namespace: ".to_owned(),
        }
    })
}

/// What a command begins with that is to run where a connection is.
pub fn enter_of(c: &Connection) -> String {
    enter(c.netns_name.as_deref())
}

/// A command as it runs from the namespace of this host's first process. `name`: what people call the
/// namespace; a name that is not known is left out.
pub fn run_in(name: Option<&str>, command: &str) -> String {
    enter(name) + command
}

/// Shows who listens on a port.
pub fn who_listens(port: u16) -> String {
    format!("ss -ltnp 'sport = :{port}'")
}

/// The flags of TCP in a capture filter: `tcp[…]` is of IPv4 alone (pcap-filter(7)). After a fixed IPv6 header the
/// 14th byte of TCP has offset 53.
pub fn tcp_flags(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "tcp[tcpflags]",
        IpAddr::V6(_) => "ip6[53]",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_runs_where_it_is_meant_to() {
        for (name, prefix) in [
            (None, ""),
            (Some("host"), ""),
            (Some("blue"), "ip netns exec blue "),
            (Some("pid 77 (a b)"), "nsenter -t 77 -n "),
            (Some("docker 1a2b"), "nsenter --net=/run/docker/netns/1a2b "),
            (Some("/proc/7/ns/net"), "nsenter --net=/proc/7/ns/net "),
            (Some("netns:[4026531833]"), "in netns:[4026531833]: "),
        ] {
            assert_eq!(run_in(name, "ss -tn"), format!("{prefix}ss -tn"));
        }
    }

    #[test]
    fn a_name_that_a_shell_would_read_is_in_no_command() {
        for name in [
            "a; b",
            "-x",
            "pid 4;reboot",
            "docker a b",
            "/a b",
            "netns:[4;5]",
        ] {
            assert_eq!(in_netns(name), None, "{name}");
            assert_eq!(run_in(Some(name), "ss -tn"), "in its namespace: ss -tn");
        }
    }
}
