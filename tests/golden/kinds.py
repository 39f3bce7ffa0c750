"""The three tiny random checkpoints: their configs, written by hand as Hugging Face's files have them, and their weights.

The scales are chosen so that a mistake shows: attention logits have a spread of about two, the relative bias of one, norm weights
differ from 1, and `</s>` is likely enough for generation to end by itself.
"""

import numpy as np

COMMON = {
    "architectures": ["T5ForConditionalGeneration"],
    "classifier_dropout": 0.0,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.1,
    "eos_token_id": 1,
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "layer_norm_epsilon": 1e-06,
    "model_type": "t5",
    "num_decoder_layers": 2,
    "num_layers": 3,
    "pad_token_id": 0,
    "relative_attention_max_distance": 128,
    "torch_dtype": "float32",
    "use_cache": True,
}

KINDS = {
    # Ankh3: own lm_head, logits not scaled, inner width 48 wider than d_model.
    "untied-gated-silu": COMMON
    | {
        "d_ff": 80,
        "d_kv": 16,
        "d_model": 32,
        "dense_act_fn": "silu",
        "feed_forward_proj": "gated-silu",
        "is_gated_act": True,
        "num_heads": 3,
        "relative_attention_num_buckets": 64,
        "tie_word_embeddings": False,
        "vocab_size": 256,
    },
    # As Ankh v1's size of vocabulary, but tied (logits scaled by d_model^-0.5); inner width 32 narrower than d_model.
    "tied-gated-gelu": COMMON
    | {
        "d_ff": 72,
        "d_kv": 8,
        "d_model": 40,
        "dense_act_fn": "gelu_new",
        "feed_forward_proj": "gated-gelu",
        "is_gated_act": True,
        "num_heads": 4,
        "relative_attention_num_buckets": 32,
        "tie_word_embeddings": True,
        "vocab_size": 144,
    },
    # T5 v1.0: one `wi`, tied, and a file as those of 2020: no gating keys, tables repeated for each stack, a stray bias table in
    # the cross-attention that no code reads.
    "relu-v1": COMMON
    | {
        "d_ff": 64,
        "d_kv": 8,
        "d_model": 32,
        "feed_forward_proj": "relu",
        "num_heads": 4,
        "relative_attention_num_buckets": 32,
        "vocab_size": 100,
    },
}

STRAY_BIAS = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"


def is_tied(config):
    return config.get("tie_word_embeddings", True)


def draw_weights(config, seed):
    """Every tensor of the checkpoint, float32, from one NumPy generator: the same bytes on every machine."""
    rng = np.random.default_rng(seed)
    weights = {}

    def normal(name, shape, std):
        weights[name] = (rng.standard_normal(shape) * std).astype(np.float32)

    def norm(name):
        weights[f"{name}.weight"] = rng.uniform(0.5, 1.5, config["d_model"]).astype(np.float32)

    d_model, d_ff, inner = config["d_model"], config["d_ff"], config["num_heads"] * config["d_kv"]
    # x is about 1 an element, so q and k are of std s·sqrt(d_model) and q·k of std s²·d_model·sqrt(d_kv): two.
    # Tied tables make the decoder repeat its last token for ever, unless its layers outweigh the embedding they are added to.
    gain = {"encoder": 1.0, "decoder": 3.0 if is_tied(config) else 1.0}
    query_std = (2.0 / (d_model * config["d_kv"] ** 0.5)) ** 0.5
    normal("shared.weight", (config["vocab_size"], d_model), 1.0)
    for stack, layers in (("encoder", config["num_layers"]), ("decoder", config["num_decoder_layers"])):
        for layer in range(layers):
            blocks = ["SelfAttention"] + (["EncDecAttention"] if stack == "decoder" else [])
            for at, block in enumerate(blocks):
                prefix = f"{stack}.block.{layer}.layer.{at}"
                normal(f"{prefix}.{block}.q.weight", (inner, d_model), query_std)
                normal(f"{prefix}.{block}.k.weight", (inner, d_model), query_std)
                normal(f"{prefix}.{block}.v.weight", (inner, d_model), d_model**-0.5)
                normal(f"{prefix}.{block}.o.weight", (d_model, inner), gain[stack] * inner**-0.5)
                if layer == 0 and block == "SelfAttention":
                    shape = (config["relative_attention_num_buckets"], config["num_heads"])
                    normal(f"{prefix}.{block}.relative_attention_bias.weight", shape, 1.0)
                norm(f"{prefix}.layer_norm")
            prefix = f"{stack}.block.{layer}.layer.{len(blocks)}"
            for part in ("wi_0", "wi_1") if config["feed_forward_proj"].startswith("gated") else ("wi",):
                normal(f"{prefix}.DenseReluDense.{part}.weight", (d_ff, d_model), d_model**-0.5)
            normal(f"{prefix}.DenseReluDense.wo.weight", (d_model, d_ff), 1.5 * gain[stack] * d_ff**-0.5)
            norm(f"{prefix}.layer_norm")
        norm(f"{stack}.final_layer_norm")
    if is_tied(config):
        weights["shared.weight"][config["eos_token_id"]] *= 2.0
    else:
        normal("lm_head.weight", (config["vocab_size"], d_model), 0.35)
        weights["lm_head.weight"][config["eos_token_id"]] *= 1.5
    return weights


def with_leftovers(config, weights, seed):
    """The tensors as the file holds them: for v1.0 with what old files carry along."""
    if config["feed_forward_proj"] != "relu":
        return weights
    rng = np.random.default_rng(seed + 1)
    stray = rng.standard_normal((config["relative_attention_num_buckets"], config["num_heads"])).astype(np.float32)
    repeated = {f"{stack}.embed_tokens.weight": weights["shared.weight"].copy() for stack in ("encoder", "decoder")}
    return weights | repeated | {STRAY_BIAS: stray}
