//! Packed attention as a candle operation: `softmax(q kᵀ + bias) v` per segment and head. Segments
//! attend within themselves (`T5LayerSelfAttention` of Hugging Face), or targets to their sources
//! (`T5LayerCrossAttention`). The bias depends on distance (Raffel et al. 2020, arXiv 1910.10683,
//! section 2.1); scores are not scaled.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, WithDType};
use half::bf16;

use super::cpu::Isa;
use super::cpu::attend::attend;
use super::cpu::attention::{Attention, Heads};
use super::cpu::attention_backward::{self as backward, AttentionGradients, HeadsMut};
use super::cpu::simd::StoredFloat;
use super::dropout::Dropout;
use super::plan::{AttentionPlan, Bias};
use super::{CpuMatrix, cpu_f32, cpu_tensor, plain};

/// Queries `q (rows, heads d_kv)` of each segment attend to its keys and values `kv (rows, 2 heads
/// d_kv)`, keys beside values; both may be columns of a wider matrix, and `kv` may be bf16 on a
/// CPU. `bias (2 max_distance + 1, heads)` is added by `key - query`. Scores are not scaled.
/// `dropout` applies to the weights, in training. Returns `(rows of q, heads d_kv)`.
///
/// # Errors
/// Where shapes do not fit the plan.
pub fn attention(
    q: &Tensor,
    kv: &Tensor,
    bias: Option<&Tensor>,
    plan: &AttentionPlan,
    dropout: Option<Dropout>,
) -> Result<Tensor> {
    let inner = plan.heads * plan.d_kv;
    if q.dims2()?.1 != inner || kv.dims2()?.1 != 2 * inner {
        let (q, kv) = (q.shape(), kv.shape());
        candle_core::bail!(
            "attention of {} heads of {} was given {q:?} and {kv:?}",
            plan.heads,
            plan.d_kv
        );
    }
    #[cfg(feature = "cuda")]
    if let Some(out) = super::cuda::attention_op::attention(q, kv, bias, plan, dropout)? {
        return Ok(out);
    }
    if !q.device().is_cpu() {
        return plain::attention(q, kv, bias, plan, dropout);
    }
    let op = PackedAttention {
        plan: plan.clone(),
        dropout,
    };
    match bias {
        Some(bias) => q.apply_op3(kv, bias, op),
        None => q.apply_op2(kv, op),
    }
}

/// [`attention`] of `qkv (rows, 3 heads d_kv)`, queries beside keys beside values, to itself.
///
/// # Errors
/// Where shapes do not fit the plan.
pub fn self_attention(
    qkv: &Tensor,
    bias: &Tensor,
    plan: &AttentionPlan,
    dropout: Option<Dropout>,
) -> Result<Tensor> {
    let inner = plan.heads * plan.d_kv;
    // With a gradient, one operation avoids the copies that gradients of separate parts would make.
    if qkv.device().is_cpu() && qkv.dims2()?.1 == 3 * inner {
        let op = PackedAttention {
            plan: plan.clone(),
            dropout,
        };
        return qkv.apply_op2(bias, SelfAttentionOp(op));
    }
    #[cfg(feature = "cuda")]
    if let Some(out) = super::cuda::attention_op::self_attention(qkv, bias, plan, dropout)? {
        return Ok(out);
    }
    let (q, kv) = (qkv.narrow(1, 0, inner)?, qkv.narrow(1, inner, 2 * inner)?);
    attention(&q, &kv, Some(bias), plan, dropout)
}

#[derive(Clone)]
struct PackedAttention {
    plan: AttentionPlan,
    dropout: Option<Dropout>,
}

/// The inputs of the kernel, from storage or from tensors.
#[derive(Clone, Copy)]
struct Inputs<'a, T = f32> {
    q: Heads<'a>,
    /// Keys, beside the values.
    kv: Heads<'a, T>,
    bias: Option<Bias<'a>>,
}

/// The inputs of the backward pass.
struct BackwardInputs<'a> {
    q: Heads<'a>,
    /// Keys, beside the values.
    kv: Heads<'a>,
    bias: Option<&'a Tensor>,
    /// The result of the forward pass.
    out: &'a Tensor,
    /// Gradient of the result.
    grad: &'a Tensor,
}

impl PackedAttention {
    fn inner(&self) -> usize {
        self.plan.heads * self.plan.d_kv
    }

    fn kernel<'a, T: Copy>(&'a self, inputs: Inputs<'a, T>) -> Attention<'a, T> {
        Attention {
            q: inputs.q,
            k: inputs.kv,
            v: Heads {
                offset: inputs.kv.offset + self.inner(),
                ..inputs.kv
            },
            heads: self.plan.heads,
            d_kv: self.plan.d_kv,
            bias: inputs.bias,
            visibility: self.plan.visibility,
            segments: &self.plan.segments,
            dropout: self.dropout,
            precision: self.plan.precision,
        }
    }

    /// Takes keys and values in f32, or in bf16 as a cache may keep them.
    fn forward(
        &self,
        q: CpuMatrix<'_>,
        kv: CpuMatrix<'_>,
        bias: Option<Bias<'_>>,
    ) -> Result<(CpuStorage, Shape)> {
        let rows = q.layout.dims()[0];
        let q = heads(q.storage, q.layout)?;
        Ok(if matches!(kv.storage, CpuStorage::BF16(_)) {
            let kv = heads::<bf16>(kv.storage, kv.layout)?;
            self.run(Inputs { q, kv, bias }, rows)
        } else {
            let kv = heads::<f32>(kv.storage, kv.layout)?;
            self.run(Inputs { q, kv, bias }, rows)
        })
    }

    fn run<T: StoredFloat>(&self, inputs: Inputs<'_, T>, rows: usize) -> (CpuStorage, Shape) {
        let mut out = vec![0.0; rows * self.inner()];
        attend(Isa::current(), &self.kernel(inputs), &mut out);
        (CpuStorage::F32(out), Shape::from((rows, self.inner())))
    }

    /// Gradients of `q`, `kv` and the bias.
    fn gradients(
        &self,
        [q, kv, out, grad]: [&Tensor; 4],
        bias: Option<&Tensor>,
    ) -> Result<(Tensor, Tensor, Option<Tensor>)> {
        let inner = self.inner();
        let mut dq = vec![0.0; q.elem_count()];
        let mut dkv = vec![0.0; kv.elem_count()];
        let [dq_heads] = HeadsMut::split(&mut dq, inner, [0]);
        let [dk, dv] = HeadsMut::split(&mut dkv, 2 * inner, [0, inner]);
        let d_bias = with_heads(q, |q| {
            with_heads(kv, |kv| {
                let inputs = BackwardInputs {
                    q,
                    kv,
                    bias,
                    out,
                    grad,
                };
                self.backward(&inputs, [dq_heads, dk, dv])
            })
        })?;
        Ok((
            cpu_tensor(dq, q.shape())?,
            cpu_tensor(dkv, kv.shape())?,
            d_bias,
        ))
    }

    fn backward(
        &self,
        inputs: &BackwardInputs<'_>,
        [dq, dk, dv]: [HeadsMut<'_>; 3],
    ) -> Result<Option<Tensor>> {
        let BackwardInputs {
            q,
            kv,
            bias,
            out,
            grad,
        } = *inputs;
        let run = |bias: Option<Bias<'_>>| {
            super::on_values([out, &grad.contiguous()?], |[out, grad]| {
                let gradients = AttentionGradients {
                    out,
                    grad,
                    dq,
                    dk,
                    dv,
                };
                let attention = self.kernel(Inputs { q, kv, bias });
                backward::attend(Isa::current(), &attention, &gradients)
            })
        };
        let Some(bias) = bias else {
            run(None)?;
            return Ok(None);
        };
        let max_distance = bias.dim(0)? / 2;
        let d_bias = super::on_values([bias], |[by_distance]| {
            run(Some(Bias {
                by_distance,
                max_distance,
            }))
        })??;
        Ok(Some(cpu_tensor(d_bias, bias.shape())?))
    }
}

/// Runs `f` on the heads of a matrix on the CPU.
fn with_heads<T>(x: &Tensor, f: impl FnOnce(Heads<'_>) -> Result<T>) -> Result<T> {
    let (storage, layout) = x.storage_and_layout();
    let candle_core::Storage::Cpu(storage) = &*storage else {
        candle_core::bail!("this kernel runs on a CPU");
    };
    f(heads(storage, layout)?)
}

/// A matrix whose rows are contiguous, though other columns may lie between them.
fn heads<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<Heads<'a, T>> {
    let &[stride, 1] = layout.stride() else {
        candle_core::bail!(
            "attention needs rows that are contiguous, not strides {:?}",
            layout.stride()
        );
    };
    Ok(Heads {
        data: storage.as_slice::<T>()?,
        stride,
        offset: layout.start_offset(),
    })
}

fn bias<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<Bias<'a>> {
    Ok(Bias {
        by_distance: cpu_f32(storage, layout)?,
        max_distance: layout.dims()[0] / 2,
    })
}

impl CustomOp2 for PackedAttention {
    fn name(&self) -> &'static str {
        "packed-attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        kv: &CpuStorage,
        kv_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let q = CpuMatrix {
            storage: q,
            layout: q_layout,
        };
        let kv = CpuMatrix {
            storage: kv,
            layout: kv_layout,
        };
        self.forward(q, kv, None)
    }

    fn bwd(
        &self,
        q: &Tensor,
        kv: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dq, dkv, _) = self.gradients([q, kv, out, grad], None)?;
        Ok((Some(dq), Some(dkv)))
    }
}

impl CustomOp3 for PackedAttention {
    fn name(&self) -> &'static str {
        "packed-attention-with-bias"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        kv: &CpuStorage,
        kv_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let bias = bias(b, b_layout)?;
        let q = CpuMatrix {
            storage: q,
            layout: q_layout,
        };
        let kv = CpuMatrix {
            storage: kv,
            layout: kv_layout,
        };
        self.forward(q, kv, Some(bias))
    }

    fn bwd(
        &self,
        q: &Tensor,
        kv: &Tensor,
        bias: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dq, dkv, d_bias) = self.gradients([q, kv, out, grad], Some(bias))?;
        Ok((Some(dq), Some(dkv), d_bias))
    }
}

/// Self-attention over one matrix of queries, keys and values.
struct SelfAttentionOp(PackedAttention);

impl CustomOp2 for SelfAttentionOp {
    fn name(&self) -> &'static str {
        "packed-self-attention"
    }

    fn cpu_fwd(
        &self,
        qkv: &CpuStorage,
        layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let q = heads(qkv, layout)?;
        let inputs = Inputs {
            q,
            kv: Heads {
                offset: q.offset + self.0.inner(),
                ..q
            },
            bias: Some(bias(b, b_layout)?),
        };
        Ok(self.0.run(inputs, layout.dims()[0]))
    }

    fn bwd(
        &self,
        qkv: &Tensor,
        bias: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let inner = self.0.inner();
        let mut d_qkv = vec![0.0; qkv.elem_count()];
        let targets = HeadsMut::split(&mut d_qkv, 3 * inner, [0, inner, 2 * inner]);
        let d_bias = with_heads(qkv, |q| {
            let kv = Heads {
                offset: q.offset + inner,
                ..q
            };
            let inputs = BackwardInputs {
                q,
                kv,
                bias: Some(bias),
                out,
                grad,
            };
            self.0.backward(&inputs, targets)
        })?;
        Ok((Some(cpu_tensor(d_qkv, qkv.shape())?), d_bias))
    }
}
