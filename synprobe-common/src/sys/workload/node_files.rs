//! Names of containers and pods from the files of the node: no API server is asked.
//!
//! | file | of |
//! |---|---|
//! | `/var/log/pods/NAMESPACE_POD_UID/` | the kubelet |
//! | `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log` | the kubelet |
//! | `/run/containerd/io.containerd.runtime.v2.task/*/ID/config.json` | containerd |
//! | `/run/runc/ID/state.json`, `/run/containerd/runc/*/ID/state.json`, `/run/docker/runtime-runc/moby/ID/state.json` | runc |
//! | `/run/containers/storage/overlay-containers/ID/userdata/config.json` | CRI-O, podman |
//! | `/var/lib/containers/storage/overlay-containers/containers.json` | podman |
//! | `/var/lib/docker/containers/ID/config.v2.json` | docker |

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::model::WorkloadNames;

/// The folders are listed again after this time, if something was not found.
const AGAIN: Duration = Duration::from_secs(2);
/// Entries of one folder, at most.
const MOST_ENTRIES: usize = 16_384;
/// Longest file that is read, bytes.
const MOST_BYTES: u64 = 4 << 20;
/// Longest name, bytes: what Kubernetes allows.
const LONGEST: usize = 253;

/// See the module.
#[derive(Debug)]
pub(super) struct NodeFiles {
    root: PathBuf,
    listed: Option<Instant>,
    /// Pod and namespace by uid.
    pods: HashMap<String, (Arc<str>, Arc<str>)>,
    /// Pod, namespace and container by container id.
    containers: HashMap<String, [Arc<str>; 3]>,
}

impl NodeFiles {
    pub fn below(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            listed: None,
            pods: HashMap::new(),
            containers: HashMap::new(),
        }
    }

    /// Fills in what the files tell of a container or pod.
    pub fn complete(&mut self, names: &mut WorkloadNames) {
        if names.container_id.is_none() && names.pod_uid.is_none() {
            return;
        }
        self.complete_by_lists(names);
        if names.pod.is_none() && self.listed.is_none_or(|at| at.elapsed() >= AGAIN) {
            self.list();
            self.complete_by_lists(names);
        }
        if names.container.is_none()
            && let Some(id) = names.container_id.clone()
        {
            self.complete_by_state(&id, names);
        }
    }

    fn complete_by_lists(&self, names: &mut WorkloadNames) {
        let container = names
            .container_id
            .as_deref()
            .and_then(|id| self.containers.get(id));
        if let Some([pod, namespace, container]) = container {
            names.pod = Some(pod.clone());
            names.namespace = Some(namespace.clone());
            names.container = Some(container.clone());
        } else if let Some((pod, namespace)) =
            names.pod_uid.as_deref().and_then(|uid| self.pods.get(uid))
        {
            names.pod = Some(pod.clone());
            names.namespace = Some(namespace.clone());
        }
    }

    fn list(&mut self) {
        self.listed = Some(Instant::now());
        self.pods.clear();
        for name in self.entries("var/log/pods") {
            // Neither a namespace nor a pod has an underscore in its name.
            let parts: Vec<&str> = name.split('_').collect();
            if let [namespace, pod, uid] = parts[..] {
                self.pods
                    .insert(uid.to_owned(), (pod.into(), namespace.into()));
            }
        }
        self.containers.clear();
        for name in self.entries("var/log/containers") {
            let found = name
                .strip_suffix(".log")
                .and_then(|name| name.rsplit_once('-'));
            let Some((rest, id)) = found else { continue };
            let parts: Vec<&str> = rest.split('_').collect();
            if let [pod, namespace, container] = parts[..] {
                self.containers.insert(
                    id.to_owned(),
                    [pod.into(), namespace.into(), container.into()],
                );
            }
        }
    }

    fn entries(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.root.join(folder)) else {
            return Vec::new();
        };
        entries
            .flatten()
            .take(MOST_ENTRIES)
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }

    /// The container's own state file.
    fn complete_by_state(&self, id: &str, names: &mut WorkloadNames) {
        let task = "run/containerd/io.containerd.runtime.v2.task";
        let runc = "run/containerd/runc";
        let mut files = Vec::new();
        for namespace in ["k8s.io", "moby", "default"] {
            files.push(format!("{task}/{namespace}/{id}/config.json"));
            files.push(format!("{runc}/{namespace}/{id}/state.json"));
        }
        files.extend([
            format!("run/runc/{id}/state.json"),
            format!("run/docker/runtime-runc/moby/{id}/state.json"),
            format!("run/containers/storage/overlay-containers/{id}/userdata/config.json"),
            format!("var/lib/docker/containers/{id}/config.v2.json"),
        ]);
        for file in files {
            if let Some(value) = self.json(&file) {
                take_in(&value, names);
            }
            if names.container.is_some() {
                return;
            }
        }
        // podman keeps the names of all containers in one file.
        let all = self.json("var/lib/containers/storage/overlay-containers/containers.json");
        let all = all.as_ref().and_then(Value::as_array);
        let of_id = all.and_then(|all| all.iter().find(|one| one["id"] == id));
        names.container = of_id.and_then(|one| name(&one["names"][0]));
    }

    fn json(&self, file: &str) -> Option<Value> {
        let file = File::open(self.root.join(file)).ok()?;
        let mut bytes = Vec::new();
        file.take(MOST_BYTES).read_to_end(&mut bytes).ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}

/// The keys of annotations and labels: containerd, CRI-O, cri-dockerd.
const CONTAINER: [&str; 2] = [
    "io.kubernetes.cri.container-name",
    "io.kubernetes.container.name",
];
const POD: [&str; 2] = ["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"];
const NAMESPACE: [&str; 2] = [
    "io.kubernetes.cri.sandbox-namespace",
    "io.kubernetes.pod.namespace",
];
const UID: [&str; 2] = ["io.kubernetes.cri.sandbox-uid", "io.kubernetes.pod.uid"];

/// Takes in a container's state or configuration.
fn take_in(value: &Value, names: &mut WorkloadNames) {
    let at = |pointer: &str| value.pointer(pointer);
    let maps = [
        at("/annotations"),
        at("/Config/Labels"),
        at("/config/annotations"),
    ];
    // runc's own state has its labels as `key=value`.
    let list = at("/config/labels").and_then(Value::as_array);
    let find = |keys: [&str; 2]| {
        keys.iter().find_map(|key| {
            let in_map = maps.iter().flatten().find_map(|map| name(map.get(*key)?));
            in_map.or_else(|| {
                list?.iter().find_map(|label| {
                    let value = label.as_str()?.strip_prefix(key)?.strip_prefix('=')?;
                    checked(value)
                })
            })
        })
    };
    names.container = names.container.take().or_else(|| find(CONTAINER));
    names.pod = names.pod.take().or_else(|| find(POD));
    names.namespace = names.namespace.take().or_else(|| find(NAMESPACE));
    names.pod_uid = names.pod_uid.take().or_else(|| find(UID));
    if names.container.is_none() {
        // docker: "/web".
        let docker = at("/Name").and_then(Value::as_str);
        names.container = docker.and_then(|name| checked(name.trim_start_matches('/')));
    }
}

fn name(value: &Value) -> Option<Arc<str>> {
    checked(value.as_str()?)
}

fn checked(name: &str) -> Option<Arc<str>> {
    (!name.is_empty() && name.len() <= LONGEST).then(|| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of files that is removed with the value.
    struct Node(PathBuf);

    impl Node {
        fn new(name: &str) -> Self {
            let at = std::env::temp_dir().join(format!("synprobe-{name}-{}", std::process::id()));
            fs::create_dir_all(&at).unwrap();
            Self(at)
        }

        fn write(&self, file: &str, text: &str) {
            let path = self.0.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn names(&self, id: Option<&str>, uid: Option<&str>) -> [Option<String>; 4] {
            let mut names = WorkloadNames {
                container_id: id.map(Into::into),
                pod_uid: uid.map(Into::into),
                ..WorkloadNames::default()
            };
            NodeFiles::below(&self.0).complete(&mut names);
            let text = |name: Option<Arc<str>>| name.map(|name| name.to_string());
            [names.container, names.pod, names.namespace, names.pod_uid].map(text)
        }
    }

    impl Drop for Node {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const UID_OF_POD: &str = "0f6a1c2e-1b7d-4a51-9c55-012300000000";

    fn some(texts: [&str; 4]) -> [Option<String>; 4] {
        texts.map(|text| (!text.is_empty()).then(|| text.to_owned()))
    }

    #[test]
    fn the_kubelets_log_folders_name_pod_and_container() {
        let node = Node::new("kubelet");
        let id = "aa".repeat(32);
        node.write(
            &format!("var/log/pods/shop_checkout-api-7d4_{UID_OF_POD}/checkout/0.log"),
            "",
        );
        node.write(
            &format!("var/log/containers/checkout-api-7d4_shop_checkout-{id}.log"),
            "",
        );
        node.write("var/log/pods/odd", "");
        let all = some(["checkout", "checkout-api-7d4", "shop", UID_OF_POD]);
        assert_eq!(node.names(Some(&id), Some(UID_OF_POD)), all);
        let pod = some(["", "checkout-api-7d4", "shop", UID_OF_POD]);
        assert_eq!(node.names(None, Some(UID_OF_POD)), pod);
        assert_eq!(node.names(None, None), some(["", "", "", ""]));
        assert_eq!(
            node.names(Some(&"bb".repeat(32)), None),
            some(["", "", "", ""])
        );
    }

    #[test]
    fn state_files_of_each_runtime() {
        let id = "cd".repeat(32);
        let cri = r#"{"io.kubernetes.cri.container-name":"checkout","io.kubernetes.cri.sandbox-name":"api",
            "io.kubernetes.cri.sandbox-namespace":"shop","io.kubernetes.cri.sandbox-uid":"u"}"#;
        let crio = r#"{"io.kubernetes.container.name":"checkout","io.kubernetes.pod.name":"api",
            "io.kubernetes.pod.namespace":"shop","io.kubernetes.pod.uid":"u"}"#;
        let labels = r#"["bundle=/x","io.kubernetes.cri.container-name=checkout",
            "io.kubernetes.cri.sandbox-name=api","io.kubernetes.cri.sandbox-namespace=shop",
            "io.kubernetes.cri.sandbox-uid=u"]"#;
        let whole = some(["checkout", "api", "shop", "u"]);
        let web = some(["web", "", "", ""]);
        let storage = "containers/storage/overlay-containers";
        for (file, text, expected) in [
            (
                format!("run/containerd/io.containerd.runtime.v2.task/k8s.io/{id}/config.json"),
                format!(r#"{{"annotations":{cri}}}"#),
                &whole,
            ),
            (
                format!("run/containerd/runc/k8s.io/{id}/state.json"),
                format!(r#"{{"config":{{"labels":{labels}}}}}"#),
                &whole,
            ),
            (
                format!("run/runc/{id}/state.json"),
                format!(r#"{{"config":{{"labels":{labels}}}}}"#),
                &whole,
            ),
            (
                format!("run/{storage}/{id}/userdata/config.json"),
                format!(r#"{{"annotations":{crio}}}"#),
                &whole,
            ),
            (
                format!("var/lib/docker/containers/{id}/config.v2.json"),
                format!(r#"{{"Name":"/k8s_x","Config":{{"Labels":{crio}}}}}"#),
                &whole,
            ),
            (
                format!("var/lib/docker/containers/{id}/config.v2.json"),
                r#"{"Name":"/web"}"#.to_owned(),
                &web,
            ),
            (
                format!("var/lib/{storage}/containers.json"),
                format!(r#"[{{"id":"x"}},{{"id":"{id}","names":["web"]}}]"#),
                &web,
            ),
        ] {
            let node = Node::new("runtime");
            node.write(&file, &text);
            assert_eq!(node.names(Some(&id), None), *expected, "{file}");
            for cut in 0..text.len() {
                node.write(&file, text.get(..cut).unwrap());
                let _ = node.names(Some(&id), None);
            }
        }
    }
}
