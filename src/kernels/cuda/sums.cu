// Sums at the beginning and at the end of backward passes.
#include "common.cuh"

// The sum over `parts` matrices of `count` values, first to last: the last step of partial sums.
KERNEL sum_parts(Global<const float> parts, Global<float> sum, int count, int number) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    float total = 0.0f;
    for (int part = 0; part < number; part++) total += parts[static_cast<long>(part) * count + i];
    sum[i] = total;
}
EXPORT(sum_parts)

// delta = sum of out * grad over a head: one warp per row and head.
template <class T>
DEVICE void delta_of(Global<const T> out, Global<const T> grad, Global<float> delta, int count, int d) {
    const int i = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (i >= count) return;
    const long first = static_cast<long>(i) * d;
    float sum = 0.0f;
    for (int j = threadIdx.x % 32; j < d; j += 32) sum += wide(out[first + j]) * wide(grad[first + j]);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) delta[i] = sum;
}

KERNEL attention_delta_f32(Global<const float> out, Global<const float> grad, Global<float> delta, int count, int d) { delta_of(out, grad, delta, count, d); }
EXPORT(attention_delta_f32)
KERNEL attention_delta_bf16(Global<const bf16> out, Global<const bf16> grad, Global<float> delta, int count, int d) { delta_of(out, grad, delta, count, d); }
EXPORT(attention_delta_bf16)
