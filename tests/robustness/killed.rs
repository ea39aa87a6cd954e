//! SIGKILL at any point: the kernel frees everything of the process, and nothing else is affected.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{CStr, CString},
    fs, io,
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use synprobe_lab::{Ns, net};
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

/// What a killed process had of a kind, by id.
type Held = BTreeMap<&'static str, BTreeSet<u32>>;

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

/// Adds the ids that a stopped process holds.
fn note_held(pid: u32, held: &mut Held) -> Result<()> {
    for info in fs::read_dir(format!("/proc/{pid}/fdinfo"))?.flatten() {
        let text = fs::read_to_string(info.path()).unwrap_or_default();
        for (name, _, field) in KINDS {
            let found = text.lines().filter_map(|line| line.strip_prefix(field));
            let found = found.filter_map(|id| id.trim().parse::<u32>().ok());
            held.entry(name).or_default().extend(found);
        }
    }
    Ok(())
}

/// Stops a process where it is: what it holds does not change until it is killed. Returns whether it had not ended by
/// itself.
fn stop(child: &Child) -> Result<bool> {
    signal(child, libc::SIGSTOP)?;
    let states = libc::WSTOPPED | libc::WEXITED | libc::WNOWAIT;
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: the record is alive. The process is our child, and stays to be reaped.
    let got = unsafe { libc::waitid(libc::P_PID, child.id(), info.as_mut_ptr(), states) };
    ensure!(got == 0, "{}", io::Error::last_os_error());
    // SAFETY: waitid() has filled it in; zeros are valid too.
    Ok(unsafe { info.assume_init() }.si_code == libc::CLD_STOPPED)
}

/// Makes this thread's view of names its own: other tests and other people create namespaces, mounts and pins on
/// the same host.
fn private_names() -> Result<()> {
    // SAFETY: unshare() takes no pointers. The other threads keep theirs.
    let got = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    ensure!(got == 0, "{}", io::Error::last_os_error());
    mount(None, "/", None, libc::MS_REC | libc::MS_PRIVATE)?;
    fs::create_dir_all("/run/netns")?;
    mount(Some(c"tmpfs"), "/run/netns", Some(c"tmpfs"), 0)?;
    if Path::new("/sys/fs/bpf").exists() {
        mount(Some(c"bpf"), "/sys/fs/bpf", Some(c"bpf"), 0)?;
    }
    Ok(())
}

fn mount(source: Option<&CStr>, at: &str, kind: Option<&CStr>, flags: libc::c_ulong) -> Result<()> {
    let to = CString::new(at)?;
    let text = |of: Option<&CStr>| of.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: each text ends with NUL and outlives the call.
    let got = unsafe {
        libc::mount(
            text(source),
            to.as_ptr(),
            text(kind),
            flags,
            std::ptr::null(),
        )
    };
    ensure!(got == 0, "mount on {at}: {}", io::Error::last_os_error());
    Ok(())
}

/// All that has a name or a number of its own here, beside bpf's.
fn named() -> Result<BTreeSet<String>> {
    fn walk(dir: &Path, all: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            all.insert(entry.path().to_string_lossy().into_owned());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                walk(&entry.path(), all);
            }
        }
    }
    let mut all = BTreeSet::new();
    // Pinned objects, named namespaces.
    for dir in ["/sys/fs/bpf", "/run/netns"] {
        walk(Path::new(dir), &mut all);
    }
    // Interfaces: sysfs shows those of whoever mounted it.
    let devices = fs::read_to_string("/proc/thread-self/net/dev")?;
    let devices = devices.lines().filter_map(|line| line.split_once(':'));
    all.extend(devices.map(|(name, _)| name.trim().to_owned()));
    let mounts = fs::read_to_string("/proc/thread-self/mounts")?;
    all.extend(mounts.lines().map(str::to_owned));
    Ok(all)
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

/// In a place of its own, so that all that is left is the killed runs'.
pub fn at_random() -> Result<()> {
    let place = Ns::new_anonymous("killed")?;
    net::prepare(&place)?;
    place.run(|| {
        private_names()?;
        killed_here()
    })
}

fn killed_here() -> Result<()> {
    let (names, disciplines) = (named()?, qdiscs()?);
    // Marsaglia's xorshift64: the same delays on every run.
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let runs: [&[&str]; 4] = [
        &["watch", "--format", "json"],
        &["lab", "synack-lost"],
        &["lab", "own-firewall"],
        &["connect", "127.0.0.1:1", "--timeout", "3s"],
    ];
    let mut at_work = 0;
    let mut held = Held::new();
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
        if stop(&child)? {
            let mut its_own = Held::new();
            note_held(child.id(), &mut its_own)?;
            at_work += u64::from(its_own.contains_key("programs"));
            for (name, ids) in its_own {
                held.entry(name).or_default().extend(ids);
            }
        }
        signal(&child, libc::SIGKILL)?;
        child.wait()?;
    }
    ensure!(
        (1..ROUNDS).contains(&at_work),
        "not at every point: {at_work} of {ROUNDS} had programs"
    );
    // They are freed after a grace period. A number is not given again.
    let mut left = String::new();
    let gone = until("what was the process's", || {
        left.clear();
        for (name, next, _) in KINDS {
            let there = ids(next)?;
            let of_them = held.get(name).into_iter().flatten();
            let orphans: Vec<&u32> = of_them.filter(|id| there.contains(id)).collect();
            if !orphans.is_empty() {
                left.push_str(&format!("{name} {orphans:?} "));
            }
        }
        Ok(left.is_empty())
    });
    gone.with_context(|| left.clone())?;
    // What others remove goes from this place too: mounts end with the name that they are on.
    let now = named()?;
    let left: Vec<&String> = now.difference(&names).collect();
    ensure!(left.is_empty(), "left: {left:?}");
    ensure!(qdiscs()? == disciplines, "a queueing discipline was left");
    // The next run finds nothing in its way.
    let ran = run(&["lab", "refused"])?;
    ensure!(ran.code == Some(0), "{ran:?}");
    let count = |name| held.get(name).map_or(0, BTreeSet::len);
    figure(format!(
        "{ROUNDS} runs killed, {at_work} of them with programs loaded ({} programs, {} maps, {} links): nothing left",
        count("programs"),
        count("maps"),
        count("links")
    ));
    Ok(())
}
