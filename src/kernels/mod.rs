//! The few operations that are written here, for speed, instead of composed of candle's.
//!
//! The network calls [`linear`], [`gated_linear`], [`attention`], [`elementwise`] and [`gather`];
//! [`pool`] reduces its results. Their common words are in [`plan`]. Each of these files chooses
//! the form for the device: [`cpu`], [`cuda`] on an NVIDIA GPU, or [`plain`] elsewhere. Every
//! operation has a gradient; candle records an operation only where one of its inputs is a
//! variable, so inference pays nothing. [`dropout`] and [`cross_entropy`] are for training alone.
//!
//! ```
//! use ankh3::kernels::plan::Pool;
//! use ankh3::kernels::pool::pool;
//! use candle_core::{Device, Tensor};
//!
//! // Rows 0 and 1 belong to one protein, row 2 to another.
//! let rows = Tensor::new(&[[1f32, 2.0], [3.0, 4.0], [5.0, 6.0]], &Device::Cpu)?;
//! let means = pool(&rows, &[0..2, 2..3], Pool::Mean)?;
//! assert_eq!(means.to_vec2::<f32>()?, [[2.0, 3.0], [5.0, 6.0]]);
//! # Ok::<(), candle_core::Error>(())
//! ```

pub mod attention;
pub mod cpu;
pub mod cross_entropy;
pub mod cuda;
pub mod dropout;
mod dropout_op;
pub mod elementwise;
pub mod gated_linear;
pub mod gather;
pub mod linear;
pub mod plain;
pub mod plan;
pub mod pool;

use candle_core::{CpuStorage, DType, Device, Layout, Result, Shape, Storage, Tensor};
use half::bf16;
use half::vec::HalfBitsVecExt;

/// Whether the device of `x` has kernels of its own for it; [`plain`] runs elsewhere.
fn has_kernels(x: &Tensor) -> bool {
    #[cfg(feature = "cuda")]
    if cuda::ops::takes(x) {
        return true;
    }
    x.device().is_cpu()
}

/// Whether a device failed because its memory is full.
pub fn is_out_of_memory(error: &candle_core::Error) -> bool {
    let text = error.to_string();
    ["CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED"]
        .iter()
        .any(|name| text.contains(name))
}

/// Returns the memory that a device's pool keeps for reuse, after a failure, so that the next
/// allocation may succeed.
pub fn release_memory(device: &Device) {
    #[cfg(feature = "cuda")]
    if let Ok(device) = device.as_cuda_device()
        && let Err(error) = cuda::device::release(device)
    {
        tracing::debug!("the memory of the device could not be released: {error}");
    }
    #[cfg(not(feature = "cuda"))]
    let _ = device;
}

/// A tensor of zeros, which takes memory on a CPU only where it is written.
///
/// # Errors
/// Where the device runs out of memory.
pub fn zeros(shape: (usize, usize), dtype: DType, device: &Device) -> Result<Tensor> {
    if device.is_cpu() && dtype == DType::BF16 {
        // Candle would write every zero.
        let values = vec![0_u16; shape.0 * shape.1].reinterpret_into::<bf16>();
        return Tensor::from_vec(values, shape, device);
    }
    Tensor::zeros(shape, dtype, device)
}

/// A tensor's storage on the CPU, and the layout of its values.
#[derive(Clone, Copy)]
struct CpuMatrix<'a> {
    storage: &'a CpuStorage,
    layout: &'a Layout,
}

/// The values of a contiguous f32 tensor.
fn cpu_f32<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("this kernel needs contiguous rows");
    };
    Ok(&storage.as_slice::<f32>()?[start..end])
}

fn same_as_input(values: Vec<f32>, layout: &Layout) -> (CpuStorage, Shape) {
    (CpuStorage::F32(values), layout.shape().clone())
}

/// Runs `f` on the values of contiguous f32 tensors on the CPU.
fn on_values<const N: usize, T>(
    tensors: [&Tensor; N],
    f: impl FnOnce([&[f32]; N]) -> T,
) -> Result<T> {
    let guards = tensors.map(Tensor::storage_and_layout);
    let mut slices = [&[][..]; N];
    for ((storage, layout), slice) in guards.iter().zip(&mut slices) {
        let Storage::Cpu(storage) = &**storage else {
            candle_core::bail!("this kernel runs on a CPU");
        };
        *slice = cpu_f32(storage, layout)?;
    }
    Ok(f(slices))
}

/// A tensor on the CPU that owns `values`.
fn cpu_tensor(values: Vec<f32>, shape: &Shape) -> Result<Tensor> {
    Tensor::from_vec(values, shape, &Device::Cpu)
}
