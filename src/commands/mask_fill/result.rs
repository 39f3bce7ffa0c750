//! A filled protein as the bytes of a journal's entry: its residues, then each site's position and log-probabilities.

use anyhow::{Context, Result};

use crate::inference::fill::{Filled, Site};

pub(super) fn encode(filled: &Filled) -> Vec<u8> {
    let mut bytes = filled.residues.clone();
    for site in &filled.sites {
        bytes.extend((site.position as u64).to_le_bytes());
        bytes.extend(site.log_probs.iter().flat_map(|value| value.to_le_bytes()));
    }
    bytes
}

/// What [`encode`] was given: a protein of `length` residues, sites of `columns` probabilities.
pub(super) fn decode(bytes: &[u8], length: usize, columns: usize) -> Result<Filled> {
    let damaged = "a journal entry is cut off; delete the .resume file";
    let (residues, sites) = bytes.split_at_checked(length).context(damaged)?;
    let (numbers, _) = sites.as_chunks::<8>();
    let site = |numbers: &[[u8; 8]]| {
        let position = usize::try_from(u64::from_le_bytes(numbers[0])).ok()?;
        Some(Site {
            position,
            residue: *residues.get(position)?,
            log_probs: numbers[1..]
                .iter()
                .map(|n| f64::from_le_bytes(*n))
                .collect(),
        })
    };
    let sites = numbers.chunks_exact(columns + 1).map(site);
    Ok(Filled {
        residues: residues.to_vec(),
        sites: sites.collect::<Option<_>>().context(damaged)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_back() {
        let filled = Filled {
            residues: b"MKA".to_vec(),
            sites: vec![
                Site {
                    position: 2,
                    residue: b'A',
                    log_probs: vec![-0.5, -1.25],
                },
                Site {
                    position: 0,
                    residue: b'M',
                    log_probs: vec![-3.0, f64::MIN_POSITIVE],
                },
            ],
        };
        assert_eq!(decode(&encode(&filled), 3, 2).unwrap(), filled);
        assert!(decode(b"MK", 3, 2).is_err());
        let none = Filled {
            residues: b"MK".to_vec(),
            sites: Vec::new(),
        };
        assert_eq!(decode(&encode(&none), 2, 20).unwrap(), none);
    }
}
