//! `synprobe connect` against the lab. Its output is compared with the server's view, the kernel's counters
//! and the number of lost SYNs.

use std::{
    ffi::CString,
    fs, io,
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, TcpListener},
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::PathBuf,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use synprobe_lab::{
    FaultInjector, INTERFACE, Lab, LossPattern, PORT, RouteTarget, SERVER_V4, SERVER_V6,
    SocketFamily, add_route, beyond_server, listen, syn,
};
use synprobe_tests::{
    binary::{self, command, ended, netns_path, signal},
    connect_hook::ConnectHook,
    harness::{self, Case, Undecided},
    schema,
};

const CONNECTED: i32 = 0;
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const NOT_CONNECTED: i32 = 4;

fn main() -> ExitCode {
    let mut cases = Vec::new();
    for family in [SocketFamily::V4, SocketFamily::V6] {
        cases.push(Case::for_family("connected", family, connected));
        cases.push(Case::for_family("refused", family, refused));
        cases.push(Case::for_family("silent", family, silent));
        cases.push(Case::for_family("unreachable", family, unreachable));
    }
    cases.push(Case::for_family(
        "next-at-once",
        SocketFamily::V6,
        next_at_once,
    ));
    cases.push(Case::for_family(
        "next-meanwhile",
        SocketFamily::V6,
        next_meanwhile,
    ));
    cases.push(Case::new("issue15-connect-hook", connect_hook));
    cases.push(Case::new("interrupted", interrupted));
    cases.push(Case::new("bad-input", bad_input));
    let code = harness::main(cases);
    binary::remove();
    code
}

/// The binary, to connect from the lab's client namespace.
fn connect(lab: &Lab, target: &str, arguments: &[&str]) -> Result<Command> {
    let netns = netns_path(&lab.client);
    let mut command = command(&[&["connect", target, "--netns", &netns], arguments].concat())?;
    // No sentence is broken.
    command.env("COLUMNS", "1000");
    Ok(command)
}

/// What a run said: its `connect` line, and its handshakes.
struct ConnectOutput {
    connect: Value,
    handshakes: Vec<Value>,
}

impl ConnectOutput {
    fn attempt(&self, order: usize) -> &Value {
        &self.connect["attempts"][order - 1]
    }

    /// The `handshake` line of an attempt.
    fn handshake(&self, order: usize) -> Result<&Value> {
        let id = &self.attempt(order)["id"];
        let of = self.handshakes.iter().find(|h| h["id"] == *id);
        of.with_context(|| format!("no handshake {id}: {}", self.connect))
    }
}

fn json(mut command: Command, code: i32) -> Result<ConnectOutput> {
    let ran = ended(command.args(["--format", "json"]).spawn()?)?;
    let lines = schema::check(ran.out.lines())?;
    let kinds: Vec<_> = lines.iter().filter_map(|l| l["type"].as_str()).collect();
    ensure!(
        kinds.first() == Some(&"start") && kinds.ends_with(&["connect", "end"]),
        "{kinds:?}; {ran:?}"
    );
    if let Some(lost) = lines.iter().find(|l| l["type"] == "lost") {
        return Err(Undecided(lost.to_string()).into());
    }
    ensure!(ran.code == Some(code), "{ran:?}");
    if code == CONNECTED {
        ensure!(ran.err.is_empty(), "{ran:?}");
    } else {
        ensure!(ran.one_line()?.contains("not connected"), "{ran:?}");
    }
    let of_type = |name| lines.iter().filter(move |l| l["type"] == name).cloned();
    let connect = of_type("connect").next().context("a connect line")?;
    ensure!(connect["connected"] == (code == CONNECTED), "{connect}");
    Ok(ConnectOutput {
        handshakes: of_type("handshake").collect(),
        connect,
    })
}

fn accepted(listener: &TcpListener) -> Result<SocketAddr> {
    listener.set_nonblocking(false)?;
    Ok(listener.accept()?.1)
}

fn text_of(addr: SocketAddr) -> (String, u64) {
    (addr.ip().to_canonical().to_string(), addr.port().into())
}

fn micros(value: &Value) -> Result<Duration> {
    let us = value.as_u64().with_context(|| format!("{value} µs"))?;
    Ok(Duration::from_micros(us))
}

fn connected(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let listener = lab.listen(PORT, 16)?;
    let target = lab.server_addr(PORT).to_string();
    let said = json(connect(&lab, &target, &[])?, CONNECTED)?;
    let attempt = said.attempt(1);
    ensure!(attempt["outcome"] == "established", "{attempt}");
    ensure!(
        attempt["chosen"] == true && attempt["syns"] == 1,
        "{attempt}"
    );
    // Where it came from is the server's word.
    let (addr, port) = text_of(accepted(&listener)?);
    ensure!(attempt["local_addr"] == addr, "{addr}: {attempt}");
    ensure!(attempt["local_port"] == port, "{port}: {attempt}");
    ensure!(
        attempt["interface"] == INTERFACE && attempt["gateway"].is_null(),
        "{attempt}"
    );
    let handshake = said.handshake(1)?;
    ensure!(handshake["local_port"] == port, "{port}: {handshake}");
    ensure!(handshake["dwell_us"] == attempt["dwell_us"], "{handshake}");
    let all = micros(&said.connect["connected_us"])?;
    ensure!(all >= micros(&attempt["dwell_us"])?, "{}", said.connect);
    // The page says the same.
    let ran = ended(connect(&lab, &target, &[])?.spawn()?)?;
    let (_, port) = text_of(accepted(&listener)?);
    ensure!(ran.code == Some(CONNECTED), "{ran:?}");
    for words in ["CONNECTED after", "1 SYN", &format!(":{port}")] {
        ensure!(ran.out.contains(words), "no {words}: {ran:?}");
    }
    Ok(())
}

fn refused(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let before = lab.counters()?;
    let target = lab.server_addr(PORT).to_string();
    let said = json(connect(&lab, &target, &[])?, NOT_CONNECTED)?;
    let moved = lab.counters()?.since(&before);
    ensure!(moved.client.get("AttemptFails") == 1, "{moved:?}");
    ensure!(moved.server.get("OutRsts") == 1, "{moved:?}");
    let attempt = said.attempt(1);
    ensure!(attempt["outcome"] == "refused", "{attempt}");
    ensure!(attempt["error"] == "ECONNREFUSED", "{attempt}");
    ensure!(
        attempt["syns"] == 1 && attempt["chosen"] == false,
        "{attempt}"
    );
    ensure!(said.handshake(1)?["outcome"] == "refused");
    Ok(())
}

fn silent(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let _listener = lab.listen(PORT, 16)?;
    let mut fault = FaultInjector::attach(&lab.server)?;
    fault.set(0, syn(), LossPattern::All, PORT)?;
    let target = lab.server_addr(PORT).to_string();
    let said = json(
        connect(&lab, &target, &["--timeout", "2500ms"])?,
        NOT_CONNECTED,
    )?;
    let attempt = said.attempt(1);
    ensure!(attempt["outcome"] == "abandoned", "{attempt}");
    // Each SYN was counted where it was lost.
    let lost = fault.count(0)?.dropped;
    ensure!(lost >= 2 && attempt["syns"] == lost, "{lost}: {attempt}");
    let dwell = micros(&attempt["dwell_us"])?;
    ensure!(
        (Duration::from_millis(2500)..Duration::from_millis(3500)).contains(&dwell),
        "{attempt}"
    );
    let ran = ended(connect(&lab, &target, &["--timeout", "1500ms"])?.spawn()?)?;
    ensure!(ran.code == Some(NOT_CONNECTED), "{ran:?}");
    let words =
        "NO ANSWER within 1.50 s (synprobe's --timeout; the kernel would have retried for another ";
    ensure!(ran.out.contains(words), "no {words}: {ran:?}");
    Ok(())
}

/// ICMP destination-unreachable messages that the server has sent.
fn unreachables(lab: &Lab) -> Result<u64> {
    let v6 = lab.family.wire_is_v6();
    let text = lab
        .server
        .read_proc(if v6 { "net/snmp6" } else { "net/snmp" })?;
    let value = if v6 {
        let line = text.lines().find(|l| l.starts_with("Icmp6OutDestUnreachs"));
        line.and_then(|l| l.split_whitespace().nth(1))
    } else {
        let mut icmp = text.lines().filter(|l| l.starts_with("Icmp:"));
        let (names, values) = (icmp.next().unwrap_or(""), icmp.next().unwrap_or(""));
        let column = names
            .split_whitespace()
            .position(|n| n == "OutDestUnreachs");
        column.and_then(|at| values.split_whitespace().nth(at))
    };
    Ok(value.context("OutDestUnreachs")?.parse()?)
}

fn unreachable(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let v6 = family.wire_is_v6();
    if v6 {
        lab.server.set_sysctl("ipv6/conf/all/forwarding", "1")?;
        lab.server.set_sysctl("ipv6/icmp/ratelimit", "0")?;
    }
    lab.server.set_sysctl("ipv4/ip_forward", "1")?;
    lab.server.set_sysctl("ipv4/icmp_ratemask", "0")?;
    let beyond = beyond_server(v6, 0);
    let len = if v6 { 128 } else { 32 };
    add_route(
        &lab.client,
        (beyond, len),
        RouteTarget::Via(lab.server_ip()),
    )?;
    add_route(
        &lab.server,
        (beyond, len),
        RouteTarget::Nowhere(libc::RTN_PROHIBIT),
    )?;
    let before = unreachables(&lab)?;
    let target = SocketAddr::new(beyond, PORT).to_string();
    let said = json(connect(&lab, &target, &[])?, NOT_CONNECTED)?;
    let attempt = said.attempt(1);
    ensure!(attempt["outcome"] == "unreachable", "{attempt}");
    ensure!(
        attempt["icmp"] == "administratively prohibited",
        "{attempt}"
    );
    ensure!(
        attempt["icmp_from"] == lab.server_ip().to_string(),
        "{attempt}"
    );
    ensure!(
        attempt["gateway"] == lab.server_ip().to_string(),
        "{attempt}"
    );
    // The router answered each SYN.
    let answers = unreachables(&lab)? - before;
    ensure!(attempt["syns"] == answers, "{answers}: {attempt}");
    Ok(())
}

/// A hosts file of the test's own, in place of the system's for one child.
struct Hosts(PathBuf);

impl Hosts {
    fn new(name: &str, addresses: &[IpAddr]) -> Result<Self> {
        let file = format!("synprobe-hosts-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(file);
        let lines = addresses.iter().map(|addr| format!("{addr} {name}\n"));
        fs::write(&path, lines.collect::<String>())?;
        Ok(Self(path))
    }

    fn over(&self, mut command: Command) -> Result<Command> {
        let ours = CString::new(self.0.as_os_str().as_encoded_bytes())?;
        let mount = move |from: *const libc::c_char, to: &'static std::ffi::CStr, flags| {
            // SAFETY: both paths are NUL-terminated and live; the other arguments may be null.
            match unsafe {
                libc::mount(from, to.as_ptr(), std::ptr::null(), flags, std::ptr::null())
            } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        };
        let hide = move || {
            // SAFETY: takes no pointer; the child alone changes its mounts.
            if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
                return Err(io::Error::last_os_error());
            }
            mount(std::ptr::null(), c"/", libc::MS_REC | libc::MS_PRIVATE)?;
            mount(ours.as_ptr(), c"/etc/hosts", libc::MS_BIND)
        };
        // SAFETY: between fork and exec it only makes system calls on memory that exists already.
        unsafe { command.pre_exec(hide) };
        Ok(command)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Connects to a name with two addresses, one of each family.
fn by_name(name: &str, lab: &Lab, addresses: [IpAddr; 2], code: i32) -> Result<ConnectOutput> {
    let hosts = Hosts::new(name, &addresses)?;
    let arguments = ["--timeout", "1500ms"];
    let command = connect(lab, &format!("{name}:{PORT}"), &arguments)?;
    let said = json(hosts.over(command)?, code)?;
    ensure!(said.connect["host"] == name, "{}", said.connect);
    ensure!(said.connect["resolve_us"].is_u64(), "{}", said.connect);
    Ok(said)
}

/// Which of the two families the C library puts first is its own affair (RFC 6724 and its tables):
/// asked for with a name of which both addresses refuse. Gives the lab's server by that address and by
/// the other.
fn first_and_other(lab: &Lab, name: &str) -> Result<[IpAddr; 2]> {
    let servers: [IpAddr; 2] = [SERVER_V6.into(), SERVER_V4.into()];
    let said = by_name(name, lab, servers, NOT_CONNECTED)?;
    ensure!(
        said.attempt(2)["outcome"] == "refused",
        "both: {}",
        said.connect
    );
    let first = &said.attempt(1)["address"];
    Ok(match *first == servers[0].to_string() {
        true => servers,
        false => [servers[1], servers[0]],
    })
}

fn listen_as(lab: &Lab, addr: IpAddr) -> Result<TcpListener> {
    let any: IpAddr = match addr.is_ipv6() {
        true => Ipv6Addr::UNSPECIFIED.into(),
        false => Ipv4Addr::UNSPECIFIED.into(),
    };
    listen(&lab.server, any, PORT, 16, false)
}

fn second_is_chosen(said: &ConnectOutput, addresses: [IpAddr; 2]) -> Result<()> {
    for (order, addr) in (1..).zip(addresses) {
        let attempt = said.attempt(order);
        ensure!(attempt["address"] == addr.to_string(), "{}", said.connect);
        ensure!(attempt["chosen"] == (order == 2), "{}", said.connect);
    }
    Ok(())
}

/// The first address refuses: the second is tried at once.
fn next_at_once(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let addresses = first_and_other(&lab, "both-refuse.test")?;
    let listener = listen_as(&lab, addresses[1])?;
    let said = by_name("one-refuses.test", &lab, addresses, CONNECTED)?;
    second_is_chosen(&said, addresses)?;
    ensure!(said.attempt(1)["outcome"] == "refused", "{}", said.connect);
    ensure!(micros(&said.attempt(2)["started_us"])? < Duration::from_millis(200));
    ensure!(text_of(accepted(&listener)?).1 == said.attempt(2)["local_port"]);
    Ok(())
}

/// The first address is silent: the second is tried after 250 ms, and the first goes on to its end.
fn next_meanwhile(family: SocketFamily) -> Result<()> {
    let lab = Lab::new(family)?;
    let [first, other] = first_and_other(&lab, "neither.test")?;
    let listener = listen_as(&lab, other)?;
    // On the link, and nobody's.
    let nobody: IpAddr = match first.is_ipv6() {
        true => "fd00:5950::99".parse()?,
        false => "198.18.0.99".parse()?,
    };
    let said = by_name("one-is-silent.test", &lab, [nobody, other], CONNECTED)?;
    second_is_chosen(&said, [nobody, other])?;
    let (first, second) = (said.attempt(1), said.attempt(2));
    ensure!(first["outcome"] == "abandoned", "{first}");
    ensure!(
        micros(&first["dwell_us"])? >= Duration::from_millis(1500),
        "{first}"
    );
    let started = micros(&second["started_us"])?;
    ensure!(started >= Duration::from_millis(250), "{second}");
    if started > Duration::from_millis(750) {
        return Err(Undecided(format!("the host was busy: {started:?}")).into());
    }
    ensure!(micros(&said.connect["connected_us"])? >= started);
    ensure!(text_of(accepted(&listener)?).1 == second["local_port"]);
    Ok(())
}

fn interrupted() -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    let mut fault = FaultInjector::attach(&lab.server)?;
    fault.set(0, syn(), LossPattern::All, PORT)?;
    let target = lab.server_addr(PORT).to_string();
    let mut child = connect(&lab, &target, &["--format", "json", "--timeout", "50s"])?.spawn()?;
    let began = Instant::now();
    let mut out = BufReader::new(child.stdout.take().context("standard output")?).lines();
    let mut lines = Vec::new();
    for line in out.by_ref() {
        lines.push(line?);
        if lines.last().is_some_and(|line| line.contains("SYN_SENT")) {
            break;
        }
    }
    signal(&child, libc::SIGINT)?;
    for line in out {
        lines.push(line?);
    }
    let ran = ended(child)?;
    ensure!(ran.code == Some(NOT_CONNECTED), "{ran:?}");
    ensure!(began.elapsed() < Duration::from_secs(30), "it went on");
    let lines = schema::check(lines.iter().map(String::as_str))?;
    let connect = lines.iter().find(|l| l["type"] == "connect");
    let connect = connect.context("a connect line")?;
    ensure!(
        connect["attempts"][0]["outcome"] == "abandoned",
        "{connect}"
    );
    Ok(())
}

/// A BPF program of the cgroup sends connections to a service address to the server.
fn connect_hook() -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    let listener = lab.listen(PORT, 16)?;
    let service: SocketAddrV4 = "198.18.0.77:80".parse()?;
    let SocketAddr::V4(server) = lab.server_addr(PORT) else {
        bail!("an IPv4 lab");
    };
    let hook = ConnectHook::new(service, server)?;
    let target = service.to_string();
    let inside = |target: &str| -> Result<Command> {
        let mut command = connect(&lab, target, &[])?;
        let procs = hook.procs.as_raw_fd();
        // SAFETY: write() is async-signal-safe, and the descriptor stays open in this process.
        unsafe {
            command.pre_exec(move || match libc::write(procs, c"0".as_ptr().cast(), 1) {
                1 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        Ok(command)
    };
    let said = json(inside(&target)?, CONNECTED)?;
    accepted(&listener)?;
    let redirect = &said.attempt(1)["redirect"];
    ensure!(
        redirect["by"] == "cgroup"
            && redirect["addr"] == server.ip().to_string()
            && redirect["port"] == server.port(),
        "{redirect}"
    );
    let page = ended(inside(&target)?.spawn()?)?;
    accepted(&listener)?;
    let real = format!("CONNECTED to {server}, not to the address itself");
    for words in [&*real, "BPF program of this process's cgroup"] {
        ensure!(page.out.contains(words), "no {words}: {page:?}");
    }
    // Outside the cgroup nobody has that address.
    let said = json(
        connect(&lab, &target, &["--timeout", "300ms"])?,
        NOT_CONNECTED,
    )?;
    ensure!(said.attempt(1)["redirect"].is_null(), "{}", said.connect);
    // The program leaves other destinations alone.
    let said = json(inside(&server.to_string())?, CONNECTED)?;
    ensure!(said.attempt(1)["redirect"].is_null(), "{}", said.connect);
    ensure!(said.attempt(1)["syns"] == 1, "{}", said.connect);
    Ok(())
}

fn bad_input() -> Result<()> {
    let wrong: [(&str, &[&str], i32, &[&str]); 8] = [
        ("db.internal", &[], USAGE, &["no port", "db.internal:443"]),
        ("db.internal:http", &[], USAGE, &["number"]),
        ("db.internal:0", &[], USAGE, &["1 to 65535"]),
        (
            "2001:db8::1",
            &[],
            USAGE,
            &["brackets", "[2001:db8::1]:443"],
        ),
        ("[fe80::1]:22", &[], USAGE, &["link-local", "%eth0"]),
        ("[fe80::1%nosuch0]:22", &[], USAGE, &["nosuch0", "lab0"]),
        ("198.18.0.2:80", &["-6"], USAGE, &["not an IPv6 address"]),
        (
            "db.invalid:80",
            &[],
            FAILED,
            &["db.invalid does not resolve", "getent"],
        ),
    ];
    let lab = Lab::new(SocketFamily::V4)?;
    for (target, arguments, code, words) in wrong {
        let ran = ended(connect(&lab, target, arguments)?.spawn()?)?;
        ensure!(ran.code == Some(code), "{target}: {ran:?}");
        ensure!(ran.out.is_empty(), "{target}: {ran:?}");
        let Some(line) = ran.err.lines().next() else {
            bail!("{target}: {ran:?}");
        };
        for word in words {
            ensure!(line.contains(word), "{target}: no {word} in {line}");
        }
    }
    let ran = ended(command(&["connect", "1.2.3.4:80", "--netns", "no-such"])?.spawn()?)?;
    ensure!(
        ran.code == Some(USAGE) && ran.one_line()?.contains("no-such"),
        "{ran:?}"
    );
    Ok(())
}
