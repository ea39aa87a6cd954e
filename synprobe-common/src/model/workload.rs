//! What a process belongs to: a systemd unit, a container, a pod.

use std::{borrow::Cow, sync::Arc};

use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct};

use crate::util::format;

/// Digits of a container id that a text shows, as `docker ps` does.
const SHORT_ID: usize = 12;

/// Names of what a process belongs to; `None` where it is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WorkloadNames {
    /// systemd unit, as systemd prints it.
    pub unit: Option<Arc<str>>,
    /// 64 hexadecimal digits.
    pub container_id: Option<Arc<str>>,
    /// Kubernetes pod uid, with hyphens.
    pub pod_uid: Option<Arc<str>>,
    /// Name of the container.
    pub container: Option<Arc<str>>,
    /// Name of the pod.
    pub pod: Option<Arc<str>>,
    /// Kubernetes namespace.
    pub namespace: Option<Arc<str>>,
}

impl WorkloadNames {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// [`WorkloadNames`], shared by all connections of one. As JSON: its six fields, null where nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Workload(pub Option<Arc<WorkloadNames>>);

impl Workload {
    /// The names and values of the six fields.
    pub fn fields(&self) -> [(&'static str, Option<&str>); 6] {
        let names = self.0.as_deref();
        let field =
            |pick: fn(&WorkloadNames) -> &Option<Arc<str>>| names.and_then(|n| pick(n).as_deref());
        [
            ("unit", field(|n| &n.unit)),
            ("container_id", field(|n| &n.container_id)),
            ("pod_uid", field(|n| &n.pod_uid)),
            ("container", field(|n| &n.container)),
            ("pod", field(|n| &n.pod)),
            ("namespace", field(|n| &n.namespace)),
        ]
    }

    /// The process by its best name: `checkout-api-7d4 (checkout/shop) pid 13255`, `nginx/812 of nginx.service`,
    /// `java/812`. Several processes have no pid: `checkout-api-7d4 (checkout/shop)`, `curl of cron.service`.
    pub fn who(&self, comm: &str, pid: Option<u32>) -> String {
        let mut process = format::name(comm).into_owned();
        let mut pid_after = String::new();
        if let Some(pid) = pid {
            process.push_str(&format!("/{pid}"));
            pid_after = format!(" pid {pid}");
        }
        let Some(names) = self.0.as_deref() else {
            return process;
        };
        let safe =
            |name: &Option<Arc<str>>| name.as_ref().map(|name| format::safe(name).into_owned());
        if let Some(pod) = safe(&names.pod) {
            let within = [safe(&names.container), safe(&names.namespace)];
            let within: Vec<String> = within.into_iter().flatten().collect();
            return match within.is_empty() {
                true => format!("{pod}{pid_after}"),
                false => format!("{pod} ({}){pid_after}", within.join("/")),
            };
        }
        if let Some(container) = safe(&names.container) {
            return format!("{container} ({}){pid_after}", format::safe(comm));
        }
        let id = names.container_id.as_deref();
        let id = id.map(|id| format!("container {}", id.get(..SHORT_ID).unwrap_or(id)));
        let pod = names.pod_uid.as_ref().map(|uid| format!("pod {uid}"));
        let of = match (pod, id) {
            (Some(pod), Some(id)) => format!("{pod}, {id}"),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => match safe(&names.unit) {
                Some(unit) => unit,
                None => return process,
            },
        };
        format!("{process} of {of}")
    }
}

impl Serialize for Workload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Workload", 6)?;
        for (name, value) in self.fields() {
            fields.serialize_field(name, &value)?;
        }
        fields.end()
    }
}

/// The process of a line by its best name, or several of one name; empty where it is not known.
pub fn who<'a>(comm: Option<&str>, pid: Option<u32>, workload: &Workload) -> Cow<'a, str> {
    match comm {
        Some(comm) => workload.who(comm, pid).into(),
        None => "".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_goes_by_its_best_name() {
        let name = |text: &str| Some(Arc::from(text));
        let mut names = WorkloadNames::default();
        let who =
            |names: &WorkloadNames| Workload(Some(Arc::new(names.clone()))).who("api", Some(7));
        assert_eq!(Workload::default().who("api", Some(7)), "api/7");
        assert_eq!(who(&names), "api/7");
        names.unit = name("api.service");
        assert_eq!(who(&names), "api/7 of api.service");
        let several = Workload(Some(Arc::new(names.clone())));
        assert_eq!(several.who("api", None), "api of api.service");
        names.container_id = Some("ab".repeat(32).into());
        assert_eq!(who(&names), "api/7 of container abababababab");
        names.pod_uid = name("0f6a");
        assert_eq!(who(&names), "api/7 of pod 0f6a, container abababababab");
        names.container = name("checkout");
        assert_eq!(who(&names), "checkout (api) pid 7");
        names.pod = name("checkout-api-7d4");
        assert_eq!(who(&names), "checkout-api-7d4 (checkout) pid 7");
        names.namespace = name("shop\x1b[0m");
        let text = who(&names);
        assert!(
            text.starts_with("checkout-api-7d4 (checkout/shop"),
            "{text}"
        );
        assert!(
            !text.contains('\x1b'),
            "a name is no escape sequence: {text:?}"
        );
    }

    #[test]
    fn unknown_is_null() {
        let json = serde_json::to_string(&Workload::default()).unwrap();
        assert_eq!(
            json,
            r#"{"unit":null,"container_id":null,"pod_uid":null,"container":null,"pod":null,"namespace":null}"#
        );
    }
}
