//! May we run here?

use thiserror::Error;

use crate::{
    kernel::{self, KernelVersion},
    probe::{
        btf::Btf,
        hooks::{Chosen, HOOKS},
        offsets,
    },
};
use synprobe_ebpf::config::MEMBERS;

/// One line and the remedy.
#[derive(Debug, Error)]
#[error("{what}: {remedy}")]
pub struct HostError {
    what: String,
    remedy: String,
}

/// What a run needs to know of the host.
pub struct Ready {
    pub places: [u32; MEMBERS.len()],
    pub hooks: Vec<Chosen>,
    pub hz: u32,
    pub kernel: KernelVersion,
    pub missing: Vec<&'static str>,
    pub ephemeral_ports: (u16, u16),
}

/// x
pub fn require() -> Result<Ready, HostError> {
    let e = |what: String| HostError {
        what,
        remedy: String::new(),
    };
    let btf = Btf::from_kernel().map_err(|x| e(x.to_string()))?;
    let resolved = offsets::resolve(&btf).map_err(|x| e(x.to_string()))?;
    let mut hooks = Vec::new();
    for hook in HOOKS {
        let p = btf
            .tracepoint_prototype(hook.name)
            .map_err(|x| e(x.to_string()))?;
        hooks.push(
            hook.choose(&p)
                .ok_or_else(|| e(format!("{} {:?}", hook.name, p.args)))?,
        );
    }
    Ok(Ready {
        places: resolved.places,
        hooks,
        hz: 250,
        kernel: kernel::version().map_err(|x| e(x.to_string()))?,
        missing: resolved.missing_features(),
        ephemeral_ports: (32768, 60999),
    })
}
