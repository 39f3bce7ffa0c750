"""Makes variants/: checkpoints as people have them (other activations, tables under other names), and what transformers computes with them.

variants/tensors.safetensors   the weights of all variants, float32
variants/expected.json         for each variant its config, the tables by their names in the file, the inputs of its feed-forward block, and
                               results in float64: the encoder's output of ENCODER_IDS, and the first logits of DECODER_IDS
"""

import json
import pathlib
import sys
import tempfile

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

import reference

HERE = pathlib.Path(__file__).parent / "variants"
ENCODER_IDS = [3, 17, 5, 39, 8, 8, 21, 1]
DECODER_IDS = [0, 7, 30]
LOGITS = 6
CONFIG = {
    "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "vocab_size": 40, "d_model": 8, "d_kv": 4, "d_ff": 12,
    "num_layers": 1, "num_decoder_layers": 1, "num_heads": 3, "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 6, "feed_forward_proj": "gated-silu", "tie_word_embeddings": False,
    "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0,
}
OWN = {"shared.weight": "table", "lm_head.weight": "head"}
# The name, the changes of the config, and the tables by their names in the file.
VARIANTS = [
    ("gated-silu", {}, OWN),
    ("dense_act_fn relu wins over gated-silu", {"dense_act_fn": "relu"}, OWN),
    ("dense_act_fn silu wins over gated-gelu", {"feed_forward_proj": "gated-gelu", "dense_act_fn": "silu"}, OWN),
    ("dense_act_fn gelu_new wins over relu", {"feed_forward_proj": "relu", "dense_act_fn": "gelu_new"}, OWN),
    ("is_gated_act wins over gated-silu", {"is_gated_act": False}, OWN),
    ("gated-gelu is gelu_new", {"feed_forward_proj": "gated-gelu", "is_gated_act": True}, OWN),
    ("gated-swish", {"feed_forward_proj": "gated-swish"}, OWN),
    ("silu without a gate", {"feed_forward_proj": "silu"}, OWN),
    ("tied, shared alone", {"tie_word_embeddings": True}, {"shared.weight": "table"}),
    ("tied by null, encoder's name alone", {"tie_word_embeddings": None}, {"encoder.embed_tokens.weight": "table"}),
    ("tied, encoder's name and a copy as head", {"tie_word_embeddings": True},
     {"encoder.embed_tokens.weight": "table", "lm_head.weight": "table"}),
    ("tied, all names", {"tie_word_embeddings": True},
     {"shared.weight": "table", "encoder.embed_tokens.weight": "table", "decoder.embed_tokens.weight": "table",
      "lm_head.weight": "table"}),
    ("untied, encoder's name, own head", {}, {"encoder.embed_tokens.weight": "table", "lm_head.weight": "head"}),
    ("untied, a head equal to the table", {}, {"shared.weight": "table", "lm_head.weight": "table"}),
    ("odd buckets", {"relative_attention_num_buckets": 9, "relative_attention_max_distance": 5}, OWN),
]


def tensors():
    """All weights; a block with a gate uses wi_0 and wi_1, one without uses wi. Buckets: the first rows of the bias tables."""
    rng = np.random.default_rng(1018)
    d, inner, ff = CONFIG["d_model"], CONFIG["d_kv"] * CONFIG["num_heads"], CONFIG["d_ff"]
    made = {}

    def normal(name, shape, std):
        made[name] = (rng.standard_normal(shape) * std).astype(np.float32)

    normal("table", (CONFIG["vocab_size"], d), 1.0)
    normal("head", (CONFIG["vocab_size"], d), 0.5)
    for stack in ("encoder", "decoder"):
        blocks = ["SelfAttention"] + (["EncDecAttention"] if stack == "decoder" else [])
        for at, block in enumerate(blocks):
            for part, shape in zip("qkvo", [(inner, d)] * 3 + [(d, inner)]):
                normal(f"{stack}.block.0.layer.{at}.{block}.{part}.weight", shape, 0.4)
        normal(f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight", (9, CONFIG["num_heads"]), 1.0)
        for part in ("wi", "wi_0", "wi_1"):
            normal(f"{stack}.block.0.layer.{len(blocks)}.DenseReluDense.{part}.weight", (ff, d), 0.5)
        normal(f"{stack}.block.0.layer.{len(blocks)}.DenseReluDense.wo.weight", (d, ff), 0.5)
        for name in [f"block.0.layer.{i}.layer_norm" for i in range(len(blocks) + 1)] + ["final_layer_norm"]:
            made[f"{stack}.{name}.weight"] = rng.uniform(0.5, 1.5, d).astype(np.float32)
    return made


def is_gated(config):
    return config.get("is_gated_act", config["feed_forward_proj"].startswith("gated"))


def stored(weights, config, tables):
    """The tensors of a variant by their names in its file, as names in `tensors()`."""
    leave_out = "DenseReluDense.wi." if is_gated(config) else "DenseReluDense.wi_"
    names = {name: name for name in weights if "." in name and leave_out not in name}
    return dict(sorted((names | tables).items()))


def cut(name, values, config):
    return values[: config["relative_attention_num_buckets"]] if "relative_attention_bias" in name else values


def results(weights, config, names):
    with tempfile.TemporaryDirectory() as directory:
        place = pathlib.Path(directory)
        (place / "config.json").write_text(json.dumps(config))
        file = {name: np.ascontiguousarray(cut(name, weights[source], config)) for name, source in names.items()}
        save_file(file, place / "model.safetensors", metadata={"format": "pt"})
        model = reference.load(place, torch.float64)
    hidden = reference.encoder_states(model, ENCODER_IDS)[-1]
    logits = reference.decoder_outputs(model, ENCODER_IDS, DECODER_IDS)["logits"][:, :LOGITS]
    return {key: [float(f"{value:.8g}") for value in array.flatten()] for key, array in (("hidden", hidden), ("logits", logits))}


def main():
    check = reference.begin(__doc__)
    weights = tensors()
    variants = []
    for name, changes, tables in VARIANTS:
        config = CONFIG | changes
        names = stored(weights, config, tables)
        parts = ["wi_0", "wi_1"] if is_gated(config) else ["wi"]
        variant = {"name": name, "config": config, "tables": tables, "feed_forward": parts}
        variants.append(variant | results(weights, config, names))
    expected = {"encoder_ids": ENCODER_IDS, "decoder_ids": DECODER_IDS, "variants": variants}
    if check:
        old = json.loads((HERE / "expected.json").read_text())
        for one, other in zip(old["variants"], variants, strict=True):
            assert {**one, "hidden": 0, "logits": 0} == {**other, "hidden": 0, "logits": 0}, other["name"]
            for key in ("hidden", "logits"):
                np.testing.assert_allclose(one[key], other[key], rtol=0, atol=1e-6, err_msg=other["name"])
        committed = load_file(HERE / "tensors.safetensors")
        assert all(np.array_equal(committed[name], values) for name, values in weights.items())
    else:
        HERE.mkdir(exist_ok=True)
        save_file(weights, HERE / "tensors.safetensors")
        (HERE / "expected.json").write_text(json.dumps(expected) + "\n")
    print(f"variants: {'equal' if check else 'made'}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
