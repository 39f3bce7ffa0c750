//! Loading of weights from a checkpoint into the network: stored tensors as bytes of a file, and
//! the loader that converts them to the device's form without a full copy in between.

use std::borrow::Cow;

use candle_core::{DType, Device, Result, Tensor};

use crate::kernels::cpu::Isa;
use crate::kernels::cpu::product::Arithmetic;
use crate::kernels::cpu::weight::CpuWeight;
use crate::kernels::gated_linear::GatedWeight;
use crate::kernels::linear::Weight;
use crate::kernels::plan::{Precision, Role, WeightForm};
use crate::number::NumberType;

/// A tensor of a checkpoint: little-endian, row-major, mapped from the file and not copied, except
/// for the rare tensor that a pickle stores transposed.
#[derive(Clone, Debug)]
pub struct TensorView<'a> {
    /// The stored type.
    pub dtype: NumberType,
    /// The stored shape.
    pub shape: Vec<usize>,
    /// `shape.product() * dtype.size()` bytes with any alignment.
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

    /// The values, one after the other, converted exactly to f32.
    pub fn iter_f32(&self) -> impl ExactSizeIterator<Item = f32> + '_ {
        let dtype = self.dtype;
        self.bytes
            .chunks_exact(dtype.size())
            .map(move |chunk| dtype.read_one(chunk))
    }

    /// All values, converted to f32.
    pub fn to_f32_vec(&self) -> Vec<f32> {
        self.dtype.to_values(&self.bytes)
    }

    /// Reads row `row` of a matrix, converted to f32.
    pub fn read_row(&self, row: usize, target: &mut [f32]) {
        let bytes = target.len() * self.dtype.size();
        let bytes = &self.bytes[row * bytes..][..bytes];
        self.dtype.read_into(bytes, target);
    }
}

/// A source of named tensors: a checkpoint, or a model in training.
pub trait WeightSource: Sync {
    /// The tensor with the Hugging Face name `name`, which must have the shape `shape`.
    ///
    /// # Errors
    /// A tensor that is missing or has another shape; the message names the tensor, both shapes and
    /// what to do.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>>;

    /// Whether a tensor of this name exists.
    fn has(&self, name: &str) -> bool;

    /// Marks a tensor as read: its pages need not stay in memory. The tensor can be read again.
    fn release(&self, _name: &str) {}

    /// The f32 variable of this name in a model in training, for which gradients are computed.
    fn variable(&self, _name: &str) -> Option<&Tensor> {
        None
    }
}

/// Loads weights in the form that a device computes with.
pub struct Loader<'a> {
    /// The source of the weights.
    pub source: &'a dyn WeightSource,
    /// The device that computes.
    pub device: &'a Device,
    /// The type of matrix products: f32 or bf16. On a CPU, activations between products are f32.
    pub dtype: DType,
    /// The form of the weights of linear layers.
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

    /// The type of activations: f32 on a CPU, else the type of the products.
    pub fn activation_dtype(&self) -> DType {
        if self.device.is_cpu() {
            DType::F32
        } else {
            self.dtype
        }
    }

    /// The type of cached keys and values. With int8 weights on a CPU the cache is bf16, because a
    /// step's time is the time of reading the cache, and the weights are rounded anyway.
    pub fn cache_dtype(&self) -> DType {
        if self.device.is_cpu() && self.weights == WeightForm::Int8 {
            DType::BF16
        } else {
            self.dtype
        }
    }

    /// One linear layer from the rows of several stored matrices `(n_i, k)`, with their outputs
    /// side by side.
    ///
    /// # Errors
    /// A tensor that is missing or has another shape.
    pub fn linear(&self, parts: &[(&str, usize)], k: usize) -> Result<Weight> {
        self.linear_of(Role::Ordinary, parts, k)
    }

    /// As [`Loader::linear`], for queries, keys and values ([`Role::QueryKeyValue`]).
    ///
    /// # Errors
    /// A tensor that is missing or has another shape.
    pub fn precise_linear(&self, parts: &[(&str, usize)], k: usize) -> Result<Weight> {
        self.linear_of(Role::QueryKeyValue, parts, k)
    }

    /// The layer that computes logits: small, and never in integers.
    ///
    /// # Errors
    /// A tensor that is missing or has another shape.
    pub fn head(&self, name: &str, n: usize, k: usize) -> Result<Weight> {
        self.linear_of(Role::Head, &[(name, n)], k)
    }

    /// Both input layers of a gated feed-forward block, `(d_ff, k)` each: the gate, and the values
    /// that the gate multiplies.
    ///
    /// # Errors
    /// A tensor that is missing or has another shape.
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
        let arithmetic = self.arithmetic(Role::Ordinary);
        let weight = GatedWeight::interleaved(arithmetic, d_ff, k, |layer, row, values| {
            views[layer].read_row(row, values);
        });
        for name in names {
            self.source.release(name);
        }
        Ok(weight)
    }

    fn arithmetic(&self, role: Role) -> Arithmetic {
        Arithmetic::of(self.precision(), self.weights, role, Isa::current())
    }

    fn linear_of(&self, role: Role, parts: &[(&str, usize)], k: usize) -> Result<Weight> {
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
            let weight = CpuWeight::new(self.arithmetic(role), n, k, fill);
            for (name, _) in parts {
                self.source.release(name);
            }
            return Ok(Weight::Packed(weight));
        }
        let values = views
            .iter()
            .flat_map(TensorView::to_f32_vec)
            .collect::<Vec<_>>();
        Ok(Weight::Dense(
            Tensor::from_vec(values, (n, k), self.device)?.to_dtype(self.dtype)?,
        ))
    }

    /// The variables of a model in training, stacked by rows.
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

    /// A tensor in the type of activations, with values that are first rounded to the type of the
    /// products.
    ///
    /// # Errors
    /// A tensor that is missing or has another shape.
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

    /// A tensor in f32, independent of the type of the products, for norm weights and position
    /// biases.
    ///
    /// # Errors
    /// A tensor that is missing or has another shape.
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
