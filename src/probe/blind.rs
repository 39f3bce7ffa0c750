//! Embeddings that know nothing but the residue itself: what a model must beat.

use bio::scores::blosum62;

/// The places of the residues in a row.
const ORDER: &[u8; 20] = b"ARNDCQEGHILKMFPSTWYV";

/// Which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blind {
    /// 1 in the residue's own place.
    OneHot,
    /// The residue's row of BLOSUM62 (Henikoff & Henikoff 1992, doi 10.1073/pnas.89.22.10915), in half bits, divided by 4.
    Blosum62,
}

impl Blind {
    /// Its spelling.
    pub fn name(self) -> &'static str {
        match self {
            Blind::OneHot => "onehot",
            Blind::Blosum62 => "blosum62",
        }
    }

    /// The rows of a protein, each filled up with zeros to `width` values (at least 20), so that a head on them has as many weights as one on a model's
    /// embeddings. A residue besides the 20 is all zeros.
    ///
    /// # Panics
    /// Where `width` is below 20.
    pub fn rows(self, residues: &[u8], width: usize) -> Vec<f32> {
        assert!(width >= ORDER.len(), "20 residues need 20 places");
        let mut rows = vec![0.0; residues.len() * width];
        for (row, residue) in rows.chunks_exact_mut(width).zip(residues) {
            let Some(place) = ORDER.iter().position(|letter| letter == residue) else {
                continue;
            };
            match self {
                Blind::OneHot => row[place] = 1.0,
                Blind::Blosum62 => {
                    for (value, other) in row.iter_mut().zip(ORDER) {
                        *value = blosum62(*residue, *other) as f32 / 4.0;
                    }
                }
            }
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_filled_up_with_zeros() {
        let rows = Blind::OneHot.rows(b"AXV", 24);
        assert_eq!(rows.iter().sum::<f32>(), 2.0);
        assert_eq!((rows[0], rows[2 * 24 + 19]), (1.0, 1.0));
        let rows = Blind::Blosum62.rows(b"W", 20);
        assert_eq!((rows[17], rows[0]), (2.75, -0.75));
    }
}
