//! Where the network runs: the device and the number type asked for, or an honest error.
//!
//! ```
//! use ankh3::device::{Compute, DeviceSpec};
//! use ankh3::number::NumberType;
//!
//! let compute = Compute::open("cpu".parse()?, None)?;
//! assert_eq!((compute.name.as_str(), compute.dtype), ("cpu", NumberType::F32));
//! assert_eq!("cuda:1".parse(), Ok(DeviceSpec::Cuda(1)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;
use std::str::FromStr;

use candle_core::{DType, Device};
use thiserror::Error;

use crate::kernels::cpu::Isa;
use crate::kernels::plan::WeightForm;
use crate::number::NumberType;

/// The device asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceSpec {
    /// The first GPU if this build and this machine have one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU by number.
    Cuda(usize),
    /// Every GPU of this machine.
    AllCuda,
}

impl FromStr for DeviceSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "auto" => Ok(DeviceSpec::Auto),
            None if text == "cpu" => Ok(DeviceSpec::Cpu),
            None if text == "cuda" => Ok(DeviceSpec::Cuda(0)),
            Some(("cuda", "all")) => Ok(DeviceSpec::AllCuda),
            Some(("cuda", number)) if number.parse::<usize>().is_ok() => {
                Ok(DeviceSpec::Cuda(number.parse().expect("just checked")))
            }
            _ => Err("a device is auto, cpu, cuda, cuda:N or cuda:all".to_owned()),
        }
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceSpec::Auto => f.write_str("auto"),
            DeviceSpec::Cpu => f.write_str("cpu"),
            DeviceSpec::Cuda(number) => write!(f, "cuda:{number}"),
            DeviceSpec::AllCuda => f.write_str("cuda:all"),
        }
    }
}

impl From<NumberType> for DType {
    fn from(number: NumberType) -> Self {
        match number {
            NumberType::F32 => DType::F32,
            NumberType::F16 => DType::F16,
            NumberType::Bf16 => DType::BF16,
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
    /// CUDA's own libraries are not there.
    #[error(
        "{spec} was asked for, but these libraries of CUDA 13 are not found: {missing}; put their folder into LD_LIBRARY_PATH (PyTorch's wheels have them in \
         site-packages/nvidia/cu13/lib), load the cluster's cuda/13 module, or use --device cpu"
    )]
    Libraries {
        /// What was asked for.
        spec: DeviceSpec,
        /// Names.
        missing: String,
    },
    /// The driver is older than the kernels.
    #[error(
        "{spec} cannot be used: its driver brings CUDA {found}, and this program needs CUDA {needed} (driver 580 or later); update the driver, or use --device cpu"
    )]
    Driver {
        /// What was asked for.
        spec: DeviceSpec,
        /// As in `12.4`.
        found: String,
        /// As in `13.0`.
        needed: String,
    },
    /// The GPU is older than the kernels.
    #[error(
        "{spec} cannot be used: {name} has compute capability {found}, and this program needs {needed} or later (A100, RTX 30, L4, H100, …); use --device cpu"
    )]
    Old {
        /// What was asked for.
        spec: DeviceSpec,
        /// The GPU.
        name: String,
        /// As in `7.0`.
        found: String,
        /// As in `8.0`.
        needed: String,
    },
    /// No GPU by that number, or none at all.
    #[error(
        "{spec} was asked for, but the driver counts {count} GPUs here; `nvidia-smi` lists them"
    )]
    Absent {
        /// What was asked for.
        spec: DeviceSpec,
        /// GPUs that there are.
        count: usize,
    },
    /// A command that runs on one device was given several.
    #[error(
        "this command runs on one device: give --device cuda:N instead of {0} (`embed`, `complete`, `mask-fill` and `score` use several)"
    )]
    Several(DeviceSpec),
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
    pub dtype: NumberType,
    /// How linear layers keep their weights.
    pub weights: WeightForm,
    /// The device in words: `cpu`, `cuda:0`.
    pub name: String,
    kernels: String,
}

impl Compute {
    /// Opens what was asked for.
    ///
    /// # Errors
    /// A device that this build or machine lacks.
    pub fn open(spec: DeviceSpec, dtype: Option<NumberType>) -> Result<Self, DeviceError> {
        let number = match spec {
            DeviceSpec::AllCuda => return Err(DeviceError::Several(spec)),
            DeviceSpec::Cpu => None,
            DeviceSpec::Auto => (cfg!(feature = "cuda") && has_driver()).then_some(0),
            DeviceSpec::Cuda(number) => Some(number),
        };
        match number {
            None => Self::cpu(dtype),
            Some(number) => {
                has_cuda(spec)?;
                match Self::cuda(spec, number, dtype) {
                    // What was not asked for by name is no reason to fail.
                    Err(error) if spec == DeviceSpec::Auto => {
                        tracing::warn!("running on the CPU: {error}");
                        Self::cpu(dtype)
                    }
                    other => other,
                }
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

    /// Opens all of what was asked for: one device, or every GPU.
    ///
    /// # Errors
    /// A device that this build or machine lacks.
    pub fn open_all(spec: DeviceSpec, dtype: Option<NumberType>) -> Result<Vec<Self>, DeviceError> {
        if spec != DeviceSpec::AllCuda {
            return Ok(vec![Self::open(spec, dtype)?]);
        }
        has_cuda(spec)?;
        let count = gpu::count(spec)?;
        if count == 0 {
            return Err(DeviceError::Absent { spec, count });
        }
        (0..count)
            .map(|number| Self::cuda(DeviceSpec::Cuda(number), number, dtype))
            .collect()
    }

    fn cpu(dtype: Option<NumberType>) -> Result<Self, DeviceError> {
        Isa::from_env().map_err(DeviceError::Isa)?;
        Ok(Self {
            device: Device::Cpu,
            dtype: dtype.unwrap_or(NumberType::F32),
            weights: WeightForm::Full,
            name: "cpu".to_owned(),
            kernels: Isa::current().name().to_owned(),
        })
    }

    fn cuda(
        spec: DeviceSpec,
        number: usize,
        dtype: Option<NumberType>,
    ) -> Result<Self, DeviceError> {
        let (device, kernels) = gpu::open(spec, number)?;
        Ok(Self {
            device,
            dtype: dtype.unwrap_or(NumberType::Bf16),
            weights: WeightForm::Full,
            name: format!("cuda:{number}"),
            kernels,
        })
    }

    /// Bytes free on a GPU; `None` on a CPU.
    pub fn free_memory(&self) -> Option<usize> {
        gpu::free_memory(&self.device)
    }

    /// What distinguishes results of this machine from those of another: the CPU's instruction set; on a GPU its generation, and that no product was allowed
    /// less than f32 sums.
    pub fn kernels(&self) -> &str {
        &self.kernels
    }
}

/// Whether this build and this machine have what a GPU needs.
fn has_cuda(spec: DeviceSpec) -> Result<(), DeviceError> {
    if !cfg!(feature = "cuda") {
        return Err(DeviceError::NotBuilt(spec));
    }
    if !has_driver() {
        return Err(DeviceError::NoDriver(spec));
    }
    Ok(())
}

#[cfg(not(feature = "cuda"))]
mod gpu {
    //! A build without CUDA has no GPU.
    use super::{Device, DeviceError, DeviceSpec};

    pub(super) fn count(spec: DeviceSpec) -> Result<usize, DeviceError> {
        Err(DeviceError::NotBuilt(spec))
    }

    pub(super) fn open(spec: DeviceSpec, _: usize) -> Result<(Device, String), DeviceError> {
        Err(DeviceError::NotBuilt(spec))
    }

    pub(super) fn free_memory(_: &Device) -> Option<usize> {
        None
    }
}

#[cfg(feature = "cuda")]
mod gpu {
    //! GPUs: looked at before they are opened, because what is missing must be said in words.
    use candle_core::cuda::{
        set_gemm_reduced_precision_bf16, set_gemm_reduced_precision_f16,
        set_gemm_reduced_precision_f32,
    };

    use super::{Device, DeviceError, DeviceSpec};
    use crate::kernels::cuda::device;

    /// The CUDA version whose driver takes these kernels.
    const DRIVER: i32 = 13_000;
    /// The oldest GPU: tensor cores for bf16, asynchronous copies.
    const CAPABILITY: (i32, i32) = (8, 0);

    fn open_error(spec: DeviceSpec) -> impl Fn(candle_core::Error) -> DeviceError {
        move |source| DeviceError::Open { spec, source }
    }

    pub(super) fn count(spec: DeviceSpec) -> Result<usize, DeviceError> {
        device::count().map_err(open_error(spec))
    }

    pub(super) fn open(spec: DeviceSpec, number: usize) -> Result<(Device, String), DeviceError> {
        check(spec, number)?;
        let opened = Device::new_cuda_with_stream(number).map_err(open_error(spec))?;
        let cuda = opened.as_cuda_device().map_err(open_error(spec))?;
        device::prepare(cuda).map_err(open_error(spec))?;
        // Sums of products in f32, and f32 products without TF32: candle's defaults, pinned.
        set_gemm_reduced_precision_f32(false);
        set_gemm_reduced_precision_f16(false);
        set_gemm_reduced_precision_bf16(false);
        let (major, minor) = device::describe(number)
            .map_err(open_error(spec))?
            .capability;
        Ok((opened, format!("cuda-sm{major}{minor}")))
    }

    fn check(spec: DeviceSpec, number: usize) -> Result<(), DeviceError> {
        let missing = device::missing_libraries();
        if !missing.is_empty() {
            let missing = missing.join(", ");
            return Err(DeviceError::Libraries { spec, missing });
        }
        let count = count(spec)?;
        if number >= count {
            return Err(DeviceError::Absent { spec, count });
        }
        let found = device::describe(number).map_err(open_error(spec))?;
        if found.driver < DRIVER {
            return Err(DeviceError::Driver {
                spec,
                found: version(found.driver),
                needed: version(DRIVER),
            });
        }
        if found.capability < CAPABILITY {
            let (major, minor) = found.capability;
            return Err(DeviceError::Old {
                spec,
                name: found.name,
                found: format!("{major}.{minor}"),
                needed: format!("{}.{}", CAPABILITY.0, CAPABILITY.1),
            });
        }
        Ok(())
    }

    /// 13000 is 13.0, 12040 is 12.4.
    fn version(number: i32) -> String {
        format!("{}.{}", number / 1000, number % 1000 / 10)
    }

    pub(super) fn free_memory(opened: &Device) -> Option<usize> {
        let cuda = opened.as_cuda_device().ok()?;
        device::memory(cuda).ok().map(|(free, _)| free)
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
        assert_eq!("cuda:all".parse(), Ok(DeviceSpec::AllCuda));
        assert!(
            ["gpu", "cuda:", "cuda:x", "cpu:0", ""]
                .iter()
                .all(|text| text.parse::<DeviceSpec>().is_err())
        );
    }
}
