//! Rows of a table by index: the embedding of tokens (`torch.nn.Embedding`). The gradient of a row
//! of the table is the sum of the gradients of its copies.

use candle_core::{Result, Tensor};

#[cfg(feature = "cuda")]
use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, Shape};

/// Rows `ids` of `table (rows, width)`: `(ids, width)`.
///
/// # Errors
/// Where an id is outside the table.
pub fn gather(table: &Tensor, ids: &[u32]) -> Result<Tensor> {
    let rows = table.dim(0)?;
    if let Some(id) = ids.iter().find(|id| **id as usize >= rows) {
        candle_core::bail!("token id {id} is outside the embedding table of {rows} rows");
    }
    #[cfg(feature = "cuda")]
    if super::cuda::ops::takes(table) {
        return table.apply_op1(Gather(ids.into()));
    }
    table.index_select(&Tensor::new(ids, table.device())?, 0)
}

/// The form for a GPU: candle's own gradient adds with atomics, in a different order every time.
#[cfg(feature = "cuda")]
struct Gather(std::sync::Arc<[u32]>);

#[cfg(feature = "cuda")]
impl CustomOp1 for Gather {
    fn name(&self) -> &'static str {
        "gather"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        candle_core::bail!("this form of gather runs on a GPU")
    }

    fn cuda_fwd(&self, table: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        super::cuda::ops::gather((table, layout), &self.0)
    }

    fn bwd(&self, table: &Tensor, _out: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        super::cuda::ops::gather_backward(table, &self.0, grad).map(Some)
    }
}
