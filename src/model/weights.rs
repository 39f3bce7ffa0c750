//! Weights on their way from a checkpoint into the network: stored tensors as the bytes that lie in a file, and the loader that turns them into
//! what the device wants, without a full copy in between.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};

use crate::kernels::cpu::integer_weight::{Bits, IntegerWeight};
use crate::kernels::cpu::packed_weight::{PackedWeight, Precision};
use crate::kernels::gated_linear::{GatedWeight, interleaved, interleaved_width};
use crate::kernels::linear::{Weight, WeightForm};
use crate::number::NumberType;

/// A tensor of a checkpoint: little-endian, row-major, mapped from the file and not copied (but for the rare tensor that a pickle
/// stores transposed).
#[derive(Clone, Debug)]
pub struct TensorView<'a> {
    /// The stored type.
    pub dtype: NumberType,
    /// As in the file.
    pub shape: Vec<usize>,
    /// `shape.product() * dtype.size()` bytes, of any alignment.
    pub bytes: Cow<'a, [u8]>,
}

impl TensorView<'_> {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True where a dimension is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values widened to f32 one after the other; exact for every stored type.
    pub fn iter_f32(&self) -> impl ExactSizeIterator<Item = f32> + '_ {
        let dtype = self.dtype;
        self.bytes
            .chunks_exact(dtype.size())
            .map(move |chunk| dtype.read_one(chunk))
    }

    /// All values widened to f32.
    pub fn to_f32_vec(&self) -> Vec<f32> {
        self.dtype.to_values(&self.bytes)
    }

    /// Row `row` of a matrix, widened to f32.
    pub fn read_row(&self, row: usize, target: &mut [f32]) {
        let bytes = target.len() * self.dtype.size();
        let bytes = &self.bytes[row * bytes..][..bytes];
        self.dtype.read_into(bytes, target);
    }
}

/// Where named tensors come from: a checkpoint, or a model in training.
pub trait WeightSource: Sync {
    /// The tensor of that Hugging Face name, which must have that shape.
    ///
    /// # Errors
    /// Where it is missing or of another shape; the message names it, both shapes and the way out.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>>;

    /// Whether there is one of that name.
    fn has(&self, name: &str) -> bool;

    /// Says that a tensor has been read and its pages need not stay in memory. It can be read again.
    fn release(&self, _name: &str) {}

    /// The variable of that name, f32, in a model that learns: gradients flow to it.
    fn variable(&self, _name: &str) -> Option<&Tensor> {
        None
    }
}

/// Reads weights into the form that a device computes with.
pub struct Loader<'a> {
    /// Where they come from.
    pub source: &'a dyn WeightSource,
    /// Where they go.
    pub device: &'a Device,
    /// The type matrix products work in: f32 or bf16. Activations between them are f32 on a CPU.
    pub dtype: DType,
    /// How linear layers keep their weights.
    pub weights: WeightForm,
}

impl Loader<'_> {
    fn precision(&self) -> Precision {
        if self.dtype == DType::BF16 {
            Precision::Bf16
        } else {
            Precision::F32
        }
    }

    /// The type of activations: f32 on a CPU, else that of the products.
    pub fn activation_dtype(&self) -> DType {
        if self.device.is_cpu() {
            DType::F32
        } else {
            self.dtype
        }
    }

    /// The type in which keys and values are kept from step to step: on a CPU bf16 too where weights are rounded anyway, since a step's time is
    /// that of reading them.
    pub fn cache_dtype(&self) -> DType {
        if self.device.is_cpu() && self.weights == WeightForm::Int8 {
            DType::BF16
        } else {
            self.dtype
        }
    }

    /// One linear layer made of the rows of several stored matrices `(n_i, k)`: their outputs lie side by side.
    ///
    /// # Errors
    /// Where a tensor is missing or misshapen.
    pub fn linear(&self, parts: &[(&str, usize)], k: usize) -> Result<Weight> {
        self.linear_in(self.weights, parts, k, false)
    }

    /// As [`Loader::linear`], of outputs that are better than products in bf16 make them ([`Weight::precise`]).
    ///
    /// # Errors
    /// Where a tensor is missing or misshapen.
    pub fn precise_linear(&self, parts: &[(&str, usize)], k: usize) -> Result<Weight> {
        self.linear_in(self.weights, parts, k, true)
    }

    /// The layer that makes logits: small, and never in integers.
    ///
    /// # Errors
    /// Where the tensor is missing or misshapen.
    pub fn head(&self, name: &str, n: usize, k: usize) -> Result<Weight> {
        self.linear_in(WeightForm::Full, &[(name, n)], k, false)
    }

    /// Both input layers of a gated feed-forward block, `(d_ff, k)` each: the gates', and what they are multiplied with.
    ///
    /// # Errors
    /// Where a tensor is missing or misshapen.
    pub fn gated(&self, names: [&str; 2], d_ff: usize, k: usize) -> Result<GatedWeight> {
        let learns = names
            .iter()
            .any(|name| self.source.variable(name).is_some());
        if learns || !self.device.is_cpu() {
            let parts = names.map(|name| (name, d_ff));
            return Ok(GatedWeight::Stacked(self.linear(&parts, k)?));
        }
        let [gates, ups] = names.map(|name| self.source.tensor(name, &[d_ff, k]));
        let views = [gates?, ups?];
        let n = interleaved_width(d_ff);
        let fill = |row, values: &mut [f32]| {
            let (part, row) = interleaved(row);
            if row < d_ff {
                views[part].read_row(row, values);
            } else {
                values.fill(0.0);
            }
        };
        let weight = match self.weights {
            WeightForm::Full => {
                let weight = PackedWeight::new(n, k, self.precision(), fill);
                GatedWeight::Packed(Arc::new(weight), d_ff)
            }
            WeightForm::Int8 => {
                GatedWeight::Integer(Arc::new(IntegerWeight::new(Bits::Eight, n, k, fill)), d_ff)
            }
        };
        for name in names {
            self.source.release(name);
        }
        Ok(weight)
    }

    fn linear_in(
        &self,
        form: WeightForm,
        parts: &[(&str, usize)],
        k: usize,
        is_precise: bool,
    ) -> Result<Weight> {
        if let Some(weight) = self.variables(parts, k)? {
            return Ok(if self.device.is_cpu() {
                Weight::Trained(weight, self.precision())
            } else {
                Weight::Dense(weight.to_dtype(self.dtype)?)
            });
        }
        let views = parts
            .iter()
            .map(|(name, n)| self.source.tensor(name, &[*n, k]))
            .collect::<Result<Vec<_>>>()?;
        let n = parts.iter().map(|(_, n)| n).sum();
        if self.device.is_cpu() {
            let fill = |row, values: &mut [f32]| {
                let (mut part, mut row) = (0, row);
                while row >= parts[part].1 {
                    row -= parts[part].1;
                    part += 1;
                }
                views[part].read_row(row, values);
            };
            let weight = match form {
                WeightForm::Full if is_precise => Weight::precise(self.precision(), n, k, fill),
                WeightForm::Full => {
                    Weight::Packed(Arc::new(PackedWeight::new(n, k, self.precision(), fill)))
                }
                WeightForm::Int8 => {
                    Weight::Integer(Arc::new(IntegerWeight::new(Bits::Eight, n, k, fill)))
                }
            };
            for (name, _) in parts {
                self.source.release(name);
            }
            return Ok(weight);
        }
        let values = views
            .iter()
            .flat_map(TensorView::to_f32_vec)
            .collect::<Vec<_>>();
        Ok(Weight::Dense(
            Tensor::from_vec(values, (n, k), self.device)?.to_dtype(self.dtype)?,
        ))
    }

    /// Variables of a model that learns, one below the other.
    fn variables(&self, parts: &[(&str, usize)], k: usize) -> Result<Option<Tensor>> {
        let Some(found) = parts
            .iter()
            .map(|(name, n)| Some((self.source.variable(name)?, *n)))
            .collect::<Option<Vec<_>>>()
        else {
            return Ok(None);
        };
        let tensors = found
            .iter()
            .map(|(tensor, n)| shaped(tensor, &[*n, k]))
            .collect::<Result<Vec<_>>>()?;
        match &tensors[..] {
            [only] => Ok(Some((*only).clone())),
            several => Tensor::cat(several, 0).map(Some),
        }
    }

    /// A tensor in the type of activations, its values rounded to the type of the products first.
    ///
    /// # Errors
    /// Where it is missing or misshapen.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        if let Some(variable) = self.source.variable(name) {
            return shaped(variable, shape)?.to_dtype(self.activation_dtype());
        }
        let values = self.source.tensor(name, shape)?.to_f32_vec();
        self.source.release(name);
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(self.dtype)?;
        tensor
            .to_dtype(self.activation_dtype())?
            .to_device(self.device)
    }

    /// A tensor in f32, whatever the products work in: norm weights and position biases on a CPU.
    ///
    /// # Errors
    /// Where it is missing or misshapen.
    pub fn tensor_f32(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        if let Some(variable) = self.source.variable(name) {
            return shaped(variable, shape).cloned();
        }
        Tensor::from_vec(
            self.source.tensor(name, shape)?.to_f32_vec(),
            shape,
            self.device,
        )
    }
}

fn shaped<'a>(variable: &'a Tensor, shape: &[usize]) -> Result<&'a Tensor> {
    if variable.dims() != shape {
        candle_core::bail!("a variable of shape {:?}, not {shape:?}", variable.dims());
    }
    Ok(variable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stored_type_widens_exactly() {
        let values = [0.0, -1.5, 65504.0, 2.0_f32.powi(-14), -0.0];
        for dtype in NumberType::ALL {
            let view = TensorView {
                dtype,
                shape: vec![5],
                bytes: Cow::Owned(dtype.to_bytes(&values)),
            };
            let expected = match dtype {
                NumberType::Bf16 => [0.0, -1.5, 65536.0, 2.0_f32.powi(-14), -0.0],
                _ => values,
            };
            assert_eq!(view.to_f32_vec(), expected, "{dtype:?}");
            assert_eq!(view.iter_f32().collect::<Vec<_>>(), expected, "{dtype:?}");
        }
    }
}
