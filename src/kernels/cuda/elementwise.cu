// Gated activation on the fused product: out = activation(gate) * up, where a row of x is gate
// beside up. In bf16 both factors are rounded, as in Hugging Face's T5DenseGatedActDense. Dropout,
// whose mask is a hash of (key, index), equals ../dropout.rs bit for bit.
#include "common.cuh"

enum Activation { RELU = 0, GELU_NEW = 1, SILU = 2 };

DEVICE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// Gelu in its tanh approximation is x sigmoid(u), u = 2 sqrt(2 / pi) (x + 0.044715 x^3): exact far
// from zero, where 1 + tanh would cancel.
constexpr float GELU = 1.5957691216057308f;
DEVICE float gelu_argument(float x) { return GELU * (x + 0.044715f * x * x * x); }

DEVICE float activate(int kind, float x) {
    if (kind == SILU) return x * sigmoid(x);
    if (kind == GELU_NEW) return x * sigmoid(gelu_argument(x));
    return x > 0.0f ? x : (x != x ? x : 0.0f);
}

DEVICE float slope(int kind, float x) {
    if (kind == SILU) {
        const float s = sigmoid(x);
        return s * (1.0f + x * (1.0f - s));
    }
    if (kind == GELU_NEW) {
        const float s = sigmoid(gelu_argument(x));
        return s * (1.0f + x * (1.0f - s) * GELU * (1.0f + 3.0f * 0.044715f * x * x));
    }
    return x > 0.0f ? 1.0f : 0.0f;
}

// One thread computes sixteen bytes of a row: grid (rows, column blocks).
template <class T>
DEVICE void gated(Global<const T> x, Global<T> out, int d_ff, int kind) {
    const int first = (blockIdx.y * blockDim.x + threadIdx.x) * LANES<T>;
    if (first >= d_ff) return;
    const Global<const T> gate = x + 2L * blockIdx.x * d_ff + first;
    const Global<const T> up = gate + d_ff;
    const Global<T> to = out + static_cast<long>(blockIdx.x) * d_ff + first;
    if (d_ff % LANES<T> == 0 && is_aligned16(gate) && is_aligned16(to)) {
        float a[LANES<T>], b[LANES<T>];
        unpack(load16(gate), a);
        unpack(load16(up), b);
        for (int i = 0; i < LANES<T>; i++) a[i] = rounded<T>(activate(kind, a[i])) * b[i];
        store16(to, pack(a));
        return;
    }
    for (int i = 0; i < LANES<T> && first + i < d_ff; i++) to[i] = narrow<T>(rounded<T>(activate(kind, wide(gate[i]))) * wide(up[i]));
}

template <class T>
DEVICE void gated_backward(Global<const T> x, Global<const T> grad, Global<T> dx, int d_ff, int kind) {
    const int i = blockIdx.y * blockDim.x + threadIdx.x;
    if (i >= d_ff) return;
    const long row = 2L * blockIdx.x * d_ff;
    const float gate = wide(x[row + i]), up = wide(x[row + d_ff + i]);
    const float g = wide(grad[static_cast<long>(blockIdx.x) * d_ff + i]);
    dx[row + i] = narrow<T>(g * up * slope(kind, gate));
    dx[row + d_ff + i] = narrow<T>(g * activate(kind, gate));
}

KERNEL gated_f32(Global<const float> x, Global<float> out, int d_ff, int kind) { gated(x, out, d_ff, kind); }
EXPORT(gated_f32)
KERNEL gated_bf16(Global<const bf16> x, Global<bf16> out, int d_ff, int kind) { gated(x, out, d_ff, kind); }
EXPORT(gated_bf16)
KERNEL gated_backward_f32(Global<const float> x, Global<const float> grad, Global<float> dx, int d_ff, int kind) { gated_backward(x, grad, dx, d_ff, kind); }
EXPORT(gated_backward_f32)
KERNEL gated_backward_bf16(Global<const bf16> x, Global<const bf16> grad, Global<bf16> dx, int d_ff, int kind) { gated_backward(x, grad, dx, d_ff, kind); }
EXPORT(gated_backward_bf16)

// residual (where there is one) + x * factor(i).
template <class T>
DEVICE void dropout(Global<const T> x, Global<const T> residual, Global<T> out, long count, uint64_t key, uint32_t threshold, float scale) {
    const long i = static_cast<long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= count) return;
    float v = rounded<T>(wide(x[i]) * dropout_factor(key, static_cast<uint32_t>(i), threshold, scale));
    if (residual) v += wide(residual[i]);
    out[i] = narrow<T>(v);
}

KERNEL dropout_f32(Global<const float> x, Global<const float> residual, Global<float> out, long count, uint64_t key, uint32_t threshold, float scale) {
    dropout(x, residual, out, count, key, threshold, scale);
}
EXPORT(dropout_f32)
KERNEL dropout_bf16(Global<const bf16> x, Global<const bf16> residual, Global<bf16> out, long count, uint64_t key, uint32_t threshold, float scale) {
    dropout(x, residual, out, count, key, threshold, scale);
}
EXPORT(dropout_bf16)
