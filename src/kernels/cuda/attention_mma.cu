// Packed attention in tensor cores: bf16 factors, f32 sums, softmax in f32. D is the width of a head,
// rounded up to 32, 64, 96 or 128 with zeros.
//
// A block is four warps, each with sixteen rows of a tile of 64. Tiles of 64 columns stream through
// shared memory, copied asynchronously: the next tile while the current one is used. Every product is
// mma.m16n8k16. A product of rows and columns (both stored row by row) gives a tile of scores in
// registers, in the layout of the left operand of the next product, so weights never leave registers.
// Forward and backward need two kinds of product:
//     scores: rows (16 x D) times columns^T (D x 64)          mix: weights (16 x 64) times values (64 x D)
#include "attention.cuh"

constexpr int TILE = 64;
constexpr int MMA_THREADS = 128;

// Values from one row of a tile to the next: sixteen bytes beyond its width keep eight rows of a
// matrix in different banks.
template <int D>
constexpr int PITCH = D + 8;

template <int D>
DEVICE void copy_tile(Shared<bf16> to, Global<const bf16> from, long stride, int rows, int width) {
    constexpr int VECTORS = D / 8;
    for (int i = threadIdx.x; i < TILE * VECTORS; i += MMA_THREADS) {
        const int row = i / VECTORS, column = i % VECTORS * 8;
        const bool valid = row < rows && column < width;
        copy_async16(to + row * PITCH<D> + column, valid ? from + (row * stride + column) : from, valid);
    }
}

// This warp's sixteen rows as left operands.
template <int D>
DEVICE void load_left(Shared<bf16> tile, uint32_t (&a)[D / 16][4]) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < D / 16; k++) load_matrices(tile + ((warp * 16 + lane % 16) * PITCH<D> + k * 16 + lane / 16 * 8), a[k]);
}

// c = rows times columns^T.
template <int D>
DEVICE void scores(const uint32_t (&rows)[D / 16][4], Shared<bf16> columns, float (&c)[8][4]) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < 8; n++) {
        for (int i = 0; i < 4; i++) c[n][i] = 0.0f;
    }
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
#pragma unroll
        for (int n = 0; n < 8; n += 2) {
            uint32_t b[4];
            load_matrices(columns + ((n * 8 + lane % 8 + lane / 16 * 8) * PITCH<D> + k * 16 + lane / 8 % 2 * 8), b);
            multiply_add(c[n], rows[k], b[0], b[1]);
            multiply_add(c[n + 1], rows[k], b[2], b[3]);
        }
    }
}

// sum += weights times values.
template <int D>
DEVICE void mix(const float (&weights)[8][4], Shared<bf16> values, float (&sum)[D / 8][4]) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        const uint32_t a[4] = {
            pack_bf16(weights[2 * k][0], weights[2 * k][1]),
            pack_bf16(weights[2 * k][2], weights[2 * k][3]),
            pack_bf16(weights[2 * k + 1][0], weights[2 * k + 1][1]),
            pack_bf16(weights[2 * k + 1][2], weights[2 * k + 1][3]),
        };
#pragma unroll
        for (int n = 0; n < D / 8; n += 2) {
            uint32_t b[4];
            load_matrices_transposed(values + ((k * 16 + lane % 16) * PITCH<D> + n * 8 + lane / 16 * 8), b);
            multiply_add(sum[n], a, b[0], b[1]);
            multiply_add(sum[n + 1], a, b[2], b[3]);
        }
    }
}

// Row and column in the tile of value i of a lane's accumulator n.
DEVICE int row_of(int i) { return threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + i / 2 * 8; }
DEVICE int column_of(int n, int i) { return n * 8 + threadIdx.x % 4 * 2 + i % 2; }

// Reductions over the four lanes that share a row.
DEVICE float row_max(float x) {
    x = fmaxf(x, shuffle_xor(x, 1));
    return fmaxf(x, shuffle_xor(x, 2));
}
DEVICE float row_sum(float x) {
    x += shuffle_xor(x, 1);
    return x + shuffle_xor(x, 2);
}

// Writes the rows of a tile of results, scaled by two factors: one for the upper and one for the
// lower eight rows of the warp.
template <int D>
DEVICE void store_tile(Global<bf16> to, long stride, const float (&sum)[D / 8][4], const float (&factor)[2], int rows, int width) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = row_of(2 * half);
        if (row >= rows) continue;
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            const int column = column_of(n, 0);
            if (column < width) store4(to + (row * stride + column), pack_bf16(sum[n][2 * half] * factor[half], sum[n][2 * half + 1] * factor[half]));
        }
    }
}

template <int D>
DEVICE void clear(float (&sum)[D / 8][4]) {
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
        for (int i = 0; i < 4; i++) sum[n][i] = 0.0f;
    }
}

// Turns scores into weights relative to the maximum of the row so far; sums and totals shrink as
// the maximum rises.
template <int D>
DEVICE void soften(const Attention<bf16>& p, const Part& part, Shared<float> bias, int first_key, float (&c)[8][4], float (&best)[2], float (&total)[2],
                   float (&sum)[D / 8][4]) {
    const Segment& s = part.segment;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int query = part.first + row_of(2 * half);
        float highest = best[half];
#pragma unroll
        for (int n = 0; n < 8; n++) {
#pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; i++) {
                const int key = first_key + column_of(n, i);
                c[n][i] = sees(p, s, query, key) ? biased(p, s, bias, c[n][i], query, key) : minus_infinity();
                highest = fmaxf(highest, c[n][i]);
            }
        }
        highest = row_max(highest);
        // A row that has seen no key yet: 2^(-inf - 0) is 0 everywhere.
        const float base = highest == minus_infinity() ? 0.0f : highest;
        const float shrink = exp2f(best[half] - base);
        best[half] = highest;
        total[half] *= shrink;
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            sum[n][2 * half] *= shrink;
            sum[n][2 * half + 1] *= shrink;
        }
        const uint64_t key_of_row = row_key(p, s, query, part.head);
#pragma unroll
        for (int n = 0; n < 8; n++) {
#pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; i++) {
                const float weight = exp2f(c[n][i] - base);
                total[half] += weight;
                c[n][i] = weight * kept(p, key_of_row, first_key + column_of(n, i));
            }
        }
    }
}

template <int D>
DEVICE void attend(const Attention<bf16>& p) {
    constexpr int SIZE = TILE * PITCH<D>;
    const Part part = this_part(p);
    const Segment& s = part.segment;
    const int rows = s.queries - part.first < TILE ? s.queries - part.first : TILE;
    SharedRoom room;
    const Shared<bf16> q = room.take<bf16>(SIZE), k = room.take<bf16>(2 * SIZE), v = room.take<bf16>(2 * SIZE);
    const Shared<float> bias = room.take<float>(2 * p.max_distance + 1);
    const long column = static_cast<long>(part.head) * p.d_kv;
    const long first_row = s.first_query + part.first;
    const Global<const bf16> keys = p.k + s.first_key * static_cast<long>(p.kv_stride) + column;
    const Global<const bf16> values = p.v + s.first_key * static_cast<long>(p.kv_stride) + column;
    auto copy = [&](int first) {
        const int stage = first / TILE % 2 * SIZE;
        copy_tile<D>(k + stage, keys + static_cast<long>(first) * p.kv_stride, p.kv_stride, s.keys - first, p.d_kv);
        copy_tile<D>(v + stage, values + static_cast<long>(first) * p.kv_stride, p.kv_stride, s.keys - first, p.d_kv);
        commit_copies();
    };
    const int seen = visible(p, s, part.first + rows);
    copy_tile<D>(q, p.q + first_row * p.q_stride + column, p.q_stride, rows, p.d_kv);
    if (seen > 0) copy(0);
    load_bias(p, part.head, bias);
    uint32_t left[D / 16][4];
    float best[2] = {minus_infinity(), minus_infinity()}, total[2] = {0.0f, 0.0f}, sum[D / 8][4];
    clear<D>(sum);
    for (int first = 0; first < seen; first += TILE) {
        const int stage = first / TILE % 2 * SIZE;
        if (first + TILE < seen) {
            copy(first + TILE);
            wait_copies<1>();
        } else {
            wait_copies<0>();
        }
        __syncthreads();
        if (first == 0) load_left<D>(q, left);
        float c[8][4];
        scores<D>(left, k + stage, c);
        soften<D>(p, part, bias, first, c, best, total, sum);
        mix<D>(c, v + stage, sum);
        __syncthreads();
    }
    wait_copies<0>();
    float factor[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float all = row_sum(total[half]);
        factor[half] = all > 0.0f ? 1.0f / all : 0.0f;
        const int row = row_of(2 * half);
        if (p.lse && threadIdx.x % 4 == 0 && row < rows) {
            p.lse[(first_row + row) * p.heads + part.head] = all > 0.0f ? best[half] + log2f(all) : 0.0f;
        }
    }
    store_tile<D>(p.out + first_row * p.heads * p.d_kv + column, static_cast<long>(p.heads) * p.d_kv, sum, factor, rows, p.d_kv);
}

// dq and the gradient of the bias, for a tile of queries.
template <int D>
DEVICE void backward_queries(const Attention<bf16>& p, const Gradients<bf16>& g) {
    constexpr int SIZE = TILE * PITCH<D>, SLOPE_PITCH = TILE + 1;
    const Part part = this_part(p);
    const Segment& s = part.segment;
    const int rows = s.queries - part.first < TILE ? s.queries - part.first : TILE;
    const int distances = g.d_bias ? 2 * p.max_distance + 1 : 0;
    SharedRoom room;
    const Shared<bf16> q = room.take<bf16>(SIZE), grad = room.take<bf16>(SIZE), k = room.take<bf16>(SIZE), v = room.take<bf16>(SIZE);
    const Shared<float> bias = room.take<float>(2 * p.max_distance + 1), sums = room.take<float>(distances);
    const Shared<float> slopes = room.take<float>(distances ? TILE * SLOPE_PITCH : 0), edges = room.take<float>(distances ? 2 * TILE : 0);
    const long column = static_cast<long>(part.head) * p.d_kv, inner = static_cast<long>(p.heads) * p.d_kv;
    const long first_row = s.first_query + part.first;
    copy_tile<D>(q, p.q + first_row * p.q_stride + column, p.q_stride, rows, p.d_kv);
    copy_tile<D>(grad, g.grad + first_row * inner + column, inner, rows, p.d_kv);
    commit_copies();
    load_bias(p, part.head, bias);
    for (int i = threadIdx.x; i < distances; i += MMA_THREADS) sums[i] = 0.0f;
    wait_copies<0>();
    __syncthreads();
    uint32_t left_q[D / 16][4], left_grad[D / 16][4];
    load_left<D>(q, left_q);
    load_left<D>(grad, left_grad);
    float lse[2], delta[2], dq[D / 8][4];
    clear<D>(dq);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = row_of(2 * half);
        const long at = (first_row + row) * p.heads + part.head;
        lse[half] = row < rows ? static_cast<float>(g.lse[at]) : 0.0f;
        delta[half] = row < rows ? static_cast<float>(g.delta[at]) : 0.0f;
    }
    const int seen = visible(p, s, part.first + rows);
    for (int first = 0; first < seen; first += TILE) {
        const long key_row = static_cast<long>(s.first_key + first) * p.kv_stride + column;
        __syncthreads();
        copy_tile<D>(k, p.k + key_row, p.kv_stride, s.keys - first, p.d_kv);
        copy_tile<D>(v, p.v + key_row, p.kv_stride, s.keys - first, p.d_kv);
        commit_copies();
        wait_copies<0>();
        __syncthreads();
        float c[8][4], dp[8][4];
        scores<D>(left_q, k, c);
        scores<D>(left_grad, v, dp);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int row = row_of(2 * half), query = part.first + row;
            const uint64_t key_of_row = row_key(p, s, query, part.head);
#pragma unroll
            for (int n = 0; n < 8; n++) {
#pragma unroll
                for (int i = 2 * half; i < 2 * half + 2; i++) {
                    const int key = first + column_of(n, i);
                    float slope = 0.0f;
                    if (sees(p, s, query, key)) {
                        const float weight = exp2f(biased(p, s, bias, c[n][i], query, key) - lse[half]);
                        slope = weight * (dp[n][i] * kept(p, key_of_row, key) - delta[half]);
                    }
                    c[n][i] = slope;
                    if (distances) slopes[row * SLOPE_PITCH + column_of(n, i)] = slope;
                }
            }
        }
        mix<D>(c, k, dq);
        if (distances) {
            __syncthreads();
            add_diagonals<TILE>(slopes, SLOPE_PITCH, first - (s.first_position + part.first), p.max_distance, edges, sums);
        }
    }
    const float one[2] = {1.0f, 1.0f};
    store_tile<D>(g.dq + first_row * g.dq_stride + column, g.dq_stride, dq, one, rows, p.d_kv);
    if (!distances) return;
    __syncthreads();
    store_bias_sums(p, g, part.head, sums);
}

// dk and dv for a tile of keys: as above, with queries and keys exchanged.
template <int D>
DEVICE void backward_keys(const Attention<bf16>& p, const Gradients<bf16>& g) {
    constexpr int SIZE = TILE * PITCH<D>;
    const Part part = this_part(p);
    const Segment& s = part.segment;
    const int rows = s.keys - part.first < TILE ? s.keys - part.first : TILE;
    SharedRoom room;
    const Shared<bf16> q = room.take<bf16>(SIZE), grad = room.take<bf16>(SIZE), k = room.take<bf16>(SIZE), v = room.take<bf16>(SIZE);
    const Shared<float> bias = room.take<float>(2 * p.max_distance + 1), lse = room.take<float>(TILE), delta = room.take<float>(TILE);
    const long column = static_cast<long>(part.head) * p.d_kv, inner = static_cast<long>(p.heads) * p.d_kv;
    const long first_row = s.first_key + part.first;
    copy_tile<D>(k, p.k + first_row * p.kv_stride + column, p.kv_stride, rows, p.d_kv);
    copy_tile<D>(v, p.v + first_row * p.kv_stride + column, p.kv_stride, rows, p.d_kv);
    commit_copies();
    load_bias(p, part.head, bias);
    wait_copies<0>();
    __syncthreads();
    uint32_t left_k[D / 16][4], left_v[D / 16][4];
    load_left<D>(k, left_k);
    load_left<D>(v, left_v);
    float dk[D / 8][4], dv[D / 8][4];
    clear<D>(dk);
    clear<D>(dv);
    // Queries before the first one that sees the tile are skipped.
    const int skipped = part.first - s.first_position;
    for (int first = p.causal && skipped > 0 ? skipped / TILE * TILE : 0; first < s.queries; first += TILE) {
        const long query_row = s.first_query + first;
        __syncthreads();
        copy_tile<D>(q, p.q + query_row * p.q_stride + column, p.q_stride, s.queries - first, p.d_kv);
        copy_tile<D>(grad, g.grad + query_row * inner + column, inner, s.queries - first, p.d_kv);
        commit_copies();
        for (int i = threadIdx.x; i < TILE; i += MMA_THREADS) {
            const bool there = first + i < s.queries;
            lse[i] = there ? static_cast<float>(g.lse[(query_row + i) * p.heads + part.head]) : 0.0f;
            delta[i] = there ? static_cast<float>(g.delta[(query_row + i) * p.heads + part.head]) : 0.0f;
        }
        wait_copies<0>();
        __syncthreads();
        float c[8][4], dp[8][4];
        scores<D>(left_k, q, c);
        scores<D>(left_v, grad, dp);
#pragma unroll
        for (int n = 0; n < 8; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int key = part.first + row_of(i), query = first + column_of(n, i);
                float weight = 0.0f, slope = 0.0f;
                if (sees(p, s, query, key)) {
                    const float factor = kept(p, row_key(p, s, query, part.head), key);
                    weight = exp2f(biased(p, s, bias, c[n][i], query, key) - lse[column_of(n, i)]);
                    slope = weight * (dp[n][i] * factor - delta[column_of(n, i)]);
                    weight *= factor;
                }
                c[n][i] = weight;
                dp[n][i] = slope;
            }
        }
        mix<D>(c, grad, dv);
        mix<D>(dp, q, dk);
    }
    const float one[2] = {1.0f, 1.0f};
    store_tile<D>(g.dk + first_row * g.dkv_stride + column, g.dkv_stride, dk, one, rows, p.d_kv);
    store_tile<D>(g.dv + first_row * g.dkv_stride + column, g.dkv_stride, dv, one, rows, p.d_kv);
}

#define WIDTH(D)                                                                                                    \
    KERNEL __launch_bounds__(MMA_THREADS) attend_mma_##D(Attention<bf16> p) { attend<D>(p); }                       \
    EXPORT(attend_mma_##D)                                                                                          \
    KERNEL __launch_bounds__(MMA_THREADS) attention_mma_queries_##D(Attention<bf16> p, Gradients<bf16> g) { backward_queries<D>(p, g); } \
    EXPORT(attention_mma_queries_##D)                                                                               \
    KERNEL __launch_bounds__(MMA_THREADS) attention_mma_keys_##D(Attention<bf16> p, Gradients<bf16> g) { backward_keys<D>(p, g); }       \
    EXPORT(attention_mma_keys_##D)

WIDTH(32)
WIDTH(64)
WIDTH(96)
WIDTH(128)
