//! The `main` of kernel tests. Tests run in parallel, each in its own namespaces. Where the host does not
//! allow them, each is listed as ignored with the reason.

use std::{fmt, process::ExitCode, sync::OnceLock, time::Instant};

use anyhow::{Result, anyhow};
use libtest_mimic::{Arguments, Failed, Trial};
use synprobe::preflight::{self, HostError, Ready};

use crate::guest::is_guest;

/// Tests in parallel. They mostly wait for the kernel's timers, so this exceeds the number of processors.
const THREADS: usize = 8;

/// Attempts of a test whose run is undecided.
const ATTEMPTS: usize = 6;

/// The host disturbed a run: the tested situation did not occur, or the run reports lost records. Such a run
/// decides nothing, and the test is repeated a few times.
#[derive(Debug)]
pub struct Undecided(pub String);

impl fmt::Display for Undecided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Undecided {}

/// The host's capabilities, determined once for all tests of a program.
///
/// # Errors
///
/// [`HostError`] where nothing can be watched.
pub fn host() -> Result<&'static Ready, HostError> {
    static HOST: OnceLock<Result<Ready, HostError>> = OnceLock::new();
    HOST.get_or_init(preflight::require)
        .as_ref()
        .map_err(HostError::clone)
}

/// The function of a test without parameters.
pub type TestFn = fn() -> Result<()>;

/// One test.
pub struct Case {
    name: String,
    run: Box<dyn Fn() -> Result<()> + Send>,
    /// Whether it needs IPv6.
    v6: bool,
}

impl Case {
    /// A test.
    pub fn new(name: impl Into<String>, run: impl Fn() -> Result<()> + Send + 'static) -> Self {
        Self {
            name: name.into(),
            run: Box::new(run),
            v6: false,
        }
    }

    /// A test for one family of the lab.
    pub fn for_family(
        name: &str,
        family: synprobe_lab::SocketFamily,
        run: impl Fn(synprobe_lab::SocketFamily) -> Result<()> + Send + 'static,
    ) -> Self {
        Self {
            v6: family != synprobe_lab::SocketFamily::V4,
            ..Self::new(format!("{name}::{}", family_name(family)), move || {
                run(family)
            })
        }
    }
}

/// Every scenario of the lab, longest first, so that the others run in parallel.
pub fn scenarios() -> Vec<&'static dyn synprobe_lab::Scenario> {
    let mut scenarios = synprobe_lab::all().to_vec();
    scenarios.sort_by_key(|s| std::cmp::Reverse(s.nominal_seconds()));
    scenarios
}

/// Name of a family in test names.
pub fn family_name(family: synprobe_lab::SocketFamily) -> &'static str {
    match family {
        synprobe_lab::SocketFamily::V4 => "ipv4",
        synprobe_lab::SocketFamily::V6 => "ipv6",
        synprobe_lab::SocketFamily::V4Mapped => "mapped",
    }
}

/// The `main` of a program of kernel tests.
pub fn main(cases: Vec<Case>) -> ExitCode {
    main_with(cases, THREADS)
}

/// As [`main`], with another number of parallel tests.
pub fn main_with(cases: Vec<Case>, threads: usize) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(threads);
    conclude(cases, &arguments)
}

/// As [`main`], one test at a time whatever the arguments are: for tests that affect shared state.
pub fn main_alone(cases: Vec<Case>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    conclude(cases, &arguments)
}

fn conclude(cases: Vec<Case>, arguments: &Arguments) -> ExitCode {
    // A run that began with SIGHUP ignored, as under nohup, keeps it so. Tests begin alike, whatever started them.
    // SAFETY: it sets no handler.
    unsafe { libc::signal(libc::SIGHUP, libc::SIG_DFL) };
    let refusal = host().err().map(|error| {
        let text = error.to_string();
        format!("needs root: {}", text.lines().next().unwrap_or_default())
    });
    let has_ipv6 = synprobe_lab::has_ipv6();
    let trials = cases
        .into_iter()
        .map(|case| {
            let reason = refusal.clone().or_else(|| {
                (case.v6 && !has_ipv6).then(|| "needs IPv6: this kernel has none".to_owned())
            });
            let name = case.name.clone();
            let trial = Trial::test(case.name, move || decide(&name, &*case.run));
            match reason {
                Some(reason) => trial.with_kind(reason).with_ignored_flag(true),
                None => trial,
            }
        })
        .collect();
    libtest_mimic::run(arguments, trials).exit_code()
}

fn decide(name: &str, run: &dyn Fn() -> Result<()>) -> Result<(), Failed> {
    let began = Instant::now();
    let decided = attempts(name, run);
    if is_guest() {
        println!("took: {name} {:.1} s", began.elapsed().as_secs_f64());
    }
    decided
}

fn attempts(name: &str, run: &dyn Fn() -> Result<()>) -> Result<(), Failed> {
    for attempt in 1.. {
        match run() {
            Err(error) if attempt < ATTEMPTS && error.downcast_ref::<Undecided>().is_some() => {
                println!("undecided, repeated: {name}: {error:#}");
            }
            // Include the causes.
            result => return result.map_err(|error| Failed::from(format!("{error:#}"))),
        }
    }
    Ok(())
}

/// Puts an error after the lines of its run, because readers look at the end of a log.
pub fn after_lines(lines: &str, error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<Undecided>() {
        Ok(undecided) => undecided.into(),
        Err(error) => anyhow!("the run's lines:\n{lines}\n{error:#}"),
    }
}

/// Prints a measured value to the log.
pub fn figure(text: impl AsRef<str>) {
    println!("figure: {}", text.as_ref());
}
