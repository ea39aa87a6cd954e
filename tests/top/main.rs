//! `synprobe top`: frames from recordings, compared with those that are kept, and the program in a pseudo-terminal.
//! Only the recordings that its key R makes need root.
//!
//! Where other frames are right: `SYNPROBE_BLESS=1 cargo test -p synprobe-tests --test top`, and read the
//! difference.

mod batch;
mod frames;
mod pictures;
mod record_here;
mod screen;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use synprobe_tests::{
    binary,
    harness::{self, TestFn},
};

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
    let of_a_kernel: [(&str, TestFn); 4] = [
        ("record-here-quiet", || {
            record_here::what_comes_between(false)
        }),
        ("record-here-every", || {
            record_here::what_comes_between(true)
        }),
        ("record-here-to-the-end", record_here::goes_on_at_the_end),
        ("record-here-refused", record_here::refused),
    ];
    let trial = |(name, test): (&str, TestFn)| {
        Trial::test(name, move || {
            test().map_err(|e| Failed::from(format!("{e:#}")))
        })
    };
    let mut trials: Vec<Trial> = tests.map(trial).into();
    let may_run = harness::host().is_ok();
    trials.extend(of_a_kernel.map(|of| trial(of).with_ignored_flag(!may_run)));
    let code = libtest_mimic::run(&Arguments::from_args(), trials).exit_code();
    binary::remove();
    code
}
