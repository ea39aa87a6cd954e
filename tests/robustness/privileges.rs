//! The privileges that a run needs to start and those that it keeps, and that each of them is necessary.

use std::{
    collections::BTreeSet,
    ffi::CStr,
    fs, io,
    net::SocketAddr,
    os::unix::process::CommandExt,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use synprobe::{
    filter::{Detail, Selection},
    probe::{LoadOptions, Probes, hooks::DROPS, kallsyms::Kallsyms},
    sys::{
        privileges as cap,
        privileges::{StillNeeded, bits},
    },
};
use synprobe_lab::{Lab, Ns, PORT, RawSender, SocketFamily};
use synprobe_tests::{
    agent::{Agent, until},
    binary::{command, ended, netns_path},
    harness::{self, Case, Undecided},
    netns_process::NetnsProcess,
    pipeline_run::load_options,
};

const NOBODY: u32 = 65_534;
/// Nothing else on the host uses it.
const QUIET_PORT: u16 = 7411;
/// docs/privileges.md, with the names that it has there.
const LEAST: [(&str, u32); 7] = [
    ("CAP_BPF", cap::BPF),
    ("CAP_PERFMON", cap::PERFMON),
    ("CAP_SYS_ADMIN", cap::SYS_ADMIN),
    ("CAP_SYS_PTRACE", cap::SYS_PTRACE),
    ("CAP_DAC_READ_SEARCH", cap::DAC_READ_SEARCH),
    ("CAP_NET_RAW", cap::NET_RAW),
    ("CAP_SYSLOG", cap::SYSLOG),
];

/// The sets and the flag of every thread that a process has now.
fn threads(pid: u32) -> Result<Vec<[u64; 6]>> {
    let mut all = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may be over by now.
        let Ok(status) = fs::read_to_string(thread?.path().join("status")) else {
            continue;
        };
        let mut sets = [0; 6];
        let wanted = [
            "CapInh:",
            "CapPrm:",
            "CapEff:",
            "CapAmb:",
            "NoNewPrivs:",
            "Seccomp:",
        ];
        for (set, name) in sets.iter_mut().zip(wanted) {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let Some(line) = line else { continue };
            *set = u64::from_str_radix(line.trim(), 16)?;
        }
        all.push(sets);
    }
    Ok(all)
}

/// Nice values of every thread that a process has now: field 19 of stat (proc_pid_stat(5)).
fn nice_values(pid: u32) -> Result<BTreeSet<i64>> {
    let mut all = BTreeSet::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let Ok(stat) = fs::read_to_string(thread?.path().join("stat")) else {
            continue;
        };
        // The name is in parentheses, and may hold anything.
        let (_, fields) = stat.rsplit_once(") ").context("no name in stat")?;
        let nice = fields.split(' ').nth(16).context("no nice value")?;
        all.insert(nice.parse()?);
    }
    Ok(all)
}

/// The agent raises its priority only where every transition is reported, and never against an explicit
/// setting.
pub fn urgent() -> Result<()> {
    // SAFETY: takes two numbers.
    let own = i64::from(unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) });
    ensure!(
        own == 0,
        "these tests have a nice value of {own} themselves"
    );
    let port = QUIET_PORT.to_string();
    for (arguments, wish, wanted) in [(&[][..], 0, -4), (&["--quiet"][..], 0, 0), (&[][..], 3, 3)] {
        let mut command =
            command(&[&["watch", "--format", "json", "--port", &port], arguments].concat())?;
        // SAFETY: setpriority is async-signal-safe.
        unsafe {
            command.pre_exec(
                move || match libc::setpriority(libc::PRIO_PROCESS, 0, wish) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                },
            );
        }
        let agent = Agent::of(command)?;
        let nice = nice_values(agent.pid()?)?;
        ensure!(
            nice == BTreeSet::from([wanted]),
            "{arguments:?} with a nice value of {wish}: {nice:?}, not {wanted}"
        );
    }
    Ok(())
}

/// From the first line on no thread holds more, those that are begun later included.
pub fn in_every_thread() -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    let mine = cap::held()?;
    for (own, netns) in [
        (true, "/proc/self/ns/net"),
        (false, &netns_path(&lab.server)),
    ] {
        let agent = Agent::watch(&["--netns", netns, "--port", "1"])?;
        let kept = cap::to_keep(mine, !own);
        ensure!(kept != mine && kept.count_ones() == 4 + u32::from(!own));
        ensure!(kept & bits(&[cap::NET_ADMIN]) == 0);
        // The last: a filter is at work.
        let due = [0, kept, kept, 0, 1, 2];
        // One thread reads rules and nothing else.
        let reads = cap::to_keep_for_rules(mine, !own);
        ensure!(reads.count_ones() == 2 + u32::from(!own));
        let due_for_rules = [0, reads, reads, 0, 1, 2];
        let mut most = 0;
        let began = Instant::now();
        // Two surveys: each has threads of its own.
        while most < 2 || began.elapsed() < Duration::from_millis(2500) {
            let threads = threads(agent.pid()?)?;
            most = most.max(threads.len());
            let of_rules = |sets: &&[u64; 6]| **sets == due_for_rules;
            // A reading has a thread in the namespace.
            ensure!(
                threads.iter().all(|sets| *sets == due || of_rules(&sets))
                    && (1..=2).contains(&threads.iter().filter(of_rules).count()),
                "{due:x?} is due in every thread but one: {threads:x?}"
            );
            ensure!(began.elapsed() < Duration::from_secs(30), "one thread only");
            std::thread::yield_now();
        }
        let ended = agent.end()?;
        ensure!(ended.err.is_empty(), "{}", ended.err);
    }
    Ok(())
}

/// The optional probe that steps aside comes back after what was given up.
pub fn attached_again() -> Result<()> {
    let lab = Lab::new(SocketFamily::V4)?;
    let sender = RawSender::open(&lab.client, false)?;
    let server = SocketAddr::new(lab.server_ip(), PORT);
    let stray = SocketAddr::new(lab.client_ip(), 40_000);
    let with_less = || -> Result<()> {
        let host = harness::host()?;
        let filter = Selection::default().to_kernel(Detail::default(), host.ephemeral_ports);
        let (mut probes, _ring) = Probes::load(&LoadOptions {
            ring_bytes: 4096,
            ..load_options(host, &filter)
        })?;
        ensure!(probes.attached().any(|hook| hook == DROPS), "no {DROPS}");
        let now = Instant::now();
        cap::give_up(StillNeeded::default())?;
        let second = Duration::from_secs(1);
        let said = probes.relieve(u64::MAX / 4, now + second);
        ensure!(said.is_some_and(|said| said.contains("not watched")));
        let runs = probes.stats()?.drop_runs;
        // A RST for nobody is thrown away.
        for _ in 0..100 {
            sender.rst(stray, server, 1)?;
        }
        ensure!(probes.stats()?.drop_runs == runs, "it is still attached");
        let said = probes.relieve(runs, now + 20 * second);
        ensure!(said.is_none(), "it does not return: {said:?}");
        until("a dropped packet is seen again", || {
            sender.rst(stray, server, 1)?;
            Ok(probes.stats()?.drop_runs > runs)
        })
    };
    // Privileges are the thread's.
    std::thread::scope(|scope| scope.spawn(with_less).join()).map_err(|_| anyhow!("it panicked"))?
}

/// Who opens the list of symbols decides whether it tells addresses, and not who reads it.
pub fn symbols() -> Result<()> {
    let text = fs::read_to_string("/proc/kallsyms")?;
    let line = text.lines().find(|line| line.ends_with(" tcp_v4_rcv"));
    let address = line.and_then(|line| line.split(' ').next());
    let address = u64::from_str_radix(address.context("tcp_v4_rcv")?, 16)?;
    let early = Kallsyms::open();
    let named = std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            cap::give_up(StillNeeded::default())?;
            let late = Kallsyms::open().name(address);
            anyhow::Ok((early.name(address), late))
        });
        thread.join()
    });
    let (early, late) = named.map_err(|_| anyhow!("it panicked"))??;
    ensure!(early.as_deref() == Some("tcp_v4_rcv"), "{early:?}");
    // Where kernel.perf_event_paranoid is low, no privilege is needed.
    let paranoid = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid")?;
    if paranoid.trim().parse::<i32>()? > 1 {
        ensure!(late.is_none(), "CAP_SYSLOG makes no difference: {late:?}");
    }
    Ok(())
}

/// Makes a command run as nobody, with these capabilities and no others.
fn with_only(command: &mut Command, set: u64) {
    #[repr(C)]
    struct CapUserHeader(u32, libc::c_int);
    let become_nobody = move || {
        let check = |result: libc::c_long| match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        };
        let header = CapUserHeader(0x2008_0522, 0);
        let word = |set: u64| [set as u32; 3];
        let data = [word(set), word(set >> 32)];
        // SAFETY: system calls with numbers and with what this closure owns; none allocates.
        unsafe {
            check(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0).into())?;
            check(libc::setgroups(0, std::ptr::null()).into())?;
            check(libc::setresgid(NOBODY, NOBODY, NOBODY).into())?;
            check(libc::setresuid(NOBODY, NOBODY, NOBODY).into())?;
            check(libc::syscall(
                libc::SYS_capset,
                &raw const header,
                data.as_ptr(),
            ))?;
            for one in (0..64).filter(|one| set >> one & 1 == 1) {
                check(
                    libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, one, 0, 0).into(),
                )?;
            }
        }
        Ok(())
    };
    // SAFETY: it makes system calls only.
    unsafe { command.pre_exec(become_nobody) };
    command.current_dir("/");
}

/// What a run could tell.
#[derive(Debug, PartialEq, Eq)]
struct VisibleFacts {
    /// How a half-open in a namespace of root's ended, which only sock_diag tells.
    elsewhere: bool,
    /// Whose the listener is, which was there before.
    owner: bool,
    /// It listens to ICMP errors there.
    icmp: bool,
}

/// Makes a command see a `/proc` of its own that hides processes of others.
fn with_hidden_processes(command: &mut Command) {
    let mount = |what: &CStr, kind: Option<&CStr>, at: &CStr, flags, data: Option<&CStr>| {
        let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
        // SAFETY: the texts end with NUL and are alive for the call.
        let mounted = unsafe {
            libc::mount(
                what.as_ptr(),
                at.as_ptr(),
                pointer(kind),
                flags,
                pointer(data).cast(),
            )
        };
        match mounted {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    let hide = move || {
        // SAFETY: no memory is involved.
        if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let private = libc::MS_REC | libc::MS_PRIVATE;
        mount(c"none", None, c"/", private, None)?;
        mount(c"proc", Some(c"proc"), c"/proc", 0, Some(c"hidepid=2"))
    };
    // SAFETY: it makes system calls only.
    unsafe { command.pre_exec(hide) };
}

/// `/proc` with hidepid=2, and no CAP_SYS_PTRACE: what cannot be seen is said in one line.
pub fn hidden_processes() -> Result<()> {
    const SAID: &str = "processes of other users are hidden (hidepid of /proc)";
    let few = bits(&[cap::BPF, cap::PERFMON]);
    for (set, hidden, said) in [(few, true, 1), (few, false, 0)] {
        let mut watch = command(&["watch", "--format", "json", "--port", "9"])?;
        if hidden {
            with_hidden_processes(&mut watch);
        }
        with_only(&mut watch, set);
        let ended = Agent::of(watch)?.end()?;
        ensure!(ended.err.matches(SAID).count() == said, "{}", ended.err);
    }
    let mut listeners = command(&["listeners"])?;
    with_hidden_processes(&mut listeners);
    with_only(&mut listeners, few);
    let out = listeners.output()?;
    let err = String::from_utf8_lossy(&out.stderr);
    ensure!(err.contains(SAID) && err.lines().count() == 1, "{err}");
    Ok(())
}

fn told_with(set: u64) -> Result<VisibleFacts> {
    let lab = Lab::new(SocketFamily::V4)?;
    let _inhabitant = NetnsProcess::of(&lab.server)?;
    lab.server.set_sysctl("ipv4/tcp_synack_retries", "1")?;
    let _listener = lab.listen(QUIET_PORT, 16)?;
    let port = QUIET_PORT.to_string();
    let mut watch = command(&["watch", "--format", "json", "--local-port", &port])?;
    with_only(&mut watch, set);
    let agent = Agent::of(watch)?;
    let sender = RawSender::open(&lab.client, false)?;
    let inode = lab.server.inode();
    // The second one comes when the namespace has been looked into, if it can be.
    for from in [40_000, 40_001] {
        let peer = SocketAddr::new("198.18.128.9".parse()?, from);
        sender.syn(peer, SocketAddr::new(lab.server_ip(), QUIET_PORT), 1)?;
        let of_it = |kind: &str, line: &Value| {
            line["type"] == kind && line["netns"] == inode && line["peer_port"] == from
        };
        let again = agent.wait_for("the half-open", |line| of_it("retransmit", line));
        again.map_err(|error| Undecided(format!("{error:#}")))?;
        // It is over in the kernel after 3 s, and found to be within a second or two.
        until("the end of the half-open", || {
            Ok(lab.half_opens(QUIET_PORT)? == 0)
        })?;
        let patience = Instant::now() + Duration::from_secs(6);
        let is_told = |line: &Value| of_it("handshake", line);
        while !agent.lines().iter().any(is_told) && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let icmp = has_raw_socket(&lab.server, agent.pid()?)?;
    let ended = agent.end()?;
    ensure!(!ended.err.contains("panic"), "{}", ended.err);
    if set == bits(&LEAST.map(|(_, cap)| cap)) {
        ensure!(ended.err.is_empty(), "nothing is wrong: {}", ended.err);
    }
    let here: Vec<&Value> = ended.handshakes().filter(|h| h["netns"] == inode).collect();
    ensure!(!here.is_empty(), "no line of a half-open");
    Ok(VisibleFacts {
        elsewhere: here.iter().any(|h| h["outcome"] == "expired"),
        owner: here.iter().any(|h| h["pid"] == std::process::id()),
        icmp,
    })
}

/// Whether one of a namespace's raw sockets is this process's.
fn has_raw_socket(ns: &Ns, pid: u32) -> Result<bool> {
    let table = ns.read_proc("net/raw")?;
    let inodes: Vec<String> = table
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().nth(9))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let mut links = fs::read_dir(format!("/proc/{pid}/fd"))?
        .flatten()
        .filter_map(|fd| fs::read_link(fd.path()).ok());
    Ok(links.any(|link| {
        inodes
            .iter()
            .any(|inode| link.as_os_str() == inode.as_str())
    }))
}

/// Nobody with these sees what root sees.
pub fn least() -> Result<()> {
    let told = told_with(bits(&LEAST.map(|(_, cap)| cap)))?;
    let all = VisibleFacts {
        elsewhere: true,
        owner: true,
        icmp: true,
    };
    ensure!(told == all, "{told:?}");
    Ok(())
}

/// Without one of these something is missed, and nothing else.
pub fn each_is_needed() -> Vec<Case> {
    let without = |name: &'static str, due: VisibleFacts| {
        Case::new(format!("without-{name}"), move || {
            let left: Vec<u32> = LEAST
                .iter()
                .filter(|(n, _)| *n != name)
                .map(|l| l.1)
                .collect();
            ensure!(left.len() == LEAST.len() - 1);
            let told = told_with(bits(&left))?;
            ensure!(told == due, "{due:?} is due: {told:?}");
            Ok(())
        })
    };
    let told = |elsewhere, owner, icmp| VisibleFacts {
        elsewhere,
        owner,
        icmp,
    };
    vec![
        without("CAP_SYS_ADMIN", told(false, false, false)),
        without("CAP_SYS_PTRACE", told(false, false, false)),
        without("CAP_DAC_READ_SEARCH", told(true, false, true)),
        without("CAP_NET_RAW", told(true, true, false)),
    ]
}

/// Without either of these nothing begins, and the line says which it is.
pub fn not_even_loaded() -> Result<()> {
    // CAP_SYS_ADMIN stands for both.
    let others = [cap::SYS_PTRACE, cap::DAC_READ_SEARCH, cap::NET_RAW];
    for (name, there) in [("CAP_BPF", cap::PERFMON), ("CAP_PERFMON", cap::BPF)] {
        let mut watch = command(&["watch", "--duration", "100ms"])?;
        with_only(&mut watch, bits(&others) | bits(&[there]));
        let ran = ended(watch.spawn()?)?;
        ensure!(ran.code == Some(3), "{ran:?}");
        let line = ran.one_line()?;
        let named: BTreeSet<&str> = line
            .split(|c: char| !(c.is_ascii_uppercase() || c == '_'))
            .filter(|word| word.starts_with("CAP_"))
            .collect();
        ensure!(named == BTreeSet::from([name]), "{line}");
    }
    Ok(())
}
