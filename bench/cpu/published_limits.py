#!/usr/bin/env python3
"""Noise of bf16 against the effect of mistakes: the evidence behind the limits of `ankh3 doctor --model`.

    bench/cpu/published_limits.py [LAYERS ...]        (needs torch and transformers)

Runs transformers' T5 encoder on the tokens of src/check/published.safetensors: nano, and random
models 192 wide with LAYERS layers (48 takes half an hour). Prints for bf16, and for each mistake,
the lowest and the median cosine per residue and the relative difference to f32, over 48 evenly
spaced dimensions. Of a mistake that can be made in any layer, the layer with the smallest effect
counts.
"""

import copy
import json
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import T5Config, T5EncoderModel

ROOT = Path(__file__).parents[2]
NANO = ROOT / "models/nano"
SHAPE = ["vocab_size", "d_model", "d_kv", "d_ff", "num_heads", "layer_norm_epsilon"]
BUCKETS = ["relative_attention_num_buckets", "relative_attention_max_distance"]


def tokens():
    with safe_open(ROOT / "src/check/published.safetensors", "np") as file:
        return json.loads(file.metadata()["ElnaggarLab/ankh3-large"])["token_ids"]


def model(layers):
    """nano, or a random model of its shape with so many layers."""
    shape = json.loads((NANO / "config.json").read_text())
    fields = {key: shape[key] for key in SHAPE + BUCKETS}
    config = T5Config(
        **fields,
        num_layers=layers or shape["num_layers"],
        feed_forward_proj="gated-silu",
        dropout_rate=0,
    )
    config.dense_act_fn = "silu"
    torch.manual_seed(1)
    made = T5EncoderModel(config).eval()
    if not layers:
        weights = load_file(NANO / "model.safetensors")
        made.load_state_dict({k: v.float() for k, v in weights.items()}, strict=False)
    return made


@torch.no_grad()
def run(model, sequences, skip=0, tail=1):
    rows = [model(input_ids=torch.tensor([ids])).last_hidden_state[0].float() for ids in sequences]
    return torch.cat([row[skip : len(row) - tail] for row in rows])


def say(what, got, expected):
    width = expected.shape[1]
    chosen = torch.arange(48) * width // 48
    got, expected = got[:, chosen], expected[:, chosen]
    cosines = torch.nn.functional.cosine_similarity(got, expected, dim=1)
    relative = (got - expected).norm() / expected.norm()
    print(f"{what:<34} {cosines.min():.5f} {cosines.median():.5f} {relative:.4f}", flush=True)
    return relative.item()


def zeroed(weights, model, ids):
    """The output with these weights at 0."""
    saved = [weight.detach().clone() for weight in weights]
    for weight in weights:
        weight.data.zero_()
    got = run(model, ids)
    for weight, value in zip(weights, saved):
        weight.data.copy_(value)
    return got


def smallest(what, outputs, expected):
    """The output that is nearest to the expected one."""
    nearest = min(outputs, key=lambda got: (got - expected).norm().item())
    say(what, nearest, expected)


def exchanged(blocks, index, model, ids):
    """The output with two neighbouring layers in the other order."""
    pair = [copy.deepcopy(block.state_dict()) for block in blocks[index : index + 2]]
    bias = "layer.0.SelfAttention.relative_attention_bias.weight"
    for block, state in zip(blocks[index : index + 2], reversed(pair)):
        block.load_state_dict({k: v for k, v in state.items() if k != bias}, strict=False)
    got = run(model, ids)
    for block, state in zip(blocks[index : index + 2], pair):
        block.load_state_dict(state)
    return got


def measure(model, ids):
    expected = run(model, ids)
    say("bf16", run(copy.deepcopy(model).bfloat16(), ids), expected)
    for name, token in [("[NLU]", 4), ("[S2S]", 5)]:
        say(f"prefix {name}", run(model, [[token, *row] for row in ids], skip=1), expected)
    say("no </s>", run(model, [row[:-1] for row in ids], tail=0), expected)
    swap = {7: 15, 15: 7}
    say("L and I exchanged", run(model, [[swap.get(i, i) for i in row] for row in ids]), expected)
    blocks = list(model.encoder.block)
    out = [block.layer[0].SelfAttention.o.weight for block in blocks]
    down = [block.layer[1].DenseReluDense.wo.weight for block in blocks]
    smallest("one layer left out", [zeroed(w, model, ids) for w in zip(out, down)], expected)
    smallest("one attention left out", [zeroed([w], model, ids) for w in out], expected)
    smallest("one feed-forward left out", [zeroed([w], model, ids) for w in down], expected)
    pairs = [exchanged(blocks, i, model, ids) for i in range(len(blocks) - 1)]
    smallest("two neighbours exchanged", pairs, expected)
    norm = model.encoder.final_layer_norm.weight
    saved = norm.detach().clone()
    norm.data.fill_(1)
    say("final norm without its weights", run(model, ids), expected)
    norm.data.copy_(saved)
    bias = blocks[0].layer[0].SelfAttention.relative_attention_bias.weight
    say("no position bias", zeroed([bias], model, ids), expected)
    for block in blocks:
        block.layer[1].DenseReluDense.act = torch.nn.GELU(approximate="tanh")
    say("gelu for silu", run(model, ids), expected)


def main():
    torch.set_num_threads(2)
    ids = tokens()
    for layers in [0, *map(int, sys.argv[1:])]:
        print(f"{'nano' if not layers else f'random, {layers} layers'}: lowest, median, relative")
        measure(model(layers), ids)


if __name__ == "__main__":
    main()
