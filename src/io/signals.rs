//! Signals: Ctrl-C, the SIGTERM of a queue, a terminal that closes and a limit that is reached end a
//! run after its unfinished files are deleted; a training run saves a checkpoint first.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGXCPU, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::unfinished::remove_unfinished;

/// Signals on which a training run saves a checkpoint before it ends.
const SAVED_FIRST: [i32; 4] = [SIGINT, SIGTERM, SIGHUP, SIGXCPU];
/// Signals that end every run at once.
const AT_ONCE: [i32; 2] = [SIGQUIT, SIGXFSZ];

/// From now on, all signals that end a run first delete the unfinished files, then end the process
/// as usual (a shell sees 128 and the number of the signal). A signal that the process was started to ignore (`nohup`, a shell's background job) stays
/// ignored.
///
/// # Errors
/// Where the system has no thread left.
pub fn clean_up_on_stop_signals() -> io::Result<()> {
    clean_up_on(SAVED_FIRST.into_iter().chain(AT_ONCE))
}

fn clean_up_on(signals: impl Iterator<Item = i32>) -> io::Result<()> {
    let mut signals = Signals::new(not_ignored(signals))?;
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

fn not_ignored(signals: impl Iterator<Item = i32>) -> impl Iterator<Item = i32> {
    let ignored = ignored();
    signals.filter(move |signal| ignored & (1 << (signal - 1)) == 0)
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
/// Ctrl-C, SIGTERM, SIGHUP and SIGXCPU save one and end the run.
pub struct StopSignals {
    save: Arc<AtomicBool>,
    end: Arc<AtomicBool>,
}

impl StopSignals {
    /// Takes over these signals from now on. The second one that ends the run ends it at once; so
    /// do SIGQUIT and SIGXFSZ.
    ///
    /// # Errors
    /// Where the system does not allow a handler.
    pub fn register() -> io::Result<Self> {
        let signals = StopSignals {
            save: Arc::default(),
            end: Arc::default(),
        };
        flag::register(SIGUSR1, Arc::clone(&signals.save))?;
        for signal in not_ignored(SAVED_FIRST.into_iter()) {
            flag::register_conditional_default(signal, Arc::clone(&signals.end))?;
            flag::register(signal, Arc::clone(&signals.end))?;
        }
        clean_up_on(AT_ONCE.into_iter())?;
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
