//! What to do about a listening socket.

use super::ListenerHistory;
use crate::model::LimitedBy;

/// The kernel's default of net.core.somaxconn since Linux 5.4: no smaller one is advised.
const DEFAULT_SOMAXCONN: u32 = 4096;

impl ListenerHistory {
    /// A command that shows or ends what keeps its owner from accept().
    pub fn owner_remedy(&self) -> Option<String> {
        let pid = self.last.pid?;
        let comm = crate::util::format::name(self.last.comm.as_deref()?).into_owned();
        let state = self.owner.as_ref().map(|[_, (_, last)]| last);
        Some(match state {
            Some(s) if s.state == 'T' => format!("let {comm} run again: kill -CONT {pid}"),
            Some(s) if s.is_frozen() => format!(
                "docker unpause, or write 0 into cgroup.freeze of its cgroup: cat /proc/{pid}/cgroup"
            ),
            // The soft limit alone, or both where the hard one is lower.
            Some(s) if s.is_out_of_descriptors() => format!(
                "see what {comm} keeps open: ls -l /proc/{pid}/fd; or raise its limit: prlimit --pid {pid} \
                 --nofile={most}: || prlimit --pid {pid} --nofile={most}",
                most = s.max_fds.unwrap_or(0).saturating_mul(2)
            ),
            _ => format!("see why {comm} does not accept(): cat /proc/{pid}/stack"),
        })
    }

    /// What makes its accept queue longer; `None`: not known.
    pub fn longer_queue(&self) -> Option<String> {
        let twice = self.last.accept_queue_max?.saturating_mul(2);
        match self.last.limited_by? {
            LimitedBy::Somaxconn => Some(format!(
                "net.core.somaxconn limits the queue, and listen() takes it over: {}sysctl -w \
                 net.core.somaxconn={}; then {}",
                self.in_its_netns(),
                twice.max(DEFAULT_SOMAXCONN),
                self.restart()
            )),
            LimitedBy::ListenBacklog => Some(format!(
                "the limit is the backlog that it gives to listen(): where more is due, {}",
                self.restart()
            )),
            LimitedBy::TcpMaxSynBacklog => None,
        }
    }

    /// How its application is restarted with another backlog.
    fn restart(&self) -> String {
        let plain = |unit: &str| {
            let ok = |b: u8| b.is_ascii_alphanumeric() || b"@:_.-".contains(&b);
            unit.ends_with(".service") && !unit.starts_with('-') && unit.bytes().all(ok)
        };
        let names = self.last.workload.0.as_deref();
        // What a container runs is restarted by other means.
        let own = names.filter(|names| names.container_id.is_none() && names.pod_uid.is_none());
        match own.and_then(|names| names.unit.as_deref()) {
            Some(unit) if plain(unit) => {
                format!("configure a longer backlog and restart it: systemctl restart {unit}")
            }
            _ => "configure a longer backlog and restart the application".to_owned(),
        }
    }

    /// Commands that let SYNs pass at a full SYN queue.
    pub fn syn_queue_remedy(&self) -> String {
        let enter = self.in_its_netns();
        let knob = match self.last.limited_by {
            Some(LimitedBy::TcpMaxSynBacklog) => {
                format!("; {enter}sysctl -w net.ipv4.tcp_max_syn_backlog=8192")
            }
            _ => String::new(),
        };
        format!("{enter}sysctl -w net.ipv4.tcp_syncookies=1{knob}")
    }

    /// What a command begins with that is to run in its namespace.
    pub fn in_its_netns(&self) -> String {
        // Its process need not be in the namespace of its socket.
        crate::verdict::enter(self.last.netns_name.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        model::{Listener, Workload, WorkloadNames},
        verdict::fixtures::listener,
    };

    fn of(unit: &str, container_id: Option<&str>, limited_by: LimitedBy) -> Option<String> {
        let names = WorkloadNames {
            unit: Some(unit.into()),
            container_id: container_id.map(Into::into),
            ..WorkloadNames::default()
        };
        let l = Listener {
            workload: Workload(Some(Arc::new(names))),
            limited_by: Some(limited_by),
            netns_name: Some("blue".into()),
            ..listener(129, 0)
        };
        ListenerHistory::new(&l, false).longer_queue()
    }

    #[test]
    fn what_limits_the_queue_is_raised_and_its_unit_restarted() {
        let longer = of("web.service", None, LimitedBy::Somaxconn).unwrap();
        assert!(
            longer.contains(": ip netns exec blue sysctl -w net.core.somaxconn=4096; then")
                && longer.ends_with(": systemctl restart web.service"),
            "{longer}"
        );
        for (unit, container) in [
            ("session-3.scope", None),
            ("a;b.service", None),
            ("web.service", Some("1a2b")),
        ] {
            let longer = of(unit, container, LimitedBy::ListenBacklog).unwrap();
            assert!(longer.ends_with("restart the application"), "{longer}");
        }
    }
}
