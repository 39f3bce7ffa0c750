//! Contact maps from a model's attention and outputs.
//!
//! ```text
//! symmetrize  S = A + Aᵀ
//! apc         S − r rᵀ / Σ S,  r the sums of rows: removes the coupling of a residue with all others
//!             (average product correction, Dunn et al. 2008, doi 10.1093/bioinformatics/btm604)
//! ```
//!
//! [`attention`]: one feature per head, for a logistic regression (Rao et al. 2021, ESM, doi
//! 10.1101/2020.12.15.422761). [`jacobian`]: the effects of substitutions on the model's outputs at
//! other positions, without any training (Zhang et al. 2024, doi 10.1101/2024.01.30.577970).

pub mod attention;
pub mod jacobian;
mod rounds;
mod select;

pub use rounds::{Round, rounds};
pub use select::{Top, select};

/// A number for every pair of residues: row-major `(length, length)`.
#[derive(Clone, Debug, PartialEq)]
pub struct PairMap {
    length: usize,
    values: Vec<f32>,
}

impl PairMap {
    /// A map of `length²` values, row-major.
    ///
    /// # Panics
    /// Another number of values.
    pub fn new(length: usize, values: Vec<f32>) -> Self {
        assert_eq!(values.len(), length * length, "a map is square");
        Self { length, values }
    }

    /// A map of zeros.
    pub fn zeros(length: usize) -> Self {
        Self::new(length, vec![0.0; length * length])
    }

    /// The number of residues.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The values, row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The values, row-major.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// The values, row-major.
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }

    /// The value of a pair.
    pub fn get(&self, i: usize, j: usize) -> f32 {
        self.values[i * self.length + j]
    }

    /// True without NaN and infinity.
    pub fn is_finite(&self) -> bool {
        self.values.iter().all(|value| value.is_finite())
    }

    /// `A + Aᵀ`, in place.
    pub fn symmetrize(&mut self) {
        for i in 0..self.length {
            for j in 0..=i {
                let (one, other) = (i * self.length + j, j * self.length + i);
                let sum = self.values[one] + self.values[other];
                (self.values[one], self.values[other]) = (sum, sum);
            }
        }
    }

    /// The average product correction, in place: `a_ij − (Σ_j a_ij)(Σ_i a_ij) / Σ a`. A map whose
    /// sum is 0 stays as it is.
    pub fn apc(&mut self) {
        let n = self.length;
        let rows: Vec<f64> = self
            .values
            .chunks_exact(n.max(1))
            .map(|row| row.iter().map(|value| f64::from(*value)).sum())
            .collect();
        let mut columns = vec![0.0; n];
        for row in self.values.chunks_exact(n.max(1)) {
            for (sum, value) in columns.iter_mut().zip(row) {
                *sum += f64::from(*value);
            }
        }
        let all: f64 = rows.iter().sum();
        if all == 0.0 {
            return;
        }
        for (row, row_sum) in self.values.chunks_exact_mut(n).zip(&rows) {
            for (value, column_sum) in row.iter_mut().zip(&columns) {
                *value = (f64::from(*value) - row_sum * column_sum / all) as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_map_by_hand() {
        let mut map = PairMap::new(2, vec![1.0, 2.0, 4.0, 3.0]);
        map.symmetrize();
        assert_eq!(map.values(), [2.0, 6.0, 6.0, 6.0]);
        map.apc();
        // Rows sum to 8 and 12, all to 20.
        let expected = [2.0 - 3.2, 6.0 - 4.8, 6.0 - 4.8, 6.0 - 7.2];
        for (got, expected) in map.values().iter().zip(expected) {
            assert!((got - expected as f32).abs() < 1e-6, "{map:?}");
        }
    }

    #[test]
    fn nothing_to_correct_is_left_alone() {
        let mut zeros = PairMap::zeros(3);
        zeros.apc();
        assert_eq!(zeros, PairMap::zeros(3));
        PairMap::zeros(0).apc();
    }
}
