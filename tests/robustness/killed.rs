//! SIGKILL at any point: the kernel frees everything of the process, and nothing else is affected.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use synprobe_tests::{
    agent::until,
    binary::{command, run, signal},
    harness::figure,
};

const ROUNDS: u64 = 24;

/// What bpf(2) numbers: command that gives the next id, and how /proc/PID/fdinfo calls the id.
const KINDS: [(&str, libc::c_long, &str); 3] = [
    ("programs", 11, "prog_id:"),
    ("maps", 12, "map_id:"),
    ("links", 31, "link_id:"),
];

/// Every id of a kind that the kernel has.
fn ids(get_next: libc::c_long) -> Result<BTreeSet<u32>> {
    let mut all = BTreeSet::new();
    let mut last = 0;
    loop {
        // The head of union bpf_attr for it: start id, next id, flags.
        let mut attr = [last, 0, 0];
        // SAFETY: the attributes are alive, and their length is their own.
        let got = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                get_next,
                attr.as_mut_ptr(),
                size_of_val(&attr),
            )
        };
        if got != 0 {
            let error = io::Error::last_os_error();
            ensure!(error.raw_os_error() == Some(libc::ENOENT), "{error}");
            return Ok(all);
        }
        last = attr[1];
        all.insert(last);
    }
}

/// Ids that a living process holds, by kind: other tests and other people load programs too.
fn held() -> Result<BTreeMap<&'static str, BTreeSet<u32>>> {
    let mut held: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    for process in fs::read_dir("/proc")?.flatten() {
        let Ok(infos) = fs::read_dir(process.path().join("fdinfo")) else {
            continue;
        };
        for info in infos.flatten() {
            // A descriptor may be gone by now.
            let text = fs::read_to_string(info.path()).unwrap_or_default();
            for (name, _, field) in KINDS {
                let found = text.lines().filter_map(|line| line.strip_prefix(field));
                let found = found.filter_map(|id| id.trim().parse::<u32>().ok());
                held.entry(name).or_default().extend(found);
            }
        }
    }
    Ok(held)
}

/// All that has a name or a number of its own on the host, beside bpf's.
fn named() -> BTreeSet<String> {
    fn walk(dir: &Path, all: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            all.insert(entry.path().to_string_lossy().into_owned());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                walk(&entry.path(), all);
            }
        }
    }
    let mut all = BTreeSet::new();
    // Pinned objects, named namespaces, interfaces.
    for dir in ["/sys/fs/bpf", "/run/netns", "/sys/class/net"] {
        walk(Path::new(dir), &mut all);
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    all.extend(mounts.lines().map(str::to_owned));
    all
}

/// Queueing disciplines of this namespace's interfaces, as netlink dumps them.
fn qdiscs() -> Result<Vec<u8>> {
    const RTM_GETQDISC: u16 = 38;
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: socket() takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
    ensure!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: it was just made, and nobody else has it.
    let socket = unsafe { <std::fs::File as std::os::fd::FromRawFd>::from_raw_fd(fd) };
    // nlmsghdr, and a tcmsg of zeros.
    let mut request = [0_u8; 36];
    request[..4].copy_from_slice(&36_u32.to_ne_bytes());
    request[4..6].copy_from_slice(&RTM_GETQDISC.to_ne_bytes());
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    request[6..8].copy_from_slice(&flags.to_ne_bytes());
    io::Write::write_all(&mut &socket, &request)?;
    let mut all = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let got = io::Read::read(&mut &socket, &mut buffer)?;
        let mut rest = &buffer[..got];
        while let Some(head) = rest.get(..16) {
            let len = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
            let kind = u16::from_ne_bytes([head[4], head[5]]);
            if i32::from(kind) == libc::NLMSG_DONE {
                return Ok(all);
            }
            ensure!(
                i32::from(kind) != libc::NLMSG_ERROR && len >= 36,
                "{head:?}"
            );
            // Interface, handle and parent; what follows counts packets.
            all.extend_from_slice(rest.get(20..32).context("a tcmsg")?);
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

pub fn at_random() -> Result<()> {
    let before: Vec<BTreeSet<u32>> = KINDS
        .iter()
        .map(|(_, next, _)| ids(*next))
        .collect::<Result<_>>()?;
    let (names, disciplines) = (named(), qdiscs()?);
    // Marsaglia's xorshift64: the same delays on every run.
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let runs: [&[&str]; 4] = [
        &["watch", "--format", "json"],
        &["lab", "synack-lost"],
        &["lab", "own-firewall"],
        &["connect", "127.0.0.1:1", "--timeout", "3s"],
    ];
    let mut at_work = 0;
    for round in 0..ROUNDS {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let arguments = runs[(round % 4) as usize];
        let mut child = command(arguments)?
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        // From before the first system call to well into the run. That is the fault that is made here,
        // and no wait for anything.
        std::thread::sleep(Duration::from_millis(random % 1200));
        let programs = synprobe_tests::binary::programs_of(child.id()).unwrap_or_default();
        at_work += u64::from(!programs.is_empty());
        signal(&child, libc::SIGKILL)?;
        child.wait()?;
    }
    ensure!(
        (1..ROUNDS).contains(&at_work),
        "not at every point: {at_work} of {ROUNDS} had programs"
    );
    // They are freed after a grace period.
    let mut left = String::new();
    let gone = until("what was the process's", || {
        let held = held()?;
        left.clear();
        for ((name, next, _), before) in KINDS.iter().zip(&before) {
            let new: Vec<u32> = ids(*next)?.difference(before).copied().collect();
            let orphans: Vec<&u32> = new
                .iter()
                .filter(|id| !held.get(name).is_some_and(|held| held.contains(id)))
                .collect();
            if !orphans.is_empty() {
                left.push_str(&format!("{name} {orphans:?} "));
            }
        }
        Ok(left.is_empty())
    });
    gone.with_context(|| left.clone())?;
    let now = named();
    ensure!(
        now == names,
        "on the host: {:?}",
        now.symmetric_difference(&names).collect::<Vec<_>>()
    );
    ensure!(qdiscs()? == disciplines, "a queueing discipline was left");
    // The next run finds nothing in its way.
    let ran = run(&["lab", "refused"])?;
    ensure!(ran.code == Some(0), "{ran:?}");
    figure(format!(
        "{ROUNDS} runs killed, {at_work} of them with programs loaded: nothing left"
    ));
    Ok(())
}
