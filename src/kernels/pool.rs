//! Rows of segments to one row each, where the rows are: what a GPU has to send back is then one row a protein.

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::plain;

pub use super::cuda::rows::Pool;

/// Rows `segments[i]` of `x (rows, width)`, pooled: row `i` of `(segments, width)`, f32. NaN and infinities show in the mean.
///
/// # Errors
/// Where a segment is empty or outside `x`.
pub fn pool(x: &Tensor, segments: &[Range<usize>], kind: Pool) -> Result<Tensor> {
    let rows = x.dim(0)?;
    if let Some(bad) = segments.iter().find(|s| s.is_empty() || s.end > rows) {
        candle_core::bail!("rows {bad:?} of {rows} cannot be pooled");
    }
    #[cfg(feature = "cuda")]
    if super::cuda::ops::takes(x) {
        let bounds: Vec<u32> = segments
            .iter()
            .flat_map(|segment| [segment.start as u32, segment.end as u32])
            .collect();
        return super::cuda::ops::pool(x, &bounds, kind);
    }
    plain::pool(x, segments, kind)
}
