//! The few operations that are our own because speed is what we exist for: each beside its CPU form.
//!
//! [`linear`], [`attention`] and [`elementwise`] are what the network calls; they run [`cpu`] on a CPU and [`plain`] elsewhere.

pub mod attention;
pub mod cpu;
pub mod elementwise;
pub mod linear;
pub mod plain;

use candle_core::{CpuStorage, Layout, Result, Shape};

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
