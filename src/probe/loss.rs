//! The loss of a head on one protein, which training minimises.
//!
//! ```text
//! classes    mean cross-entropy over everything that has a label
//! a number   squared error
//! contacts   mean over labelled pairs of log(1 + exp z) − y z, the cross-entropy of two classes whose logits differ by z
//! ```

use candle_core::{Result, Tensor};

/// The label of one protein.
#[derive(Clone, Debug, PartialEq)]
pub enum Label {
    /// One class per residue; none for residues without a label or masked ones.
    Residues(Vec<Option<u32>>),
    /// The class of the protein.
    Class(u32),
    /// The number of the protein.
    Value(f64),
    /// For each ordered pair, row-major: 1 in contact, 0 not in contact, −1 unknown or not counted.
    Pairs(Vec<i8>),
}

/// The loss of a head's output, a scalar; `None` where nothing has a label.
///
/// # Errors
/// Where shapes do not fit.
pub fn loss(output: &Tensor, label: &Label) -> Result<Option<Tensor>> {
    match label {
        Label::Residues(classes) => of_residues(output, classes),
        Label::Class(class) => of_residues(output, &[Some(*class)]),
        Label::Value(value) => {
            let difference = (output.flatten_all()? - *value)?;
            Ok(Some(difference.sqr()?.mean_all()?))
        }
        Label::Pairs(labels) => of_pairs(output, labels),
    }
}

fn of_residues(output: &Tensor, classes: &[Option<u32>]) -> Result<Option<Tensor>> {
    let (rows, labels): (Vec<u32>, Vec<u32>) = classes
        .iter()
        .enumerate()
        .filter_map(|(row, class)| Some((row as u32, (*class)?)))
        .unzip();
    if rows.is_empty() {
        return Ok(None);
    }
    let device = output.device();
    let scored = output.index_select(&Tensor::new(rows, device)?, 0)?;
    let labels = Tensor::new(labels, device)?;
    Ok(Some(candle_nn::loss::cross_entropy(&scored, &labels)?))
}

fn of_pairs(output: &Tensor, labels: &[i8]) -> Result<Option<Tensor>> {
    let counted = labels.iter().filter(|label| **label >= 0).count();
    if counted == 0 {
        return Ok(None);
    }
    let as_tensor = |value: fn(i8) -> f32| {
        let values: Vec<f32> = labels.iter().map(|label| value(*label)).collect();
        Tensor::from_vec(values, output.shape(), output.device())
    };
    let counts = as_tensor(|label| f32::from(label >= 0))?;
    let contact = as_tensor(|label| f32::from(label == 1))?;
    // log(1 + exp z) = max(z, 0) + log(1 + exp(−|z|)) overflows nowhere.
    let softplus = (output.relu()? + (output.abs()?.neg()?.exp()? + 1.0)?.log()?)?;
    let each = ((softplus - (contact * output)?)? * counts)?;
    Ok(Some((each.sum_all()? / counted as f64)?))
}
