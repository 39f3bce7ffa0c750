//! A head applied to proteins.

use rayon::prelude::*;

use super::error::ProbeError;
use super::features::Features;
use super::head::Head;
use crate::inference::contacts::PairMap;

/// What a head computes of one protein: rows of logits, or one row of one number.
pub type OutputRows = Vec<Vec<f32>>;

/// The outputs of every protein, in order.
///
/// # Errors
/// A cache that cannot be read, or a head that does not fit the rows.
pub fn outputs(head: &Head, features: &Features<'_>) -> Result<Vec<OutputRows>, ProbeError> {
    let one = |number: usize| {
        let rows = features.tensor(number, head.device())?;
        Ok(head.forward(&rows, None)?.to_vec2::<f32>()?)
    };
    if head.device().is_cpu() {
        (0..features.len()).into_par_iter().map(one).collect()
    } else {
        (0..features.len()).map(one).collect()
    }
}

/// The logit of a contact of every pair of residues of protein `number`.
///
/// # Errors
/// A cache that cannot be read, or a head that does not fit the rows.
pub fn contact_logits(
    head: &Head,
    features: &Features<'_>,
    number: usize,
) -> Result<PairMap, ProbeError> {
    let logits = head.forward(&features.tensor(number, head.device())?, None)?;
    let length = logits.dim(0)?;
    Ok(PairMap::new(length, logits.flatten_all()?.to_vec1()?))
}
