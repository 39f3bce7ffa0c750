//! Pooling of each segment's rows into one row, on the device that holds them, so that a GPU
//! returns one row per protein.

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::plain;
use super::plan::Pool;

/// Pools the rows `segments[i]` of `x (rows, width)` into row `i` of `(segments, width)`, f32. NaN
/// and infinities show in the mean.
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
