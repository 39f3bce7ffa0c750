//! `ankh3 predict-contacts`: which residues touch.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::Outcome;
use super::contacts::{MethodArg, Predictor, PredictorArgs, aligned};
use super::embed::report;
use super::heads::FeatureArgs;
use super::stream::{place, refuse_chunks};
use crate::args::{InputArgs, RuntimeArgs, usage};
use crate::inference::contacts::{PairMap, Top, select};
use crate::input::sequences::{Input, OnBad};
use crate::io::stdio::{Content, Output};
use crate::number::NumberType;
use crate::output::contact_list::{write_header, write_rows, write_rr};
use crate::output::embeddings::{
    Column, Destination, EmbeddingRecord, Format, Rows, Schema, Writer,
};
use crate::output::table::write_manifest;
use crate::progress::Progress;
use crate::report::picture::{self, Picture};
use crate::report::plots::ContactPlot;
use crate::sequence::{Rules, Sequence};

/// Predict which residues touch: FASTA in, CASP RR, a table or matrices out
///
/// Two residues touch when their C-beta atoms are less than 8 Å apart. Memory grows with the square of a protein's length: about 40 bytes a pair for
/// attention and head (150 MB at 2000 residues), 1.6 KB a pair for the Jacobian of residues (see --max-memory).
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
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
    runtime: RuntimeArgs,
}

const EXAMPLES: &str = "\
Examples:
  ankh3 predict-contacts --model DIR protein.fasta > contacts.rr
  ankh3 predict-contacts --model DIR --method jacobian --top L/5 -o contacts.tsv proteins.fasta
  ankh3 predict-contacts --model ankh3-large --head large-attention -o maps.h5 proteome.fasta
  ankh3 predict-contacts --model DIR --plot map.png --native 1abc.cif --chain A protein.fasta > contacts.rr";

/// What is written.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Output")]
struct OutputArgs {
    /// The file to write, `-` for stdout. It appears under its name only when it is complete.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,

    /// The format [default: by the file's extension; rr on stdout].
    #[arg(long, value_enum)]
    format: Option<FormatArg>,

    /// Pairs told of each protein, the highest first: L/1, L/5, a number, all [default: L/1; all with --threshold]. Matrices hold every pair.
    #[arg(long, value_name = "L/N|N|all")]
    top: Option<Top>,

    /// Residues that a pair must be apart in the chain.
    #[arg(long, value_name = "N", default_value = "6")]
    min_separation: usize,

    /// Only pairs whose value reaches this.
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    threshold: Option<f32>,

    /// Draw the map of one protein: .png or .svg.
    #[arg(long, value_name = "PICTURE")]
    plot: Option<PathBuf>,

    /// The protein's structure (PDB or mmCIF); its contacts are drawn below the diagonal.
    #[arg(long, value_name = "FILE", requires = "plot")]
    native: Option<PathBuf>,

    /// The structure's chain [default: the one that fits best].
    #[arg(long, value_name = "NAME", requires = "native")]
    chain: Option<String>,
}

/// How contacts are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FormatArg {
    /// CASP's RR.
    Rr,
    /// Tab-separated.
    Tsv,
    /// NumPy archive of matrices.
    Npz,
    /// HDF5 of matrices.
    H5,
}

impl OutputArgs {
    fn format(&self) -> Result<FormatArg> {
        if let Some(format) = self.format {
            return Ok(format);
        }
        let extension = self
            .output
            .extension()
            .unwrap_or_default()
            .to_ascii_lowercase();
        match extension.to_str() {
            _ if crate::io::stdio::is_dash(&self.output) => Ok(FormatArg::Rr),
            Some("rr") => Ok(FormatArg::Rr),
            Some("tsv" | "tab") => Ok(FormatArg::Tsv),
            Some("npz") => Ok(FormatArg::Npz),
            Some("h5" | "hdf5") => Ok(FormatArg::H5),
            _ => bail!(usage(format_args!(
                "the extension of {} names no format; add --format, one of rr, tsv, npz, h5",
                self.output.display()
            ))),
        }
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

/// An open output.
enum Sink {
    Text {
        output: Output,
        format: FormatArg,
        remarks: Vec<String>,
    },
    Matrices(Writer),
}

/// Runs the command.
///
/// # Errors
/// Everything that keeps the output from being complete.
pub fn run(args: &PredictContactsArgs) -> Result<Outcome> {
    let what = &args.output;
    let format = what.format()?;
    let picture = what.plot.as_deref().map(Picture::of_path).transpose();
    let picture = picture.map_err(usage)?;
    if args.predictor.method == Some(MethodArg::Separation) {
        bail!(usage(
            "--method separation is a baseline for `ankh3 contacts evaluate`"
        ));
    }
    let options = args.input.options(Rules::default())?;
    refuse_chunks(&options.limit)?;
    let on_bad = options.on_bad;
    let mut predictor = Predictor::open(
        &args.predictor,
        &args.features,
        &args.runtime,
        "predict-contacts",
    )?;
    let mut manifest = predictor.manifest.clone();
    manifest.insert("values".to_owned(), json!(predictor.value()));
    if matches!(format, FormatArg::Rr | FormatArg::Tsv) {
        manifest.insert("top".to_owned(), json!(what.top().to_string()));
        manifest.insert("min_separation".to_owned(), json!(what.min_separation));
        manifest.insert("threshold".to_owned(), json!(what.threshold));
    }
    let mut input = Input::open(&args.input.files, options)?;
    let mut sink = open_sink(what, format, &predictor, &manifest)?;
    let mut progress = Progress::new();
    let (mut drawn, mut left_out) = (0, 0);
    for item in input.by_ref() {
        let sequence = item?.sequence;
        let place = place(&sequence);
        progress.add(1, sequence.residues.len() as u64);
        let Some(map) = predictor.predict(&sequence.id, &place, &sequence.residues)? else {
            let message = format!("{place}: the model's result holds NaN or infinity");
            ensure!(
                on_bad == OnBad::Skip,
                "{message} (try --dtype f32, or leave the record out)"
            );
            tracing::warn!("skipped: {message}");
            left_out += 1;
            continue;
        };
        if let Some(picture) = &picture {
            ensure!(
                drawn == 0,
                "{place}: --plot draws one protein, and the input has more; give it one record"
            );
            draw(picture, what, predictor.value(), &sequence, &map)?;
            drawn += 1;
        }
        write(&mut sink, what, &sequence, map)?;
    }
    progress.finish();
    ensure!(picture.is_none() || drawn > 0, "no sequence to draw");
    match sink {
        Sink::Text { output, .. } => output.finish()?,
        Sink::Matrices(writer) => writer.finish()?,
    }
    if matches!(format, FormatArg::Rr | FormatArg::Tsv) {
        write_manifest(&what.output, &manifest)?;
    }
    report(input.counts());
    Ok(if input.counts().is_partial() || left_out > 0 {
        Outcome::SomeFailed
    } else {
        Outcome::Done
    })
}

fn open_sink(
    what: &OutputArgs,
    format: FormatArg,
    predictor: &Predictor,
    manifest: &serde_json::Map<String, serde_json::Value>,
) -> Result<Sink> {
    let opened = || -> std::io::Result<Sink> {
        match format {
            FormatArg::Rr | FormatArg::Tsv => {
                let mut output = Output::create(&what.output, Content::Text)?;
                if format == FormatArg::Tsv {
                    write_header(&mut output, predictor.value())?;
                }
                let remarks = remarks(predictor, manifest);
                Ok(Sink::Text {
                    output,
                    format,
                    remarks,
                })
            }
            FormatArg::Npz | FormatArg::H5 => {
                let schema = Schema {
                    columns: vec![Column {
                        name: "contacts".to_owned(),
                        width: 1,
                        rows: Rows::PerPair,
                    }],
                    dtype: NumberType::F32,
                    metadata: manifest.clone(),
                };
                let format = if format == FormatArg::Npz {
                    Format::Npz
                } else {
                    Format::H5
                };
                let destination = Destination::File(what.output.clone());
                Ok(Sink::Matrices(Writer::create(
                    format,
                    &schema,
                    destination,
                )?))
            }
        }
    };
    opened().with_context(|| format!("writing {}", what.output.display()))
}

/// What an RR file says of itself.
fn remarks(
    predictor: &Predictor,
    manifest: &serde_json::Map<String, serde_json::Value>,
) -> Vec<String> {
    let word = |key: &str| {
        manifest
            .get(key)
            .and_then(|value| value.as_str())
            .unwrap_or("none")
    };
    let mut remarks = vec![format!(
        "{}, model {}, prefix {}, method {}",
        word("tool"),
        word("model"),
        word("prefix"),
        word("method")
    )];
    if predictor.value() == "score" {
        remarks.push("values are scores divided by the highest of the protein, 0 where negative: an order, not probabilities".to_owned());
    }
    remarks
}

fn write(sink: &mut Sink, what: &OutputArgs, sequence: &Sequence, map: PairMap) -> Result<()> {
    match sink {
        Sink::Text {
            output,
            format,
            remarks,
        } => {
            let mut pairs = select(&map, what.min_separation, what.threshold, what.top());
            let (id, residues) = (&sequence.id, &sequence.residues);
            if *format == FormatArg::Tsv {
                write_rows(output, id, residues, &pairs)?;
            } else {
                // A second remark stands where values are scores, which RR has no place for.
                if remarks.len() > 1 {
                    scale(&mut pairs);
                }
                write_rr(output, id, residues, remarks, &pairs)?;
            }
            output.flush()?;
        }
        Sink::Matrices(writer) => writer.write(&EmbeddingRecord {
            id: sequence.id.clone(),
            length: sequence.residues.len(),
            values: vec![map.into_values()],
        })?,
    }
    Ok(())
}

/// Scores to 0 … 1.
fn scale(pairs: &mut [(usize, usize, f32)]) {
    let highest = pairs
        .first()
        .map_or(1.0, |pair| pair.2)
        .max(f32::MIN_POSITIVE);
    for pair in pairs {
        pair.2 = (pair.2 / highest).clamp(0.0, 1.0);
    }
}

fn draw(
    picture: &Picture,
    what: &OutputArgs,
    value: &str,
    sequence: &Sequence,
    map: &PairMap,
) -> Result<()> {
    let native = what.native.as_deref().map(|path: &Path| {
        aligned(
            path,
            what.chain.as_deref(),
            &sequence.id,
            &sequence.residues,
        )
    });
    let native = native.transpose()?;
    // Neighbours would outshine everything: the scale is that of pairs worth telling.
    let far = select(map, what.min_separation, None, Top::Count(1));
    let highest = far.first().map_or(1.0, |pair| pair.2);
    let mut shown = map.clone();
    let n = shown.length();
    for i in 0..n {
        for j in i.saturating_sub(what.min_separation.saturating_sub(1))
            ..(i + what.min_separation).min(n)
        {
            shown.values_mut()[i * n + j] = 0.0;
        }
    }
    let plot = ContactPlot {
        title: sequence.id.clone(),
        length: n,
        values: shown.into_values(),
        highest: highest.max(f32::MIN_POSITIVE),
        scale: value.to_owned(),
        native: native.map(|native| native.labels()),
    };
    picture::draw(picture, &plot).with_context(|| format!("drawing {}", picture.path.display()))
}
