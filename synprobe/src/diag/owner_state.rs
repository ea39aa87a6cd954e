//! What the owner of a listener is doing: why it may not accept().

use std::{fs, os::unix::fs::MetadataExt, sync::Arc};

use crate::model::OwnerState;

/// Descriptors that are counted one by one, at most, where the kernel does not tell their number.
const MOST_COUNTED: usize = 65_536;

/// Reads it from `/proc/PID`; `None`: the process is gone or hidden.
#[must_use]
pub fn read(pid: u32) -> Option<OwnerState> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let (state, ticks) = parse_stat(&stat)?;
    Some(OwnerState {
        state,
        cpu_ms: ticks * 1000 / ticks_per_second(),
        open_fds: open_fds(pid),
        max_fds: fs::read_to_string(format!("/proc/{pid}/limits"))
            .ok()
            .and_then(|limits| parse_limits(&limits)),
        waits_in: fs::read_to_string(format!("/proc/{pid}/wchan"))
            .ok()
            .filter(|function| !function.is_empty() && function != "0")
            .map(Arc::from),
    })
}

/// `sysconf(_SC_CLK_TCK)`: the unit of the times in `/proc/PID/stat`.
fn ticks_per_second() -> u64 {
    // SAFETY: sysconf() takes no pointer.
    let hz = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(hz).ok().filter(|hz| *hz > 0).unwrap_or(100)
}

/// State letter, and utime + stime of all threads in clock ticks (`do_task_stat()`). The name in brackets may
/// hold brackets and spaces.
fn parse_stat(stat: &[u8]) -> Option<(char, u64)> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some((fields.first()?.chars().next()?, number(11)? + number(12)?))
}

/// The soft limit of the line `Max open files`; `None` where it is unlimited or not there.
fn parse_limits(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|l| l.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// The size of the folder is the number of descriptors since Linux 6.2 (`proc_fd_getattr()`); before, it is 0.
fn open_fds(pid: u32) -> Option<u64> {
    let folder = format!("/proc/{pid}/fd");
    match fs::metadata(&folder).ok()?.size() {
        0 => {
            let count = fs::read_dir(folder).ok()?.take(MOST_COUNTED).count();
            (count < MOST_COUNTED).then_some(count as u64)
        }
        number => Some(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = b"7 (a) b (c)) T 1 7 7 0 -1 4 5 0 0 0 12 30 0 0 20 0 1 0 9";
        assert_eq!(parse_stat(stat), Some(('T', 42)));
        assert_eq!(parse_stat(b"7 (a"), None);
    }

    #[test]
    fn the_soft_limit_is_read() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 524288               files     \n";
        assert_eq!(parse_limits(limits), Some(1024));
        assert_eq!(
            parse_limits("Max open files unlimited unlimited files"),
            None
        );
    }

    #[test]
    fn this_process_is_read() {
        let own = read(std::process::id()).unwrap();
        assert!(!own.is_stopped() && !own.is_out_of_descriptors(), "{own:?}");
        assert!(
            own.open_fds.unwrap() >= 3 && own.max_fds.unwrap() > 3,
            "{own:?}"
        );
    }
}
