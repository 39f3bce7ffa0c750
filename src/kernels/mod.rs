//! The few operations that are our own because speed is what we exist for: each beside its CPU form.
//!
//! [`linear`], [`attention`], [`elementwise`] and [`gather`] are what the network calls, [`pool`] what is made of its results; they run [`cpu`] on a CPU, [`cuda`] on an NVIDIA GPU, and [`plain`]
//! elsewhere.
//! Each has its gradient: candle records an operation only where one of its inputs is a variable, so inference pays nothing for it. [`dropout`] and
//! [`cross_entropy`] are for training alone.

pub mod attention;
pub mod cpu;
pub mod cross_entropy;
pub mod cuda;
pub mod dropout;
pub mod elementwise;
pub mod gated_linear;
pub mod gather;
pub mod linear;
pub mod plain;
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

/// Whether a device failed because it has no memory left.
pub fn is_out_of_memory(error: &candle_core::Error) -> bool {
    let text = error.to_string();
    ["CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED"]
        .iter()
        .any(|name| text.contains(name))
}

/// Gives memory that a device keeps for reuse back to it, after a failure: the pieces may fit what comes next.
pub fn release_memory(device: &Device) {
    #[cfg(feature = "cuda")]
    if let Ok(device) = device.as_cuda_device()
        && let Err(error) = cuda::device::release(device)
    {
        tracing::debug!("memory could not be given back: {error}");
    }
    #[cfg(not(feature = "cuda"))]
    let _ = device;
}

/// Zeros, which on a CPU take memory only as they are written.
///
/// # Errors
/// Where the device runs out of memory.
pub fn zeros(shape: (usize, usize), dtype: DType, device: &Device) -> Result<Tensor> {
    if device.is_cpu() && dtype == DType::BF16 {
        // Candle would write them.
        let values = vec![0_u16; shape.0 * shape.1].reinterpret_into::<bf16>();
        return Tensor::from_vec(values, shape, device);
    }
    Tensor::zeros(shape, dtype, device)
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
