"""T5 written once more, in NumPy and float64, from the papers alone: it knows nothing of torch.

Its one purpose is to disagree with transformers where a reading of the definition is wrong (buckets, masks, scaling, which norm
goes where). Sources: T5, arXiv 1910.10683, section 2.1; gated feed-forward, arXiv 2002.05202; RMS norm, arXiv 1910.07467.
"""

import numpy as np


def relative_position_bucket(relative, bidirectional, buckets, max_distance):
    """Bucket of `key position - query position`; half the buckets are exact, half logarithmic up to `max_distance`.

    The logarithm is float32, as every T5 was trained: at a bucket's edge (distance 64 of 32 or 64 buckets) its rounding decides.
    """
    relative = np.asarray(relative, dtype=np.int64)
    bucket = np.zeros_like(relative)
    if bidirectional:
        buckets //= 2
        bucket = np.where(relative > 0, buckets, 0)
        distance = np.abs(relative)
    else:
        distance = np.maximum(-relative, 0)
    exact = buckets // 2
    ratio = np.maximum(distance, 1).astype(np.float32) / np.float32(exact)
    steps = np.log(ratio) / np.float32(np.log(max_distance / exact)) * np.float32(buckets - exact)
    far = np.minimum(exact + steps.astype(np.int64), buckets - 1)
    return bucket + np.where(distance < exact, distance, far)


def rms_norm(x, weight, epsilon):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + epsilon) * weight


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


class NumpyT5:
    """`weights`: names as in the checkpoint, any float; `config`: the checkpoint's config.json."""

    def __init__(self, config, weights):
        self.config = config
        self.weights = {name: np.asarray(value, dtype=np.float64) for name, value in weights.items()}

    def encoder(self, ids):
        """Every hidden state: the embeddings, the output of each layer but the last, and the final norm's output."""
        return self._stack("encoder", ids, self.config["num_layers"], None)

    def logits(self, source, target):
        """Teacher-forced logits, `(target, vocab)`."""
        memory = self.encoder(source)[-1]
        hidden = self._stack("decoder", target, self.config["num_decoder_layers"], memory)[-1]
        if "lm_head.weight" in self.weights:
            return hidden @ self.weights["lm_head.weight"].T
        return hidden * self.config["d_model"] ** -0.5 @ self.weights["shared.weight"].T

    def _stack(self, stack, ids, layers, memory):
        hidden = self.weights["shared.weight"][np.asarray(ids)]
        bias = self._position_bias(stack, len(ids))
        states = [hidden]
        for layer in range(layers):
            prefix = f"{stack}.block.{layer}.layer"
            hidden = self._attention(f"{prefix}.0", "SelfAttention", hidden, None, bias)
            if memory is not None:
                hidden = self._attention(f"{prefix}.1", "EncDecAttention", hidden, memory, 0.0)
            hidden = self._feed_forward(f"{prefix}.{1 if memory is None else 2}", hidden)
            states.append(hidden)
        states[-1] = rms_norm(hidden, self.weights[f"{stack}.final_layer_norm.weight"], self.config["layer_norm_epsilon"])
        return states

    def _position_bias(self, stack, length):
        """`(heads, length, length)`; the decoder's also hides the future."""
        at = np.arange(length)
        relative = at[None, :] - at[:, None]
        table = self.weights[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
        buckets = relative_position_bucket(
            relative,
            stack == "encoder",
            self.config["relative_attention_num_buckets"],
            self.config["relative_attention_max_distance"],
        )
        bias = np.moveaxis(table[buckets], -1, 0)
        return bias if stack == "encoder" else np.where(relative > 0, -np.inf, bias)

    def _attention(self, prefix, name, hidden, memory, bias):
        def heads(x):
            return np.moveaxis(x.reshape(len(x), self.config["num_heads"], self.config["d_kv"]), 1, 0)

        w = {part: self.weights[f"{prefix}.{name}.{part}.weight"].T for part in "qkvo"}
        normed = self._norm(prefix, hidden)
        other = normed if memory is None else memory
        q, k, v = heads(normed @ w["q"]), heads(other @ w["k"]), heads(other @ w["v"])
        mixed = softmax(q @ np.swapaxes(k, 1, 2) + bias) @ v
        return hidden + np.moveaxis(mixed, 0, 1).reshape(len(hidden), -1) @ w["o"]

    def _feed_forward(self, prefix, hidden):
        def weight(part):
            return self.weights[f"{prefix}.DenseReluDense.{part}.weight"].T

        x = self._norm(prefix, hidden)
        kind = self.config["feed_forward_proj"]
        if kind == "relu":
            inner = np.maximum(x @ weight("wi"), 0.0)
        else:
            inner = ACTIVATIONS[kind](x @ weight("wi_0")) * (x @ weight("wi_1"))
        return hidden + inner @ weight("wo")

    def _norm(self, prefix, x):
        return rms_norm(x, self.weights[f"{prefix}.layer_norm.weight"], self.config["layer_norm_epsilon"])


ACTIVATIONS = {
    "gated-gelu": lambda x: 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3))),
    "gated-silu": lambda x: x / (1.0 + np.exp(-x)),
}
