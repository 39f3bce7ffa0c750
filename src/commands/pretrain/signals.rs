//! What a queue says to a run: SIGUSR1 (Slurm's warning) saves, SIGTERM saves and ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;

/// What was heard since it was last asked for.
pub(super) struct Signals {
    save: Arc<AtomicBool>,
    end: Arc<AtomicBool>,
}

impl Signals {
    /// Begins to listen.
    pub(super) fn register() -> Result<Self> {
        let signals = Signals {
            save: Arc::default(),
            end: Arc::default(),
        };
        #[cfg(unix)]
        {
            use signal_hook::consts::{SIGTERM, SIGUSR1};
            signal_hook::flag::register(SIGUSR1, Arc::clone(&signals.save))?;
            signal_hook::flag::register(SIGTERM, Arc::clone(&signals.end))?;
        }
        Ok(signals)
    }

    /// Whether a checkpoint was asked for; asking forgets it.
    pub(super) fn saves(&self) -> bool {
        self.save.swap(false, Ordering::Relaxed)
    }

    /// Whether the run must end.
    pub(super) fn ends(&self) -> bool {
        self.end.load(Ordering::Relaxed)
    }
}
