//! Lines as earlier versions recorded them: postcard stores no field names, so a struct in a recording cannot
//! gain a field. `From` fills in what was not recorded yet as unknown.

use std::{net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{LaterCounters, LimitedBy, ListenCounters, Listener};

/// A [`Listener`] of recordings before `Input::ListenSockets`. The fields are those of the line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordedListener {
    local_addr: IpAddr,
    local_port: u16,
    netns: u32,
    netns_name: Option<Arc<str>>,
    pid: Option<u32>,
    comm: Option<Arc<str>>,
    cgroup: Option<Arc<str>>,
    syn_queue: Option<u32>,
    syn_queue_max: Option<u32>,
    accept_queue: Option<u32>,
    accept_queue_max: Option<u32>,
    limited_by: Option<LimitedBy>,
    overflows: Option<u64>,
    syn_cookies: Option<u64>,
    drops: Option<u64>,
}

impl From<RecordedListener> for Listener {
    fn from(r: RecordedListener) -> Self {
        Self {
            netns_name: r.netns_name,
            pid: r.pid,
            comm: r.comm,
            cgroup: r.cgroup,
            syn_queue: r.syn_queue,
            syn_queue_max: r.syn_queue_max,
            accept_queue: r.accept_queue,
            accept_queue_max: r.accept_queue_max,
            limited_by: r.limited_by,
            overflows: r.overflows,
            syn_cookies: r.syn_cookies,
            drops: r.drops,
            ..Self::at(r.netns, r.local_addr, r.local_port)
        }
    }
}

/// [`ListenCounters`] of recordings before `Input::ListenSockets`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedListenCounters {
    netns: u32,
    listen_overflows: Option<u64>,
    listen_drops: Option<u64>,
    syncookies_sent: Option<u64>,
    syncookies_recv: Option<u64>,
    req_q_full_drop: Option<u64>,
}

impl From<RecordedListenCounters> for ListenCounters {
    fn from(r: RecordedListenCounters) -> Self {
        Self {
            netns: r.netns,
            listen_overflows: r.listen_overflows,
            listen_drops: r.listen_drops,
            syncookies_sent: r.syncookies_sent,
            syncookies_recv: r.syncookies_recv,
            req_q_full_drop: r.req_q_full_drop,
            out_no_routes: None,
            out_rsts: None,
            migrate_req: None,
            later: LaterCounters::default(),
        }
    }
}
