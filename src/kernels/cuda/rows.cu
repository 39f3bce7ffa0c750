// Rows: embedding gather and its gradient, pooling of segments, and the loss per token.
#include "common.cuh"

// out[token] = table[ids[token]], one block per token.
template <class T>
DEVICE void gather(Global<const T> table, Global<const uint32_t> ids, Global<T> out, int width) {
    const long from = static_cast<long>(ids[blockIdx.x]) * width;
    const long to = static_cast<long>(blockIdx.x) * width;
    if (width % LANES<T> == 0 && is_aligned16(table + from) && is_aligned16(out + to)) {
        for (int i = threadIdx.x * LANES<T>; i < width; i += blockDim.x * LANES<T>) store16(out + to + i, load16(table + from + i));
        return;
    }
    for (int i = threadIdx.x; i < width; i += blockDim.x) out[to + i] = table[from + i];
}

// d_table[id] = sum of grad over the tokens of that id, in the order of `tokens`, which lists them
// id by id: the tokens of `id` are tokens[starts[id]..starts[id + 1]]. Grid (column blocks, ids).
template <class T>
DEVICE void gather_backward(Global<const T> grad, Global<const uint32_t> starts, Global<const uint32_t> tokens, Global<T> d_table, int width) {
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width) return;
    const int id = blockIdx.y;
    float sum = 0.0f;
    for (uint32_t i = starts[id]; i < starts[id + 1]; i++) sum += wide(grad[static_cast<long>(tokens[i]) * width + column]);
    d_table[static_cast<long>(id) * width + column] = narrow<T>(sum);
}

KERNEL gather_f32(Global<const float> table, Global<const uint32_t> ids, Global<float> out, int width) { gather(table, ids, out, width); }
EXPORT(gather_f32)
KERNEL gather_bf16(Global<const bf16> table, Global<const uint32_t> ids, Global<bf16> out, int width) { gather(table, ids, out, width); }
EXPORT(gather_bf16)
KERNEL gather_backward_f32(Global<const float> grad, Global<const uint32_t> starts, Global<const uint32_t> tokens, Global<float> d_table, int width) {
    gather_backward(grad, starts, tokens, d_table, width);
}
EXPORT(gather_backward_f32)
KERNEL gather_backward_bf16(Global<const bf16> grad, Global<const uint32_t> starts, Global<const uint32_t> tokens, Global<bf16> d_table, int width) {
    gather_backward(grad, starts, tokens, d_table, width);
}
EXPORT(gather_backward_bf16)

enum Pooling { MEAN = 0, MAX = 1, MIN = 2, STD = 3 };

constexpr int POOL_ROWS = 8;

// A compensated sum (Kahan 1965), whose error does not grow with the length of the protein.
struct Exact {
    float sum = 0.0f, rest = 0.0f;
    DEVICE void add(float x) {
        const float y = x - rest;
        const float t = sum + y;
        rest = (t - sum) - y;
        sum = t;
    }
};

// Pools the rows rows[2 s]..rows[2 s + 1] of x, for segment s: grid (segments, column blocks of
// 32), threads (32, POOL_ROWS). NaN stays NaN.
DEVICE float pooled_sum(float mine, Shared<float> parts) {
    parts[threadIdx.y * 32 + threadIdx.x] = mine;
    __syncthreads();
    Exact total;
    for (int i = 0; i < POOL_ROWS; i++) total.add(parts[i * 32 + threadIdx.x]);
    __syncthreads();
    return total.sum;
}

template <class T>
DEVICE void pool(Global<const T> x, Global<const uint32_t> rows, Global<float> out, int width, int kind) {
    SharedRoom room;
    const Shared<float> parts = room.take<float>(POOL_ROWS * 32);
    const int column = blockIdx.y * 32 + threadIdx.x;
    const bool inside = column < width;
    const long first = rows[2 * blockIdx.x], end = rows[2 * blockIdx.x + 1];
    const long to = static_cast<long>(blockIdx.x) * width + column;
    if (kind == MAX || kind == MIN) {
        const float sign = kind == MAX ? 1.0f : -1.0f;
        float best = bits_float(0xff800000u);  // minus infinity
        if (inside) {
            for (long row = first + threadIdx.y; row < end; row += POOL_ROWS) {
                const float v = sign * wide(x[row * width + column]);
                best = v > best || v != v ? v : best;
            }
        }
        parts[threadIdx.y * 32 + threadIdx.x] = best;
        __syncthreads();
        if (threadIdx.y == 0 && inside) {
            for (int i = 0; i < POOL_ROWS; i++) {
                const float v = parts[i * 32 + threadIdx.x];
                best = v > best || v != v ? v : best;
            }
            out[to] = sign * best;
        }
        return;
    }
    Exact sum;
    if (inside) {
        for (long row = first + threadIdx.y; row < end; row += POOL_ROWS) sum.add(wide(x[row * width + column]));
    }
    const float mean = pooled_sum(sum.sum, parts) / (end - first);
    float result = mean;
    if (kind == STD) {
        Exact squares;
        if (inside) {
            for (long row = first + threadIdx.y; row < end; row += POOL_ROWS) {
                const float d = wide(x[row * width + column]) - mean;
                squares.add(d * d);
            }
        }
        result = sqrtf(pooled_sum(squares.sum, parts) / (end - first));
    }
    if (threadIdx.y == 0 && inside) out[to] = result;
}

KERNEL pool_f32(Global<const float> x, Global<const uint32_t> rows, Global<float> out, int width, int kind) { pool(x, rows, out, width, kind); }
EXPORT(pool_f32)
KERNEL pool_bf16(Global<const bf16> x, Global<const uint32_t> rows, Global<float> out, int width, int kind) { pool(x, rows, out, width, kind); }
EXPORT(pool_bf16)

// log sum exp(row) - row[target] + z (log sum exp(row))^2, one warp per row; see
// ../cross_entropy.rs.
template <class T>
DEVICE float log_sum_exp(Global<const T> row, int vocab) {
    const int lane = threadIdx.x % 32;
    float best = bits_float(0xff800000u);
    for (int i = lane; i < vocab; i += 32) best = fmaxf(best, wide(row[i]));
    best = warp_max(best);
    float sum = 0.0f;
    for (int i = lane; i < vocab; i += 32) sum += expf(wide(row[i]) - best);
    return best + logf(warp_sum(sum));
}

template <class T>
DEVICE void cross_entropy(Global<const T> logits, Global<const uint32_t> targets, Global<float> loss, int rows, int vocab, float z) {
    const int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return;
    const Global<const T> values = logits + static_cast<long>(row) * vocab;
    const float log_sum = log_sum_exp(values, vocab);
    if (threadIdx.x % 32 == 0) loss[row] = log_sum - wide(values[targets[row]]) + z * log_sum * log_sum;
}

template <class T>
DEVICE void cross_entropy_backward(Global<const T> logits, Global<const uint32_t> targets, Global<const float> grad, Global<T> d, int rows, int vocab, float z) {
    const int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return;
    const long first = static_cast<long>(row) * vocab;
    const float log_sum = log_sum_exp(logits + first, vocab);
    const float scale = grad[row] * (1.0f + 2.0f * z * log_sum);
    const int target = targets[row];
    for (int i = threadIdx.x % 32; i < vocab; i += 32) {
        d[first + i] = narrow<T>(scale * expf(wide(logits[first + i]) - log_sum) - (i == target ? static_cast<float>(grad[row]) : 0.0f));
    }
}

KERNEL cross_entropy_f32(Global<const float> logits, Global<const uint32_t> targets, Global<float> loss, int rows, int vocab, float z) {
    cross_entropy(logits, targets, loss, rows, vocab, z);
}
EXPORT(cross_entropy_f32)
KERNEL cross_entropy_bf16(Global<const bf16> logits, Global<const uint32_t> targets, Global<float> loss, int rows, int vocab, float z) {
    cross_entropy(logits, targets, loss, rows, vocab, z);
}
EXPORT(cross_entropy_bf16)
KERNEL cross_entropy_backward_f32(Global<const float> logits, Global<const uint32_t> targets, Global<const float> grad, Global<float> d, int rows, int vocab, float z) {
    cross_entropy_backward(logits, targets, grad, d, rows, vocab, z);
}
EXPORT(cross_entropy_backward_f32)
KERNEL cross_entropy_backward_bf16(Global<const bf16> logits, Global<const uint32_t> targets, Global<const float> grad, Global<bf16> d, int rows, int vocab, float z) {
    cross_entropy_backward(logits, targets, grad, d, rows, vocab, z);
}
EXPORT(cross_entropy_backward_bf16)
