//! The `ankh3` command: parsing, logging, threads, dispatch, and the exit code of an error.

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use ankh3::args::{UsageError, thread_count};
use ankh3::commands::help::arranged;
use ankh3::commands::{Command, Outcome, distinct};
use ankh3::io::signals::{clean_up_on_stop_signals, explain_truncated_maps};
use ankh3::io::stdio::is_stdout_closed;
use ankh3::shown::ShownMessage;
use clap::{ArgAction, ArgMatches, Args, CommandFactory, FromArgMatches, Parser};
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::format::debug_fn;

/// The protein language model Ankh3 on the command line.
///
/// Reads FASTA from stdin or files, writes results to stdout or files and messages to stderr. Exit
/// codes: 0 success, 1 failure, 2 wrong command line, 3 success but some records were skipped
/// (stderr lists these records).
#[derive(Parser)]
#[command(version, long_version = long_version(), propagate_version = true)]
#[command(disable_help_flag = true, disable_version_flag = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    global: GlobalArgs,
}

/// Flags that every sub-command has.
#[derive(Args)]
#[command(next_help_heading = "Global options")]
struct GlobalArgs {
    /// CPU threads [default: as many as this process may use].
    #[arg(long, short, global = true, value_name = "N", value_parser = thread_count, env = "ANKH3_THREADS", overrides_with = "threads")]
    threads: Option<usize>,

    /// Only warnings and errors on stderr, and no progress bar; twice: only errors.
    #[arg(long, short, global = true, action = ArgAction::Count)]
    quiet: u8,

    /// More messages on stderr; twice: even more.
    #[arg(long, short, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    verbose: u8,

    /// Print help; `-h` prints a summary.
    #[arg(long, short, global = true, action = ArgAction::Help)]
    help: Option<bool>,

    /// Print the version; `--version` also prints the commit and the features of this build.
    #[arg(long, short = 'V', global = true, action = ArgAction::Version)]
    version: Option<bool>,
}

/// The version, the commit if the build's environment had it (`ANKH3_COMMIT`), and the features.
fn long_version() -> String {
    let commit = option_env!("ANKH3_COMMIT").unwrap_or("unknown");
    let features = if cfg!(feature = "cuda") {
        "cuda"
    } else {
        "none"
    };
    format!(
        "{} (commit {commit}, features: {features})",
        env!("CARGO_PKG_VERSION")
    )
}

fn main() -> ExitCode {
    keep_freed_memory();
    tidy_environment();
    let (cli, matches) = parse();
    start_logging(cli.global.quiet, cli.global.verbose);
    if !matches!(cli.command, Command::Completions(_) | Command::Man(_)) {
        tracing::info!("ankh3 {}: {}", env!("CARGO_PKG_VERSION"), command_line());
    }
    let result = start_signals(&cli.command)
        .map_err(anyhow::Error::from)
        .and_then(|()| distinct::check(&matches))
        .and_then(|()| start_threads(cli.global.threads))
        .and_then(|()| cli.command.run(arranged(Cli::command())));
    match result {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::SomeFailed) => ExitCode::from(3),
        Err(error) if error.chain().any(is_stdout_closed) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", one_line(&error));
            ExitCode::from(if error.is::<UsageError>() { 2 } else { 1 })
        }
    }
}

/// Parses the command line; exits where it is wrong or asks for help.
fn parse() -> (Cli, ArgMatches) {
    let matches = arranged(Cli::command()).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    (cli, matches)
}

/// Keeps freed memory in the process, because each operation of the network allocates what the one
/// before has freed. Memory returned to the system in between would come back page by page, each
/// page cleared and mapped again: two thirds of all page faults and a fifteenth of the time of
/// `embed`.
fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(
        unsafe_code,
        reason = "two settings of the C library's allocator, before any other thread runs; a rejected value changes nothing"
    )]
    // SAFETY: see the reason.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
    }
}

/// An error and its causes in one line. A cause that the error quotes already is not repeated.
fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text = if text.is_empty() {
                cause
            } else {
                format!("{text}: {cause}")
            };
        }
    }
    text
}

/// Messages go to stderr, with unsafe characters escaped; `ANKH3_LOG` takes tracing's filters.
fn start_logging(quiet: u8, verbose: u8) {
    let level = match (quiet, verbose) {
        (0, 0) => "info",
        (1, _) => "warn",
        (2.., _) => "error",
        (0, 1) => "ankh3=debug,info",
        (0, _) => "ankh3=trace,debug",
    };
    let filter = EnvFilter::try_from_env("ANKH3_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let fields = debug_fn(|writer, field, value| {
        let text = format!("{value:?}");
        match field.name() {
            "message" => write!(writer, "{}", ShownMessage(&text)),
            name => write!(writer, "{name}={}", ShownMessage(&text)),
        }
    });
    tracing_subscriber::fmt()
        .fmt_fields(fields.delimited(" "))
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(has_colors())
        .without_time()
        .with_target(false)
        // A log that cannot be written must not end the run: tracing would panic.
        .log_internal_errors(false)
        .init();
}

/// Whether messages are coloured: on a terminal that has colours, unless `NO_COLOR` is set
/// (<https://no-color.org>).
fn has_colors() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    std::io::IsTerminal::is_terminal(&std::io::stderr())
        && !is_set("NO_COLOR")
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// On a signal that ends the run, `pretrain` saves a checkpoint; every other command deletes its
/// unfinished files.
fn start_signals(command: &Command) -> std::io::Result<()> {
    explain_truncated_maps()?;
    match command {
        Command::Pretrain(_) => Ok(()),
        _ => clean_up_on_stop_signals(),
    }
}

/// Sets the size of each thread pool: rayon's, which our kernels use, and candle's, which reads the
/// environment.
fn start_threads(threads: Option<usize>) -> anyhow::Result<()> {
    let available = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = threads.unwrap_or_else(available);
    for variable in ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"] {
        set_variable(variable.as_ref(), Some(threads.to_string().as_ref()));
    }
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()?;
    Ok(())
}

/// Removes variables of this program that are set to nothing, so that they mean the same as if they
/// were not set. Keeps backtraces, which `RUST_BACKTRACE` asks for, to panics: in an error of a
/// library, a backtrace would stand within the message.
fn tidy_environment() {
    let is_empty = |(name, value): &(OsString, OsString)| {
        value.is_empty() && name.to_string_lossy().starts_with("ANKH3_")
    };
    let empty: Vec<_> = std::env::vars_os().filter(is_empty).collect();
    for (name, _) in empty {
        set_variable(&name, None);
    }
    if std::env::var_os("RUST_LIB_BACKTRACE").is_none() {
        set_variable("RUST_LIB_BACKTRACE".as_ref(), Some("0".as_ref()));
    }
}

/// Sets or removes an environment variable, at the start of the process.
fn set_variable(name: &OsStr, value: Option<&OsStr>) {
    #[expect(
        unsafe_code,
        reason = "no other thread runs yet that could read the environment"
    )]
    // SAFETY: see the reason.
    unsafe {
        match value {
            Some(value) => std::env::set_var(name, value),
            None => std::env::remove_var(name),
        }
    }
}

fn command_line() -> String {
    let arguments = std::env::args_os().skip(1);
    arguments
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}
