//! The weights of a head: named f32 variables, drawn from one seed or read back.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, Var};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use safetensors::tensor::TensorView;
use sha2::{Digest, Sha256};

/// How a weight is drawn before training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Uniform in (−a, a).
    Uniform(f64),
    /// Normal with this standard deviation.
    Normal(f64),
    /// The same value everywhere.
    Constant(f64),
}

/// The name, shape and initialisation of a weight.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightSpec {
    /// The name in files.
    pub name: String,
    /// The dimensions.
    pub shape: Vec<usize>,
    /// How the weight is drawn before training.
    pub init: Init,
}

impl WeightSpec {
    /// A weight of this name and shape.
    pub fn new(name: impl Into<String>, shape: &[usize], init: Init) -> Self {
        Self {
            name: name.into(),
            shape: shape.to_vec(),
            init,
        }
    }

    /// Values that depend on the seed and the name alone.
    fn values(&self, seed: u64) -> Vec<f32> {
        let count = self.shape.iter().product();
        let mut stream = stream(seed, &self.name);
        let mut draw = || match self.init {
            Init::Uniform(a) => stream.random_range(-a..a),
            Init::Normal(std) => {
                let normal: f64 = StandardNormal.sample(&mut stream);
                normal * std
            }
            Init::Constant(value) => value,
        };
        (0..count).map(|_| draw() as f32).collect()
    }
}

/// A random stream that depends on the seed and a name alone.
pub(super) fn stream(seed: u64, name: &str) -> ChaCha8Rng {
    let mut hash = Sha256::new();
    hash.update(b"ankh3 probe");
    hash.update(seed.to_le_bytes());
    hash.update(name);
    ChaCha8Rng::from_seed(hash.finalize().into())
}

/// The weights of a head, by name.
#[derive(Clone, Debug)]
pub struct HeadWeights {
    variables: BTreeMap<String, Var>,
}

impl HeadWeights {
    /// Draws weights before training.
    ///
    /// # Errors
    /// Where the device runs out of memory.
    pub fn drawn(specs: &[WeightSpec], seed: u64, device: &Device) -> Result<Self> {
        let variables = specs.iter().map(|spec| {
            let values = Tensor::from_vec(spec.values(seed), &spec.shape[..], device)?;
            Ok((spec.name.clone(), Var::from_tensor(&values)?))
        });
        Ok(Self {
            variables: variables.collect::<Result<_>>()?,
        })
    }

    /// Weights from the bytes of a safetensors file.
    ///
    /// # Errors
    /// A weight that is missing or has another shape.
    pub fn from_bytes(bytes: &[u8], specs: &[WeightSpec], device: &Device) -> Result<Self> {
        let mut found = candle_core::safetensors::load_buffer(bytes, device)?;
        let variables = specs.iter().map(|spec| {
            let Some(tensor) = found.remove(&spec.name) else {
                candle_core::bail!("there is no tensor `{}`", spec.name);
            };
            if tensor.dims() != spec.shape {
                let (is, must) = (tensor.dims(), &spec.shape);
                candle_core::bail!("tensor `{}` has shape {is:?}, not {must:?}", spec.name);
            }
            let variable = Var::from_tensor(&tensor.to_dtype(DType::F32)?)?;
            Ok((spec.name.clone(), variable))
        });
        Ok(Self {
            variables: variables.collect::<Result<_>>()?,
        })
    }

    /// The weight of this name.
    ///
    /// # Errors
    /// An unknown name.
    pub fn get(&self, name: &str) -> Result<Tensor> {
        match self.variables.get(name) {
            Some(variable) => Ok(variable.as_tensor().clone()),
            None => candle_core::bail!("there is no tensor `{name}`"),
        }
    }

    /// All weights in the order of names, as variables.
    pub fn variables(&self) -> Vec<Var> {
        self.variables.values().cloned().collect()
    }

    /// Number of values in all weights.
    pub fn count(&self) -> usize {
        let counts = self
            .variables
            .values()
            .map(|var| var.as_tensor().elem_count());
        counts.sum()
    }

    /// Copies that training does not touch, by name.
    ///
    /// # Errors
    /// Where the device runs out of memory.
    pub fn snapshot(&self) -> Result<BTreeMap<String, Tensor>> {
        let copies = self.variables.iter().map(|(name, variable)| {
            let copy = variable.as_tensor().copy()?.detach();
            Ok((name.clone(), copy))
        });
        copies.collect()
    }

    /// Takes the weights back from a snapshot.
    ///
    /// # Errors
    /// Where shapes differ.
    pub fn restore(&self, snapshot: &BTreeMap<String, Tensor>) -> Result<()> {
        for (name, variable) in &self.variables {
            if let Some(tensor) = snapshot.get(name) {
                variable.set(tensor)?;
            }
        }
        Ok(())
    }

    /// The bytes of a safetensors file of all weights, in the order of names.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut tensors = Vec::new();
        for (name, variable) in &self.variables {
            let tensor = variable.as_tensor();
            let values: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
            let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            tensors.push((name.as_str(), tensor.dims().to_vec(), bytes));
        }
        let views = tensors.iter().map(|(name, shape, bytes)| {
            let view = TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes)?;
            Ok((*name, view))
        });
        let views: Vec<_> = views.collect::<Result<_>>()?;
        Ok(safetensors::serialize(views, None)?)
    }
}
