//! From the hidden states of a protein's residues to its embedding: one row per residue, or one row
//! per protein. Prefix and `</s>` never count.

use serde::{Deserialize, Serialize};

/// The values of one protein, one row-major matrix per column.
pub type EmbeddingColumns = Vec<Vec<f32>>;

/// The pooling of a protein's residue rows into its embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Pooling {
    /// One row per residue
    PerResidue,
    /// The mean over residues
    Mean,
    /// The largest value of each dimension over residues
    Max,
    /// The smallest value of each dimension over residues
    Min,
    /// The standard deviation over residues (population form: 0 for a single residue)
    Std,
}

impl Pooling {
    /// The name of the column in an output: `per_residue`, `mean`, …
    pub fn column(self) -> &'static str {
        match self {
            Pooling::PerResidue => "per_residue",
            Pooling::Mean => "mean",
            Pooling::Max => "max",
            Pooling::Min => "min",
            Pooling::Std => "std",
        }
    }

    /// Pools `residues (length, width)`, row-major; sums are in f64.
    ///
    /// # Panics
    /// A protein without residues.
    pub fn apply(self, residues: &[f32], width: usize) -> Vec<f32> {
        assert!(
            !residues.is_empty() && residues.len().is_multiple_of(width),
            "a protein has whole rows"
        );
        match self {
            Pooling::PerResidue => residues.to_vec(),
            Pooling::Mean => narrow(&mean(residues, width)),
            Pooling::Max => fold(residues, width, f32::max),
            Pooling::Min => fold(residues, width, f32::min),
            Pooling::Std => narrow(&standard_deviation(residues, width)),
        }
    }
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|value| *value as f32).collect()
}

fn mean(residues: &[f32], width: usize) -> Vec<f64> {
    let mut sums = vec![0.0; width];
    for row in residues.chunks_exact(width) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += f64::from(*value);
        }
    }
    let length = (residues.len() / width) as f64;
    for sum in &mut sums {
        *sum /= length;
    }
    sums
}

fn standard_deviation(residues: &[f32], width: usize) -> Vec<f64> {
    let means = mean(residues, width);
    let mut squares = vec![0.0; width];
    for row in residues.chunks_exact(width) {
        for ((square, value), mean) in squares.iter_mut().zip(row).zip(&means) {
            *square += (f64::from(*value) - mean).powi(2);
        }
    }
    let length = (residues.len() / width) as f64;
    squares
        .iter()
        .map(|square| (square / length).sqrt())
        .collect()
}

fn fold(residues: &[f32], width: usize, f: impl Fn(f32, f32) -> f32) -> Vec<f32> {
    let mut rows = residues.chunks_exact(width);
    let mut result = rows.next().expect("checked by the caller").to_vec();
    for row in rows {
        for (kept, value) in result.iter_mut().zip(row) {
            *kept = f(*kept, *value);
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pooling_of_a_small_protein() {
        let residues = [1.0, -2.0, 3.0, 2.0, 5.0, 0.0];
        let table: [(Pooling, &[f32]); 5] = [
            (Pooling::PerResidue, &residues),
            (Pooling::Mean, &[3.0, 0.0]),
            (Pooling::Max, &[5.0, 2.0]),
            (Pooling::Min, &[1.0, -2.0]),
            (Pooling::Std, &[1.632_993_2, 1.632_993_2]),
        ];
        for (pooling, expected) in table {
            assert_eq!(pooling.apply(&residues, 2), expected, "{pooling:?}");
        }
    }
}
