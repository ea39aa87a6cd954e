//! Unit, container and pod from the path of a cgroup. Patterns of systemd, docker, containerd, CRI-O, podman
//! and the kubelet, each with the systemd and the cgroupfs driver.

use crate::model::WorkloadNames;

/// Digits of a container id.
const ID: usize = 64;

/// What a path of `/proc/PID/cgroup` says; the deepest container counts (a container in a container).
pub(super) fn parse(path: &str) -> WorkloadNames {
    let mut names = WorkloadNames::default();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    names.unit = unit(&parts).map(Into::into);
    for part in &parts {
        if let Some(uid) = pod_uid(part) {
            (names.pod_uid, names.container_id) = (Some(uid.into()), None);
        }
        if let Some(id) = container_id(part) {
            names.container_id = Some(id.into());
        }
    }
    names
}

/// Whether a container or pod in the path lies below a user's own cgroup, or below another container. Whoever owns
/// that may have made the folder, with any name.
pub(super) fn is_of_a_tenant(path: &str) -> bool {
    let mut tenant = false;
    for part in path.split('/') {
        let container = container_id(part).is_some();
        if tenant && (container || pod_uid(part).is_some()) {
            return true;
        }
        let user = part.starts_with("user@") || part.starts_with("user-");
        tenant |= container || user;
    }
    false
}

/// Adds what another hierarchy says (cgroup v1): it never replaces.
pub(super) fn complete(names: &mut WorkloadNames, more: WorkloadNames) {
    let whole = names.container_id.is_none() && more.container_id.is_some();
    if whole || names.pod_uid.is_none() {
        names.pod_uid = more.pod_uid.or(names.pod_uid.take());
    }
    names.container_id = names.container_id.take().or(more.container_id);
    names.unit = names.unit.take().or(more.unit);
}

/// The unit: the first part that is no slice (`cg_path_get_unit()` of systemd); of a user's manager, the unit
/// that it runs.
fn unit<'a>(parts: &[&'a str]) -> Option<&'a str> {
    let is_unit = |part: &&&str| {
        [".service", ".scope", ".socket", ".mount", ".swap"]
            .iter()
            .any(|kind| part.strip_suffix(kind).is_some_and(|name| !name.is_empty()))
    };
    let past_slices = |parts: &[&'a str]| parts.iter().position(|part| !part.ends_with(".slice"));
    let at = past_slices(parts)?;
    let found = parts.get(at).filter(is_unit)?;
    if found.starts_with("user@") {
        let inner = parts.get(at + 1..)?;
        let of_user = past_slices(inner)
            .and_then(|at| inner.get(at))
            .filter(is_unit);
        return Some(of_user.unwrap_or(found));
    }
    Some(found)
}

/// `cri-containerd-ID.scope`, `docker-ID.scope`, `crio-ID.scope`, `libpod-ID.scope`; the bare id (cgroupfs
/// driver); `SLICE:cri-containerd:ID` (a driver that does not fit). Their monitors are no containers.
fn container_id(part: &str) -> Option<&str> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    let (prefix, id) = name.split_at_checked(name.len().checked_sub(ID)?)?;
    let is_id = id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_separate = prefix.is_empty() || prefix.ends_with(['-', ':', '_']);
    let is_other = prefix.contains("conmon") || prefix.contains("libpod_pod");
    (is_id && is_separate && !is_other).then_some(id)
}

/// `podUID` below `kubepods` (cgroupfs driver), `kubepods-burstable-podUID.slice` (systemd driver, with `_` for
/// `-`). The uid of a static pod is 32 digits.
fn pod_uid(part: &str) -> Option<String> {
    let name = part.split(':').next()?;
    let name = name.strip_suffix(".slice").unwrap_or(name);
    let at = name
        .rfind("pod")
        .filter(|at| *at == 0 || name[..*at].ends_with('-'))?;
    let uid = name.get(at + 3..)?.replace('_', "-");
    let is_uid = matches!(uid.len(), 32 | 36)
        && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
        && uid.bytes().filter(|b| *b == b'-').count() == if uid.len() == 36 { 4 } else { 0 };
    is_uid.then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0f6a1c2e-1b7d-4a51-9c55-012300000000";
    const UID_: &str = "0f6a1c2e_1b7d_4a51_9c55_012300000000";

    fn id() -> String {
        "ab12".repeat(16)
    }

    /// (path, unit, whether the container is found, pod uid)
    #[test]
    fn each_manager_has_its_pattern() {
        let id = id();
        let static_pod = "4d2c".repeat(8);
        let scope = |prefix: &str| format!("{prefix}-{id}.scope");
        for (path, unit, container, pod) in [
            (
                "/system.slice/nginx.service".to_owned(),
                Some("nginx.service"),
                false,
                None,
            ),
            (
                "/system.slice/system-getty.slice/getty@tty1.service".to_owned(),
                Some("getty@tty1.service"),
                false,
                None,
            ),
            (
                "/system.slice/nginx.service/worker".to_owned(),
                Some("nginx.service"),
                false,
                None,
            ),
            (
                "/user.slice/user-1000.slice/session-3.scope".to_owned(),
                Some("session-3.scope"),
                false,
                None,
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/web.service".to_owned(),
                Some("web.service"),
                false,
                None,
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service".to_owned(),
                Some("user@1000.service"),
                false,
                None,
            ),
            ("/init.scope".to_owned(), Some("init.scope"), false, None),
            ("/".to_owned(), None, false, None),
            ("/user.slice".to_owned(), None, false, None),
            (
                format!("/system.slice/{}", scope("docker")),
                Some("docker"),
                true,
                None,
            ),
            (format!("/docker/{id}"), None, true, None),
            (
                format!("/docker/{id}/system.slice/sshd.service"),
                None,
                true,
                None,
            ),
            (
                format!("/machine.slice/{}/container", scope("libpod")),
                Some("libpod"),
                true,
                None,
            ),
            (
                format!("/machine.slice/{}", scope("libpod-conmon")),
                Some("libpod-conmon"),
                false,
                None,
            ),
            (
                format!("/machine.slice/machine-libpod_pod_{id}.slice"),
                None,
                false,
                None,
            ),
            (
                format!(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/{}",
                    scope("cri-containerd")
                ),
                Some("cri-containerd"),
                true,
                Some(UID),
            ),
            (
                format!("/kubepods.slice/kubepods-pod{UID_}.slice/{}", scope("crio")),
                Some("crio"),
                true,
                Some(UID),
            ),
            (
                format!(
                    "/kubepods.slice/kubepods-pod{static_pod}.slice/{}",
                    scope("docker")
                ),
                Some("docker"),
                true,
                Some(static_pod.as_str()),
            ),
            (
                format!("/kubepods/besteffort/pod{UID}/{id}"),
                None,
                true,
                Some(UID),
            ),
            (format!("/kubepods/pod{UID}/{id}"), None, true, Some(UID)),
            (
                format!(
                    "/system.slice/containerd.service/kubepods-burstable-pod{UID_}.slice:cri-containerd:{id}"
                ),
                Some("containerd.service"),
                true,
                Some(UID),
            ),
            (
                format!("/kubepods/besteffort/pod{UID}"),
                None,
                false,
                Some(UID),
            ),
            ("/podman".to_owned(), None, false, None),
            ("/pod".to_owned(), None, false, None),
            (format!("/x{id}"), None, false, None),
            (format!("/docker/{}", id.to_uppercase()), None, false, None),
        ] {
            let names = parse(&path);
            match unit {
                Some(prefix) if !prefix.contains('.') => {
                    assert_eq!(
                        names.unit.as_deref(),
                        Some(scope(prefix).as_str()),
                        "{path}"
                    );
                }
                unit => assert_eq!(names.unit.as_deref(), unit, "{path}"),
            }
            assert_eq!(
                names.container_id.as_deref(),
                container.then_some(id.as_str()),
                "{path}"
            );
            assert_eq!(names.pod_uid.as_deref(), pod, "{path}");
        }
    }

    #[test]
    fn the_deepest_container_counts() {
        // kind: a kubelet in a docker container.
        let inner = "cd34".repeat(16);
        let path = format!(
            "/docker/{}/kubelet.slice/kubelet-kubepods-pod{UID_}.slice/cri-containerd-{inner}.scope",
            id()
        );
        let names = parse(&path);
        assert_eq!(names.container_id.as_deref(), Some(inner.as_str()));
        assert_eq!(names.pod_uid.as_deref(), Some(UID));
    }

    #[test]
    fn a_folder_that_a_tenant_made_is_told() {
        let (id, pods) = (id(), format!("kubepods-pod{UID_}.slice"));
        let user = "/user.slice/user-1000.slice/user@1000.service/app.slice";
        for (path, tenant) in [
            (
                format!("{user}/x.service/{pods}/cri-containerd-{id}.scope"),
                true,
            ),
            (format!("{user}/{pods}"), true),
            (
                format!("/user.slice/user-1000.slice/session-3.scope/{id}"),
                true,
            ),
            (
                format!("/docker/{id}/{pods}/cri-containerd-{id}.scope"),
                true,
            ),
            (format!("{user}/web.service"), false),
            (
                format!("/kubepods.slice/{pods}/cri-containerd-{id}.scope"),
                false,
            ),
            (
                format!("/kubepods.slice/{pods}/crio-{id}.scope/container"),
                false,
            ),
            (format!("/docker/{id}/system.slice/sshd.service"), false),
        ] {
            assert_eq!(is_of_a_tenant(&path), tenant, "{path}");
        }
    }

    #[test]
    fn bytes_that_are_no_boundary_are_no_panic() {
        let odd = format!("/é{}é/{}", "a".repeat(63), "é".repeat(40));
        assert_eq!(parse(&odd), WorkloadNames::default());
    }
}
