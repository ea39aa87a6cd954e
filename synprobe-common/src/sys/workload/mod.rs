//! What a process belongs to: from its cgroup, and from the files that the node keeps of its containers.

mod cgroup_path;
mod node_files;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::model::WorkloadNames;
use node_files::NodeFiles;

/// Resolves processes and cgroups to names. Not cached: ask once for each.
#[derive(Debug)]
pub struct Workloads {
    root: PathBuf,
    node: NodeFiles,
}

impl Default for Workloads {
    fn default() -> Self {
        Self::below(Path::new("/"))
    }
}

impl Workloads {
    /// With the files below `root`, as a test needs them.
    pub fn below(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            node: NodeFiles::below(root),
        }
    }

    /// By the path of its cgroup v2, and, where that shows no container and the process still exists, by its
    /// other hierarchies (cgroup v1, or the hybrid layout). `None`: nothing is known.
    pub fn of(&mut self, cgroup: Option<&str>, pid: u32) -> Option<WorkloadNames> {
        let (names, _) = self.told(cgroup, pid);
        (!names.is_empty()).then_some(names)
    }

    /// The same, and whether a tenant may have chosen the id. The node's files name no such container or pod: they
    /// are of others.
    fn told(&mut self, cgroup: Option<&str>, pid: u32) -> (WorkloadNames, bool) {
        let mut names = cgroup.map(cgroup_path::parse).unwrap_or_default();
        let mut of_a_tenant = cgroup.is_some_and(cgroup_path::is_of_a_tenant);
        if names.container_id.is_none() {
            for path in self.paths_of(pid) {
                of_a_tenant |= cgroup_path::is_of_a_tenant(&path);
                cgroup_path::complete(&mut names, cgroup_path::parse(&path));
            }
        }
        if !of_a_tenant {
            self.node.complete(&mut names);
        }
        (names, of_a_tenant)
    }

    /// Whether a path of cgroup v2 shows a container by itself.
    pub fn decides(cgroup: &str) -> bool {
        cgroup_path::parse(cgroup).container_id.is_some()
    }

    /// Every path in `/proc/PID/cgroup`; the unified one and systemd's first.
    fn paths_of(&self, pid: u32) -> Vec<String> {
        let Ok(text) = fs::read(self.root.join(format!("proc/{pid}/cgroup"))) else {
            return Vec::new();
        };
        let text = String::from_utf8_lossy(&text);
        let mut paths: Vec<(bool, String)> = text
            .lines()
            .filter_map(|line| {
                let mut parts = line.splitn(3, ':');
                let controllers = parts.nth(1)?;
                let path = parts.next()?.trim_end_matches(" (deleted)");
                let is_named = controllers.is_empty() || controllers == "name=systemd";
                (path != "/").then(|| (!is_named, path.to_owned()))
            })
            .collect();
        paths.sort();
        paths.dedup();
        paths.into_iter().map(|(_, path)| path).collect()
    }
}

/// The pod of a process, as a network namespace is named by it: `pod shop/checkout-api-7d4`; or its container,
/// `container web`. `None`: no file of the node names it.
pub fn pod_of_pid(pid: u32) -> Option<String> {
    static NODE: Mutex<Option<Workloads>> = Mutex::new(None);
    let mut node = NODE.lock().unwrap_or_else(PoisonError::into_inner);
    let (names, of_a_tenant) = node.get_or_insert_with(Workloads::default).told(None, pid);
    if of_a_tenant {
        return None;
    }
    match (names.pod, names.namespace, names.container) {
        (Some(pod), Some(namespace), _) => Some(format!("pod {namespace}/{pod}")),
        (Some(pod), None, _) => Some(format!("pod {pod}")),
        (None, _, Some(container)) => Some(format!("container {container}")),
        (None, _, None) => names.pod_uid.map(|uid| format!("pod {uid}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_cannot_take_the_name_of_a_pod() {
        let root = std::env::temp_dir().join(format!("synprobe-forged-{}", std::process::id()));
        let id = "ef".repeat(32);
        let uid = "0f6a1c2e-1b7d-4a51-9c55-012300000000";
        fs::create_dir_all(root.join(format!("var/log/pods/shop_checkout_{uid}"))).unwrap();
        let mut workloads = Workloads::below(&root);
        let pod = format!(
            "kubepods-pod{}.slice/cri-containerd-{id}.scope",
            uid.replace('-', "_")
        );
        let names = workloads
            .of(Some(&format!("/kubepods.slice/{pod}")), 8)
            .unwrap();
        assert_eq!(names.pod.as_deref(), Some("checkout"));
        let forged = format!("/user.slice/user-7.slice/user@7.service/app.slice/{pod}");
        let names = workloads.of(Some(&forged), 8).unwrap();
        assert_eq!((names.pod, names.namespace), (None, None));
        assert_eq!(names.pod_uid.as_deref(), Some(uid), "what the path says");
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn version_1_hierarchies_are_read_where_version_2_shows_no_container() {
        let root = std::env::temp_dir().join(format!("synprobe-v1-{}", std::process::id()));
        let id = "ef".repeat(32);
        fs::create_dir_all(root.join("proc/7")).unwrap();
        let text = format!(
            "12:memory:/docker/{id}\n1:name=systemd:/docker/{id}\n0::/system.slice/containerd.service\n"
        );
        fs::write(root.join("proc/7/cgroup"), text).unwrap();
        let mut workloads = Workloads::below(&root);
        let names = workloads
            .of(Some("/system.slice/containerd.service"), 7)
            .unwrap();
        assert_eq!(names.container_id.as_deref(), Some(id.as_str()));
        assert_eq!(names.unit.as_deref(), Some("containerd.service"));
        assert_eq!(workloads.of(Some("/"), 8), None, "no such process");
        let of_path = workloads
            .of(Some("/system.slice/nginx.service"), 8)
            .unwrap();
        assert_eq!(of_path.unit.as_deref(), Some("nginx.service"));
        fs::remove_dir_all(&root).unwrap();
    }
}
