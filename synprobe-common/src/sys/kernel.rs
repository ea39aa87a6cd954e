//! The running kernel: its version and its HZ.

use std::{fmt, fs, io, mem::MaybeUninit, path::Path};

use thiserror::Error;

/// A kernel's version, from `uname -r`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelVersion {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number; 0: none. Distributions often leave it at 0 and count in their own suffix.
    pub patch: u32,
    /// The whole release: `6.1.0-18-amd64`.
    pub release: String,
}

/// A release that does not begin with a version.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{0}` is not a kernel release")]
pub struct ReleaseError(String);

impl KernelVersion {
    /// From a release.
    ///
    /// # Errors
    /// It does not begin with two numbers.
    pub fn parse(release: &str) -> Result<Self, ReleaseError> {
        let release = release.trim();
        let mut numbers = release.splitn(3, '.').map(leading_number);
        match (numbers.next().flatten(), numbers.next().flatten()) {
            (Some(major), Some(minor)) => Ok(Self {
                major,
                minor,
                patch: numbers.next().flatten().unwrap_or(0),
                release: release.to_owned(),
            }),
            _ => Err(ReleaseError(release.to_owned())),
        }
    }

    /// Whether it is this version or a later one.
    pub fn at_least(&self, major: u32, minor: u32) -> bool {
        (self.major, self.minor) >= (major, minor)
    }

    /// Whether `inet_csk_reqsk_queue_is_full()` compares with `>=`, so that a SYN queue takes exactly the
    /// backlog and not one more. It did until "tcp/dccp: allow a connection when sk_max_ack_backlog is
    /// zero" (6.13, and the stable releases of January 2025). Use it on [`upstream`]: distributions number
    /// differently.
    pub fn syn_queue_is_full_at_its_limit(&self) -> bool {
        match (self.major, self.minor) {
            (5, 10) => self.patch < 234,
            (5, 15) => self.patch < 177,
            (6, 1) => self.patch < 125,
            (6, 6) => self.patch < 72,
            (6, 12) => self.patch < 10,
            _ => !self.at_least(6, 13),
        }
    }

    /// Whether a program on a tracepoint may be preempted, and is skipped on its CPU meanwhile. True in 7.2
    /// (`__DECLARE_TRACE()`), false in 6.18; the first version is not known.
    pub fn preempts_tracepoints(&self) -> bool {
        self.at_least(6, 19)
    }

    /// Whether the SYN-ACK's time-out is bounded by the listener's RTO maximum (after 6.18), and not
    /// by 120 s.
    pub fn listener_bounds_syn_ack_timeout(&self) -> bool {
        self.at_least(6, 19)
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.release)
    }
}

fn leading_number(text: &str) -> Option<u32> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text[..end].parse().ok()
}

fn uname() -> io::Result<libc::utsname> {
    let mut name = MaybeUninit::<libc::utsname>::zeroed();
    // SAFETY: the pointer is valid for one utsname, which is all that uname() writes.
    if unsafe { libc::uname(name.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all zeroes is a valid utsname, and uname() has filled it.
    Ok(unsafe { name.assume_init() })
}

fn field(text: &[libc::c_char]) -> String {
    // A c_char has a sign on x86-64 and none on arm64.
    let bytes = text.iter().map(|c| c.to_ne_bytes()[0]);
    let bytes: Vec<u8> = bytes.take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The running kernel's release, as `uname(2)` gives it.
///
/// # Errors
/// The error of `uname(2)`, which does not fail in practice.
pub fn release() -> io::Result<String> {
    Ok(field(&uname()?.release))
}

/// The kernel.org version that the running kernel is based on. Ubuntu has it in `/proc/version_signature`,
/// Debian in `uname -v`: their release says 5.15.0 or 5.10.0 whatever fixes it includes. For other
/// kernels, the version of the release.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`]: no version was found.
pub fn upstream() -> io::Result<KernelVersion> {
    let name = uname()?;
    let signature = fs::read_to_string("/proc/version_signature").ok();
    let (release, build) = (field(&name.release), field(&name.version));
    upstream_of(&release, &build, signature.as_deref())
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

fn upstream_of(
    release: &str,
    build: &str,
    signature: Option<&str>,
) -> Result<KernelVersion, ReleaseError> {
    let ubuntu = signature.and_then(|text| text.split_whitespace().nth(2));
    let mut words = build.split_whitespace();
    let debian = words.find(|word| *word == "Debian").and(words.next());
    [ubuntu, debian]
        .into_iter()
        .flatten()
        .find_map(|text| KernelVersion::parse(text).ok())
        .map_or_else(|| KernelVersion::parse(release), Ok)
}

/// Nanoseconds of one tick of the kernel's coarse clock.
///
/// # Errors
/// The error of `clock_getres(2)`.
pub fn tick_ns() -> io::Result<u64> {
    let mut tick = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the pointer is valid for one timespec, which is all that clock_getres() writes.
    if unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, tick.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all zeroes is a valid timespec, and clock_getres() has filled it.
    let tick = unsafe { tick.assume_init() };
    Ok(tick.tv_sec as u64 * 1_000_000_000 + tick.tv_nsec as u64)
}

/// Jiffies a second. Three sources, the most reliable first: the tick of the coarse clock, the kernel's
/// list of timers (needs root), the configuration the kernel was built with.
///
/// `read` reads a file of this host.
pub fn hz(
    tick_ns: Option<u64>,
    release: &str,
    read: impl Fn(&Path) -> io::Result<Vec<u8>>,
) -> Option<u32> {
    let text = |path: &str| {
        read(Path::new(path))
            .ok()
            .map(|b| String::from_utf8_lossy(&b).into_owned())
    };
    tick_ns
        .and_then(hz_of_tick)
        .or_else(|| {
            text("/proc/timer_list")
                .as_deref()
                .and_then(hz_of_timer_list)
        })
        .or_else(|| {
            text(&format!("/boot/config-{release}"))
                .as_deref()
                .and_then(hz_of_config)
        })
}

/// HZ from the resolution of CLOCK_MONOTONIC_COARSE, which is `TICK_NSEC`: a second divided by HZ
/// (kernel/time/posix-timers.c, `KTIME_LOW_RES`).
pub fn hz_of_tick(tick_ns: u64) -> Option<u32> {
    // Rounded as TICK_NSEC is, so that 300, 1024 and 1200 come out whole.
    let hz = 1_000_000_000u64
        .checked_add(tick_ns / 2)?
        .checked_div(tick_ns)?;
    // No architecture offers less or more; a high-resolution tick would end up here as 10^9.
    (24..=10_000).contains(&hz).then_some(hz as u32)
}

/// The values of CONFIG_HZ that architectures offer (kernel/Kconfig.hz and arch/*/Kconfig).
const KNOWN_HZ: [u32; 13] = [
    24, 32, 48, 64, 100, 128, 250, 256, 300, 500, 1000, 1024, 1200,
];

/// HZ from `/proc/timer_list`: it has the monotonic time and the jiffies, which start at
/// `(u32)(-300 * HZ)` (include/linux/jiffies.h). 64-bit kernels only.
pub fn hz_of_timer_list(text: &str) -> Option<u32> {
    let now_ns: u64 = text
        .lines()
        .find_map(|l| l.strip_prefix("now at ")?.strip_suffix(" nsecs"))
        .and_then(|n| n.trim().parse().ok())?;
    let jiffies: u64 = text
        .lines()
        .find_map(|l| l.strip_prefix("jiffies: "))
        .and_then(|n| n.trim().parse().ok())?;
    let now = now_ns as f64 / 1e9;
    // The first jiffy is counted a little after the clock has started.
    let distance = |hz: u32| {
        let start = (1u64 << 32) - 300 * u64::from(hz);
        let seconds = jiffies.checked_sub(start)? as f64 / f64::from(hz);
        Some((seconds - now).abs())
    };
    KNOWN_HZ
        .into_iter()
        .filter_map(|hz| distance(hz).map(|d| (d, hz)))
        .min_by(|a, b| a.0.total_cmp(&b.0))
        // Neighbours (250, 256) are 2 % apart: within 1 % none can be taken for the other.
        .filter(|(distance, _)| *distance <= (now * 0.01).max(0.02))
        .map(|(_, hz)| hz)
}

/// HZ from the configuration the kernel was built with.
pub fn hz_of_config(text: &str) -> Option<u32> {
    text.lines()
        .find_map(|l| l.strip_prefix("CONFIG_HZ="))?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaviour_by_version() {
        let of = |r| KernelVersion::parse(r).unwrap();
        for before in [
            "5.10.233", "5.11.22", "5.15.176", "6.1.124", "6.6.71", "6.12.9", "6.11.11",
        ] {
            assert!(of(before).syn_queue_is_full_at_its_limit(), "{before}");
        }
        for since in [
            "5.10.234", "5.15.177", "6.1.125", "6.6.72", "6.12.10", "6.13.0", "7.2.1",
        ] {
            assert!(!of(since).syn_queue_is_full_at_its_limit(), "{since}");
        }
        assert!(!of("6.18.44").listener_bounds_syn_ack_timeout());
        assert!(of("7.2.13+deb14-cloud-amd64").listener_bounds_syn_ack_timeout());
    }

    #[test]
    fn releases() {
        let of = |r| KernelVersion::parse(r).map(|v| (v.major, v.minor, v.patch));
        assert_eq!(of("6.18.44-fc-v595"), Ok((6, 18, 44)));
        assert_eq!(of("5.15.0-91-generic\n"), Ok((5, 15, 0)));
        assert_eq!(of("4.18.0-553.el8_10.x86_64"), Ok((4, 18, 0)));
        assert_eq!(of("6.1-rc3+"), Ok((6, 1, 0)));
        assert_eq!(of("7.0"), Ok((7, 0, 0)));
        for bad in ["", "six", "6", "6.", ".1", "99999999999.1"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn distributions_tell_elsewhere_what_their_kernel_is_made_from() {
        let of = |release, build, signature| {
            let v = upstream_of(release, build, signature).unwrap();
            (v.major, v.minor, v.patch)
        };
        let debian = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-01)";
        assert_eq!(of("6.1.0-56-cloud-amd64", debian, None), (6, 1, 192));
        let ubuntu = "Ubuntu 5.15.0-204.214-generic 5.15.199\n";
        let build = "#214-Ubuntu SMP Mon Nov 2 10:00:00 UTC 2026";
        assert_eq!(of("5.15.0-204-generic", build, Some(ubuntu)), (5, 15, 199));
        assert_eq!(of("6.18.44", "#1 SMP PREEMPT_DYNAMIC", None), (6, 18, 44));
        assert_eq!(of("6.18.44", "#1 SMP Debian", Some("")), (6, 18, 44));
        assert!(upstream_of("six", "", None).is_err());
    }

    #[test]
    fn versions_compare_by_number() {
        let v = KernelVersion::parse("6.9.1").unwrap();
        assert!(v.at_least(5, 17) && v.at_least(6, 9) && !v.at_least(6, 17) && !v.at_least(7, 0));
    }

    #[test]
    fn ticks() {
        let of_hz = |hz: u64| (1_000_000_000 + hz / 2) / hz;
        for hz in [24, 100, 128, 250, 256, 300, 1000, 1024, 1200] {
            assert_eq!(hz_of_tick(of_hz(hz)), Some(hz as u32));
        }
        assert_eq!(hz_of_tick(0), None);
        assert_eq!(hz_of_tick(1), None);
        assert_eq!(hz_of_tick(u64::MAX), None);
    }

    // Recorded on Linux 6.18, HZ=250.
    const TIMER_LIST: &str = "Timer List Version: v0.10\nHRTIMER_MAX_CLOCK_BASES: 8\n\
        now at 1898079170690 nsecs\n\ncpu: 0\n clock 0:\n  .base:       0000000099f26944\n\
        active timers:\n #0: <000000009c8ee141>, tick_nohz_handler, S:01\n\
          .idle_jiffies   : 4295366748\n  .last_jiffies   : 4295366759\njiffies: 4295366759\n";

    #[test]
    fn timer_lists() {
        assert_eq!(hz_of_timer_list(TIMER_LIST), Some(250));
        for hz in [100u64, 250, 256, 300, 1000, 1024] {
            let jiffies = (1u64 << 32) - 300 * hz + 5000 * hz;
            let text = format!("now at 5000200000000 nsecs\njiffies: {jiffies}\n");
            assert_eq!(hz_of_timer_list(&text), Some(hz as u32));
        }
        assert_eq!(hz_of_timer_list(""), None);
        assert_eq!(
            hz_of_timer_list("now at 0 nsecs\njiffies: 18446744073709551615\n"),
            None
        );
        assert_eq!(hz_of_timer_list("now at x nsecs\njiffies: 1\n"), None);
    }

    #[test]
    fn configurations() {
        assert_eq!(hz_of_config("CONFIG_HZ_250=y\nCONFIG_HZ=250\n"), Some(250));
        assert_eq!(hz_of_config("# CONFIG_HZ_250 is not set\n"), None);
    }

    #[test]
    fn sources_fall_back_in_order() {
        let files = |path: &Path| match path.to_str() {
            Some("/boot/config-6.6.0") => Ok(b"CONFIG_HZ=1000\n".to_vec()),
            _ => Err(io::ErrorKind::PermissionDenied.into()),
        };
        assert_eq!(hz(Some(4_000_000), "6.6.0", files), Some(250));
        assert_eq!(hz(Some(1), "6.6.0", files), Some(1000));
        assert_eq!(hz(None, "6.6.1", files), None);
    }

    #[test]
    fn both_sources_agree_on_this_host() {
        let tick = hz_of_tick(tick_ns().unwrap());
        assert!(tick.is_some());
        if let Ok(text) = std::fs::read_to_string("/proc/timer_list") {
            assert_eq!(hz_of_timer_list(&text), tick);
        }
        upstream().unwrap();
    }
}
