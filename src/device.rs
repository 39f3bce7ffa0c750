//! The device on which the network runs and its number type: opens the requested device, or
//! explains why it cannot be used.
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

/// A device as requested on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceSpec {
    /// The first GPU if this build and this machine have one, else the CPU.
    Auto,
    /// The CPU of this machine.
    Cpu,
    /// The GPU with this number.
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

/// Why the requested device cannot be used.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "a variant's message names its fields")]
pub enum DeviceError {
    /// Integer weights on a GPU.
    #[error(
        "--weights int8 is for CPUs, and this device is {0}: omit --weights, or use --device cpu"
    )]
    Int8(String),
    /// The program was compiled without CUDA.
    #[error(
        "{0} was requested, but this build has no CUDA; build with `cargo build --release --features cuda`, or use --device cpu"
    )]
    NotBuilt(DeviceSpec),
    /// The NVIDIA driver is missing.
    #[error(
        "{0} was requested, but this machine has no NVIDIA driver (libcuda.so.1); use --device cpu, or request a GPU from the queue"
    )]
    NoDriver(DeviceSpec),
    /// The driver cannot open the GPU.
    #[error("{spec} cannot be opened: {source}; `nvidia-smi` lists the GPUs")]
    Open {
        spec: DeviceSpec,
        source: candle_core::Error,
    },
    /// Libraries of CUDA are missing.
    #[error(
        "{spec} was requested, but these libraries of CUDA 13 are not found: {missing}; put their folder into LD_LIBRARY_PATH \
         (PyTorch's wheels have them in site-packages/nvidia/cu13/lib), load the cluster's cuda/13 module, or use --device cpu"
    )]
    Libraries {
        spec: DeviceSpec,
        /// File names, separated by commas.
        missing: String,
    },
    /// The driver is older than the kernels.
    #[error(
        "{spec} cannot be used: its driver supports CUDA {found}, and this program needs CUDA {needed} (driver 580 or later); \
         update the driver, or use --device cpu"
    )]
    Driver {
        spec: DeviceSpec,
        /// The CUDA version of the driver, such as `12.4`.
        found: String,
        /// The CUDA version that the kernels need, such as `13.0`.
        needed: String,
    },
    /// The GPU is older than the kernels.
    #[error(
        "{spec} cannot be used: {name} has compute capability {found}, and this program needs {needed} or later (A100, RTX 30, \
         L4, H100, …); use --device cpu"
    )]
    Old {
        spec: DeviceSpec,
        name: String,
        /// The compute capability of the GPU, such as `7.0`.
        found: String,
        /// The compute capability that the kernels need, such as `8.0`.
        needed: String,
    },
    /// There is no GPU with that number.
    #[error(
        "{spec} was requested, but the driver finds {count} GPUs here; `nvidia-smi` lists them"
    )]
    Absent { spec: DeviceSpec, count: usize },
    /// Several devices for a command that runs on one.
    #[error(
        "this command runs on one device: give --device cuda:N instead of {0} (`embed`, `complete`, `mask-fill` and `score` use several)"
    )]
    Several(DeviceSpec),
    /// `ANKH3_CPU_ISA` names an instruction set that is unknown or that this CPU lacks.
    #[error("{0}")]
    Isa(String),
}

/// An open device, and the number types to use on it.
#[derive(Clone, Debug)]
pub struct Compute {
    /// The device as candle knows it.
    pub device: Device,
    /// Number type of the matrix products.
    pub dtype: NumberType,
    /// The form in which linear layers keep their weights.
    pub weights: WeightForm,
    /// The name of the device: `cpu`, `cuda:0`.
    pub name: String,
    kernels: String,
}

impl Compute {
    /// Opens the requested device; `dtype` is f32 on a CPU and bf16 on a GPU by default.
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
                    // A GPU that was not requested by name is no reason to fail.
                    Err(error) if spec == DeviceSpec::Auto => {
                        tracing::warn!("running on the CPU: {error}");
                        Self::cpu(dtype)
                    }
                    other => other,
                }
            }
        }
    }

    /// The same device with weights in 8-bit integers.
    ///
    /// # Errors
    /// A GPU, which has no kernels for them.
    pub fn quantized(mut self) -> Result<Self, DeviceError> {
        if !self.device.is_cpu() {
            return Err(DeviceError::Int8(self.name));
        }
        self.weights = WeightForm::Int8;
        Ok(self)
    }

    /// Opens the requested device, or every GPU for `cuda:all`.
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

    /// Free memory of a GPU in bytes; `None` for a CPU.
    pub fn free_memory(&self) -> Option<usize> {
        gpu::free_memory(&self.device)
    }

    /// The kernels that compute on this device, because results may differ between machines with
    /// different kernels: the instruction set of a CPU, or the generation of a GPU.
    pub fn kernels(&self) -> &str {
        &self.kernels
    }
}

/// Checks that this build has CUDA and this machine has the driver.
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
    //! A build without CUDA, in which no GPU can be opened.
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
    //! GPUs are checked before they are opened, so that errors can say what is missing.
    use candle_core::cuda::{
        set_gemm_reduced_precision_bf16, set_gemm_reduced_precision_f16,
        set_gemm_reduced_precision_f32,
    };

    use super::{Device, DeviceError, DeviceSpec};
    use crate::kernels::cuda::device;

    /// The oldest CUDA version that a driver may support.
    const DRIVER: i32 = 13_000;
    /// The lowest compute capability of a GPU: the first with tensor cores for bf16 and
    /// asynchronous copies.
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
        // Sums of products are in f32, and f32 products do not use TF32. These are candle's
        // defaults; they are set here so that another version of candle cannot change them.
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

    /// The version in CUDA's encoding: 13000 is 13.0, 12040 is 12.4.
    fn version(number: i32) -> String {
        format!("{}.{}", number / 1000, number % 1000 / 10)
    }

    pub(super) fn free_memory(opened: &Device) -> Option<usize> {
        let cuda = opened.as_cuda_device().ok()?;
        device::memory(cuda).ok().map(|(free, _)| free)
    }
}

/// Whether the library of the NVIDIA driver is in a folder where the loader looks. Without the
/// library, candle would panic.
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
