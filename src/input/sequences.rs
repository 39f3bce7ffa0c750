//! The sequences of a run: read from files or stdin on a thread of their own, cleaned, with unique
//! ids, within the length limit.
//!
//! [`Counts`] counts every record exactly once, so that nothing is lost in silence:
//! `records == sequences + failed + repeated + too_long`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::vec;

use serde::{Deserialize, Serialize};

use super::fasta::{FastaReader, InputError};
use super::prefetch::Prefetch;
use crate::io::stdio;
use crate::sequence::digest::{InputDigest, RunningDigest};
use crate::sequence::{
    Changes, Duplicates, Fit, IdPart, Ids, Limit, Over, Problem, Record, Rules, Sequence,
    SequenceError, clean, counted, looks_like_nucleotides,
};

/// Bytes of the records that the reading thread may be ahead.
const READ_AHEAD: usize = 4 << 20;

/// The treatment of an invalid record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum OnBad {
    /// The run ends with an error
    #[default]
    Error,
    /// The record is logged, counted and left out; the run continues
    Skip,
}

/// How an input is read.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Bytes that cleaning lets through (mask characters).
    pub rules: Rules,
    /// The part of a header that is the id.
    pub id_part: IdPart,
    /// The treatment of an id's second record.
    pub duplicates: Duplicates,
    /// The treatment of an invalid record.
    pub on_bad: OnBad,
    /// The length limit, and the treatment of longer sequences.
    pub limit: Limit,
}

/// One sequence of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// 0-based place among all items of the run.
    pub index: u64,
    /// The sequence, its id unique within the run.
    pub sequence: Sequence,
}

/// Counts of the records read so far, for the closing lines and the exit code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records read.
    pub records: u64,
    /// Records that became items.
    pub sequences: u64,
    /// Invalid records left out under `--on-bad skip`.
    pub failed: u64,
    /// Records with repeated ids left out under `--duplicates first`.
    pub repeated: u64,
    /// Records that are too long, left out under `--over skip`.
    pub too_long: u64,
    /// Files without a record, passed over under `--on-bad skip`.
    pub empty_files: u64,
    /// Residues of the items.
    pub residues: u64,
    /// Items of 50 or more letters that may all be nucleotides.
    pub nucleotides: u64,
    /// Changes that cleaning made in the items.
    pub changes: Changes,
}

impl Counts {
    /// Whether the exit code must be 3 because records were left out. Repeated ids under `first` do
    /// not count: the user asked to drop them, and their id is in the output.
    pub fn is_partial(&self) -> bool {
        self.failed + self.too_long + self.empty_files > 0
    }

    /// Logs what was changed in the input, and what was left out of it.
    pub fn log(&self) {
        if !self.changes.is_empty() {
            tracing::warn!("input: {}", self.changes);
        }
        let Counts {
            records,
            failed,
            too_long,
            repeated,
            ..
        } = self;
        let left_out = failed + too_long + repeated;
        if left_out > 0 {
            tracing::warn!(
                "{left_out} of {} left out: {failed} invalid, {too_long} too long, {repeated} repeated",
                counted(*records, "record")
            );
        }
    }
}

/// The items of a run, in input order. The iterator ends after an error.
pub struct Input {
    ahead: Prefetch<Parsed>,
    options: Options,
    counts: Counts,
    digest: RunningDigest,
    /// The names of all inputs, for the error of an empty input.
    names: Arc<str>,
    ended: bool,
}

impl Input {
    /// Opens files, `-` for stdin; no path means stdin. A thread begins to read at once.
    ///
    /// # Errors
    /// Any of the files that does not exist; `-` given twice.
    pub fn open(paths: &[PathBuf], options: Options) -> Result<Self, InputError> {
        let paths = if paths.is_empty() {
            vec![PathBuf::from("-")]
        } else {
            paths.to_vec()
        };
        if paths.iter().filter(|path| stdio::is_dash(path)).count() > 1 {
            return Err(InputError::StdinTwice);
        }
        paths.iter().try_for_each(|path| check(path))?;
        let names: Vec<String> = paths.iter().map(|path| stdio::input_name(path)).collect();
        let records = Records::new(paths, &options);
        Self::ahead(names.join(", ").into(), records, options)
    }

    /// An input of sequences in memory, which must be clean and have unique ids.
    ///
    /// # Errors
    /// Where the system has no thread left.
    pub fn of(sequences: Vec<Sequence>, options: Options) -> Result<Self, InputError> {
        let files = sequences.iter().map(|sequence| &*sequence.origin.file);
        let names = files.collect::<Vec<_>>().join(", ").into();
        let parsed = sequences.into_iter().map(|s| Ok((s, Changes::default())));
        Self::ahead(names, parsed, options)
    }

    fn ahead(
        names: Arc<str>,
        records: impl Iterator<Item = Parsed> + Send + 'static,
        options: Options,
    ) -> Result<Self, InputError> {
        let ahead =
            Prefetch::spawn(records, weight, READ_AHEAD).map_err(|source| InputError::Open {
                file: Arc::clone(&names),
                source,
            })?;
        Ok(Input {
            ahead,
            options,
            counts: Counts::default(),
            digest: RunningDigest::default(),
            names,
            ended: false,
        })
    }

    /// Counts of the records read so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The digest of all items so far; after the last item, the digest of the whole input.
    pub fn digest(&self) -> InputDigest {
        self.digest.digest()
    }

    /// Counts a sequence and gives it its index.
    fn item(&mut self, sequence: Sequence, changes: Changes) -> Item {
        let index = self.counts.sequences;
        self.counts.sequences += 1;
        self.digest.add(&sequence);
        self.counts.residues += sequence.residues.len() as u64;
        self.counts.changes += changes;
        if looks_like_nucleotides(&sequence.residues) {
            if self.counts.nucleotides == 0 {
                let Sequence { id, origin, .. } = &sequence;
                tracing::warn!(
                    "{}: {} looks like nucleotides; read as amino acids",
                    origin.file,
                    crate::shown::shown(id)
                );
            }
            self.counts.nucleotides += 1;
        }
        Item { index, sequence }
    }

    /// Counts a record or file that is left out; returns the error if it must end the run.
    fn left_out(&mut self, error: InputError) -> Result<(), InputError> {
        let record = match &error {
            InputError::Record(record) => record,
            InputError::Empty { file }
                if self.options.on_bad == OnBad::Skip && *file != self.names =>
            {
                self.counts.empty_files += 1;
                tracing::warn!("skipped: {error}");
                return Ok(());
            }
            _ => return Err(error),
        };
        self.counts.records += 1;
        let count = match record.problem {
            Problem::DuplicateId if self.options.duplicates == Duplicates::First => {
                &mut self.counts.repeated
            }
            Problem::TooLong { .. } if self.options.limit.over() == Over::Skip => {
                &mut self.counts.too_long
            }
            _ if self.options.on_bad == OnBad::Error => return Err(error),
            _ => &mut self.counts.failed,
        };
        *count += 1;
        tracing::warn!("skipped: {error}");
        Ok(())
    }
}

impl Iterator for Input {
    type Item = Result<Item, InputError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            match self.ahead.next() {
                Some(Ok((sequence, changes))) => {
                    self.counts.records += 1;
                    return Some(Ok(self.item(sequence, changes)));
                }
                Some(Err(error)) => {
                    if let Err(error) = self.left_out(error) {
                        self.ended = true;
                        return Some(Err(error));
                    }
                }
                None => {
                    self.ended = true;
                    if self.counts.records == 0 {
                        return Some(Err(InputError::Empty {
                            file: Arc::clone(&self.names),
                        }));
                    }
                }
            }
        }
        None
    }
}

/// Checks a path at the start of the run, so that a missing file is not found hours later. The file
/// is not opened, because a pipe can be opened only once.
fn check(path: &Path) -> Result<(), InputError> {
    if stdio::is_dash(path) {
        return Ok(());
    }
    let error = |source| InputError::Open {
        file: stdio::input_name(path).into(),
        source,
    };
    let meta = std::fs::metadata(path).map_err(error)?;
    if meta.is_dir() {
        Err(error(std::io::ErrorKind::IsADirectory.into()))
    } else {
        Ok(())
    }
}

/// The outcome of one record: a sequence with its final id, or an error.
type Parsed = Result<(Sequence, Changes), InputError>;

/// The approximate size of an outcome in bytes.
fn weight(parsed: &Parsed) -> usize {
    const FIXED: usize = 256;
    match parsed {
        Ok((sequence, _)) => {
            FIXED + sequence.id.len() + sequence.description.len() + sequence.residues.len()
        }
        Err(_) => FIXED,
    }
}

/// The records of all files, checked one by one on the reading thread.
struct Records {
    paths: vec::IntoIter<PathBuf>,
    reader: Option<FastaReader>,
    rules: Rules,
    id_part: IdPart,
    limit: Limit,
    ids: Ids,
}

impl Records {
    fn new(paths: Vec<PathBuf>, options: &Options) -> Self {
        Records {
            paths: paths.into_iter(),
            reader: None,
            rules: options.rules.clone(),
            id_part: options.id_part,
            limit: options.limit,
            ids: Ids::new(options.duplicates),
        }
    }

    /// Cleans a record, checks its length and gives it its final id. A record that is left out does
    /// not take its id.
    fn check_record(&mut self, mut record: Record) -> Parsed {
        record.id = self.id_part.of(&record.id);
        // A part whose bytes are all UTF-8 has no other original bytes.
        let raw_id = record.raw_id.take();
        let raw_id = raw_id.filter(|_| record.id.contains(char::REPLACEMENT_CHARACTER));
        let (mut sequence, mut changes) = clean(record, &self.rules)?;
        let length = sequence.residues.len();
        match self.limit.fit(length) {
            Fit::Whole => {}
            Fit::First(kept) => {
                sequence.residues.truncate(kept);
                changes.truncated += (length - kept) as u64;
            }
            Fit::TooLong(max_length) => {
                let problem = Problem::TooLong { length, max_length };
                return Err(rejected(sequence, problem).into());
            }
        }
        match self
            .ids
            .admit(&sequence.id, raw_id.as_deref(), sequence.origin.record)
        {
            Ok(id) => Ok((Sequence { id, ..sequence }, changes)),
            Err(problem) => Err(rejected(sequence, problem).into()),
        }
    }
}

impl Iterator for Records {
    type Item = Parsed;

    fn next(&mut self) -> Option<Parsed> {
        loop {
            let Some(reader) = &mut self.reader else {
                match FastaReader::open(&self.paths.next()?) {
                    Ok(reader) => self.reader = Some(reader),
                    Err(error) => return Some(Err(error)),
                }
                continue;
            };
            match reader.next() {
                Some(Ok(record)) => return Some(self.check_record(record)),
                Some(Err(error)) => return Some(Err(error)),
                None => {
                    let empty = (reader.records() == 0).then(|| Arc::clone(reader.file()));
                    self.reader = None;
                    if let Some(file) = empty {
                        return Some(Err(InputError::Empty { file }));
                    }
                }
            }
        }
    }
}

fn rejected(sequence: Sequence, problem: Problem) -> SequenceError {
    SequenceError {
        id: sequence.id,
        origin: sequence.origin,
        problem,
    }
}
