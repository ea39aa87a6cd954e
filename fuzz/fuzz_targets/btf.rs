//! Any bytes as the kernel's type information give a result or a typed error, for every member, prototype
//! and enumerator.

#![no_main]

use libfuzzer_sys::fuzz_target;
use synprobe::probe::{btf::Btf, drop_reasons::Reasons, hooks::HOOKS, offsets};

fuzz_target!(|data: &[u8]| {
    let Ok(btf) = Btf::parse(data) else { return };
    let _ = offsets::resolve(&btf);
    for hook in HOOKS {
        if let Ok(prototype) = btf.tracepoint_prototype(hook.name) {
            let _ = (prototype.to_string(), hook.choose(&prototype));
        }
    }
    let _ = Reasons::from_btf(&btf).to_kernel(true);
    let _ = btf.function_id("tcp_conn_request");
});
