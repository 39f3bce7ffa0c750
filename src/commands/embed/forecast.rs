//! What a run will come to: the bar's total, and a word on the output's size before a large one.

use crate::input::survey::Survey;
use crate::output::embeddings::{EmbeddingFormat, Schema};
use crate::progress::Progress;

/// Outputs from this size on are announced.
const LARGE: u64 = 1 << 30;

/// A forecast that is told once, as soon as the survey of the input is there.
pub(super) struct Forecast {
    pub survey: Option<Survey>,
    pub shards: u64,
    pub format: EmbeddingFormat,
    pub schema: Schema,
}

impl Forecast {
    /// Tells it if it is there and was not told yet.
    pub(super) fn tell(&mut self, progress: &mut Progress) {
        let Some(found) = self.survey.as_ref().and_then(Survey::found) else {
            return;
        };
        self.survey = None;
        let (sequences, residues) = (found.records / self.shards, found.residues / self.shards);
        progress.expect(residues);
        let bytes = self.schema.estimated_size(self.format, sequences, residues);
        if bytes > LARGE {
            tracing::info!(
                "about {sequences} sequences of {residues} residues: the output will have about {:.1} GiB",
                bytes as f64 / LARGE as f64
            );
        }
    }
}
