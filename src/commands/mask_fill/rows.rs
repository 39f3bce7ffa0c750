//! Filled proteins as FASTA, and the most probable residues of every site as a table.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::OutputArgs;
use crate::commands::Outcome;
use crate::commands::conveyor::RowWriter;
use crate::inference::fill::{Filled, Site};
use crate::io::stdio::{Content, Output, is_dash};
use crate::output::entry::{EntryError, JournalEntry};
use crate::output::layout::{Layout, TextFormat};
use crate::output::manifest::{Manifest, write_manifest};
use crate::output::table::{Cell, Table, TableFormat};
use crate::output::write_fasta::write_record;
use crate::sequence::digest::InputDigest;
use crate::sequence::{Sequence, counted};

/// Columns of the table of sites: one row per site and probable residue.
const COLUMNS: [&str; 6] = ["id", "position", "filled", "rank", "residue", "probability"];

/// Writes filled proteins.
pub(super) struct FillRows {
    fasta: Output,
    layout: Layout,
    path: PathBuf,
    sites: Option<SiteRows>,
    manifest: Manifest,
    /// Masks that were filled.
    filled: u64,
    /// Records without a mask.
    unmasked: u64,
}

/// Writes the table of sites.
struct SiteRows {
    table: Table,
    path: PathBuf,
    /// Residues that may be filled in, in the order of a site's probabilities.
    letters: Vec<u8>,
    top_k: usize,
}

impl FillRows {
    /// Opens the outputs.
    ///
    /// # Errors
    /// Outputs that cannot be written.
    pub(super) fn create(args: &OutputArgs, letters: &[u8], manifest: Manifest) -> Result<Self> {
        let path = &args.output;
        let fasta = Output::create(path, Content::Text)
            .with_context(|| format!("writing {}", path.display()))?;
        let sites = args.sites.as_ref().map(|path| {
            let table = Table::create(path, TableFormat::from_extension(path), &COLUMNS)
                .with_context(|| format!("writing {}", path.display()))?;
            Ok::<_, anyhow::Error>(SiteRows {
                table,
                path: path.clone(),
                letters: letters.to_vec(),
                top_k: args.top_k,
            })
        });
        Ok(Self {
            fasta,
            layout: Layout::new(TextFormat::Fasta),
            path: path.clone(),
            sites: sites.transpose()?,
            manifest,
            filled: 0,
            unmasked: 0,
        })
    }
}

impl RowWriter for FillRows {
    type Output = Filled;

    const KEEPS_PLACES: bool = true;

    fn write(&mut self, sequence: &Sequence, filled: Filled) -> Result<()> {
        let Sequence {
            id, description, ..
        } = sequence;
        write_record(&mut self.fasta, id, description, &filled.residues)?;
        self.layout.add(1);
        self.filled += filled.sites.len() as u64;
        self.unmasked += u64::from(filled.sites.is_empty());
        if let Some(sites) = &mut self.sites {
            sites.write(id, filled.sites)?;
        }
        self.pass_over();
        Ok(())
    }

    fn pass_over(&mut self) {
        self.layout.close_sequence();
        if let Some(sites) = &mut self.sites {
            sites.table.close_sequence();
        }
    }

    fn finish(mut self, input: InputDigest) -> Result<Outcome> {
        tracing::info!(
            "{} filled; {} without a mask unchanged",
            counted(self.filled, "mask"),
            counted(self.unmasked, "record")
        );
        self.manifest.input = Some(input);
        self.fasta.finish()?;
        write_manifest(&self.path, &described(&self.manifest, &self.layout))?;
        if let Some(SiteRows { table, path, .. }) = self.sites {
            let manifest = described(&self.manifest, table.layout());
            table.finish()?;
            // The log has the manifest of stdout already.
            if !is_dash(&path) {
                write_manifest(&path, &manifest)?;
            }
        }
        Ok(Outcome::Done)
    }
}

impl SiteRows {
    /// The rows of one protein, from its first site to its last.
    fn write(&mut self, id: &str, mut sites: Vec<Site>) -> Result<()> {
        sites.sort_by_key(|site| site.position);
        for site in sites {
            for (rank, (column, log_prob)) in site.top(self.top_k).into_iter().enumerate() {
                self.table.row(&[
                    Cell::Text(id),
                    Cell::Count(site.position + 1),
                    Cell::Residue(site.residue),
                    Cell::Count(rank + 1),
                    Cell::Residue(self.letters[column]),
                    Cell::Number(log_prob.exp()),
                ])?;
            }
        }
        Ok(())
    }
}

/// The manifest of a file with this layout.
fn described(manifest: &Manifest, layout: &Layout) -> Manifest {
    let mut manifest = manifest.clone();
    manifest.set_layout(layout);
    manifest
}

/// The bytes: the number of residues, the residues, the number of log-probabilities per site, then
/// the position and the log-probabilities of each site.
impl JournalEntry for Filled {
    fn to_bytes(&self) -> Vec<u8> {
        let columns = self.sites.first().map_or(0, |site| site.log_probs.len());
        let mut bytes = (self.residues.len() as u64).to_le_bytes().to_vec();
        bytes.extend(&self.residues);
        bytes.extend((columns as u64).to_le_bytes());
        for site in &self.sites {
            bytes.extend((site.position as u64).to_le_bytes());
            bytes.extend(site.log_probs.iter().flat_map(|value| value.to_le_bytes()));
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, EntryError> {
        let (length, rest) = count(bytes)?;
        let (residues, rest) = rest.split_at_checked(length).ok_or(EntryError)?;
        let (columns, rest) = count(rest)?;
        let (numbers, cut_off) = rest.as_chunks::<8>();
        let per_site = columns.checked_add(1).ok_or(EntryError)?;
        if !cut_off.is_empty() || numbers.len() % per_site != 0 {
            return Err(EntryError);
        }
        let sites = numbers.chunks_exact(per_site).map(|numbers| {
            let position = usize::try_from(u64::from_le_bytes(numbers[0])).ok()?;
            let log_probs = numbers[1..].iter().map(|n| f64::from_le_bytes(*n));
            Some(Site {
                position,
                residue: *residues.get(position)?,
                log_probs: log_probs.collect(),
            })
        });
        Ok(Self {
            sites: sites.collect::<Option<_>>().ok_or(EntryError)?,
            residues: residues.to_vec(),
        })
    }
}

/// A number, and the bytes after it.
fn count(bytes: &[u8]) -> Result<(usize, &[u8]), EntryError> {
    let (number, rest) = bytes.split_first_chunk().ok_or(EntryError)?;
    let number = usize::try_from(u64::from_le_bytes(*number)).map_err(|_| EntryError)?;
    Ok((number, rest))
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
        let bytes = filled.to_bytes();
        assert_eq!(Filled::from_bytes(&bytes), Ok(filled));
        for length in [0, 9, bytes.len() - 1, bytes.len() - 8] {
            assert_eq!(Filled::from_bytes(&bytes[..length]), Err(EntryError));
        }
        let none = Filled {
            residues: b"MK".to_vec(),
            sites: Vec::new(),
        };
        assert_eq!(Filled::from_bytes(&none.to_bytes()), Ok(none));
    }
}
