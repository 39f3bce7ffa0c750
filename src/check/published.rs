//! An encoder against values that others published for the same model and the same tokens.
//!
//! `published.safetensors` has a selection of the outputs of five official models that `FastPLMs`
//! (github.com/Synthyra/FastPLMs, tests/goldens, commit 1f782820, Apache-2.0) published: the
//! authors' code in bf16 on an NVIDIA H100, three sequences without a task prefix, 48 dimensions of
//! each of 103 residues. `published.py` makes the file. docs/precision.md derives the limits.

use candle_core::{DType, Result};
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use crate::model::{Encoder, Packed};
use crate::number::NumberType;

static FILE: &[u8] = include_bytes!("published.safetensors");

/// Where the values come from, for messages.
pub const SOURCE: &str = "FastPLMs 1f782820, bf16 on an H100";

/// What the encoder read, and the dimensions of its output that are known.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KnownInput {
    /// The commit of the model's files on the hub.
    pub revision: String,
    /// Values per residue in the model's whole output: `d_model`.
    pub width: usize,
    /// The dimensions that are compared.
    pub dimensions: Vec<usize>,
    /// The sequences as residues.
    pub sequences: Vec<String>,
    /// The tokens of each sequence: one per residue, and `</s>`.
    pub token_ids: Vec<Vec<u32>>,
}

/// A published result of one model.
#[derive(Clone, Debug)]
pub struct KnownAnswer {
    /// What was computed.
    pub input: KnownInput,
    /// The values, `(residues, dimensions)`.
    values: Vec<f32>,
}

/// How far a result is from the published one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distance {
    /// The lowest cosine of a residue.
    pub lowest: f64,
    /// The median of the residues' cosines.
    pub median: f64,
    /// The length of the difference of all values, divided by the length of the published values.
    pub relative: f64,
}

impl Distance {
    /// The largest distance at which two computations in bf16 still agree.
    pub const LIMIT: Distance = Distance {
        lowest: 0.995,
        median: 0.999,
        relative: 0.04,
    };

    /// True within [`Distance::LIMIT`]; false for NaN.
    pub fn passed(&self) -> bool {
        self.lowest >= Self::LIMIT.lowest
            && self.median >= Self::LIMIT.median
            && self.relative <= Self::LIMIT.relative
    }

    /// The distance of `got` from `expected`, both `(residues, width)`; NaN where a value is NaN.
    fn between(got: &[f32], expected: &[f32], width: usize) -> Self {
        let rows = got.chunks_exact(width).zip(expected.chunks_exact(width));
        let mut cosines: Vec<f64> = rows.map(|(got, expected)| cosine(got, expected)).collect();
        cosines.sort_by(f64::total_cmp);
        let broken = cosines.iter().any(|cosine| cosine.is_nan());
        let of = |index: usize| match cosines.get(index) {
            Some(cosine) if !broken => *cosine,
            _ => f64::NAN,
        };
        let difference = got.iter().zip(expected);
        let difference = difference.map(|(got, expected)| f64::from(got - expected).powi(2));
        Distance {
            lowest: of(0),
            median: of(cosines.len() / 2),
            relative: (difference.sum::<f64>() / dot(expected, expected)).sqrt(),
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| f64::from(*a) * f64::from(*b))
        .sum()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

impl KnownAnswer {
    /// The published result of the model of this repository, such as `ElnaggarLab/ankh3-large`.
    pub fn of(repo: &str) -> Option<Self> {
        Self::read(FILE, repo).ok()
    }

    /// The repositories of all published results.
    pub fn repositories() -> Vec<String> {
        let file = SafeTensors::deserialize(FILE);
        let names = file.as_ref().map(SafeTensors::names).unwrap_or_default();
        let mut names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        names.sort();
        names
    }

    /// A result in a file that is laid out as `published.safetensors`: a tensor per repository with
    /// the published values in bf16, and in the metadata under the same name the other fields as
    /// JSON.
    ///
    /// # Errors
    /// Another layout, a repository that the file lacks, sizes that contradict each other.
    pub fn read(bytes: &[u8], repo: &str) -> Result<Self> {
        let wrong =
            |problem: String| candle_core::Error::Msg(format!("published values: {problem}"));
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| wrong(e.to_string()))?;
        let file = SafeTensors::deserialize(bytes).map_err(|e| wrong(e.to_string()))?;
        let fields = header.metadata().as_ref();
        let fields = fields.and_then(|fields| fields.get(repo));
        let (Some(fields), Ok(tensor)) = (fields, file.tensor(repo)) else {
            return Err(wrong(format!("none of {repo}")));
        };
        let input: KnownInput = serde_json::from_str(fields).map_err(|e| wrong(e.to_string()))?;
        let residues: usize = input.sequences.iter().map(String::len).sum();
        let tokens = input.token_ids.iter().map(Vec::len);
        if tensor.dtype() != Dtype::BF16
            || tensor.shape() != [residues, input.dimensions.len()]
            || !tokens.eq(input.sequences.iter().map(|letters| letters.len() + 1))
            || input.dimensions.iter().any(|index| *index >= input.width)
        {
            return Err(wrong(format!("sizes of {repo} that contradict each other")));
        }
        let values = NumberType::Bf16.to_values(tensor.data());
        Ok(KnownAnswer { input, values })
    }

    /// A file for [`KnownAnswer::read`] with the results of `encoder`, in the place of published
    /// ones.
    ///
    /// # Errors
    /// The errors of the encoder, and dimensions that its output lacks.
    pub fn write(encoder: &Encoder, input: &KnownInput, repo: &str) -> Result<Vec<u8>> {
        let values = NumberType::Bf16.to_bytes(&selection(encoder, input)?);
        let residues = input.sequences.iter().map(String::len).sum();
        let shape = vec![residues, input.dimensions.len()];
        let view = safetensors::tensor::TensorView::new(Dtype::BF16, shape, &values);
        let fields = serde_json::to_string(input).map_err(candle_core::Error::wrap)?;
        let metadata = [(repo.to_owned(), fields)].into_iter().collect();
        let view = [(repo, view.map_err(candle_core::Error::wrap)?)];
        safetensors::serialize(view, Some(metadata)).map_err(candle_core::Error::wrap)
    }

    /// Runs `encoder` on the published tokens and compares.
    ///
    /// # Errors
    /// A model of another width, tokens outside its vocabulary, and the errors of its device.
    pub fn compare(&self, encoder: &Encoder) -> Result<Distance> {
        let got = selection(encoder, &self.input)?;
        Ok(Distance::between(
            &got,
            &self.values,
            self.input.dimensions.len(),
        ))
    }
}

/// The output of `encoder` for the residues and the dimensions of `input`.
fn selection(encoder: &Encoder, input: &KnownInput) -> Result<Vec<f32>> {
    let width = encoder.config().d_model;
    if width != input.width {
        candle_core::bail!(
            "this model has {width} values per residue, and the published model has {}",
            input.width
        );
    }
    let packed = Packed::from_segments(input.token_ids.iter().map(Vec::as_slice));
    let states = encoder.forward(&packed)?.to_dtype(DType::F32)?;
    let states = states.to_vec2::<f32>()?;
    let residues = packed
        .segments()
        .flat_map(|tokens| tokens.start..tokens.end - 1);
    let rows = residues.map(|token| &states[token]);
    Ok(rows
        .flat_map(|row| input.dimensions.iter().map(|index| row[*index]))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Checkpoint, ModelLocation};
    use crate::device::{Compute, DeviceSpec};
    use crate::number::NumberType;

    #[test]
    fn every_published_result_is_whole() {
        let names = KnownAnswer::repositories();
        let expected = [
            "ankh-base",
            "ankh-large",
            "ankh2-ext2",
            "ankh3-large",
            "ankh3-xl",
        ];
        assert_eq!(names, expected.map(|name| format!("ElnaggarLab/{name}")));
        assert!(FILE.len() < 60_000);
        for name in names {
            let answer = KnownAnswer::read(FILE, &name).unwrap();
            assert_eq!(answer.values.len(), 103 * 48, "{name}");
            assert_eq!(answer.input.revision.len(), 40, "{name}");
            let itself = Distance::between(&answer.values, &answer.values, 48);
            assert!(itself.passed() && itself.relative == 0.0, "{itself:?}");
        }
        assert!(KnownAnswer::of("ElnaggarLab/ankh2-large").is_none());
    }

    #[test]
    fn distances_of_known_values() {
        let expected = [1.0, 0.0, 0.0, 2.0, 3.0, 4.0];
        let distance = |got: &[f32]| Distance::between(got, &expected, 2);
        let same = distance(&expected);
        assert_eq!((same.lowest, same.median, same.relative), (1.0, 1.0, 0.0));
        // Twice as long: no cosine changes, and the difference is as long as the values.
        let twice = distance(&expected.map(|value| 2.0 * value));
        assert_eq!(
            (twice.lowest, twice.median, twice.relative),
            (1.0, 1.0, 1.0)
        );
        assert!(!twice.passed());
        let turned = distance(&[0.0, 1.0, 0.0, 2.0, 3.0, 4.0]);
        assert_eq!((turned.lowest, turned.median), (0.0, 1.0));
        for broken in [f32::NAN, f32::INFINITY] {
            assert!(!distance(&[1.0, broken, 0.0, 2.0, 3.0, 4.0]).passed());
        }
        assert!(!Distance::between(&[], &[], 2).passed());
    }

    /// An encoder that gets a prefix in front of the same residues.
    #[test]
    fn a_prefix_is_outside_the_limits() {
        let checkpoint = Checkpoint::load_from(ModelLocation::bundled()).unwrap();
        let compute = Compute::open(DeviceSpec::Cpu, Some(NumberType::F32)).unwrap();
        let encoder = Encoder::load(&checkpoint.loader(&compute), &checkpoint.config).unwrap();
        let KnownInput { token_ids, .. } =
            KnownAnswer::of("ElnaggarLab/ankh3-large").unwrap().input;
        let rows = |prefix: &[u32]| {
            let segments: Vec<Vec<u32>> = token_ids
                .iter()
                .map(|tokens| [prefix, tokens].concat())
                .collect();
            let packed = Packed::from_segments(segments.iter().map(Vec::as_slice));
            let states = encoder.forward(&packed).unwrap().to_vec2::<f32>().unwrap();
            let residues = packed.segments();
            let residues = residues.flat_map(|part| part.start + prefix.len()..part.end - 1);
            residues
                .flat_map(|token| states[token].clone())
                .collect::<Vec<f32>>()
        };
        let plain = rows(&[]);
        assert!(Distance::between(&rows(&[]), &plain, 192).passed());
        for prefix in [4, 5] {
            let distance = Distance::between(&rows(&[prefix]), &plain, 192);
            assert!(
                !distance.passed() && distance.relative > 0.2,
                "{distance:?}"
            );
        }
    }
}
