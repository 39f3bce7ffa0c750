//! `ankh3 contacts evaluate`: precision of predicted contacts over known structures.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Map, Value, json};

use super::known::{self, Known};
use super::predictor::{Predictor, PredictorArgs, separation_map};
use crate::args::{RuntimeArgs, at_least_one, usage};
use crate::commands::Outcome;
use crate::commands::heads::FeatureArgs;
use crate::inference::contacts::PairMap;
use crate::output::manifest::write_manifest;
use crate::output::table::{Cell, Table, TableFormat};
use crate::probe::metrics::contacts::{PARTS, Precisions, Range, precisions};
use crate::probe::metrics::{Estimate, RESAMPLES, mean_of};
use crate::probe::native::BySeparation;
use crate::progress::Progress;
use crate::report::charts::ScatterPlot;
use crate::report::charts::canvas::Heading;
use crate::report::picture::{self, Picture};

/// Judge contact predictions by known structures
///
/// P@L, P@L/2 and P@L/5 of short (6-11), medium (12-23) and long (24 and more) range, of each chain and as a mean with a 95 % interval from 1000 bootstrap
/// draws over chains; beside them those of the baseline that knows nothing but the separation.
#[derive(Args, Clone, Debug)]
pub struct EvaluateArgs {
    /// Structures: PDB, mmCIF, or JSON lines of coordinates.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    structures: Vec<PathBuf>,

    /// Only the first N chains.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    limit: Option<usize>,

    /// The file to write, `-` for stdout; .jsonl or tab-separated.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,

    /// Draw each chain's long-range P@L against the baseline's: .png or .svg.
    #[arg(long, value_name = "PICTURE")]
    plot: Option<PathBuf>,

    #[command(flatten)]
    predictor: PredictorArgs,
    #[command(flatten)]
    features: FeatureArgs,
    #[command(flatten)]
    runtime: RuntimeArgs,
}

/// The columns of the table.
pub(super) const COLUMNS: [&str; 9] = [
    "set",
    "id",
    "length",
    "range",
    "measure",
    "precision",
    "low",
    "high",
    "separation_only",
];

/// Precisions of chains, and the baseline's.
pub(super) struct Judged<'a> {
    chains: &'a [Known],
    own: Vec<Precisions>,
    baseline: Vec<Precisions>,
    seed: u64,
}

/// Judges maps by structures.
pub(super) fn judge<'a>(
    chains: &'a [Known],
    maps: &[&PairMap],
    by_separation: &BySeparation,
    seed: u64,
) -> Judged<'a> {
    let own = maps
        .iter()
        .zip(chains)
        .map(|(map, known)| precisions(map, &known.native));
    let baseline = chains.iter().map(|known| {
        precisions(
            &separation_map(by_separation, known.residues.len()),
            &known.native,
        )
    });
    Judged {
        chains,
        own: own.collect(),
        baseline: baseline.collect(),
        seed,
    }
}

impl Judged<'_> {
    fn mean(&self, of: &[Precisions], range: usize, part: usize) -> Option<Estimate> {
        let values: Vec<Option<f64>> = of.iter().map(|chain| chain[range][part]).collect();
        mean_of(&values, RESAMPLES, self.seed)
    }

    /// Every chain, then the means (id `mean`).
    pub(super) fn write(&self, table: &mut Table, set: &str) -> Result<()> {
        let set = Cell::Text(set);
        let number = |value: Option<f64>| Cell::Number(value.unwrap_or(f64::NAN));
        for (known, (own, baseline)) in self.chains.iter().zip(self.own.iter().zip(&self.baseline))
        {
            for (range, part, measure) in cells() {
                let alone = number(own[range][part]);
                let (id, length) = (Cell::Text(&known.id), Cell::Count(known.native.resolved()));
                let name = Cell::Text(Range::ALL[range].name());
                table.row(&[
                    set,
                    id,
                    length,
                    name,
                    Cell::Text(&measure),
                    alone,
                    number(None),
                    number(None),
                    number(baseline[range][part]),
                ])?;
            }
        }
        let length: usize = self
            .chains
            .iter()
            .map(|known| known.native.resolved())
            .sum();
        for (range, part, measure) in cells() {
            let own = self.mean(&self.own, range, part);
            let baseline = self
                .mean(&self.baseline, range, part)
                .map(|mean| mean.value);
            let part_of = |of: fn(&Estimate) -> f64| number(own.as_ref().map(of));
            let (id, length) = (Cell::Text("mean"), Cell::Count(length));
            let name = Cell::Text(Range::ALL[range].name());
            table.row(&[
                set,
                id,
                length,
                name,
                Cell::Text(&measure),
                part_of(|e| e.value),
                part_of(|e| e.low),
                part_of(|e| e.high),
                number(baseline),
            ])?;
        }
        Ok(())
    }

    /// The means.
    pub(super) fn to_json(&self) -> Value {
        let mut map = Map::new();
        map.insert("chains".to_owned(), json!(self.chains.len()));
        for (range, part, measure) in cells() {
            let name = format!("{}_{measure}", Range::ALL[range].name());
            map.insert(name.clone(), json!(self.mean(&self.own, range, part)));
            let baseline = self.mean(&self.baseline, range, part);
            map.insert(format!("separation_only_{name}"), json!(baseline));
        }
        Value::Object(map)
    }
}

/// Every range and part with the measure's name.
fn cells() -> impl Iterator<Item = (usize, usize, String)> {
    (0..Range::ALL.len()).flat_map(|range| {
        PARTS.iter().enumerate().map(move |(at, part)| {
            let name = if *part == 1 {
                "P@L".to_owned()
            } else {
                format!("P@L/{part}")
            };
            (range, at, name)
        })
    })
}

/// Runs the command.
pub(super) fn run(args: &EvaluateArgs) -> Result<Outcome> {
    let picture = args.plot.as_deref().map(Picture::of_path).transpose();
    let picture = picture.map_err(usage)?;
    let chains = known::read(&args.structures, args.limit)?;
    let mut predictor = Predictor::open(
        &args.predictor,
        &args.features,
        &args.runtime,
        "contacts evaluate",
    )?;
    let mut progress = Progress::new();
    progress.expect(chains.iter().map(|known| known.residues.len() as u64).sum());
    let mut maps = Vec::new();
    for known in &chains {
        let map = predictor.predict(&known.id, &known.place, &known.residues)?;
        maps.push(map.with_context(|| {
            format!("{}: the model's result holds NaN or infinity", known.place)
        })?);
        progress.add(1, known.residues.len() as u64);
    }
    progress.finish();
    let maps: Vec<&PairMap> = maps.iter().collect();
    let judged = judge(&chains, &maps, &predictor.by_separation, 7);
    let format = TableFormat::from_extension(&args.output);
    let mut table = Table::create(&args.output, format, &COLUMNS)?;
    judged.write(&mut table, "structures")?;
    table.finish()?;
    let mut manifest = predictor.manifest.clone();
    let metrics = judged.to_json();
    manifest.settings.insert("metrics".to_owned(), metrics);
    write_manifest(&args.output, &manifest)?;
    if let Some(picture) = picture {
        let long = Range::ALL.len() - 1;
        let pairs = judged.own.iter().zip(&judged.baseline);
        let pairs = pairs.filter_map(|(own, baseline)| Some((own[long][0]?, baseline[long][0]?)));
        let plot = ScatterPlot {
            heading: Heading::new(
                &judged
                    .mean(&judged.own, long, 0)
                    .map_or("long-range P@L per chain".to_owned(), |mean| {
                        format!("long-range P@L per chain: mean {mean}")
                    }),
                &predictor.description(),
            ),
            x_label: "P@L by separation alone".to_owned(),
            y_label: "P@L of the prediction".to_owned(),
            pairs: pairs.collect(),
        };
        picture::draw(&picture, &plot)
            .with_context(|| format!("drawing {}", picture.path.display()))?;
    }
    Ok(Outcome::Done)
}
