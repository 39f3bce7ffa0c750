//! Signals: Ctrl-C and the SIGTERM of a queue end a run after its unfinished files are deleted; a
//! training run saves a checkpoint first. A file that is read through a memory map and becomes
//! shorter ends the process with a message.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGBUS, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::atomic_file::remove_unfinished;

/// From now on, SIGINT and SIGTERM first delete the unfinished files, then end the process as
/// usual. A signal that the process was started to ignore (`nohup`, a shell's background job) stays
/// ignored.
///
/// # Errors
/// Where the system has no thread left.
pub fn clean_up_on_stop_signals() -> io::Result<()> {
    let ignored = ignored();
    let wanted = [SIGINT, SIGTERM]
        .into_iter()
        .filter(|signal| ignored & (1 << (signal - 1)) == 0);
    let mut signals = Signals::new(wanted)?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
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

/// From now on, the first Ctrl-C sets `end`, and a second one deletes the unfinished files and ends
/// the process.
fn end_on_ctrl_c(end: Arc<AtomicBool>) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT])?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                if !end.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        "Ctrl-C: this step is finished and saved, then the run ends; Ctrl-C again ends it at once"
                    );
                    continue;
                }
                let _lock = remove_unfinished();
                if let Err(error) = emulate_default_handler(signal) {
                    tracing::error!("signal {signal}: {error}");
                }
            }
        })?;
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

/// The signals that a training run has received: SIGUSR1 (a queue's warning) saves a checkpoint,
/// SIGTERM and Ctrl-C save one and end the run. A second Ctrl-C ends the run at once.
pub struct StopSignals {
    save: Arc<AtomicBool>,
    end: Arc<AtomicBool>,
}

impl StopSignals {
    /// Takes over the signals from now on. A Ctrl-C that the process was started to ignore stays
    /// ignored.
    ///
    /// # Errors
    /// Where the system does not allow a handler or has no thread left.
    pub fn register() -> io::Result<Self> {
        let signals = StopSignals {
            save: Arc::default(),
            end: Arc::default(),
        };
        signal_hook::flag::register(SIGUSR1, Arc::clone(&signals.save))?;
        signal_hook::flag::register(SIGTERM, Arc::clone(&signals.end))?;
        if ignored() & (1 << (SIGINT - 1)) == 0 {
            end_on_ctrl_c(Arc::clone(&signals.end))?;
        }
        Ok(signals)
    }

    /// Whether SIGUSR1 has arrived since the last call.
    pub fn saves(&self) -> bool {
        self.save.swap(false, Ordering::Relaxed)
    }

    /// Whether SIGTERM or Ctrl-C has arrived: the run must end.
    pub fn ends(&self) -> bool {
        self.end.load(Ordering::Relaxed)
    }
}
