//! Files of several runs into one: the shards of a run, or files laid end to end.
//!
//! Sequence `k` of a run, from 0, is in shard `k mod n + 1` of `n`. Merging all `n` shards, given in any order, takes a sequence of
//! each in turn and writes the bytes that one run without shards would have written. Files without a shard are laid end to end in
//! the order given.
//!
//! [`agreement`] compares how the files were made, [`embeddings`] and [`text`] read and write them, this file joins them.

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

/// A file that is merged, read one sequence at a time.
trait MergeSource {
    /// What one sequence has in the file.
    type Piece;

    /// The file.
    fn path(&self) -> &Path;

    /// The next sequence's piece, possibly an empty one; `None` at the end of the file.
    fn next_piece(&mut self) -> Result<Option<Self::Piece>, MergeError>;
}

/// The merged file.
trait MergeTarget<Piece> {
    /// The ids in a piece.
    fn ids(&self, piece: &Piece) -> Vec<String>;

    /// Writes a piece; returns its records.
    fn write(&mut self, piece: Piece) -> Result<u64, MergeError>;
}

/// Writes all pieces of `sources` to `target`: in turn where the sources are all the shards of a run, in order, else one source
/// after the other. Returns the number of records. Keeps the ids in memory, nothing else.
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

/// What was written so far.
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

    /// One piece of each source in turn; when one source ends, no other may go on.
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
        // The sources behind the one that ended have had one turn less; all must end with their next one.
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
