//! The weights of a head: named f32 variables, drawn from one seed or read back.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, Var};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use sha2::{Digest, Sha256};

/// What a weight is before training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Uniform in (−a, a).
    Uniform(f64),
    /// Normal with this standard deviation.
    Normal(f64),
    /// The same everywhere.
    Constant(f64),
}

/// A weight: name, shape, beginning.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// As in the file.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Before training.
    pub init: Init,
}

impl Spec {
    /// A weight.
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
pub struct Parameters {
    variables: BTreeMap<String, Var>,
}

impl Parameters {
    /// Weights before training.
    ///
    /// # Errors
    /// Where the device runs out of memory.
    pub fn drawn(specs: &[Spec], seed: u64, device: &Device) -> Result<Self> {
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
    /// Where one is missing or of another shape.
    pub fn from_bytes(bytes: &[u8], specs: &[Spec], device: &Device) -> Result<Self> {
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

    /// A weight.
    ///
    /// # Errors
    /// A name that is not there.
    pub fn get(&self, name: &str) -> Result<Tensor> {
        match self.variables.get(name) {
            Some(variable) => Ok(variable.as_tensor().clone()),
            None => candle_core::bail!("there is no tensor `{name}`"),
        }
    }

    /// All variables in the order of names.
    pub fn variables(&self) -> Vec<Var> {
        self.variables.values().cloned().collect()
    }

    /// How many numbers there are.
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

    /// Puts a snapshot back.
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

    /// Name, shape and values of every weight, for a file.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn values(&self) -> Result<Vec<(String, Vec<usize>, Vec<f32>)>> {
        let each = self.variables.iter().map(|(name, variable)| {
            let tensor = variable.as_tensor();
            let values = tensor.flatten_all()?.to_vec1()?;
            Ok((name.clone(), tensor.dims().to_vec(), values))
        });
        each.collect()
    }
}
