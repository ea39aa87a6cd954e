//! Names of the errnos of failed handshakes.

/// The name of a positive errno, as `errno(3)` has it; `E<number>` for one that is not in the table.
pub fn name(errno: u32) -> String {
    // libc has the numbers of the architecture.
    let known = match i32::try_from(errno).unwrap_or(0) {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::EINTR => "EINTR",
        libc::EIO => "EIO",
        libc::EAGAIN => "EAGAIN",
        libc::ENOMEM => "ENOMEM",
        libc::EACCES => "EACCES",
        libc::EFAULT => "EFAULT",
        libc::EBUSY => "EBUSY",
        libc::ENODEV => "ENODEV",
        libc::EINVAL => "EINVAL",
        libc::EPIPE => "EPIPE",
        libc::EPROTO => "EPROTO",
        libc::EMSGSIZE => "EMSGSIZE",
        libc::ENOPROTOOPT => "ENOPROTOOPT",
        libc::EPROTONOSUPPORT => "EPROTONOSUPPORT",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::EADDRINUSE => "EADDRINUSE",
        libc::EADDRNOTAVAIL => "EADDRNOTAVAIL",
        libc::ENETDOWN => "ENETDOWN",
        libc::ENETUNREACH => "ENETUNREACH",
        libc::ECONNABORTED => "ECONNABORTED",
        libc::ECONNRESET => "ECONNRESET",
        libc::ENOBUFS => "ENOBUFS",
        libc::ETIMEDOUT => "ETIMEDOUT",
        libc::ECONNREFUSED => "ECONNREFUSED",
        libc::EHOSTDOWN => "EHOSTDOWN",
        libc::EHOSTUNREACH => "EHOSTUNREACH",
        _ => return format!("E{errno}"),
    };
    known.to_owned()
}

/// The name of a transmission's result: a negative errno, or a positive `NET_XMIT_*`
/// (include/linux/netdevice.h).
pub fn transmit_error(err: i32) -> String {
    match err {
        1 => "NET_XMIT_DROP".to_owned(),
        2 => "NET_XMIT_CN".to_owned(),
        err => name(err.unsigned_abs()),
    }
}
