//! Packed attention as a candle operation on a GPU, over the launches of
//! [`super::attention`].

use std::sync::{Arc, Mutex};

use candle_core::cuda::cudarc::driver::CudaSlice;
use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor,
};

use super::attention::{AttentionLaunches, Form, GradientAddresses, Operands, Use};
use super::device::{Gpu, GpuValues, element};
use super::launch::Address;
use super::ops::{StorageView, on_storages, takes};
use crate::kernels::dropout::Dropout;
use crate::kernels::plan::{AttentionPlan, Segment};

/// The log-sums `(rows, heads)` that the forward pass of an attention keeps for its backward pass.
pub type LogSums = Arc<Mutex<Option<Arc<CudaSlice<f32>>>>>;

/// One attention on a GPU.
#[derive(Clone)]
pub struct GpuAttention {
    /// The heads, the visibility and the segments.
    pub plan: AttentionPlan,
    /// Dropout of the weights.
    pub dropout: Option<Dropout>,
    /// The kernels to launch; see [`form`].
    pub form: Form,
    /// Log-sums for gradients; `None` in inference.
    pub log_sums: Option<LogSums>,
}

/// [`crate::kernels::attention::attention`] on a GPU; `None` where no kernel takes these tensors.
///
/// # Errors
/// Where the driver reports an error.
pub fn attention(
    q: &Tensor,
    kv: &Tensor,
    bias: Option<&Tensor>,
    plan: &AttentionPlan,
    dropout: Option<Dropout>,
) -> Result<Option<Tensor>> {
    let Some(form) = form(q, kv, bias, plan) else {
        return Ok(None);
    };
    let op = GpuAttention::new(plan, dropout, form, usage(q, kv, bias));
    match bias {
        Some(bias) => q.apply_op3(kv, bias, op),
        None => q.apply_op2(kv, op),
    }
    .map(Some)
}

/// [`crate::kernels::attention::self_attention`] on a GPU, of one matrix.
///
/// # Errors
/// Where the driver reports an error.
pub fn self_attention(
    qkv: &Tensor,
    bias: &Tensor,
    plan: &AttentionPlan,
    dropout: Option<Dropout>,
) -> Result<Option<Tensor>> {
    let inner = plan.heads * plan.d_kv;
    let kv = qkv.narrow(1, inner, 2 * inner)?;
    let Some(form) = form(qkv, &kv, Some(bias), plan) else {
        return Ok(None);
    };
    let op = GpuAttention::new(plan, dropout, form, usage(qkv, &kv, Some(bias)));
    qkv.apply_op2(bias, GpuSelfAttention(op)).map(Some)
}

/// The form for these tensors, or `None`.
pub fn form(q: &Tensor, kv: &Tensor, bias: Option<&Tensor>, plan: &AttentionPlan) -> Option<Form> {
    let element = element(q.dtype())?;
    let f32_bias = bias.is_none_or(|b| b.dtype() == candle_core::DType::F32 && b.is_contiguous());
    let in_segments: usize = plan
        .segments
        .iter()
        .map(|segment| segment.queries.len())
        .sum();
    let same_type = q.dtype() == kv.dtype() && takes(q);
    if !f32_bias || !same_type || in_segments != q.dims().first().copied()? {
        return None;
    }
    let (q_stride, kv_stride) = (row_stride(q.layout())?, row_stride(kv.layout())?);
    // Buffers themselves begin at multiples of 256 bytes.
    let at = |offset: usize| Address::NULL.plus(offset, element);
    let k = kv.layout().start_offset();
    let operands = Operands {
        q: at(q.layout().start_offset()),
        k: at(k),
        v: at(k + plan.heads * plan.d_kv),
        q_stride,
        kv_stride,
        bias: Address::NULL,
        max_distance: bias.map_or(0, |bias| bias.dims()[0] / 2),
    };
    Form::of(element, &operands, plan, usage(q, kv, bias))
}

/// Whether gradients can be computed.
pub fn usage(q: &Tensor, kv: &Tensor, bias: Option<&Tensor>) -> Use {
    let tracked = |x: &Tensor| x.track_op();
    if tracked(q) || tracked(kv) || bias.is_some_and(tracked) {
        Use::Training
    } else {
        Use::Inference
    }
}

fn row_stride(layout: &Layout) -> Option<usize> {
    match layout.stride() {
        &[stride, 1] => Some(stride),
        _ => None,
    }
}

/// Addresses of queries, keys and bias; keys are beside values.
#[derive(Clone, Copy)]
pub struct OperandAddresses {
    q: GpuValues,
    q_stride: usize,
    k: Address,
    kv_stride: usize,
    bias: Address,
    max_distance: usize,
}

impl GpuAttention {
    fn new(plan: &AttentionPlan, dropout: Option<Dropout>, form: Form, usage: Use) -> Self {
        Self {
            plan: plan.clone(),
            dropout,
            form,
            log_sums: (usage == Use::Training).then(LogSums::default),
        }
    }

    fn inner(&self) -> usize {
        self.plan.heads * self.plan.d_kv
    }

    /// Addresses of the queries of one matrix and of the keys and values of another.
    ///
    /// # Errors
    /// Where rows are not contiguous.
    pub fn places(
        q: StorageView<'_>,
        kv: StorageView<'_>,
        bias: Option<StorageView<'_>>,
    ) -> Result<OperandAddresses> {
        let gpu = Gpu::of(&q.0.device)?;
        let (Some(q_stride), Some(kv_stride)) = (row_stride(q.1), row_stride(kv.1)) else {
            candle_core::bail!("attention needs rows that are contiguous");
        };
        let (bias, max_distance) = match bias {
            Some((storage, layout)) => (gpu.floats(storage, layout)?, layout.dims()[0] / 2),
            None => (Address::NULL, 0),
        };
        Ok(OperandAddresses {
            q: gpu.input(q.0, q.1)?,
            q_stride,
            k: gpu.input(kv.0, kv.1)?.address,
            kv_stride,
            bias,
            max_distance,
        })
    }

    /// Addresses of queries beside keys beside values in one matrix.
    ///
    /// # Errors
    /// Where rows are not contiguous.
    pub fn places_in_one(
        &self,
        qkv: StorageView<'_>,
        bias: StorageView<'_>,
    ) -> Result<OperandAddresses> {
        let places = Self::places(qkv, qkv, Some(bias))?;
        let k = places.q.address.plus(self.inner(), places.q.element);
        Ok(OperandAddresses { k, ..places })
    }

    fn with_attention<R>(
        &self,
        gpu: &Gpu<'_>,
        places: OperandAddresses,
        f: impl FnOnce(&AttentionLaunches<'_>) -> Result<R>,
    ) -> Result<R> {
        let segments: &Arc<[Segment]> = &self.plan.segments;
        gpu.with_tables(segments, self.form.tile(), |tables, placed| {
            f(&AttentionLaunches {
                element: places.q.element,
                form: self.form,
                plan: &self.plan,
                dropout: self.dropout.map(Dropout::parts).unwrap_or_default(),
                operands: Operands {
                    q: places.q.address,
                    k: places.k,
                    v: places.k.plus(self.inner(), places.q.element),
                    q_stride: places.q_stride,
                    kv_stride: places.kv_stride,
                    bias: places.bias,
                    max_distance: places.max_distance,
                },
                tables,
                placed,
            })
        })
    }

    /// The result `(rows, heads d_kv)`.
    ///
    /// # Errors
    /// Where the driver reports an error.
    pub fn forward(
        &self,
        device: &CudaDevice,
        places: OperandAddresses,
        rows: usize,
    ) -> Result<(CudaStorage, Shape)> {
        let gpu = Gpu::of(device)?;
        let (out, out_at) = gpu.result(places.q.element, rows * self.inner())?;
        let log_sums = match &self.log_sums {
            Some(_) => Some(gpu.room::<f32>(rows * self.plan.heads)?),
            None => None,
        };
        let at = log_sums
            .as_ref()
            .map_or(Address::NULL, |sums| gpu.address(sums));
        self.with_attention(&gpu, places, |attention| {
            gpu.run(&attention.forward(out_at, at))
        })?;
        if let (Some(kept), Some(sums)) = (&self.log_sums, log_sums) {
            *kept.lock().expect("nothing panics while it is held") = Some(Arc::new(sums));
        }
        Ok((out, Shape::from((rows, self.inner()))))
    }

    /// Gradients of queries, of keys and values, and of the bias. The first is one matrix
    /// `(rows, 3 inner)` where queries, keys and values are one matrix.
    ///
    /// # Errors
    /// Where the driver reports an error.
    pub fn backward(
        &self,
        q: &Tensor,
        kv: Option<&Tensor>,
        bias: Option<&Tensor>,
        out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Tensor, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let source = kv.unwrap_or(q);
        on_storages(
            [q, source, bias.unwrap_or(q), out, &grad],
            |[q_at, kv_at, bias_at, out_at, grad_at]| {
                let gpu = Gpu::of(&q_at.0.device)?;
                let places = match kv {
                    Some(_) => Self::places(q_at, kv_at, bias.map(|_| bias_at))?,
                    None => self.places_in_one(q_at, bias_at)?,
                };
                let sums = self.log_sums.as_ref().and_then(|kept| {
                    kept.lock()
                        .expect("nothing panics while it is held")
                        .clone()
                });
                let Some(sums) = sums else {
                    candle_core::bail!("a gradient of an attention that was made for inference");
                };
                let (element, inner, rows) = (places.q.element, self.inner(), out.dim(0)?);
                let delta = gpu.room::<f32>(rows * self.plan.heads)?;
                // Zeros remain in keys that no query sees, and in rows outside every segment.
                let dq = q.zeros_like()?;
                let dkv = kv.map(Tensor::zeros_like).transpose()?;
                let d_bias = bias.map(Tensor::zeros_like).transpose()?;
                let at = |x: &Tensor| {
                    on_storages([x], |[(storage, layout)]| {
                        Ok(gpu.input(storage, layout)?.address)
                    })
                };
                let dq_at = at(&dq)?;
                let (dk, dq_stride, dkv_stride) = match &dkv {
                    Some(dkv) => (at(dkv)?, inner, 2 * inner),
                    None => (dq_at.plus(inner, element), 3 * inner, 3 * inner),
                };
                self.with_attention(&gpu, places, |attention| {
                    let parts = match bias {
                        Some(_) => Some(gpu.room::<f32>(attention.bias_parts())?),
                        None => None,
                    };
                    let bias = match (&parts, &d_bias) {
                        (Some(parts), Some(d_bias)) => [gpu.address(parts), at(d_bias)?],
                        _ => [Address::NULL; 2],
                    };
                    let gradients = GradientAddresses {
                        out: gpu.contiguous(out_at.0, out_at.1)?.address,
                        grad: gpu.contiguous(grad_at.0, grad_at.1)?.address,
                        lse: gpu.address(&sums),
                        delta: gpu.address(&delta),
                        dq: dq_at,
                        dk,
                        dv: dk.plus(inner, element),
                        dq_stride,
                        dkv_stride,
                        bias,
                    };
                    attention
                        .backward(&gradients, rows)
                        .iter()
                        .try_for_each(|launch| gpu.run(launch))
                })?;
                Ok((dq.clone(), dkv.clone(), d_bias.clone()))
            },
        )
    }
}

fn on_a_gpu_only<T>() -> Result<T> {
    candle_core::bail!("this form of attention runs on a GPU")
}

impl CustomOp2 for GpuAttention {
    fn name(&self) -> &'static str {
        "packed-attention-cuda"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        on_a_gpu_only()
    }

    fn cuda_fwd(
        &self,
        q: &CudaStorage,
        q_layout: &Layout,
        kv: &CudaStorage,
        kv_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let places = Self::places((q, q_layout), (kv, kv_layout), None)?;
        self.forward(&q.device, places, q_layout.dims()[0])
    }

    fn bwd(
        &self,
        q: &Tensor,
        kv: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dq, dkv, _) = self.backward(q, Some(kv), None, out, grad)?;
        Ok((Some(dq), dkv))
    }
}

impl CustomOp3 for GpuAttention {
    fn name(&self) -> &'static str {
        "packed-attention-with-bias-cuda"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        on_a_gpu_only()
    }

    fn cuda_fwd(
        &self,
        q: &CudaStorage,
        q_layout: &Layout,
        kv: &CudaStorage,
        kv_layout: &Layout,
        bias: &CudaStorage,
        bias_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let places = Self::places((q, q_layout), (kv, kv_layout), Some((bias, bias_layout)))?;
        self.forward(&q.device, places, q_layout.dims()[0])
    }

    fn bwd(
        &self,
        q: &Tensor,
        kv: &Tensor,
        bias: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dq, dkv, d_bias) = self.backward(q, Some(kv), Some(bias), out, grad)?;
        Ok((Some(dq), dkv, d_bias))
    }
}

/// Self-attention over one matrix of queries, keys and values.
struct GpuSelfAttention(GpuAttention);

impl CustomOp2 for GpuSelfAttention {
    fn name(&self) -> &'static str {
        "packed-self-attention-cuda"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        on_a_gpu_only()
    }

    fn cuda_fwd(
        &self,
        qkv: &CudaStorage,
        layout: &Layout,
        bias: &CudaStorage,
        bias_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let places = self.0.places_in_one((qkv, layout), (bias, bias_layout))?;
        self.0.forward(&qkv.device, places, layout.dims()[0])
    }

    fn bwd(
        &self,
        qkv: &Tensor,
        bias: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (d_qkv, _, d_bias) = self.0.backward(qkv, None, Some(bias), out, grad)?;
        Ok((Some(d_qkv), d_bias))
    }
}
