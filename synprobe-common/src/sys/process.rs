//! What this process uses: CPU time, memory, descriptors.

use std::fs;

/// `None`: it could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessStats {
    /// User and system CPU time of all threads, seconds.
    pub cpu_seconds: Option<f64>,
    /// When it began, seconds since 1970.
    pub start_time_seconds: Option<f64>,
    /// Address space, bytes.
    pub virtual_memory_bytes: Option<u64>,
    /// Resident pages, bytes.
    pub resident_memory_bytes: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// The soft RLIMIT_NOFILE.
    pub max_fds: Option<u64>,
}

/// A write beyond RLIMIT_FSIZE fails (EFBIG) and does not end the process: it says what happened.
pub fn survive_file_size_limit() {
    // SAFETY: the signal is ignored: no handler runs.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// The limit of the address space (RLIMIT_AS), bytes; `None`: there is none.
pub fn address_space() -> Option<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the limit is alive for the call.
    unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) };
    (limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// Lets all threads share so many arenas of memory. One where the address space is limited: the C library reserves
/// 64 MiB of addresses for each other one. To be called before there is a second thread.
pub fn share_arenas(most: i32) {
    let most = if address_space().is_some() { 1 } else { most };
    // SAFETY: mallopt() takes two numbers.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, most);
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = most;
}

/// Reads them from `/proc/self` (proc_pid_stat(5)) and getrlimit(2).
pub fn read() -> ProcessStats {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = system(libc::_SC_CLK_TCK).map(|n| n as f64);
    let seconds = |field: Option<u64>| Some(field? as f64 / ticks?);
    let pages = |field: Option<u64>| field?.checked_mul(system(libc::_SC_PAGESIZE)?);
    let cpu_ticks = field(&stat, 14).and_then(|user| Some(user + field(&stat, 15)?));
    let since_boot = seconds(field(&stat, 22));
    ProcessStats {
        cpu_seconds: seconds(cpu_ticks),
        start_time_seconds: since_boot.and_then(|since| Some(boot_time()? as f64 + since)),
        virtual_memory_bytes: field(&stat, 23),
        resident_memory_bytes: pages(field(&stat, 24)),
        threads: field(&stat, 20),
        // One of them is that of the folder itself.
        open_fds: fs::read_dir("/proc/self/fd")
            .ok()
            .map(|all| (all.count() as u64).saturating_sub(1)),
        max_fds: max_fds(),
    }
}

/// A field of `/proc/PID/stat`, counted from 1 as in the manual. The name, the second one, may contain anything.
fn field(stat: &str, number: usize) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace()
        .nth(number.checked_sub(3)?)?
        .parse()
        .ok()
}

/// `btime` of `/proc/stat`: seconds since 1970.
fn boot_time() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .parse()
        .ok()
}

fn system(name: libc::c_int) -> Option<u64> {
    // SAFETY: sysconf() takes a number.
    u64::try_from(unsafe { libc::sysconf(name) }).ok()
}

fn max_fds() -> Option<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a live rlimit.
    let done = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    (done == 0).then_some(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn the_name_may_contain_a_parenthesis() {
        let stat = "1 (a) b) S 4 5 6";
        assert_eq!(field(stat, 4), Some(4));
        assert_eq!(field(stat, 6), Some(6));
        assert_eq!((field(stat, 7), field("", 4)), (None, None));
    }

    #[test]
    fn of_this_process() {
        let held = fs::File::open("/proc/self/stat").unwrap();
        let now = read();
        let (cpu, start) = (now.cpu_seconds.unwrap(), now.start_time_seconds.unwrap());
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        assert!((0.0..1e6).contains(&cpu), "{now:?}");
        assert!(start <= wall.as_secs_f64() + 2.0, "{now:?}");
        assert!(now.resident_memory_bytes < now.virtual_memory_bytes);
        assert!(now.open_fds >= Some(1) && now.open_fds <= now.max_fds);
        assert!(now.threads >= Some(1));
        drop(held);
    }
}
