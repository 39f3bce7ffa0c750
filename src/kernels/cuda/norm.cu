// RMS norm: y = x / sqrt(mean(x^2) + epsilon) * weight, one block per row. The mean of squares is
// f32; in bf16 the scaled value is rounded before the weight, as in Hugging Face's T5LayerNorm. The
// CPU form is ../cpu/elementwise.rs.
//
// Backward, with r = 1 / sqrt(mean(x^2) + epsilon): dx = r w g - x r^3 / n sum(w g x), dw = sum
// over rows of g x r.
#include "common.cuh"

constexpr int NORM_THREADS = 256;

// The inverse root of the mean square of a row.
template <class T>
DEVICE float inverse_root(Global<const T> x, int width, float epsilon, bool vectors, Shared<float> partial) {
    float sum = 0.0f;
    if (vectors) {
        for (int i = threadIdx.x * LANES<T>; i < width; i += blockDim.x * LANES<T>) {
            float v[LANES<T>];
            unpack(load16(x + i), v);
            for (int j = 0; j < LANES<T>; j++) sum += v[j] * v[j];
        }
    } else {
        for (int i = threadIdx.x; i < width; i += blockDim.x) {
            const float v = wide(x[i]);
            sum += v * v;
        }
    }
    return rsqrtf(block_sum(sum, partial) / width + epsilon);
}

template <class T>
DEVICE void normalise(Global<const T> x, Global<const float> weight, Global<T> y, int width, float scale, bool vectors) {
    if (vectors) {
        for (int i = threadIdx.x * LANES<T>; i < width; i += blockDim.x * LANES<T>) {
            float v[LANES<T>];
            unpack(load16(x + i), v);
            for (int j = 0; j < LANES<T>; j++) v[j] = rounded<T>(v[j] * scale) * rounded<T>(weight[i + j]);
            store16(y + i, pack(v));
        }
    } else {
        for (int i = threadIdx.x; i < width; i += blockDim.x) {
            y[i] = narrow<T>(rounded<T>(wide(x[i]) * scale) * rounded<T>(weight[i]));
        }
    }
}

template <class T>
DEVICE void rms_norm(Global<const T> x, Global<const float> weight, Global<T> y, int width, float epsilon) {
    SharedRoom room;
    const Shared<float> partial = room.take<float>(NORM_THREADS / 32);
    const long row = static_cast<long>(blockIdx.x) * width;
    const bool vectors = width % LANES<T> == 0 && is_aligned16(x + row) && is_aligned16(y + row);
    const float scale = inverse_root(x + row, width, epsilon, vectors, partial);
    normalise(x + row, weight, y + row, width, scale, vectors);
}

// sum = x + branch, y = norm(sum): the residual and the norm that follows it, in one pass over
// memory.
template <class T>
DEVICE void add_rms_norm(Global<const T> x, Global<const T> branch, Global<const float> weight, Global<T> sum, Global<T> y, int width, float epsilon) {
    SharedRoom room;
    const Shared<float> partial = room.take<float>(NORM_THREADS / 32);
    const long row = static_cast<long>(blockIdx.x) * width;
    const bool vectors = width % LANES<T> == 0 && is_aligned16(x + row) && is_aligned16(branch + row) && is_aligned16(sum + row) && is_aligned16(y + row);
    if (vectors) {
        for (int i = threadIdx.x * LANES<T>; i < width; i += blockDim.x * LANES<T>) {
            float a[LANES<T>], b[LANES<T>];
            unpack(load16(x + row + i), a);
            unpack(load16(branch + row + i), b);
            for (int j = 0; j < LANES<T>; j++) a[j] += b[j];
            store16(sum + row + i, pack(a));
        }
    } else {
        for (int i = threadIdx.x; i < width; i += blockDim.x) sum[row + i] = narrow<T>(wide(x[row + i]) + wide(branch[row + i]));
    }
    // Every thread reads only the values that it wrote, so no barrier is needed.
    const Global<const T> written = sum + row;
    const float scale = inverse_root(written, width, epsilon, vectors, partial);
    normalise(written, weight, y + row, width, scale, vectors);
}

// dx of a row, and the inverse root of the row for the gradient of the weight.
template <class T>
DEVICE void rms_norm_backward(Global<const T> x, Global<const float> weight, Global<const T> grad, Global<T> dx, Global<float> roots, int width, float epsilon) {
    SharedRoom room;
    const Shared<float> partial = room.take<float>(NORM_THREADS / 32);
    const long row = static_cast<long>(blockIdx.x) * width;
    const float r = inverse_root(x + row, width, epsilon, false, partial);
    float sum = 0.0f;
    for (int i = threadIdx.x; i < width; i += blockDim.x) sum += weight[i] * wide(grad[row + i]) * wide(x[row + i]);
    const float factor = block_sum(sum, partial) * r * r * r / width;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        dx[row + i] = narrow<T>(r * weight[i] * wide(grad[row + i]) - factor * wide(x[row + i]));
    }
    if (threadIdx.x == 0) roots[blockIdx.x] = r;
}

// Sums of g x r over `chunk` rows: block (column block, chunk), thread (column, row of eight).
// `partial (chunks, width)`.
template <class T>
DEVICE void rms_norm_weight(Global<const T> x, Global<const T> grad, Global<const float> roots, Global<float> partial, int rows, int width, int chunk) {
    SharedRoom room;
    const Shared<float> sums = room.take<float>(8 * 32);
    const int column = blockIdx.x * 32 + threadIdx.x;
    const int first = blockIdx.y * chunk;
    const int end = first + chunk < rows ? first + chunk : rows;
    float sum = 0.0f;
    if (column < width) {
        for (int row = first + threadIdx.y; row < end; row += 8) {
            const long at = static_cast<long>(row) * width + column;
            sum += wide(grad[at]) * wide(x[at]) * roots[row];
        }
    }
    sums[threadIdx.y * 32 + threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && column < width) {
        sum = 0.0f;
        for (int i = 0; i < 8; i++) sum += sums[i * 32 + threadIdx.x];
        partial[static_cast<long>(blockIdx.y) * width + column] = sum;
    }
}

KERNEL rms_norm_f32(Global<const float> x, Global<const float> weight, Global<float> y, int width, float epsilon) { rms_norm(x, weight, y, width, epsilon); }
EXPORT(rms_norm_f32)
KERNEL rms_norm_bf16(Global<const bf16> x, Global<const float> weight, Global<bf16> y, int width, float epsilon) { rms_norm(x, weight, y, width, epsilon); }
EXPORT(rms_norm_bf16)

KERNEL add_rms_norm_f32(Global<const float> x, Global<const float> branch, Global<const float> weight, Global<float> sum, Global<float> y, int width, float epsilon) {
    add_rms_norm(x, branch, weight, sum, y, width, epsilon);
}
EXPORT(add_rms_norm_f32)
KERNEL add_rms_norm_bf16(Global<const bf16> x, Global<const bf16> branch, Global<const float> weight, Global<bf16> sum, Global<bf16> y, int width, float epsilon) {
    add_rms_norm(x, branch, weight, sum, y, width, epsilon);
}
EXPORT(add_rms_norm_bf16)

KERNEL rms_norm_backward_f32(Global<const float> x, Global<const float> weight, Global<const float> grad, Global<float> dx, Global<float> roots, int width, float epsilon) {
    rms_norm_backward(x, weight, grad, dx, roots, width, epsilon);
}
EXPORT(rms_norm_backward_f32)
KERNEL rms_norm_backward_bf16(Global<const bf16> x, Global<const float> weight, Global<const bf16> grad, Global<bf16> dx, Global<float> roots, int width, float epsilon) {
    rms_norm_backward(x, weight, grad, dx, roots, width, epsilon);
}
EXPORT(rms_norm_backward_bf16)

KERNEL rms_norm_weight_f32(Global<const float> x, Global<const float> grad, Global<const float> roots, Global<float> partial, int rows, int width, int chunk) {
    rms_norm_weight(x, grad, roots, partial, rows, width, chunk);
}
EXPORT(rms_norm_weight_f32)
KERNEL rms_norm_weight_bf16(Global<const bf16> x, Global<const bf16> grad, Global<const float> roots, Global<float> partial, int rows, int width, int chunk) {
    rms_norm_weight(x, grad, roots, partial, rows, width, chunk);
}
EXPORT(rms_norm_weight_bf16)
