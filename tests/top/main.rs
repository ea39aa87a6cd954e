//! `synprobe top`: frames from recordings, compared with those that are kept, and the program in a pseudo-terminal.
//! No root, no kernel.
//!
//! Where other frames are right: `SYNPROBE_BLESS=1 cargo test -p synprobe-tests --test top`, and read the
//! difference.

mod batch;
mod frames;
mod pictures;
mod screen;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use synprobe_tests::{binary, harness::TestFn};

fn main() -> ExitCode {
    let tests: [(&str, TestFn); 11] = [
        (
            "frames-are-those-that-are-kept",
            frames::are_those_that_are_kept,
        ),
        (
            "frames-fit-and-need-no-colour",
            frames::fit_and_need_no_colour,
        ),
        (
            "pictures-show-what-the-program-shows",
            pictures::show_what_the_program_shows,
        ),
        ("chinese-is-chinese", frames::chinese_is_chinese),
        ("back-in-a-replay", frames::back_is_where_it_was),
        ("batch", batch::frames_as_text),
        ("batch-no-terminal", batch::no_terminal),
        ("keys-resize-and-sigterm", screen::keys_resize_and_sigterm),
        ("quit-and-signals", screen::quit_and_signals),
        ("panic", screen::panic),
        ("no-colour", screen::no_colour),
    ];
    let trials = tests.map(|(name, test)| {
        Trial::test(name, move || {
            test().map_err(|e| Failed::from(format!("{e:#}")))
        })
    });
    let code = libtest_mimic::run(&Arguments::from_args(), trials.into()).exit_code();
    binary::remove();
    code
}
