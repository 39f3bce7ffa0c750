//! `ankh3 predict-contacts`: predicts the residues in contact.

mod lists;
mod maps;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::{Value, json};

use self::lists::ContactLists;
use self::maps::ContactMaps;
use super::Outcome;
use super::contacts::{MethodArg, Predictor, PredictorArgs};
use super::conveyor::{EmbeddingRows, Grouped, RunPlan, TextRows};
use super::heads::FeatureArgs;
use crate::args::{
    InputArgs, InputSettings, RuntimeArgs, ScaleArgs, hidden, usage, whole_sequences,
};
use crate::inference::contacts::Top;
use crate::io::stdio::Content;
use crate::number::NumberType;
use crate::output::embeddings::{Column, EmbeddingFormat, EmbeddingWriter, RowKind, Schema};
use crate::output::manifest::Manifest;
use crate::report::picture::Picture;
use crate::sequence::Rules;

/// Predict residues in contact: FASTA in, CASP RR, a table or matrices out
///
/// Two residues are in contact when their C-beta atoms are less than 8 Å apart. Memory grows with
/// the square of a protein's length: about 40 bytes per pair of residues for a head or the
/// attention regression (150 MB at 2000 residues), 1.6 KB per pair for the Jacobian of residues
/// (see --max-memory).
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
#[command(mut_arg("over", whole_sequences), mut_arg("overlap", hidden))]
pub struct PredictContactsArgs {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    predictor: PredictorArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    features: FeatureArgs,
    #[command(flatten)]
    scale: ScaleArgs,
    #[command(flatten)]
    runtime: RuntimeArgs,
}

const EXAMPLES: &str = "\
Examples:
  ankh3 predict-contacts --model nano protein.fasta > contacts.rr
  ankh3 predict-contacts --model nano --method jacobian --top L/5 -o contacts.tsv proteins.fasta
  ankh3 predict-contacts --model nano --plot map.png --native 1abc.cif --chain A protein.fasta > contacts.rr
  ankh3 predict-contacts --model ankh3-large --head large-attention --resume -o maps.h5 proteome.fasta";

/// Options of the output.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Output")]
struct OutputArgs {
    /// The file to write, or `-` for stdout. A file appears under its name only when it is
    /// complete.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,

    /// The format [default: by the file's extension; rr on stdout].
    #[arg(long, value_enum)]
    format: Option<ContactFormat>,

    /// Pairs per protein, the highest values first: L/1, L/5, a number, or all [default: L/1; all
    /// with --threshold]. Matrices hold every pair.
    #[arg(long, value_name = "L/N|N|all")]
    top: Option<Top>,

    /// Smallest separation of a pair along the chain.
    #[arg(long, value_name = "N", default_value = "6")]
    min_separation: usize,

    /// Smallest value of a pair.
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    threshold: Option<f32>,

    /// Draw the map of one protein (.png or .svg).
    #[arg(long, value_name = "PICTURE", conflicts_with_all = ["shard", "resume"])]
    plot: Option<PathBuf>,

    /// The protein's structure (PDB or mmCIF); its contacts are drawn below the diagonal.
    #[arg(long, value_name = "FILE", requires = "plot")]
    native: Option<PathBuf>,

    /// The structure's chain [default: the one that fits best].
    #[arg(long, value_name = "NAME", requires = "native")]
    chain: Option<String>,
}

/// A format of contacts: lists of pairs, or matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ContactFormat {
    /// Lists of pairs in CASP's RR format
    Rr,
    /// A table of pairs, tab-separated
    Tsv,
    /// Matrices in a NumPy archive
    Npz,
    /// Matrices in HDF5
    H5,
}

impl ContactFormat {
    fn name(self) -> &'static str {
        match self {
            ContactFormat::Rr => "rr",
            ContactFormat::Tsv => "tsv",
            ContactFormat::Npz => "npz",
            ContactFormat::H5 => "h5",
        }
    }

    fn content(self) -> Content {
        match self {
            ContactFormat::Rr | ContactFormat::Tsv => Content::Text,
            ContactFormat::Npz | ContactFormat::H5 => Content::Binary,
        }
    }
}

impl OutputArgs {
    fn format(&self) -> Result<ContactFormat> {
        if let Some(format) = self.format {
            return Ok(format);
        }
        let extension = self
            .output
            .extension()
            .unwrap_or_default()
            .to_ascii_lowercase();
        match extension.to_str() {
            _ if crate::io::stdio::is_dash(&self.output) => Ok(ContactFormat::Rr),
            Some("rr") => Ok(ContactFormat::Rr),
            Some("tsv" | "tab") => Ok(ContactFormat::Tsv),
            Some("npz") => Ok(ContactFormat::Npz),
            Some("h5" | "hdf5") => Ok(ContactFormat::H5),
            _ => bail!(usage(format_args!(
                "the extension of {} names no format; add --format, one of rr, tsv, npz, h5",
                self.output.display()
            ))),
        }
    }

    /// The files to write.
    fn files(&self, format: ContactFormat) -> Vec<(&Path, Content)> {
        let plot = self.plot.iter();
        let plot = plot.map(|path| (path.as_path(), Content::Binary));
        let output = (self.output.as_path(), format.content());
        std::iter::once(output).chain(plot).collect()
    }

    fn top(&self) -> Top {
        let otherwise = if self.threshold.is_some() {
            Top::All
        } else {
            Top::LengthOver(1.0)
        };
        self.top.unwrap_or(otherwise)
    }
}

/// Predicts the contacts of every protein.
///
/// # Errors
/// Everything that keeps the output from being complete.
pub fn run(args: &PredictContactsArgs) -> Result<Outcome> {
    let what = &args.output;
    let format = what.format()?;
    let picture = what.plot.as_deref().map(Picture::of_path).transpose();
    let picture = picture.map_err(usage)?;
    ensure!(
        args.predictor.method != Some(MethodArg::Separation),
        usage("--method separation is a baseline for `ankh3 contacts evaluate`")
    );
    if let Some(native) = &what.native {
        std::fs::metadata(native).with_context(|| native.display().to_string())?;
    }
    let options = args.input.options(Rules::default())?;
    let input = InputSettings::of(&options);
    let mut plan = RunPlan::new(&args.input.files, options, &args.scale, &what.files(format))?;
    if picture.is_some() {
        plan.expect_one_protein()?;
    }
    let (how, features) = (&args.predictor, &args.features);
    let predictor = Predictor::open(how, features, &args.runtime, "predict-contacts")?;
    let manifest = manifest(args, format, &predictor, input)?;
    let made: Value = serde_json::from_str(&manifest.journal_key()?)?;
    let key = json!({ "format": format.name(), "manifest": made });
    let conveyor = plan.begin(&key.to_string())?;
    let contacts = ContactMaps {
        predictor,
        picture,
        what,
    };
    match format {
        ContactFormat::Rr | ContactFormat::Tsv => {
            let lists = ContactLists::new(contacts, format, &manifest);
            let rows =
                TextRows::create(&what.output, lists.text_format(), &lists.header(), manifest)?;
            conveyor.carry(&mut Grouped::new(lists, 1), rows)?.finish()
        }
        ContactFormat::Npz | ContactFormat::H5 => {
            let rows = EmbeddingRows(matrices(&what.output, format, manifest)?);
            conveyor
                .carry(&mut Grouped::new(contacts, 1), rows)?
                .finish()
        }
    }
}

/// What influences predicted contacts, for the manifest.
#[derive(Serialize)]
struct ContactSettings {
    values: &'static str,
    #[serde(flatten)]
    list: Option<ListSettings>,
    #[serde(flatten)]
    input: InputSettings,
}

/// Which pairs of residues a list of contacts has.
#[derive(Serialize)]
struct ListSettings {
    top: String,
    min_separation: usize,
    threshold: Option<f32>,
}

/// How the contacts are made.
fn manifest(
    args: &PredictContactsArgs,
    format: ContactFormat,
    predictor: &Predictor,
    input: InputSettings,
) -> Result<Manifest> {
    let what = &args.output;
    let mut manifest = predictor.manifest.clone();
    manifest.shard = args.scale.shard.map(|shard| shard.to_string());
    manifest.set_settings(&ContactSettings {
        values: predictor.value(),
        list: (format.content() == Content::Text).then(|| ListSettings {
            top: what.top().to_string(),
            min_separation: what.min_separation,
            threshold: what.threshold,
        }),
        input,
    })?;
    Ok(manifest)
}

/// Opens a file of matrices.
fn matrices(path: &Path, format: ContactFormat, metadata: Manifest) -> Result<EmbeddingWriter> {
    let schema = Schema {
        columns: vec![Column {
            name: "contacts".to_owned(),
            width: 1,
            rows: RowKind::PerPair,
        }],
        dtype: NumberType::F32,
        metadata,
    };
    let format = if format == ContactFormat::Npz {
        EmbeddingFormat::Npz
    } else {
        EmbeddingFormat::H5
    };
    EmbeddingWriter::create(format, &schema, path)
        .with_context(|| format!("writing {}", path.display()))
}
