//! The pairs of a contact map that are reported.

use std::fmt;
use std::str::FromStr;

use super::PairMap;

/// The number of pairs with the highest values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Top {
    /// Every pair.
    All,
    /// A fixed number of pairs.
    Count(usize),
    /// The number of residues divided by a number.
    LengthOver(f64),
}

impl Top {
    /// The number of pairs for a protein of `length` residues.
    pub fn count(self, length: usize) -> usize {
        match self {
            Top::All => usize::MAX,
            Top::Count(count) => count,
            Top::LengthOver(part) => ((length as f64 / part) as usize).max(1),
        }
    }
}

impl FromStr for Top {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || "all, a number of pairs, or L/N: residues divided by N, such as L/5".to_owned();
        match text {
            "all" => Ok(Top::All),
            "L" => Ok(Top::LengthOver(1.0)),
            _ => match text.strip_prefix("L/") {
                Some(part) => match part.parse() {
                    Ok(part) if part > 0.0 && f64::is_finite(part) => Ok(Top::LengthOver(part)),
                    _ => Err(wrong()),
                },
                None => match text.parse() {
                    Ok(count) if count > 0 => Ok(Top::Count(count)),
                    _ => Err(wrong()),
                },
            },
        }
    }
}

impl fmt::Display for Top {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Top::All => f.write_str("all"),
            Top::Count(count) => write!(f, "{count}"),
            Top::LengthOver(part) => write!(f, "L/{part}"),
        }
    }
}

/// The pairs `i < j` at least `min_separation` apart whose value is at least `threshold`, the
/// highest first and equal ones in the order of pairs, at most `top`.
pub fn select(
    map: &PairMap,
    min_separation: usize,
    threshold: Option<f32>,
    top: Top,
) -> Vec<(usize, usize, f32)> {
    let n = map.length();
    let mut pairs: Vec<(usize, usize, f32)> = (0..n)
        .flat_map(|i| (i + min_separation.max(1)..n).map(move |j| (i, j)))
        .map(|(i, j)| (i, j, map.get(i, j)))
        .filter(|(_, _, value)| threshold.is_none_or(|least| *value >= least))
        .collect();
    pairs.sort_by(|a, b| b.2.total_cmp(&a.2));
    pairs.truncate(top.count(n));
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_counts() {
        for (text, length, count) in [
            ("L/1", 50, 50),
            ("L", 50, 50),
            ("L/5", 52, 10),
            ("L/0.5", 50, 100),
            ("L/5", 2, 1),
            ("7", 50, 7),
        ] {
            assert_eq!(text.parse::<Top>().unwrap().count(length), count, "{text}");
        }
        for text in ["", "0", "L/0", "L/x", "l", "-3", "L/inf"] {
            assert!(text.parse::<Top>().is_err(), "{text}");
        }
        assert_eq!("L/5".parse::<Top>().unwrap().to_string(), "L/5");
    }

    #[test]
    fn the_highest_far_apart_come_first() {
        let values = vec![0.0, 0.9, 0.5, 0.9, 0.0, 0.2, 0.5, 0.2, 0.0];
        let map = PairMap::new(3, values);
        assert_eq!(
            select(&map, 1, None, Top::All),
            [(0, 1, 0.9), (0, 2, 0.5), (1, 2, 0.2)]
        );
        assert_eq!(select(&map, 2, None, Top::All), [(0, 2, 0.5)]);
        assert_eq!(select(&map, 1, Some(0.5), Top::All).len(), 2);
        assert_eq!(select(&map, 1, None, Top::Count(1)), [(0, 1, 0.9)]);
        assert!(select(&map, 6, None, Top::All).is_empty());
    }
}
