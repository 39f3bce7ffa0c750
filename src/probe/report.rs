//! All measures of a set of predictions, with their 95 % intervals.

use serde_json::{Map, Value, json};

use super::description::PredictionTask;
use super::loss::Label;
use super::metrics::classes::{Confusion, Scored, auroc, sort_scored};
use super::metrics::numbers::{Ranked, ValuePair, mse, pearson};
use super::metrics::{Estimate, bootstrap};
use super::outputs::OutputRows;

/// What was predicted of one protein: for everything that counts its true class and the logits of
/// all classes.
pub type Predicted = Vec<(usize, Vec<f32>)>;

/// The measures of a set of predictions.
#[derive(Clone, Debug, Default)]
pub struct MetricReport {
    /// Number of proteins.
    pub proteins: usize,
    /// Number of residues or proteins that count.
    pub counted: usize,
    /// Estimates by name; measures that are not defined are left out.
    pub metrics: Vec<(String, Estimate)>,
    /// The confusion matrix, for classes.
    pub confusion: Option<Confusion>,
    /// Predicted and measured numbers, for numbers.
    pub pairs: Vec<ValuePair>,
}

/// How intervals are estimated.
#[derive(Clone, Copy, Debug)]
pub struct Resampling {
    /// Number of bootstrap draws.
    pub resamples: usize,
    /// Decides the draws.
    pub seed: u64,
}

impl Resampling {
    /// No draws: measures without intervals.
    pub const NONE: Self = Self {
        resamples: 0,
        seed: 0,
    };
}

impl MetricReport {
    /// The measures of a head's outputs, compared with the labels.
    pub fn of_outputs(
        task: &PredictionTask,
        outputs: &[OutputRows],
        labels: &[Label],
        how: Resampling,
    ) -> Self {
        let each = outputs.iter().zip(labels);
        if let PredictionTask::Number = task {
            let pairs = each.filter_map(|(rows, label)| number_pair(rows, label));
            return Self::of_numbers(pairs.collect(), how);
        }
        let predicted: Vec<_> = each
            .map(|(rows, label)| labelled_logits(rows, label))
            .collect();
        Self::of_classes(task.classes(), &predicted, how)
    }

    /// The measures of classes of residues or proteins; proteins are resampled.
    pub fn of_classes(classes: &[String], proteins: &[Predicted], how: Resampling) -> Self {
        let n = classes.len();
        let each: Vec<Confusion> = proteins
            .iter()
            .map(|protein| confusion(n, protein))
            .collect();
        let mut report = Self {
            proteins: proteins.len(),
            counted: proteins.iter().map(Vec::len).sum(),
            confusion: Some(Confusion::sum(n, &each, &vec![1; each.len()])),
            ..Self::default()
        };
        let of = |measure: &(dyn Fn(&Confusion) -> Option<f64> + Sync)| {
            bootstrap(each.len(), how.resamples, how.seed, |times| {
                measure(&Confusion::sum(n, &each, times))
            })
        };
        report.put("accuracy", of(&Confusion::accuracy));
        report.put("mcc", of(&Confusion::mcc));
        for (class, name) in classes.iter().enumerate() {
            report.put(
                &format!("accuracy_{name}"),
                of(&|c| c.class_accuracy(class)),
            );
        }
        let mut areas = Vec::new();
        for (class, name) in classes.iter().enumerate() {
            let scored = scored(proteins, class);
            let area = bootstrap(each.len(), how.resamples, how.seed, |times| {
                auroc(&scored, times)
            });
            areas.extend(area.map(|area| area.value));
            report.put(&format!("auroc_{name}"), area);
        }
        let all: Vec<Vec<Scored>> = (0..n).map(|class| scored(proteins, class)).collect();
        if areas.len() == n {
            let mean = bootstrap(each.len(), how.resamples, how.seed, |times| {
                let areas = all.iter().map(|scored| auroc(scored, times));
                let areas: Vec<f64> = areas.collect::<Option<_>>()?;
                Some(areas.iter().sum::<f64>() / n as f64)
            });
            report.put("auroc", mean);
        }
        report
    }

    /// The measures of numbers; proteins are resampled.
    pub fn of_numbers(pairs: Vec<ValuePair>, how: Resampling) -> Self {
        let ranked = Ranked::new(&pairs);
        let n = pairs.len();
        let mut report = Self {
            proteins: n,
            counted: n,
            ..Self::default()
        };
        let of = |measure: &(dyn Fn(&[u32]) -> Option<f64> + Sync)| {
            bootstrap(n, how.resamples, how.seed, measure)
        };
        report.put("spearman", of(&|times| ranked.spearman(times)));
        report.put("pearson", of(&|times| pearson(&pairs, times)));
        report.put("mse", of(&|times| mse(&pairs, times)));
        report.pairs = pairs;
        report
    }

    fn put(&mut self, name: &str, estimate: Option<Estimate>) {
        if let Some(estimate) = estimate {
            self.metrics.push((name.to_owned(), estimate));
        }
    }

    /// The value of a measure.
    pub fn value(&self, name: &str) -> Option<f64> {
        let found = self.metrics.iter().find(|(known, _)| known == name);
        found.map(|(_, estimate)| estimate.value)
    }

    /// The report as JSON.
    pub fn to_json(&self, classes: &[String]) -> Value {
        let mut map = Map::new();
        map.insert("proteins".to_owned(), json!(self.proteins));
        map.insert("counted".to_owned(), json!(self.counted));
        for (name, estimate) in &self.metrics {
            map.insert(name.clone(), json!(estimate));
        }
        if let Some(confusion) = &self.confusion {
            let row = |truth: usize| -> Vec<u64> {
                (0..classes.len())
                    .map(|predicted| confusion.count(truth, predicted))
                    .collect()
            };
            let rows: Map<String, Value> = classes
                .iter()
                .enumerate()
                .map(|(truth, name)| (name.clone(), json!(row(truth))))
                .collect();
            map.insert("classes".to_owned(), json!(classes));
            map.insert("confusion".to_owned(), Value::Object(rows));
        }
        Value::Object(map)
    }
}

fn number_pair(rows: &OutputRows, label: &Label) -> Option<ValuePair> {
    let Label::Value(measured) = label else {
        return None;
    };
    Some(ValuePair {
        predicted: f64::from(*rows.first()?.first()?),
        measured: *measured,
    })
}

fn labelled_logits(rows: &OutputRows, label: &Label) -> Predicted {
    match label {
        Label::Residues(classes) => {
            let each = classes.iter().zip(rows);
            each.filter_map(|(class, logits)| Some(((*class)? as usize, logits.clone())))
                .collect()
        }
        Label::Class(class) => vec![(*class as usize, rows[0].clone())],
        Label::Value(_) | Label::Pairs(_) => Vec::new(),
    }
}

fn confusion(classes: usize, protein: &Predicted) -> Confusion {
    let mut confusion = Confusion::new(classes);
    for (truth, logits) in protein {
        confusion.add(*truth, most_probable(logits));
    }
    confusion
}

/// The class of the largest logit; the first of equal ones.
pub fn most_probable(logits: &[f32]) -> usize {
    let mut best = 0;
    for (class, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = class;
        }
    }
    best
}

/// Probabilities of logits.
pub fn softmax(logits: &[f32]) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f32> = logits.iter().map(|logit| (logit - largest).exp()).collect();
    let sum: f32 = exponentials.iter().sum();
    exponentials.iter().map(|value| value / sum).collect()
}

fn scored(proteins: &[Predicted], class: usize) -> Vec<Scored> {
    let mut scored: Vec<Scored> = proteins
        .iter()
        .enumerate()
        .flat_map(|(number, protein)| {
            protein.iter().map(move |(truth, logits)| {
                (softmax(logits)[class], *truth == class, number as u32)
            })
        })
        .collect();
    sort_scored(&mut scored);
    scored
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOW: Resampling = Resampling {
        resamples: 50,
        seed: 1,
    };

    fn classes(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn measures_of_two_classes_by_hand() {
        let proteins = vec![
            vec![(0, vec![2.0, 1.0]), (1, vec![0.0, 3.0])],
            vec![(0, vec![0.0, 1.0]), (1, vec![0.0, 2.0])],
        ];
        let report = MetricReport::of_classes(&classes(&["a", "b"]), &proteins, HOW);
        assert_eq!((report.proteins, report.counted), (2, 4));
        let value = |name| report.value(name).unwrap();
        assert_eq!(value("accuracy"), 0.75);
        assert_eq!((value("accuracy_a"), value("accuracy_b")), (0.5, 1.0));
        // Class b scores 1, −1 of a against 3, 2 of its own: all four pairs are in order.
        assert_eq!(value("auroc_b"), 1.0);
        // tp 2, tn 1, fp 1, fn 0.
        assert!((value("mcc") - 2.0 / 12f64.sqrt()).abs() < 1e-12);
        assert_eq!(
            report.to_json(&classes(&["a", "b"]))["confusion"]["a"],
            json!([1, 1])
        );
    }

    #[test]
    fn what_cannot_be_measured_is_left_out() {
        let one = vec![vec![(0, vec![1.0, 0.0])]];
        let report = MetricReport::of_classes(&classes(&["a", "b"]), &one, HOW);
        assert_eq!(report.value("accuracy"), Some(1.0));
        assert_eq!((report.value("mcc"), report.value("auroc")), (None, None));
        let constant = MetricReport::of_numbers(
            vec![
                ValuePair {
                    predicted: 1.0,
                    measured: 2.0,
                },
                ValuePair {
                    predicted: 1.0,
                    measured: 3.0,
                },
            ],
            HOW,
        );
        assert_eq!(
            (constant.value("spearman"), constant.value("mse")),
            (None, Some(2.5))
        );
    }
}
