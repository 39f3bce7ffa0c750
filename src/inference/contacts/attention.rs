//! Attention maps as features of pairs: rows and columns of residues only, symmetrised and
//! corrected; one map per head, numbered `layer · heads + head`.

use candle_core::Result;

use super::PairMap;
use crate::model::Encoder;
use crate::tokenizer::Encoding;

/// The number of features of every pair: layers × heads.
pub fn num_features(encoder: &Encoder) -> usize {
    encoder.config().num_layers * encoder.config().num_heads
}

/// Passes the corrected map of each head to `look`, with its number. Memory grows with length², not
/// with layers or heads: about 40 bytes per pair.
///
/// # Errors
/// The network's failure.
pub fn features(
    encoder: &Encoder,
    encoding: &Encoding,
    mut look: impl FnMut(usize, PairMap),
) -> Result<()> {
    let heads = encoder.config().num_heads;
    let (first, length) = (encoding.first_residue, encoding.residues().len());
    encoder.attention_maps(&encoding.token_ids, |layer, head, map| {
        let residues = map.narrow(0, first, length)?.narrow(1, first, length)?;
        let values = residues.contiguous()?.flatten_all()?.to_vec1()?;
        let mut map = PairMap::new(length, values);
        map.symmetrize();
        map.apc();
        look(layer * heads + head, map);
        Ok(())
    })
}

/// `Σ weight · feature + bias` of every pair, without keeping more than one map.
///
/// # Errors
/// The network's failure.
pub fn weighted(
    encoder: &Encoder,
    encoding: &Encoding,
    weights: &[f64],
    bias: f64,
) -> Result<PairMap> {
    let length = encoding.residues().len();
    let mut sum = PairMap::new(length, vec![bias as f32; length * length]);
    features(encoder, encoding, |number, map| {
        let weight = weights[number] as f32;
        if weight != 0.0 {
            let pairs = sum.values_mut().iter_mut().zip(map.values());
            pairs.for_each(|(sum, value)| *sum += weight * value);
        }
    })?;
    Ok(sum)
}
