//! Flags about embeddings that several commands have: the format and the number type of a file, and
//! the layers of an encoder.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::args::usage;
use crate::io::stdio;
use crate::number::NumberType;
use crate::output::embeddings::EmbeddingFormat;

/// Number types of written values, with their help texts.
pub(super) const OUT_TYPES: [(NumberType, &str); 3] = [
    (NumberType::F32, "Single precision"),
    (
        NumberType::F16,
        "Half precision; values beyond ±65504 are an error",
    ),
    (NumberType::Bf16, "bfloat16; safetensors only"),
];

/// The format of --format, or of the file's extension; npz on stdout.
pub(super) fn format_of(format: Option<EmbeddingFormat>, output: &Path) -> Result<EmbeddingFormat> {
    match (format, EmbeddingFormat::from_extension(output)) {
        (Some(format), _) | (None, Some(format)) => Ok(format),
        (None, None) if stdio::is_dash(output) => Ok(EmbeddingFormat::Npz),
        (None, None) => {
            let known = EmbeddingFormat::ALL.map(EmbeddingFormat::name).join(", ");
            bail!(usage(format_args!(
                "the extension of {} names no format; add --format, one of {known}",
                output.display()
            )))
        }
    }
}

/// The layers of `--layers`: those counted from the end become layers counted from the start.
pub(super) fn resolve_layers(layers: &[i64], num_layers: usize) -> Result<Vec<usize>> {
    let resolve = |layer: &i64| {
        let counted = if *layer < 0 {
            layer + num_layers as i64 + 1
        } else {
            *layer
        };
        let valid = usize::try_from(counted)
            .ok()
            .filter(|counted| *counted <= num_layers);
        valid.with_context(|| {
            format!(
                "--layers {layer}: this encoder has layers 0 to {num_layers}, or -1 to -{}",
                num_layers + 1
            )
        })
    };
    layers.iter().map(resolve).collect()
}
