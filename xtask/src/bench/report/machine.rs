//! Section: the machine.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
};

use serde::Serialize;

/// Where the bench ran.
#[derive(Serialize)]
pub struct Machine {
    /// Kernel release.
    pub kernel: String,
    /// Number of CPUs.
    pub cpus: usize,
    /// Other tracing programs that were loaded at the start, with the number of each.
    pub others: BTreeMap<String, u32>,
}

pub(super) fn write(out: &mut String, machine: &Machine) -> fmt::Result {
    writeln!(
        out,
        "Linux {}, {} CPUs; load: TCP connections over loopback, each opened, accepted and closed",
        machine.kernel, machine.cpus
    )?;
    if !machine.others.is_empty() {
        let others = machine.others.iter().map(|(name, n)| format!("{n} {name}"));
        let others: Vec<_> = others.collect();
        writeln!(
            out,
            "other tracing programs were loaded at the start: {}",
            others.join(", ")
        )?;
    }
    Ok(())
}
