//! Merging the files of several runs: the shards of a run are interleaved, other files are
//! concatenated.
//!
//! Sequence `k` of a run, from 0, is in shard `k mod n + 1` of `n`. Merging takes one sequence of
//! each of the `n` shards in turn, in whatever order the shards are given, and writes the bytes
//! that one run without shards would have written. Files without a shard are concatenated in the
//! order given.
//!
//! `agreement` compares how the files were made; `embeddings` and `text` read and write them; this
//! file joins them.

mod agreement;
mod embeddings;
mod error;
mod kernels;
mod text;
mod text_file;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

pub use embeddings::merge_embeddings;
pub use error::MergeError;
pub use kernels::give_same_bytes;
pub use text::merge_text;
pub use text_file::TextFile;

/// An input of a merge, read one sequence at a time.
trait MergeSource {
    /// The records or rows of one sequence.
    type Piece;

    fn path(&self) -> &Path;

    /// The piece of the next sequence, possibly empty; `None` at the end of the file.
    fn next_piece(&mut self) -> Result<Option<Self::Piece>, MergeError>;
}

/// The merged file.
trait MergeTarget<Piece> {
    /// The ids in a piece.
    fn ids(&self, piece: &Piece) -> Vec<String>;

    /// Writes a piece and returns its number of records.
    fn write(&mut self, piece: Piece) -> Result<u64, MergeError>;
}

/// Writes all pieces of `sources` to `target` and returns the number of records. If the sources are
/// all shards of a run, in order, the pieces are interleaved, else the sources are concatenated.
/// Only the ids are kept in memory.
fn join<S: MergeSource>(
    sources: &mut [S],
    are_shards: bool,
    target: &mut impl MergeTarget<S::Piece>,
) -> Result<u64, MergeError> {
    let mut joined = Joined {
        paths: sources.iter().map(|s| s.path().to_owned()).collect(),
        pieces: vec![0; sources.len()],
        ids: HashMap::new(),
        records: 0,
        target,
    };
    if are_shards {
        joined.interleave(sources)?;
    } else {
        for (file, source) in sources.iter_mut().enumerate() {
            while let Some(piece) = source.next_piece()? {
                joined.write(file, piece)?;
            }
        }
    }
    Ok(joined.records)
}

/// The merged file so far.
struct Joined<'a, T> {
    target: &'a mut T,
    paths: Vec<PathBuf>,
    /// Pieces of each file.
    pieces: Vec<u64>,
    /// The file in which each id came.
    ids: HashMap<Box<str>, u32>,
    records: u64,
}

impl<T> Joined<'_, T> {
    fn write<P>(&mut self, file: usize, piece: P) -> Result<(), MergeError>
    where
        T: MergeTarget<P>,
    {
        for id in self.target.ids(&piece) {
            if let Some(before) = self.ids.get(id.as_str()) {
                return Err(MergeError::DuplicateId {
                    path: self.paths[file].clone(),
                    before: self.paths[*before as usize].clone(),
                    id,
                });
            }
            self.ids.insert(id.into_boxed_str(), file as u32);
        }
        self.records += self.target.write(piece)?;
        self.pieces[file] += 1;
        Ok(())
    }

    /// Writes one piece of each source in turn. After one source has ended, no other may have
    /// further pieces.
    fn interleave<S: MergeSource>(&mut self, sources: &mut [S]) -> Result<(), MergeError>
    where
        T: MergeTarget<S::Piece>,
    {
        let ended = 'turns: loop {
            for (file, source) in sources.iter_mut().enumerate() {
                match source.next_piece()? {
                    Some(piece) => self.write(file, piece)?,
                    None => break 'turns file,
                }
            }
        };
        // The sources after the ended one have had one turn less. In their next turn, all sources
        // must be at their end.
        for (file, source) in sources.iter_mut().enumerate() {
            if file != ended && source.next_piece()?.is_some() {
                return Err(MergeError::Incomplete {
                    short: self.paths[ended].clone(),
                    sequences: self.pieces[ended],
                    long: self.paths[file].clone(),
                });
            }
        }
        Ok(())
    }
}
