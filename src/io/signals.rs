//! What the system tells a run: Ctrl-C and a queue's SIGTERM end it, but do not leave its unfinished files; a training run saves first.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::atomic_file::remove_unfinished;

/// From now on, SIGINT and SIGTERM first delete the unfinished files, then end the process as they always do. A signal that the process was
/// started to ignore (`nohup`, a shell's background job) stays ignored.
///
/// # Errors
/// Where the system has no thread left.
pub fn tidy_up_when_told_to_stop() -> io::Result<()> {
    let ignored = ignored();
    let wanted = [SIGINT, SIGTERM]
        .into_iter()
        .filter(|signal| ignored & (1 << (signal - 1)) == 0);
    let mut signals = Signals::new(wanted)?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                let _held = remove_unfinished();
                if let Err(error) = emulate_default_handler(signal) {
                    tracing::error!("signal {signal}: {error}");
                }
            }
        })?;
    Ok(())
}

/// The signals that this process ignores, as bits, where the system says so (Linux).
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

/// What a queue said to a training run since it was last asked for: SIGUSR1 (Slurm's warning) saves, SIGTERM saves and ends.
pub struct Said {
    save: Arc<AtomicBool>,
    end: Arc<AtomicBool>,
}

impl Said {
    /// Begins to listen.
    ///
    /// # Errors
    /// Where the system does not let it.
    pub fn register() -> io::Result<Self> {
        let said = Said {
            save: Arc::default(),
            end: Arc::default(),
        };
        signal_hook::flag::register(SIGUSR1, Arc::clone(&said.save))?;
        signal_hook::flag::register(SIGTERM, Arc::clone(&said.end))?;
        Ok(said)
    }

    /// Whether a checkpoint was asked for; asking forgets it.
    pub fn saves(&self) -> bool {
        self.save.swap(false, Ordering::Relaxed)
    }

    /// Whether the run must end.
    pub fn ends(&self) -> bool {
        self.end.load(Ordering::Relaxed)
    }
}
