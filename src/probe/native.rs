//! Contacts of a known structure, as CASP defines them: representative atoms (C-beta, C-alpha of
//! glycine) less than 8 Å apart.

use crate::inference::contacts::PairMap;

/// The coordinates of a residue's representative atom in Å; none for an unresolved residue.
pub type Coordinates = Option<[f32; 3]>;

/// Å below which two residues touch.
pub const CONTACT: f32 = 8.0;

/// The least separation that counts: neighbours in the chain touch anyway.
pub const LEAST_SEPARATION: usize = 6;

/// The C-beta of a missing side chain, from the backbone with ideal geometry (the constants of
/// Rosetta and trRosetta).
pub fn virtual_cb(n: [f32; 3], ca: [f32; 3], c: [f32; 3]) -> [f32; 3] {
    let minus = |a: [f32; 3], b: [f32; 3]| [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
    let (b, c) = (minus(ca, n), minus(c, ca));
    let a = [
        b[1] * c[2] - b[2] * c[1],
        b[2] * c[0] - b[0] * c[2],
        b[0] * c[1] - b[1] * c[0],
    ];
    std::array::from_fn(|k| -0.582_734_3 * a[k] + 0.568_028_3 * b[k] - 0.540_674_7 * c[k] + ca[k])
}

/// A protein chain of known structure.
#[derive(Clone, Debug)]
pub struct KnownChain {
    /// The chain's id.
    pub id: String,
    /// The chain's name in messages: file, number and id.
    pub name: String,
    /// Amino acids, one letter each.
    pub residues: Vec<u8>,
    /// The contacts.
    pub native: Native,
}

/// The coordinates of a chain, asked for contacts.
#[derive(Clone, Debug, PartialEq)]
pub struct Native {
    coordinates: Vec<Coordinates>,
}

impl Native {
    /// A chain with these coordinates, one per residue of the sequence.
    pub fn new(coordinates: Vec<Coordinates>) -> Self {
        Self { coordinates }
    }

    /// Residues, resolved or not.
    pub fn length(&self) -> usize {
        self.coordinates.len()
    }

    /// Resolved residues: the L of P@L.
    pub fn resolved(&self) -> usize {
        self.coordinates.iter().flatten().count()
    }

    /// Whether two residues touch; none where one of them is unresolved.
    pub fn touch(&self, i: usize, j: usize) -> Option<bool> {
        let (a, b) = (self.coordinates[i]?, self.coordinates[j]?);
        let squares = a
            .iter()
            .zip(b)
            .map(|(a, b)| (f64::from(*a) - f64::from(b)).powi(2));
        Some(squares.sum::<f64>() < f64::from(CONTACT).powi(2))
    }

    /// For each ordered pair, row-major: 1 touching, 0 not, −1 unresolved or nearer than
    /// [`LEAST_SEPARATION`] in the chain.
    pub fn labels(&self) -> Vec<i8> {
        let n = self.length();
        let mut labels = vec![-1; n * n];
        for i in 0..n {
            for j in i + LEAST_SEPARATION..n {
                if let Some(touch) = self.touch(i, j) {
                    labels[i * n + j] = i8::from(touch);
                    labels[j * n + i] = i8::from(touch);
                }
            }
        }
        labels
    }
}

/// How often residues touch by their separation in the chain: a baseline that a model must beat.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct BySeparation {
    /// One frequency per separation from 0; the last one holds for all larger separations.
    pub frequencies: Vec<f32>,
}

/// Separations with a frequency of their own.
const SEPARATIONS: usize = 256;

impl BySeparation {
    /// Counts contacts in known structures; frequencies are smoothed with the two neighbours on
    /// either side.
    pub fn count<'a>(natives: impl IntoIterator<Item = &'a Native>) -> Self {
        let (mut touching, mut all) = (vec![0.0f64; SEPARATIONS], vec![0.0f64; SEPARATIONS]);
        for native in natives {
            for i in 0..native.length() {
                for j in i + LEAST_SEPARATION..native.length() {
                    let Some(touch) = native.touch(i, j) else {
                        continue;
                    };
                    let at = (j - i).min(SEPARATIONS - 1);
                    touching[at] += f64::from(u8::from(touch));
                    all[at] += 1.0;
                }
            }
        }
        let smooth = |at: usize| {
            let around = at.saturating_sub(2)..(at + 3).min(SEPARATIONS);
            let all: f64 = all[around.clone()].iter().sum();
            let touching: f64 = touching[around].iter().sum();
            if all > 0.0 {
                (touching / all) as f32
            } else {
                0.0
            }
        };
        Self {
            frequencies: (0..SEPARATIONS).map(smooth).collect(),
        }
    }

    /// The frequency of a separation; without any counts a value that falls with the separation.
    pub fn of(&self, separation: usize) -> f32 {
        match self.frequencies.last() {
            Some(last) => *self.frequencies.get(separation).unwrap_or(last),
            None => 1.0 / (1.0 + separation as f32),
        }
    }

    /// The contact map of a protein of `length` residues.
    pub fn map(&self, length: usize) -> PairMap {
        let value = |pair: usize| self.of((pair / length).abs_diff(pair % length));
        PairMap::new(length, (0..length * length).map(value).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(length: usize, step: f32) -> Native {
        let place = |i: usize| (i != 3).then_some([i as f32 * step, 0.0, 0.0]);
        Native::new((0..length).map(place).collect())
    }

    #[test]
    fn eight_is_no_contact_and_unresolved_residues_do_not_count() {
        let native = line(10, 1.0);
        assert_eq!(native.touch(0, 7), Some(true));
        assert_eq!(native.touch(0, 8), Some(false));
        assert_eq!(native.touch(0, 3), None);
        assert_eq!((native.length(), native.resolved()), (10, 9));
        let labels = native.labels();
        let at = |i: usize, j: usize| labels[i * 10 + j];
        assert_eq!(
            (at(0, 5), at(0, 6), at(7, 0), at(9, 0), at(3, 9)),
            (-1, 1, 1, 0, -1)
        );
    }

    #[test]
    fn frequencies_are_those_of_the_structures() {
        let counted = BySeparation::count([&line(40, 1.0)]);
        assert_eq!(counted.of(6), share_nearer_than_eight(40));
        assert_eq!(counted.of(20), 0.0);
        assert_eq!(counted.of(10_000), 0.0);
        assert!(BySeparation::default().of(30) < BySeparation::default().of(6));
    }

    /// Of the pairs 6, 7 and 8 apart in a line without residue 3, the share that is 6 or 7 apart:
    /// one division, of whole numbers, rounded once.
    fn share_nearer_than_eight(length: usize) -> f32 {
        let count = |separation: usize| {
            (0..length - separation)
                .filter(|i| *i != 3 && i + separation != 3)
                .count() as f64
        };
        ((count(6) + count(7)) / (count(6) + count(7) + count(8))) as f32
    }

    #[test]
    fn a_virtual_side_chain_is_a_bond_away() {
        let cb = virtual_cb([1.458, 0.0, 0.0], [0.0, 0.0, 0.0], [-0.54, 1.42, 0.0]);
        let length = cb.iter().map(|x| x * x).sum::<f32>().sqrt();
        assert!((length - 1.53).abs() < 0.02, "{cb:?}");
    }
}
