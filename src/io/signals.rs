//! Signals: Ctrl-C, the SIGTERM of a queue, a terminal that closes and a limit that is reached end a
//! run after its unfinished files are deleted; a training run saves a checkpoint first. A file that
//! is read through a memory map and becomes shorter ends the process with a message.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGBUS, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGXCPU, SIGXFSZ};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::unfinished::remove_unfinished;

/// Signals on which a training run saves a checkpoint before it ends.
const SAVED_FIRST: [i32; 4] = [SIGINT, SIGTERM, SIGHUP, SIGXCPU];
/// Signals that end every run at once.
const AT_ONCE: [i32; 2] = [SIGQUIT, SIGXFSZ];

/// From now on, all signals that end a run first delete the unfinished files, then end the process
/// as usual (a shell sees 128 and the number of the signal). A signal that the process was started
/// to ignore (`nohup`, a shell's background job) stays ignored.
///
/// # Errors
/// Where the system has no thread left.
pub fn clean_up_on_stop_signals() -> io::Result<()> {
    clean_up_where(|_| true)
}

/// From now on, a signal for which `ends` is true deletes the unfinished files and ends the process.
fn clean_up_where(ends: impl Fn(i32) -> bool + Send + 'static) -> io::Result<()> {
    let ignored = ignored();
    let all = SAVED_FIRST.into_iter().chain(AT_ONCE);
    let mut signals = Signals::new(all.filter(|signal| ignored & (1 << (signal - 1)) == 0))?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever().filter(|signal| ends(*signal)) {
                let _lock = remove_unfinished();
                if let Err(error) = emulate_default_handler(signal) {
                    tracing::error!("signal {signal}: {error}");
                }
            }
        })?;
    Ok(())
}

/// What a user reads where a page of a memory map cannot be read.
const TRUNCATED: &str = "ERROR a file of the model was truncated or overwritten while it was read (or its disk failed); \
    make the model complete again and repeat the run (SIGBUS)\n";

/// From now on, SIGBUS ends the process with a message and exit code 1. The system sends it where a
/// mapped file, that is a model's weights, has become shorter than its map.
///
/// # Errors
/// Where the system does not allow a handler.
pub fn explain_truncated_maps() -> io::Result<()> {
    #[expect(
        unsafe_code,
        reason = "the handler makes two system calls, which are allowed in handlers, and touches no memory but a constant"
    )]
    // SAFETY: see the reason.
    unsafe {
        signal_hook::low_level::register(SIGBUS, || {
            libc::write(
                libc::STDERR_FILENO,
                TRUNCATED.as_ptr().cast(),
                TRUNCATED.len(),
            );
            libc::_exit(1);
        })?;
    }
    Ok(())
}

/// The signals that this process ignores, as bits; 0 on systems other than Linux.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

/// The signals that a training run has received: SIGUSR1 (a queue's warning) saves a checkpoint;
/// Ctrl-C, SIGTERM, SIGHUP and SIGXCPU save one and end the run.
pub struct StopSignals {
    save: Arc<AtomicBool>,
    end: Arc<AtomicBool>,
}

impl StopSignals {
    /// Takes over these signals from now on. Ctrl-C after any of those that end the run ends it at
    /// once; so do SIGQUIT and SIGXFSZ. Another SIGTERM does not, because queues send it to a job
    /// and to its steps.
    ///
    /// # Errors
    /// Where the system does not allow a handler or has no thread left.
    pub fn register() -> io::Result<Self> {
        let signals = StopSignals {
            save: Arc::default(),
            end: Arc::default(),
        };
        signal_hook::flag::register(SIGUSR1, Arc::clone(&signals.save))?;
        let end = Arc::clone(&signals.end);
        clean_up_where(move |signal| {
            if AT_ONCE.contains(&signal) {
                return true;
            }
            let was_ending = end.swap(true, Ordering::Relaxed);
            if !was_ending {
                tracing::warn!(
                    "this step is finished and saved, then the run ends; Ctrl-C again ends it at once"
                );
            }
            was_ending && signal == SIGINT
        })?;
        Ok(signals)
    }

    /// Whether SIGUSR1 has arrived since the last call.
    pub fn saves(&self) -> bool {
        self.save.swap(false, Ordering::Relaxed)
    }

    /// Whether a signal that ends the run has arrived.
    pub fn ends(&self) -> bool {
        self.end.load(Ordering::Relaxed)
    }
}
