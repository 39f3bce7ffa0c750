// Packed attention without tensor cores: f32 throughout, any float type in memory, heads up to 128
// wide. f32 models run these kernels, and doctor compares the tensor cores with them. Decoding runs
// the form for a single query. A lane holds one key in the product of scores, and one column in the
// product of weights and values.
#include "attention.cuh"

constexpr int PLAIN_ROWS = 32, PLAIN_WARPS = 8, WARP_ROWS = PLAIN_ROWS / PLAIN_WARPS;
constexpr int CHUNKS = 4;  // columns of a head in a lane: 128 / 32

template <class T>
DEVICE void load_rows(Shared<float> to, int pitch, Global<const T> from, int stride, int rows, int width) {
    for (int i = threadIdx.x; i < PLAIN_ROWS * width; i += blockDim.x) {
        const int row = i / width, column = i % width;
        to[row * pitch + column] = row < rows ? wide(from[static_cast<long>(row) * stride + column]) : 0.0f;
    }
}

DEVICE float dot(Shared<float> a, Shared<float> b, int width) {
    float sum = 0.0f;
    for (int i = 0; i < width; i++) sum += a[i] * b[i];
    return sum;
}

// sum[c] += weight * rows[lane][32 c + lane], over the weights of all lanes
DEVICE void mix(float weight, Shared<float> rows, int pitch, int width, float (&sum)[CHUNKS]) {
    const int lane = threadIdx.x % 32;
    for (int j = 0; j < 32; j++) {
        const float w = shuffle(weight, j);
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            if (32 * c + lane < width) sum[c] += w * rows[j * pitch + 32 * c + lane];
        }
    }
}

template <class T, class Pointer>
DEVICE void store_row(Pointer to, const float (&sum)[CHUNKS], float scale, int width) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        if (32 * c + lane < width) to[32 * c + lane] = narrow<T>(sum[c] * scale);
    }
}

template <class T>
DEVICE void attend_plain(const Attention<T>& p) {
    const Part part = this_part(p);
    const Segment s = part.segment;
    const int d = p.d_kv, pitch = d + 1, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int rows = s.queries - part.first < PLAIN_ROWS ? s.queries - part.first : PLAIN_ROWS;
    SharedRoom room;
    const Shared<float> q = room.take<float>(PLAIN_ROWS * pitch), k = room.take<float>(PLAIN_ROWS * pitch), v = room.take<float>(PLAIN_ROWS * pitch);
    const Shared<float> bias = room.take<float>(2 * p.max_distance + 1);
    load_bias(p, part.head, bias);
    const long column = static_cast<long>(part.head) * d;
    load_rows(q, pitch, p.q + static_cast<long>(s.first_query + part.first) * p.q_stride + column, p.q_stride, rows, d);
    float best[WARP_ROWS], total[WARP_ROWS], sum[WARP_ROWS][CHUNKS];
#pragma unroll
    for (int r = 0; r < WARP_ROWS; r++) {
        best[r] = minus_infinity();
        total[r] = 0.0f;
        for (int c = 0; c < CHUNKS; c++) sum[r][c] = 0.0f;
    }
    const int seen = visible(p, s, part.first + rows);
    for (int first = 0; first < seen; first += PLAIN_ROWS) {
        const long key_row = static_cast<long>(s.first_key + first) * p.kv_stride + column;
        __syncthreads();
        load_rows(k, pitch, p.k + key_row, p.kv_stride, s.keys - first, d);
        load_rows(v, pitch, p.v + key_row, p.kv_stride, s.keys - first, d);
        __syncthreads();
#pragma unroll
        for (int r = 0; r < WARP_ROWS; r++) {
            const int row = warp * WARP_ROWS + r, query = part.first + row;
            if (row >= rows) continue;
            float score = minus_infinity();
            if (sees(p, s, query, first + lane)) score = biased(p, s, bias, dot(q + row * pitch, k + lane * pitch, d), query, first + lane);
            const float highest = fmaxf(best[r], warp_max(score));
            if (highest == minus_infinity()) continue;
            const float shrink = exp2f(best[r] - highest);
            float weight = exp2f(score - highest);
            total[r] = total[r] * shrink + warp_sum(weight);
            best[r] = highest;
            weight *= kept(p, row_key(p, s, query, part.head), first + lane);
            for (int c = 0; c < CHUNKS; c++) sum[r][c] *= shrink;
            mix(weight, v, pitch, d, sum[r]);
        }
    }
#pragma unroll
    for (int r = 0; r < WARP_ROWS; r++) {
        const int row = warp * WARP_ROWS + r;
        if (row >= rows) continue;
        const long to = s.first_query + part.first + row;
        store_row<T>(p.out + to * p.heads * d + column, sum[r], total[r] > 0.0f ? 1.0f / total[r] : 0.0f, d);
        if (p.lse && lane == 0) p.lse[to * p.heads + part.head] = total[r] > 0.0f ? best[r] + log2f(total[r]) : 0.0f;
    }
}

// One query per segment: block (segment, head). Each warp takes every fourth run of 32 keys, and
// the four results are merged.
constexpr int SINGLE_WARPS = 4;

template <class T>
DEVICE void attend_single(const Attention<T>& p) {
    const Part part = this_part(p);
    const Segment s = part.segment;
    const int d = p.d_kv, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    SharedRoom room;
    const Shared<float> q = room.take<float>(d), sums = room.take<float>(SINGLE_WARPS * d), bests = room.take<float>(SINGLE_WARPS), totals = room.take<float>(SINGLE_WARPS);
    const Shared<float> bias = room.take<float>(2 * p.max_distance + 1);
    load_bias(p, part.head, bias);
    const long column = static_cast<long>(part.head) * d;
    for (int i = threadIdx.x; i < d; i += blockDim.x) q[i] = wide(p.q[static_cast<long>(s.first_query) * p.q_stride + column + i]);
    __syncthreads();
    float best = minus_infinity(), total = 0.0f, sum[CHUNKS] = {0.0f, 0.0f, 0.0f, 0.0f};
    const int seen = visible(p, s, 1);
    for (int first = warp * 32; first < seen; first += SINGLE_WARPS * 32) {
        const int key = first + lane;
        const long from = static_cast<long>(s.first_key + first) * p.kv_stride + column;
        float score = minus_infinity();
        if (key < seen) {
            const Global<const T> row = p.k + from + static_cast<long>(lane) * p.kv_stride;
            float product = 0.0f;
            for (int i = 0; i < d; i++) product += q[i] * wide(row[i]);
            score = biased(p, s, bias, product, 0, key);
        }
        const float highest = fmaxf(best, warp_max(score));
        const float shrink = exp2f(best - highest), weight = exp2f(score - highest);
        total = total * shrink + warp_sum(weight);
        best = highest;
        for (int c = 0; c < CHUNKS; c++) sum[c] *= shrink;
        const int keys = seen - first < 32 ? seen - first : 32;
        for (int j = 0; j < keys; j++) {
            const float w = shuffle(weight, j);
#pragma unroll
            for (int c = 0; c < CHUNKS; c++) {
                if (32 * c + lane < d) sum[c] += w * wide(p.v[from + static_cast<long>(j) * p.kv_stride + 32 * c + lane]);
            }
        }
    }
    store_row<float>(sums + warp * d, sum, 1.0f, d);
    if (lane == 0) {
        bests[warp] = best;
        totals[warp] = total;
    }
    __syncthreads();
    float highest = minus_infinity();
    for (int w = 0; w < SINGLE_WARPS; w++) highest = fmaxf(highest, bests[w]);
    if (highest == minus_infinity()) highest = 0.0f;
    total = 0.0f;
    for (int w = 0; w < SINGLE_WARPS; w++) total += totals[w] * exp2f(bests[w] - highest);
    for (int i = threadIdx.x; i < d; i += blockDim.x) {
        float value = 0.0f;
        for (int w = 0; w < SINGLE_WARPS; w++) value += sums[w * d + i] * exp2f(bests[w] - highest);
        p.out[static_cast<long>(s.first_query) * p.heads * d + column + i] = narrow<T>(total > 0.0f ? value / total : 0.0f);
    }
}

// dq and the gradient of the bias, for a tile of queries.
template <class T>
DEVICE void backward_queries(const Attention<T>& p, const Gradients<T>& g) {
    const Part part = this_part(p);
    const Segment s = part.segment;
    const int d = p.d_kv, pitch = d + 1, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int rows = s.queries - part.first < PLAIN_ROWS ? s.queries - part.first : PLAIN_ROWS;
    constexpr int TILE_PITCH = PLAIN_ROWS + 1;
    SharedRoom room;
    const Shared<float> q = room.take<float>(PLAIN_ROWS * pitch), grad = room.take<float>(PLAIN_ROWS * pitch);
    const Shared<float> k = room.take<float>(PLAIN_ROWS * pitch), v = room.take<float>(PLAIN_ROWS * pitch);
    const Shared<float> slopes = room.take<float>(PLAIN_ROWS * TILE_PITCH), edges = room.take<float>(2 * PLAIN_ROWS);
    const Shared<float> bias = room.take<float>(2 * p.max_distance + 1), sums = room.take<float>(2 * p.max_distance + 1);
    load_bias(p, part.head, bias);
    for (int i = threadIdx.x; i < 2 * p.max_distance + 1; i += blockDim.x) sums[i] = 0.0f;
    const long column = static_cast<long>(part.head) * d, first_row = s.first_query + part.first;
    load_rows(q, pitch, p.q + first_row * p.q_stride + column, p.q_stride, rows, d);
    load_rows(grad, pitch, g.grad + first_row * p.heads * d + column, p.heads * d, rows, d);
    float sum[WARP_ROWS][CHUNKS] = {};
    const int seen = visible(p, s, part.first + rows);
    for (int first = 0; first < seen; first += PLAIN_ROWS) {
        const long key_row = static_cast<long>(s.first_key + first) * p.kv_stride + column;
        __syncthreads();
        load_rows(k, pitch, p.k + key_row, p.kv_stride, s.keys - first, d);
        load_rows(v, pitch, p.v + key_row, p.kv_stride, s.keys - first, d);
        __syncthreads();
#pragma unroll
        for (int r = 0; r < WARP_ROWS; r++) {
            const int row = warp * WARP_ROWS + r, query = part.first + row;
            float slope = 0.0f;
            if (sees(p, s, query, first + lane)) {
                const long at = (first_row + row) * p.heads + part.head;
                const float score = biased(p, s, bias, dot(q + row * pitch, k + lane * pitch, d), query, first + lane);
                const float slope_of_weight = dot(grad + row * pitch, v + lane * pitch, d) * kept(p, row_key(p, s, query, part.head), first + lane);
                slope = exp2f(score - g.lse[at]) * (slope_of_weight - g.delta[at]);
            }
            slopes[row * TILE_PITCH + lane] = slope;
            mix(slope, k, pitch, d, sum[r]);
        }
        if (g.d_bias) {
            __syncthreads();
            add_diagonals<PLAIN_ROWS>(slopes, TILE_PITCH, first - (s.first_position + part.first), p.max_distance, edges, sums);
        }
    }
#pragma unroll
    for (int r = 0; r < WARP_ROWS; r++) {
        const int row = warp * WARP_ROWS + r;
        if (row < rows) store_row<T>(g.dq + (first_row + row) * g.dq_stride + column, sum[r], 1.0f, d);
    }
    if (!g.d_bias) return;
    __syncthreads();
    store_bias_sums(p, g, part.head, sums);
}

// dk and dv for a tile of keys.
template <class T>
DEVICE void backward_keys(const Attention<T>& p, const Gradients<T>& g) {
    const Part part = this_part(p);
    const Segment s = part.segment;
    const int d = p.d_kv, pitch = d + 1, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int rows = s.keys - part.first < PLAIN_ROWS ? s.keys - part.first : PLAIN_ROWS;
    SharedRoom room;
    const Shared<float> q = room.take<float>(PLAIN_ROWS * pitch), grad = room.take<float>(PLAIN_ROWS * pitch);
    const Shared<float> k = room.take<float>(PLAIN_ROWS * pitch), v = room.take<float>(PLAIN_ROWS * pitch);
    const Shared<float> bias = room.take<float>(2 * p.max_distance + 1);
    load_bias(p, part.head, bias);
    const long column = static_cast<long>(part.head) * d, first_row = s.first_key + part.first;
    load_rows(k, pitch, p.k + first_row * p.kv_stride + column, p.kv_stride, rows, d);
    load_rows(v, pitch, p.v + first_row * p.kv_stride + column, p.kv_stride, rows, d);
    float sum_k[WARP_ROWS][CHUNKS] = {}, sum_v[WARP_ROWS][CHUNKS] = {};
    // Queries before the first one that sees the tile are skipped.
    const int skipped = part.first - s.first_position;
    for (int first = p.causal && skipped > 0 ? skipped / PLAIN_ROWS * PLAIN_ROWS : 0; first < s.queries; first += PLAIN_ROWS) {
        const long query_row = s.first_query + first;
        __syncthreads();
        load_rows(q, pitch, p.q + query_row * p.q_stride + column, p.q_stride, s.queries - first, d);
        load_rows(grad, pitch, g.grad + query_row * p.heads * d + column, p.heads * d, s.queries - first, d);
        __syncthreads();
#pragma unroll
        for (int r = 0; r < WARP_ROWS; r++) {
            const int row = warp * WARP_ROWS + r, key = part.first + row, query = first + lane;
            float weight = 0.0f, slope = 0.0f;
            if (sees(p, s, query, key)) {
                const long at = (query_row + lane) * p.heads + part.head;
                const float factor = kept(p, row_key(p, s, query, part.head), key);
                weight = exp2f(biased(p, s, bias, dot(k + row * pitch, q + lane * pitch, d), query, key) - g.lse[at]);
                slope = weight * (dot(v + row * pitch, grad + lane * pitch, d) * factor - g.delta[at]);
                weight *= factor;
            }
            mix(weight, grad, pitch, d, sum_v[r]);
            mix(slope, q, pitch, d, sum_k[r]);
        }
    }
#pragma unroll
    for (int r = 0; r < WARP_ROWS; r++) {
        const int row = warp * WARP_ROWS + r;
        if (row >= rows) continue;
        store_row<T>(g.dk + (first_row + row) * g.dkv_stride + column, sum_k[r], 1.0f, d);
        store_row<T>(g.dv + (first_row + row) * g.dkv_stride + column, sum_v[r], 1.0f, d);
    }
}

KERNEL attend_plain_f32(Attention<float> p) { attend_plain(p); }
EXPORT(attend_plain_f32)
KERNEL attend_plain_bf16(Attention<bf16> p) { attend_plain(p); }
EXPORT(attend_plain_bf16)
KERNEL attend_single_f32(Attention<float> p) { attend_single(p); }
EXPORT(attend_single_f32)
KERNEL attend_single_bf16(Attention<bf16> p) { attend_single(p); }
EXPORT(attend_single_bf16)
KERNEL attention_queries_f32(Attention<float> p, Gradients<float> g) { backward_queries(p, g); }
EXPORT(attention_queries_f32)
KERNEL attention_queries_bf16(Attention<bf16> p, Gradients<bf16> g) { backward_queries(p, g); }
EXPORT(attention_queries_bf16)
KERNEL attention_keys_f32(Attention<float> p, Gradients<float> g) { backward_keys(p, g); }
EXPORT(attention_keys_f32)
KERNEL attention_keys_bf16(Attention<bf16> p, Gradients<bf16> g) { backward_keys(p, g); }
EXPORT(attention_keys_bf16)
