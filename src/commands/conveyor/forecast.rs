//! The forecast of a run: the total of the progress bar, and the size of a large output before it
//! is written.

use crate::input::survey::Survey;
use crate::progress::Progress;
use crate::sequence::counted;

/// The size in bytes from which outputs are announced.
const LARGE: u64 = 1 << 30;

/// The expected size of a run, logged once as soon as the input has been counted.
pub(super) struct Forecast {
    pub(super) survey: Option<Survey>,
    /// Number of shards of the run.
    pub(super) shards: u64,
    /// The size of the output in bytes, as a function of the numbers of sequences and residues.
    pub(super) size: Option<Box<dyn Fn(u64, u64) -> u64>>,
}

impl Forecast {
    /// Logs the forecast if it is known and has not been logged.
    pub(super) fn announce(&mut self, progress: &mut Progress) {
        let Some(found) = self.survey.as_ref().and_then(Survey::found) else {
            return;
        };
        self.survey = None;
        let (sequences, residues) = (found.records / self.shards, found.residues / self.shards);
        progress.expect(residues);
        let bytes = self
            .size
            .as_ref()
            .map_or(0, |size| size(sequences, residues));
        if bytes > LARGE {
            tracing::info!(
                "about {} of {}: the output will have about {:.1} GiB",
                counted(sequences, "sequence"),
                counted(residues, "residue"),
                bytes as f64 / LARGE as f64
            );
        }
    }
}
