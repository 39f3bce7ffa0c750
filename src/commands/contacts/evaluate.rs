//! `ankh3 contacts evaluate`: precision of predicted contacts over known structures.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use super::predictor::{Predictor, PredictorArgs};
use super::{SEED, structures, table};
use crate::args::{RuntimeArgs, at_least_one, usage};
use crate::commands::heads::FeatureArgs;
use crate::commands::{Outcome, check_outputs};
use crate::inference::contacts::PairMap;
use crate::io::stdio::Content;
use crate::output::manifest::write_manifest;
use crate::output::table::{Table, TableFormat};
use crate::probe::contact_evaluation::{ContactEvaluation, ContactMeasure};
use crate::probe::native::KnownChain;
use crate::progress::Progress;
use crate::report::charts::ScatterPlot;
use crate::report::charts::canvas::Heading;
use crate::report::picture::{self, Picture};

/// Measure the precision of contact predictions over known structures
///
/// Writes P@L, P@L/2 and P@L/5 for short (6-11), medium (12-23) and long (24 and more) range: of
/// each chain, and the mean over chains with a 95 % interval from 1000 bootstrap draws of chains.
/// Beside each precision stands that of a baseline that knows only the separation of residues in
/// the chain.
#[derive(Args, Clone, Debug)]
pub struct ContactsEvaluateArgs {
    /// Structures: PDB, mmCIF, or JSON lines of coordinates.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    structures: Vec<PathBuf>,

    /// Use only the first N chains.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    limit: Option<usize>,

    /// The file to write, `-` for stdout; JSON lines if it ends in .jsonl, otherwise tab-separated.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,

    /// Draw the long-range P@L of each chain against that of the baseline: .png or .svg.
    #[arg(long, value_name = "PICTURE")]
    plot: Option<PathBuf>,

    #[command(flatten)]
    predictor: PredictorArgs,
    #[command(flatten)]
    features: FeatureArgs,
    #[command(flatten)]
    runtime: RuntimeArgs,
}

/// Runs the command.
pub(super) fn run(args: &ContactsEvaluateArgs) -> Result<Outcome> {
    let picture = args.plot.as_deref().map(Picture::of_path).transpose();
    let picture = picture.map_err(usage)?;
    let plot = args.plot.iter().map(|path| (&**path, Content::Binary));
    check_outputs(plot.chain([(&*args.output, Content::Text)]))?;
    let chains = structures::read(&args.structures, args.limit)?;
    let mut predictor = Predictor::open(
        &args.predictor,
        &args.features,
        &args.runtime,
        "contacts evaluate",
    )?;
    let maps = predict(&mut predictor, &chains)?;
    let evaluation = ContactEvaluation::new(&chains, &maps, &predictor.by_separation, SEED);
    let format = TableFormat::from_extension(&args.output);
    let mut table = Table::create(&args.output, format, &table::COLUMNS)?;
    table::write(&mut table, "structures", &evaluation)?;
    let mut manifest = predictor.manifest.clone();
    manifest.set_layout(table.layout());
    table.finish()?;
    let metrics = evaluation.to_json();
    manifest.settings.insert("metrics".to_owned(), metrics);
    write_manifest(&args.output, &manifest)?;
    if let Some(picture) = picture {
        draw(&picture, &evaluation, &predictor.description())?;
    }
    Ok(Outcome::Done)
}

/// The map of every chain.
fn predict(predictor: &mut Predictor, chains: &[KnownChain]) -> Result<Vec<PairMap>> {
    let mut progress = Progress::new();
    progress.expect(chains.iter().map(|chain| chain.residues.len() as u64).sum());
    let mut maps = Vec::new();
    for chain in chains {
        let map = predictor.predict(&chain.id, &chain.name, &chain.residues)?;
        maps.push(map.with_context(|| {
            format!("{}: the model's result holds NaN or infinity", chain.name)
        })?);
        progress.add(1, chain.residues.len() as u64);
    }
    progress.finish();
    Ok(maps)
}

/// Draws the long-range P@L of each chain against the baseline's.
fn draw(picture: &Picture, evaluation: &ContactEvaluation<'_>, description: &str) -> Result<()> {
    let long = ContactMeasure::LONG;
    let pairs = (0..evaluation.chains.len()).filter_map(|number| {
        let precision = evaluation.chain(number, long);
        Some((precision.predicted?, precision.baseline?))
    });
    let title = "long-range P@L per chain";
    let title = match evaluation.mean(long).predicted {
        Some(mean) => format!("{title}: mean {mean}"),
        None => title.to_owned(),
    };
    let plot = ScatterPlot {
        heading: Heading::new(&title, description),
        x_label: "P@L by separation alone".to_owned(),
        y_label: "P@L of the prediction".to_owned(),
        pairs: pairs.collect(),
    };
    picture::draw(picture, &plot).with_context(|| format!("drawing {}", picture.path.display()))
}
