//! Why something failed, in one line: the error, the errors below it, and what to do about the kernel's errno.

use std::{error::Error, io};

/// An error with its causes, and with a remedy where the kernel's errno has one.
pub(super) fn in_one_line(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut errno = None;
    let mut next = Some(error);
    while let Some(cause) = next {
        let text = cause.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        let kernel = cause.downcast_ref::<io::Error>();
        errno = kernel.and_then(io::Error::raw_os_error).or(errno);
        next = cause.source();
    }
    match errno.and_then(remedy) {
        Some(remedy) => format!("{line}: {remedy}"),
        None => line,
    }
}

fn remedy(errno: i32) -> Option<&'static str> {
    Some(match errno {
        libc::EMFILE => {
            "a run needs about 60 descriptors, and eight for each network namespace: raise the limit (ulimit -n, or \
             LimitNOFILE= of the service)"
        }
        libc::ENFILE => "the whole host has no descriptor left: see fs.file-nr and fs.file-max",
        libc::ENOMEM => {
            "there is no memory for it: a smaller --ring-size needs less, or raise the limit (ulimit -v, MemoryMax= \
             of the service, or the limit of the container)"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("failed to create map `PEERS`")]
    struct OfMap(#[source] io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("the eBPF object cannot be loaded: {0}")]
    struct OfLoad(#[source] OfMap);

    #[test]
    fn issue20_a_failed_map_says_errno_and_remedy() {
        let line = |errno| in_one_line(&OfLoad(OfMap(io::Error::from_raw_os_error(errno))));
        let begin = "the eBPF object cannot be loaded: failed to create map `PEERS`: ";
        let many = line(libc::EMFILE);
        let due =
            format!("{begin}Too many open files (os error 24): a run needs about 60 descriptors");
        assert!(many.starts_with(&due), "{many}");
        assert!(line(libc::ENOMEM).contains("--ring-size"));
        let other = line(libc::EINVAL);
        assert_eq!(other, format!("{begin}Invalid argument (os error 22)"));
    }
}
