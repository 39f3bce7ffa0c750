//! Groups of flags that mean the same in every command, and the parsers of their values. The code
//! that opens a model or a device from these flags is in `commands`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Arg, Args, ValueEnum};
use serde::Serialize;

use crate::device::DeviceSpec;
use crate::input::sequences::{OnBad, Options};
use crate::kernels::plan::WeightForm;
use crate::number::NumberType;
use crate::sequence::{Duplicates, IdPart, Limit, LimitError, Over, Rules};
use crate::tokenizer::TaskPrefix;

/// The model and the task prefix.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// A checkpoint directory or a model's name: one that `ankh3 models` lists, or
    /// `owner/repo@revision` [default: nano, the small model inside this program].
    #[arg(long, short, value_name = "DIR|NAME", env = "ANKH3_MODEL")]
    pub model: Option<String>,

    /// Task prefix in front of each sequence: none, nlu, s2s, or a token of the vocabulary such as
    /// `<AA2fold>` [default: nlu where the vocabulary has it, else none].
    #[arg(long)]
    pub prefix: Option<TaskPrefix>,
}

/// The device, the number types and the size of batches.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Running")]
pub struct RuntimeArgs {
    /// The device: cpu, cuda, cuda:N, cuda:all (every GPU; `embed`, `complete`, `mask-fill` and
    /// `score` only), or auto (a GPU if this build and this machine have one, else the CPU).
    #[arg(long, default_value = "auto", overrides_with = "device")]
    pub device: DeviceSpec,

    /// Number type of the matrix products [default: f32 on a CPU, bf16 on a GPU].
    #[arg(long, value_parser = number_type(&COMPUTE_TYPES), ignore_case = true)]
    pub dtype: Option<NumberType>,

    /// How linear layers store their weights. int8 is faster and less exact; all other weights keep
    /// the type of --dtype.
    #[arg(long, value_enum, ignore_case = true, default_value = "full")]
    pub weights: WeightForm,

    /// Tokens per batch; a longer sequence is a batch of its own [default: depends on the device].
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub max_batch_tokens: Option<usize>,
}

/// The sequences to read.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Input")]
pub struct InputArgs {
    /// FASTA files, plain or compressed (gzip, bgzip, zstd, xz, bzip2); `-` or no file reads stdin.
    #[arg(value_name = "FASTA", help_heading = None)]
    pub files: Vec<PathBuf>,

    /// The treatment of an invalid record. Skipped records are listed on stderr and counted; the
    /// exit code is then 3.
    #[arg(long, value_enum, default_value = "error")]
    pub on_bad: OnBad,

    /// The part of a FASTA header that is the id of the record, in results and in --variants.
    #[arg(
        long = "id",
        value_name = "PART",
        value_enum,
        default_value = "first-word"
    )]
    pub id_part: IdPart,

    /// The treatment of a record whose id an earlier record has.
    #[arg(long, value_enum, default_value = "error")]
    pub duplicates: Duplicates,

    /// Largest number of residues per sequence [default: no limit].
    ///
    /// Positions are relative, so the network accepts any length. The lengths of the sequences that
    /// Ankh3 was trained on are not published.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub max_length: Option<usize>,

    /// The treatment of a sequence longer than --max-length.
    #[arg(long, value_enum, default_value = "error", requires = "max_length")]
    pub over: OverArg,

    /// Residues that neighbouring chunks share with `--over chunk` [default: an eighth of
    /// --max-length].
    #[arg(long, value_name = "N", requires = "max_length")]
    pub overlap: Option<usize>,
}

/// [`Over`] on the command line, where the overlap of chunks is a flag of its own.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum OverArg {
    /// The run ends with an error
    Error,
    /// Skip the sequence; skipped sequences are listed and counted
    Skip,
    /// Keep the first residues up to the limit; truncated sequences are counted
    Truncate,
    /// Compute overlapping chunks and average the rows where chunks overlap (`embed` only)
    Chunk,
}

impl InputArgs {
    /// The options of the reader; `rules` names the letters accepted besides residues.
    ///
    /// # Errors
    /// A length limit of 0; an overlap that is too long, or without chunks.
    pub fn options(&self, rules: Rules) -> Result<Options, UsageError> {
        if self.overlap.is_some() && !matches!(self.over, OverArg::Chunk) {
            return Err(usage("--overlap is for --over chunk, which `embed` has"));
        }
        Ok(Options {
            rules,
            id_part: self.id_part,
            duplicates: self.duplicates,
            on_bad: self.on_bad,
            limit: self.limit().map_err(usage)?,
        })
    }

    fn limit(&self) -> Result<Limit, LimitError> {
        let Some(max_length) = self.max_length else {
            return Ok(Limit::NONE);
        };
        let over = match self.over {
            OverArg::Error => Over::Error,
            OverArg::Skip => Over::Skip,
            OverArg::Truncate => Over::Truncate,
            OverArg::Chunk => Over::Chunk {
                overlap: self.overlap.unwrap_or(max_length / 8),
            },
        };
        Limit::new(max_length, over)
    }
}

/// The settings of the input that influence results, for manifests.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct InputSettings {
    #[serde(skip_serializing_if = "Limit::is_none")]
    length_limit: Limit,
    #[serde(rename = "ids", skip_serializing_if = "IdPart::is_first_word")]
    id_part: IdPart,
}

impl InputSettings {
    /// The settings among these options.
    pub fn of(options: &Options) -> Self {
        Self {
            length_limit: options.limit,
            id_part: options.id_part,
        }
    }
}

/// `--over` of a command whose results cannot be averaged where chunks overlap.
pub fn whole_sequences(over: Arg) -> Arg {
    let chunk = |arg: &OverArg| matches!(arg, OverArg::Chunk);
    let others = OverArg::value_variants().iter().filter(|arg| !chunk(arg));
    let values = PossibleValuesParser::new(others.filter_map(OverArg::to_possible_value));
    over.value_parser(values.try_map(|word| OverArg::from_str(&word, false)))
}

/// A flag of a group that a command has no use for.
pub fn hidden(flag: Arg) -> Arg {
    flag.hide(true)
}

/// Working on a part of the input, and resuming an interrupted run.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "At scale")]
pub struct ScaleArgs {
    /// Process only part I of N: sequences I, I + N, I + 2N, … (counted from 1). `ankh3 merge`
    /// joins the results of all parts.
    #[arg(long, value_name = "I/N")]
    pub shard: Option<Shard>,

    /// Save finished results in OUTPUT.resume, and continue from this file if an earlier run was
    /// interrupted.
    #[arg(long, requires = "output")]
    pub resume: bool,
}

/// A part of the input: sequences `index`, `index + count`, … of the run, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Number of this part, from 0.
    pub index: u64,
    /// Number of parts.
    pub count: u64,
}

impl Shard {
    /// Whether sequence `number` of the run, from 0, is in this part.
    pub fn has(self, number: u64) -> bool {
        number % self.count == self.index
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index + 1, self.count)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text
            .split_once('/')
            .and_then(|(i, n)| Some((i.parse::<u64>().ok()?, n.parse().ok()?)));
        match parts {
            Some((index, count)) if 1 <= index && index <= count => Ok(Shard {
                index: index - 1,
                count,
            }),
            _ => Err("a shard is I/N with 1 <= I <= N, such as 3/8".to_owned()),
        }
    }
}

/// An error of the command line that its parser cannot see, such as flags that contradict each
/// other: exit code 2, as for the parser's own errors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(String);

/// An error of the command line; the message says what is wrong and how to correct it.
pub fn usage(message: impl fmt::Display) -> UsageError {
    UsageError(message.to_string())
}

/// The number types that matrix products can use.
pub const COMPUTE_TYPES: [(NumberType, &str); 2] = [
    (NumberType::F32, "Single precision"),
    (
        NumberType::Bf16,
        "bfloat16 weights: half the memory; on a CPU everything else stays f32",
    ),
];

/// Parses one of `choices`; the text beside each type is its help.
pub fn number_type(
    choices: &'static [(NumberType, &'static str)],
) -> impl TypedValueParser<Value = NumberType> {
    let values = choices
        .iter()
        .map(|(number, help)| PossibleValue::new(number.name()).help(*help));
    PossibleValuesParser::new(values).map(|word| {
        let mut choices = choices.iter().map(|(number, _)| *number);
        choices
            .find(|number| number.name().eq_ignore_ascii_case(&word))
            .expect("the parser accepts only these names")
    })
}

/// Parses a count that must not be 0.
///
/// # Errors
/// Anything else.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("a whole number of at least 1".to_owned()),
    }
}

/// The largest value of `--threads` on this machine: more threads than this are a mistake, and
/// starting these would take the memory of the machine.
fn most_threads() -> usize {
    let available = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (4 * available).max(1024)
}

/// Parses a number of threads: at least 1, at most four per CPU or 1024, whichever is larger.
///
/// # Errors
/// Anything else.
pub fn thread_count(text: &str) -> Result<usize, String> {
    let most = most_threads();
    match at_least_one(text)? {
        count if count <= most => Ok(count),
        _ => Err(format!("at most {most} threads on this machine")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreasonable_numbers_of_threads_are_errors() {
        assert_eq!(thread_count("1"), Ok(1));
        assert_eq!(thread_count("1024"), Ok(1024));
        let error = thread_count("100000").unwrap_err();
        assert_eq!(
            error,
            format!("at most {} threads on this machine", most_threads())
        );
        assert!(thread_count("0").is_err() && thread_count("two").is_err());
    }

    #[test]
    fn shards_are_one_based_on_the_command_line() {
        assert_eq!("1/4".parse(), Ok(Shard { index: 0, count: 4 }));
        assert_eq!("4/4".parse::<Shard>().unwrap().to_string(), "4/4");
        for bad in ["0/4", "5/4", "1", "a/b", "1/0", "-1/2", ""] {
            assert!(bad.parse::<Shard>().is_err(), "{bad}");
        }
        let shards: Vec<Shard> = (1..=3).map(|i| format!("{i}/3").parse().unwrap()).collect();
        assert!((0..20).all(|k| shards.iter().filter(|shard| shard.has(k)).count() == 1));
    }
}
