use super::*;

#[test]
fn current_is_the_number_in_the_link() {
    let ns = NetNs::current().unwrap();
    let link = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    assert_eq!(link.to_str().unwrap(), format!("net:[{}]", ns.inode()));
    assert_eq!(ns.name(), format!("netns:[{}]", ns.inode()));
}

#[test]
fn an_unknown_name_has_a_remedy() {
    let error = NetNs::resolve("no-such-netns").unwrap_err().to_string();
    assert!(
        error.starts_with("no network namespace \"no-such-netns\": /run/netns has "),
        "{error}"
    );
    assert!(
        error.ends_with("give a name, a path such as /proc/PID/ns/net, or a pid"),
        "{error}"
    );
    assert!(!error.contains('\n'));
}

#[test]
fn a_name_cannot_climb_out() {
    for spec in ["", ".", ".."] {
        assert!(
            matches!(NetNs::resolve(spec), Err(NetnsError::UnknownName { .. })),
            "{spec:?}"
        );
    }
}

#[test]
fn missing_pid_and_path_are_distinguished() {
    // Above PID_MAX_LIMIT, so never in use.
    let error = NetNs::resolve("4194305").unwrap_err();
    assert!(
        matches!(error, NetnsError::NoProcess { pid: 4_194_305 }),
        "{error}"
    );
    let error = NetNs::resolve("99999999999").unwrap_err();
    assert!(matches!(error, NetnsError::UnknownName { .. }), "{error}");
    let error = NetNs::resolve("/proc/self/ns/nothing").unwrap_err();
    assert!(matches!(error, NetnsError::NoPath { .. }), "{error}");
}

#[test]
fn other_files_are_refused() {
    let error = NetNs::resolve("/proc/self/ns/mnt").unwrap_err();
    assert!(matches!(error, NetnsError::WrongKind { .. }), "{error}");
    let error = NetNs::resolve("/dev/null").unwrap_err();
    assert!(matches!(error, NetnsError::NotANamespace { .. }), "{error}");
}

#[test]
#[ignore = "needs root"]
fn issue20_the_printed_name_of_the_host_is_taken() {
    let host = NetNs::resolve("host").unwrap();
    let path = scan::host_path().unwrap();
    assert_eq!(Some(host.inode()), scan::inode_of(Path::new(path)));
    assert_eq!(host.name(), "host");
}

#[test]
fn own_namespace_by_pid_and_path() {
    let current = NetNs::current().unwrap();
    assert_eq!(
        NetNs::resolve(&std::process::id().to_string()).unwrap(),
        current
    );
    assert_eq!(NetNs::resolve("/proc/self/ns/net").unwrap(), current);
}

mod kernel {
    use super::*;

    /// Waits for what another test's fork may delay: until its exec(), the child holds every descriptor
    /// that this process has.
    fn eventually(what: &str, so: impl Fn() -> bool) {
        let start = std::time::Instant::now();
        while !so() {
            assert!(start.elapsed().as_secs() < 10, "never: {what}");
            std::thread::yield_now();
        }
    }

    /// A search that remembers nothing.
    fn find(inode: u32) -> Option<NetNs> {
        let index = NetnsIndex::default();
        let found = index.find(inode);
        while index.walked() == 0 {
            std::thread::yield_now();
        }
        found.or_else(|| index.find(inode))
    }

    #[test]
    #[ignore = "needs root"]
    fn a_fresh_namespace_is_another_and_only_the_closure_enters_it() {
        let home = NetNs::current().unwrap();
        let ns = NetNs::new_anonymous().unwrap();
        assert_ne!(ns, home);
        let borrowed = String::from("borrowed");
        let (inside, length) = ns
            .run(|| (NetNs::current().unwrap(), borrowed.len()))
            .unwrap();
        assert_eq!((inside, length), (ns, 8));
        assert_eq!(NetNs::current().unwrap(), home);
    }

    #[test]
    #[ignore = "needs root"]
    fn loopback_is_up_in_a_fresh_namespace() {
        let ns = NetNs::new_anonymous().unwrap();
        ns.run(|| {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        })
        .unwrap();
    }

    #[test]
    #[ignore = "needs root"]
    fn found_by_a_descriptor_alone() {
        let ns = NetNs::new_anonymous().unwrap();
        let found = find(ns.inode()).expect("our own descriptor shows it");
        assert_eq!(found, ns);
        assert!(
            !discover().namespaces.contains(&ns),
            "nothing but the descriptor holds it"
        );
    }

    #[test]
    #[ignore = "needs root"]
    fn found_by_a_thread_and_gone_with_the_last_handle() {
        let ns = NetNs::new_anonymous().unwrap();
        let inode = ns.inode();
        let found = ns.run(|| find(inode)).unwrap();
        assert_eq!(found.unwrap().inode(), inode);
        drop(ns);
        eventually("it is gone", || find(inode).is_none());
    }

    #[test]
    #[ignore = "needs root"]
    fn discover_has_the_host_once() {
        let found = discover();
        let hosts = found
            .namespaces
            .iter()
            .filter(|ns| ns.name() == "host")
            .count();
        assert_eq!(hosts, 1, "{found:?}");
        let mut inodes: Vec<u32> = found.namespaces.iter().map(NetNs::inode).collect();
        inodes.sort_unstable();
        inodes.dedup();
        assert_eq!(inodes.len(), found.namespaces.len(), "{found:?}");
    }

    #[test]
    #[ignore = "needs root"]
    fn a_process_in_it_names_it() {
        use std::os::unix::process::CommandExt;
        let ns = NetNs::new_anonymous().unwrap();
        let mut command = std::process::Command::new("cat");
        command.stdin(std::process::Stdio::piped());
        let fd = ns.as_fd().as_raw_fd();
        // SAFETY: between fork and exec only setns() is called, which is async-signal-safe.
        unsafe {
            command.pre_exec(move || match libc::setns(fd, libc::CLONE_NEWNET) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        // spawn() returns only after the exec, so comm is `cat` by then.
        let mut child = command.spawn().unwrap();
        let expected = format!("pid {} (cat)", child.id());
        let by_pid = NetNs::resolve(&child.id().to_string()).unwrap();
        let listed = discover();
        let by_inode = find(ns.inode()).unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(
            (by_pid.inode(), by_pid.name()),
            (ns.inode(), expected.as_str())
        );
        assert_eq!(by_inode.name(), expected);
        assert!(listed.namespaces.contains(&ns));
    }
}
