//! The `ankh3` command: parse, logging, threads, dispatch, and an error's way to the exit code.

use std::process::ExitCode;

use ankh3::args::UsageError;
use ankh3::commands::{Command, Outcome};
use ankh3::io::signals::tidy_up_when_told_to_stop;
use ankh3::io::stdio::is_stdout_closed;
use clap::{ArgAction, CommandFactory, Parser};
use tracing_subscriber::filter::EnvFilter;

/// The protein language model Ankh3 on the command line.
///
/// FASTA from stdin or files, results to stdout or files, messages to stderr. Exit codes: 0 done, 1 failed, 2 usage, 3 done but some records were left
/// out (listed on stderr).
#[derive(Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Only warnings and errors on stderr; twice: only errors.
    #[arg(long, short, global = true, action = ArgAction::Count)]
    quiet: u8,

    /// More on stderr.
    #[arg(long, short, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    verbose: u8,
}

fn main() -> ExitCode {
    keep_freed_memory();
    let cli = Cli::parse();
    start_logging(cli.quiet, cli.verbose);
    tracing::info!("ankh3 {}: {}", env!("CARGO_PKG_VERSION"), command_line());
    let result = start_signals(&cli.command)
        .map_err(anyhow::Error::from)
        .and_then(|()| start_threads(cli.command.threads()))
        .and_then(|()| cli.command.run(Cli::command()));
    match result {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::SomeFailed) => ExitCode::from(3),
        Err(error) if error.chain().any(is_stdout_closed) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", told(&error));
            ExitCode::from(if error.is::<UsageError>() { 2 } else { 1 })
        }
    }
}

/// What an operation of the network frees, the next one asks for: given back to the system in between, it would come back page by page, each one cleared
/// and mapped anew (two thirds of all page faults, a fifteenth of the time of `embed`).
fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(
        unsafe_code,
        reason = "two settings of the C library's allocator, before any other thread runs; a value that it refuses changes nothing"
    )]
    // SAFETY: see the reason.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
    }
}

/// An error and its causes; several quote their cause themselves, and nothing is said twice.
fn told(error: &anyhow::Error) -> String {
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

/// Messages to stderr, one a line; `ANKH3_LOG` takes tracing's filters.
fn start_logging(quiet: u8, verbose: u8) {
    let level = match (quiet, verbose) {
        (0, 0) => "info",
        (1, _) => "warn",
        (2.., _) => "error",
        (0, 1) => "ankh3=debug,info",
        (0, _) => "ankh3=trace,debug",
    };
    let filter = EnvFilter::try_from_env("ANKH3_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .without_time()
        .with_target(false)
        // A log that cannot be written must not end the run: tracing would panic.
        .log_internal_errors(false)
        .init();
}

/// A training run saves when told to stop; every other command takes its unfinished files away.
fn start_signals(command: &Command) -> std::io::Result<()> {
    match command {
        Command::Pretrain(_) => Ok(()),
        _ => tidy_up_when_told_to_stop(),
    }
}

/// Sizes every pool: rayon's, which our kernels use, and candle's, which reads the environment.
fn start_threads(threads: Option<usize>) -> anyhow::Result<()> {
    let available = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = threads.unwrap_or_else(available);
    for variable in ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"] {
        #[expect(
            unsafe_code,
            reason = "no other thread runs yet that could read the environment"
        )]
        // SAFETY: see the reason.
        unsafe {
            std::env::set_var(variable, threads.to_string());
        }
    }
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()?;
    Ok(())
}

fn command_line() -> String {
    let arguments = std::env::args_os().skip(1);
    arguments
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}
