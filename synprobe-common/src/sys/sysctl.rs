//! The settings of a namespace: `/proc/sys/net`, which shows each reader its own namespace.

use std::{fs, io, path::PathBuf};

use crate::sys::netns::NetNs;

/// Reads one setting inside `netns`, without the newline. `name` is `net.ipv4.tcp_syn_retries` or
/// `net/ipv4/tcp_syn_retries`.
///
/// # Errors
/// NotFound: this kernel does not have the setting (before 6.5 there is no `tcp_syn_linear_timeouts`).
/// InvalidInput: the name leaves `/proc/sys`.
pub fn sysctl(netns: &NetNs, name: &str) -> io::Result<String> {
    let path = path_of(name)?;
    // The path lookup, not the open file, depends on the thread's namespace.
    netns
        .run(|| fs::read_to_string(path))?
        .map(|value| value.trim_end().to_owned())
}

/// Reads several settings of one number each, entering the namespace once. `None`: this kernel does not
/// have it, or it is not a number.
///
/// # Errors
/// The namespace cannot be entered. InvalidInput: a name leaves `/proc/sys`.
pub fn sysctl_numbers<const N: usize>(
    netns: &NetNs,
    names: [&str; N],
) -> io::Result<[Option<u64>; N]> {
    let mut paths: [PathBuf; N] = std::array::from_fn(|_| PathBuf::new());
    for (path, name) in paths.iter_mut().zip(names) {
        *path = path_of(name)?;
    }
    netns.run(|| paths.map(|path| fs::read_to_string(path).ok()?.trim().parse().ok()))
}

/// Writes one setting inside `netns`.
///
/// # Errors
/// As [`sysctl`]; InvalidInput also if the kernel refuses the value.
pub fn set_sysctl(netns: &NetNs, name: &str, value: &str) -> io::Result<()> {
    let path = path_of(name)?;
    netns.run(|| fs::write(path, value))?
}

/// `net.ipv4.x` → `/proc/sys/net/ipv4/x`. In a name with slashes, dots stay: a device's name may have
/// them (`net/ipv4/conf/eth0.100/rp_filter`).
fn path_of(name: &str) -> io::Result<PathBuf> {
    let relative = match name.contains('/') {
        true => name.to_owned(),
        false => name.replace('.', "/"),
    };
    if relative
        .split('/')
        .any(|part| part.is_empty() || part == "." || part == "..")
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{name:?} is not a sysctl; give one such as net.ipv4.tcp_syn_retries"),
        ));
    }
    Ok(PathBuf::from("/proc/sys").join(relative))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_and_devices_with_dots() {
        let same = PathBuf::from("/proc/sys/net/ipv4/tcp_syn_retries");
        assert_eq!(path_of("net.ipv4.tcp_syn_retries").unwrap(), same);
        assert_eq!(path_of("net/ipv4/tcp_syn_retries").unwrap(), same);
        assert_eq!(
            path_of("net/ipv4/conf/eth0.100/rp_filter").unwrap(),
            PathBuf::from("/proc/sys/net/ipv4/conf/eth0.100/rp_filter")
        );
    }

    #[test]
    fn a_name_cannot_leave_proc_sys() {
        for name in [
            "",
            ".",
            "..",
            "net..ipv4",
            "/etc/passwd",
            "net/../../etc/passwd",
        ] {
            assert_eq!(
                path_of(name).unwrap_err().kind(),
                io::ErrorKind::InvalidInput,
                "{name:?}"
            );
        }
    }

    mod kernel {
        use super::*;

        #[test]
        #[ignore = "needs root"]
        fn a_setting_belongs_to_its_namespace() {
            let (one, two) = (
                NetNs::new_anonymous().unwrap(),
                NetNs::new_anonymous().unwrap(),
            );
            let name = "net.ipv4.tcp_syn_retries";
            set_sysctl(&one, name, "3").unwrap();
            set_sysctl(&two, name, "4").unwrap();
            assert_eq!(sysctl(&one, name).unwrap(), "3");
            assert_eq!(sysctl(&two, name).unwrap(), "4");
            let got = sysctl_numbers(&one, [name, "net.ipv4.no_such_setting"]).unwrap();
            assert_eq!(got, [Some(3), None]);
            let missing = sysctl(&one, "net.ipv4.no_such_setting").unwrap_err();
            assert_eq!(missing.kind(), io::ErrorKind::NotFound);
            assert!(
                set_sysctl(&one, name, "0").is_err(),
                "below its minimum of 1"
            );
        }
    }
}
