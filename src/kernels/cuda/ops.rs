//! The operations of [`crate::kernels`] on a GPU: allocate, launch, wrap. Forward passes take
//! storages, as candle's interface does; backward passes take tensors.

use candle_core::op::BackpropOp;
use candle_core::{CudaStorage, Layout, Result, Shape, Storage, Tensor};

use super::device::{Gpu, element};
use super::launch::{Address, Element};
use super::{elementwise, norm, rows};
use crate::kernels::dropout::Dropout;
use crate::kernels::plan::{Activation, Pool};

/// A storage and the layout of its values.
pub(super) type StorageView<'a> = (&'a CudaStorage, &'a Layout);

fn tensor(storage: CudaStorage, shape: impl Into<Shape>) -> Tensor {
    Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false)
}

/// Runs `f` on the storages of tensors on a GPU.
pub(super) fn on_storages<const N: usize, T>(
    tensors: [&Tensor; N],
    f: impl FnOnce([StorageView<'_>; N]) -> Result<T>,
) -> Result<T> {
    let guards = tensors.map(Tensor::storage_and_layout);
    let given: Vec<StorageView<'_>> = guards
        .iter()
        .map(|(storage, layout)| match &**storage {
            Storage::Cuda(storage) => Ok((storage, *layout)),
            _ => candle_core::bail!("this kernel runs on a GPU"),
        })
        .collect::<Result<_>>()?;
    f(given
        .try_into()
        .unwrap_or_else(|_| unreachable!("one view per tensor")))
}

/// Whether the kernels read this tensor.
pub fn takes(x: &Tensor) -> bool {
    x.device().is_cuda() && element(x.dtype()).is_some()
}

/// See [`crate::kernels::elementwise::rms_norm`].
///
/// # Errors
/// Where the driver reports an error.
pub fn rms_norm(
    x: StorageView<'_>,
    weight: StorageView<'_>,
    epsilon: f32,
) -> Result<(CudaStorage, Shape)> {
    let gpu = Gpu::of(&x.0.device)?;
    let input = gpu.contiguous(x.0, x.1)?;
    let (count, width) = by_rows(x.1);
    let (out, y) = gpu.result(input.element, count * width)?;
    let addresses = [input.address, gpu.floats(weight.0, weight.1)?, y];
    gpu.run(&norm::rms_norm(
        input.element,
        addresses,
        count,
        width,
        epsilon,
    ))?;
    Ok((out, x.1.shape().clone()))
}

/// Gradients of input and weight.
///
/// # Errors
/// Where the driver reports an error.
pub fn rms_norm_backward(
    [x, weight, grad]: [&Tensor; 3],
    epsilon: f32,
) -> Result<(Tensor, Tensor)> {
    let grad = grad.contiguous()?;
    on_storages([x, weight, &grad], |[x_at, weight_at, grad_at]| {
        let gpu = Gpu::of(&x_at.0.device)?;
        let (count, width) = by_rows(x_at.1);
        let input = gpu.contiguous(x_at.0, x_at.1)?;
        let (roots, partial) = (
            gpu.room::<f32>(count)?,
            gpu.room::<f32>(norm::chunks(count) * width)?,
        );
        let (dx, dx_at) = gpu.result(input.element, count * width)?;
        let (dw, dw_at) = gpu.result(Element::F32, width)?;
        let backward = norm::NormGradients {
            x: input.address,
            weight: gpu.floats(weight_at.0, weight_at.1)?,
            grad: gpu.contiguous(grad_at.0, grad_at.1)?.address,
            dx: dx_at,
            roots: gpu.address(&roots),
            partial: gpu.address(&partial),
            dw: dw_at,
        };
        for launch in norm::backward(input.element, &backward, count, width, epsilon) {
            gpu.run(&launch)?;
        }
        Ok((tensor(dx, x.shape()), tensor(dw, weight.shape())))
    })
}

/// Number of rows, and their width.
fn by_rows(layout: &Layout) -> (usize, usize) {
    let width = layout.dims().last().copied().unwrap_or(1);
    (layout.shape().elem_count() / width.max(1), width)
}

/// See [`crate::kernels::elementwise::gated`].
///
/// # Errors
/// Where the driver reports an error.
pub fn gated(activation: Activation, x: StorageView<'_>) -> Result<(CudaStorage, Shape)> {
    let gpu = Gpu::of(&x.0.device)?;
    let input = gpu.contiguous(x.0, x.1)?;
    let (count, width) = x.1.shape().dims2()?;
    let d_ff = width / 2;
    let (out, at) = gpu.result(input.element, count * d_ff)?;
    let addresses = [input.address, at];
    gpu.run(&elementwise::gated(
        input.element,
        activation,
        addresses,
        count,
        d_ff,
    ))?;
    Ok((out, Shape::from((count, d_ff))))
}

/// Gradient of the input.
///
/// # Errors
/// Where the driver reports an error.
pub fn gated_backward(activation: Activation, x: &Tensor, grad: &Tensor) -> Result<Tensor> {
    let grad = grad.contiguous()?;
    let (count, width) = x.dims2()?;
    on_storages([x, &grad], |[x_at, grad_at]| {
        let gpu = Gpu::of(&x_at.0.device)?;
        let input = gpu.contiguous(x_at.0, x_at.1)?;
        let (dx, at) = gpu.result(input.element, count * width)?;
        let addresses = [
            input.address,
            gpu.contiguous(grad_at.0, grad_at.1)?.address,
            at,
        ];
        let launch =
            elementwise::gated_backward(input.element, activation, addresses, count, width / 2);
        gpu.run(&launch)?;
        Ok(tensor(dx, x.shape()))
    })
}

/// `residual + dropout(x)`, or `dropout(x)`.
///
/// # Errors
/// Where the driver reports an error.
pub fn dropout(
    dropout: Dropout,
    x: StorageView<'_>,
    residual: Option<StorageView<'_>>,
) -> Result<(CudaStorage, Shape)> {
    let gpu = Gpu::of(&x.0.device)?;
    let input = gpu.contiguous(x.0, x.1)?;
    let count = x.1.shape().elem_count();
    let residual = match residual {
        Some(residual) => gpu.contiguous(residual.0, residual.1)?.address,
        None => Address::NULL,
    };
    let (out, at) = gpu.result(input.element, count)?;
    let addresses = [input.address, residual, at];
    gpu.run(&elementwise::dropout(
        input.element,
        dropout,
        addresses,
        count,
    ))?;
    Ok((out, x.1.shape().clone()))
}

/// See [`crate::kernels::gather::gather`].
///
/// # Errors
/// Where the driver reports an error.
pub fn gather(table: StorageView<'_>, ids: &[u32]) -> Result<(CudaStorage, Shape)> {
    let gpu = Gpu::of(&table.0.device)?;
    let input = gpu.contiguous(table.0, table.1)?;
    let (_, width) = table.1.shape().dims2()?;
    let on_device = gpu.upload(ids)?;
    let (out, at) = gpu.result(input.element, ids.len() * width)?;
    let addresses = [input.address, gpu.address(&on_device), at];
    gpu.run(&rows::gather(input.element, addresses, ids.len(), width))?;
    Ok((out, Shape::from((ids.len(), width))))
}

/// Gradient of the table.
///
/// # Errors
/// Where the driver reports an error.
pub fn gather_backward(table: &Tensor, ids: &[u32], grad: &Tensor) -> Result<Tensor> {
    let grad = grad.contiguous()?;
    let (vocab, width) = table.dims2()?;
    on_storages([&grad], |[grad_at]| {
        let gpu = Gpu::of(&grad_at.0.device)?;
        let input = gpu.contiguous(grad_at.0, grad_at.1)?;
        let (starts, tokens) = rows::tokens_by_id(ids, vocab);
        let (starts, tokens) = (gpu.upload(&starts)?, gpu.upload(&tokens)?);
        let (d, at) = gpu.result(input.element, vocab * width)?;
        let addresses = [
            input.address,
            gpu.address(&starts),
            gpu.address(&tokens),
            at,
        ];
        gpu.run(&rows::gather_backward(
            input.element,
            addresses,
            vocab,
            width,
        ))?;
        Ok(tensor(d, table.shape()))
    })
}

/// See [`crate::kernels::cross_entropy::cross_entropy`].
///
/// # Errors
/// Where the driver reports an error.
pub fn cross_entropy(
    logits: StorageView<'_>,
    targets: &[u32],
    z: f32,
) -> Result<(CudaStorage, Shape)> {
    let gpu = Gpu::of(&logits.0.device)?;
    let input = gpu.contiguous(logits.0, logits.1)?;
    let (count, vocab) = logits.1.shape().dims2()?;
    let targets = gpu.upload(targets)?;
    let (loss, at) = gpu.result(Element::F32, count)?;
    let addresses = [input.address, gpu.address(&targets), at];
    gpu.run(&rows::cross_entropy(
        input.element,
        addresses,
        count,
        vocab,
        z,
    ))?;
    Ok((loss, Shape::from(count)))
}

/// Gradient of the logits.
///
/// # Errors
/// Where the driver reports an error.
pub fn cross_entropy_backward(
    logits: &Tensor,
    targets: &[u32],
    grad: &Tensor,
    z: f32,
) -> Result<Tensor> {
    let grad = grad.contiguous()?;
    let (count, vocab) = logits.dims2()?;
    on_storages([logits, &grad], |[at, grad_at]| {
        let gpu = Gpu::of(&at.0.device)?;
        let input = gpu.contiguous(at.0, at.1)?;
        let targets = gpu.upload(targets)?;
        let (d, d_at) = gpu.result(input.element, count * vocab)?;
        let addresses = [
            input.address,
            gpu.address(&targets),
            gpu.floats(grad_at.0, grad_at.1)?,
            d_at,
        ];
        let launch = rows::cross_entropy_backward(input.element, addresses, count, vocab, z);
        gpu.run(&launch)?;
        Ok(tensor(d, logits.shape()))
    })
}

/// Pools the rows of each segment into one row, f32: see [`rows::pool`].
///
/// # Errors
/// Where the driver reports an error.
pub fn pool(x: &Tensor, ranges: &[u32], kind: Pool) -> Result<Tensor> {
    let (_, width) = x.dims2()?;
    on_storages([x], |[at]| {
        let gpu = Gpu::of(&at.0.device)?;
        let input = gpu.contiguous(at.0, at.1)?;
        let ranges_at = gpu.upload(ranges)?;
        let segments = ranges.len() / 2;
        let (out, out_at) = gpu.result(Element::F32, segments * width)?;
        let addresses = [input.address, gpu.address(&ranges_at), out_at];
        gpu.run(&rows::pool(input.element, kind, addresses, segments, width))?;
        Ok(tensor(out, (segments, width)))
    })
}
