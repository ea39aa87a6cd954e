//! Parses arbitrary command lines; each line of the input is an argument. Each is accepted or rejected with a
//! message. Accepted ones go as far as possible without a kernel.

#![no_main]

use clap::Parser;
use libfuzzer_sys::fuzz_target;
use synprobe::{
    cli::{Cli, Command},
    filter::parse_cidr,
    sys::kernel::{self, KernelVersion},
};

fuzz_target!(|text: &str| {
    match Cli::try_parse_from(std::iter::once("synprobe").chain(text.lines())) {
        Ok(cli) => {
            let selection = match &cli.command {
                Command::Watch(args) => args.select.selection(),
                Command::Diagnose(args) => args.select.selection(),
                Command::Listeners(args) => args.selection(),
                Command::Connect(args) => {
                    let _ = args.target.host_text();
                    return;
                }
                _ => return,
            };
            let _ = selection.describe();
            let _ = selection.to_kernel(synprobe::filter::Detail::default(), (32_768, 60_999));
        }
        Err(refused) => assert!(!refused.to_string().is_empty()),
    }
    let _ = parse_cidr(text);
    // Files of the host are parsed in the same way.
    let _ = KernelVersion::parse(text);
    let _ = kernel::hz_of_timer_list(text);
    let _ = kernel::hz_of_config(text);
});
