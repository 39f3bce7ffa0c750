//! Where the network runs: the device and the number type asked for, or an honest error.

use std::fmt;
use std::str::FromStr;

use candle_core::{DType, Device};
use thiserror::Error;

use crate::kernels::cpu::Isa;
use crate::kernels::linear::WeightForm;

/// The device asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceSpec {
    /// The first GPU if this build and this machine have one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU by number.
    Cuda(usize),
}

impl FromStr for DeviceSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "auto" => Ok(DeviceSpec::Auto),
            None if text == "cpu" => Ok(DeviceSpec::Cpu),
            None if text == "cuda" => Ok(DeviceSpec::Cuda(0)),
            Some(("cuda", number)) if number.parse::<usize>().is_ok() => {
                Ok(DeviceSpec::Cuda(number.parse().expect("just checked")))
            }
            _ => Err("a device is auto, cpu, cuda or cuda:N".to_owned()),
        }
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceSpec::Auto => f.write_str("auto"),
            DeviceSpec::Cpu => f.write_str("cpu"),
            DeviceSpec::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// The number type of the matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// Single precision.
    F32,
    /// bfloat16 weights; on a CPU everything else stays f32.
    Bf16,
}

impl Dtype {
    /// As in provenance.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::Bf16 => "bf16",
        }
    }
}

impl From<Dtype> for DType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => DType::F32,
            Dtype::Bf16 => DType::BF16,
        }
    }
}

/// Why the device asked for cannot be had.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// Integers on a GPU.
    #[error("--weights int8 is for CPUs, and this is {0}: leave it out, or ask for --device cpu")]
    Int8(String),
    /// Compiled without CUDA.
    #[error(
        "{0} was asked for, but this build has no CUDA; build with `cargo build --release --features cuda`, or use --device cpu"
    )]
    NotBuilt(DeviceSpec),
    /// No driver.
    #[error(
        "{0} was asked for, but no NVIDIA driver (libcuda.so.1) is on this machine; use --device cpu, or ask the queue for a GPU"
    )]
    NoDriver(DeviceSpec),
    /// The driver says no.
    #[error("{spec} cannot be opened: {source}; `nvidia-smi` lists what there is")]
    Open {
        /// What was asked for.
        spec: DeviceSpec,
        /// The driver's words.
        source: candle_core::Error,
    },
    /// `ANKH3_CPU_ISA` asks for what is not there.
    #[error("{0}")]
    Isa(String),
}

/// A device that is there, and the number type to use on it.
#[derive(Clone, Debug)]
pub struct Compute {
    /// candle's device.
    pub device: Device,
    /// Number type of the matrix products.
    pub dtype: Dtype,
    /// How linear layers keep their weights.
    pub weights: WeightForm,
    /// The device in words: `cpu`, `cuda:0`.
    pub name: String,
}

impl Compute {
    /// Opens what was asked for.
    ///
    /// # Errors
    /// A device that this build or machine lacks.
    pub fn open(spec: DeviceSpec, dtype: Option<Dtype>) -> Result<Self, DeviceError> {
        let number = match spec {
            DeviceSpec::Cpu => None,
            DeviceSpec::Auto => (cfg!(feature = "cuda") && has_driver()).then_some(0),
            DeviceSpec::Cuda(_) if !cfg!(feature = "cuda") => {
                return Err(DeviceError::NotBuilt(spec));
            }
            DeviceSpec::Cuda(_) if !has_driver() => return Err(DeviceError::NoDriver(spec)),
            DeviceSpec::Cuda(number) => Some(number),
        };
        match number {
            None => {
                Isa::from_env().map_err(DeviceError::Isa)?;
                Ok(Self {
                    device: Device::Cpu,
                    dtype: dtype.unwrap_or(Dtype::F32),
                    weights: WeightForm::Full,
                    name: "cpu".to_owned(),
                })
            }
            Some(number) => {
                let device = Device::new_cuda(number)
                    .map_err(|source| DeviceError::Open { spec, source })?;
                Ok(Self {
                    device,
                    dtype: dtype.unwrap_or(Dtype::Bf16),
                    weights: WeightForm::Full,
                    name: format!("cuda:{number}"),
                })
            }
        }
    }

    /// With weights in 8-bit integers.
    ///
    /// # Errors
    /// On a GPU.
    pub fn quantized(mut self) -> Result<Self, DeviceError> {
        if !self.device.is_cpu() {
            return Err(DeviceError::Int8(self.name));
        }
        self.weights = WeightForm::Int8;
        Ok(self)
    }

    /// What distinguishes results of this machine from those of another: the CPU's instruction set; nothing on a GPU.
    pub fn kernels(&self) -> &'static str {
        if self.device.is_cpu() {
            Isa::current().name()
        } else {
            "cuda"
        }
    }
}

/// Whether the NVIDIA driver's library lies where the loader looks. (Asking candle for a device without it panics.)
pub fn has_driver() -> bool {
    let configured = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
    let usual = [
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
        "/usr/lib/wsl/lib",
        "/usr/local/nvidia/lib64",
        "/usr/local/cuda/compat",
        "/.singularity.d/libs",
    ];
    let folders = configured
        .split(':')
        .filter(|folder| !folder.is_empty())
        .chain(usual);
    folders
        .into_iter()
        .any(|folder| std::path::Path::new(folder).join("libcuda.so.1").exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names() {
        assert_eq!("cuda:3".parse(), Ok(DeviceSpec::Cuda(3)));
        assert_eq!("cuda".parse(), Ok(DeviceSpec::Cuda(0)));
        assert!(
            ["gpu", "cuda:", "cuda:x", "cpu:0", ""]
                .iter()
                .all(|text| text.parse::<DeviceSpec>().is_err())
        );
    }
}
