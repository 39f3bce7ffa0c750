//! Encodings of single residues: baselines that know no neighbour, which a model's embeddings must
//! beat.

use bio::scores::blosum62;

/// The residues in the order of their columns.
const ORDER: &[u8; 20] = b"ARNDCQEGHILKMFPSTWYV";

/// An encoding of single residues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResidueEncoding {
    /// 1 in the residue's own column.
    OneHot,
    /// The residue's row of BLOSUM62 (Henikoff & Henikoff 1992, doi 10.1073/pnas.89.22.10915), in
    /// half bits, divided by 4.
    Blosum62,
}

impl ResidueEncoding {
    /// The encoding's name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            ResidueEncoding::OneHot => "onehot",
            ResidueEncoding::Blosum62 => "blosum62",
        }
    }

    /// The encoding of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [ResidueEncoding::OneHot, ResidueEncoding::Blosum62]
            .into_iter()
            .find(|encoding| encoding.name() == name)
    }

    /// The rows of a protein, each filled up with zeros to `width` values (at least 20), so that a
    /// head that reads them has as many weights as a head on a model's embeddings. Residues besides
    /// the 20 are all zeros.
    ///
    /// # Panics
    /// Where `width` is below 20.
    pub fn rows(self, residues: &[u8], width: usize) -> Vec<f32> {
        assert!(width >= ORDER.len(), "20 residues need 20 columns");
        let mut rows = vec![0.0; residues.len() * width];
        for (row, residue) in rows.chunks_exact_mut(width).zip(residues) {
            let Some(column) = ORDER.iter().position(|letter| letter == residue) else {
                continue;
            };
            match self {
                ResidueEncoding::OneHot => row[column] = 1.0,
                ResidueEncoding::Blosum62 => {
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
        let rows = ResidueEncoding::OneHot.rows(b"AXV", 24);
        assert_eq!(rows.iter().sum::<f32>(), 2.0);
        assert_eq!((rows[0], rows[2 * 24 + 19]), (1.0, 1.0));
        let rows = ResidueEncoding::Blosum62.rows(b"W", 20);
        assert_eq!((rows[17], rows[0]), (2.75, -0.75));
    }

    #[test]
    fn names_are_read_back() {
        for encoding in [ResidueEncoding::OneHot, ResidueEncoding::Blosum62] {
            assert_eq!(ResidueEncoding::from_name(encoding.name()), Some(encoding));
        }
        assert_eq!(ResidueEncoding::from_name("model"), None);
    }
}
