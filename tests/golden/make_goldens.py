"""Writes tests/golden/<kind>/: a tiny random T5 checkpoint in Hugging Face's layout and what transformers computes with it.

    config.json, model.safetensors   the checkpoint (float32)
    expected.safetensors             hidden states, attention maps, logits, buckets
    gradients.safetensors            one batch's gradients
    expected.json                    what is in the two files, generated tokens, loss, and how far float32 may be from float64

Expected values are float64 results rounded to float32. Before anything is written, transformers in float32, a padded batch and a
second implementation in NumPy (numpy_t5.py) must agree with them. Run it through ./regenerate.
"""

import json
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file
from transformers.models.t5.modeling_t5 import T5Attention

import reference
from compare import Agreement, compare_directories
from kinds import COMMON, KINDS, draw_weights, is_tied, with_leftovers
from numpy_t5 import NumpyT5, relative_position_bucket
from traces import generation_traces

HERE = Path(__file__).resolve().parent
SEED = 20250520
# Which hidden states are kept at each length: all of them, but of the long ones, past the last bucket, a few for the file's size.
EVERY = tuple(range(COMMON["num_layers"] + 1))
LAYERS = {1: EVERY, 2: EVERY, 3: EVERY, 17: EVERY, 64: EVERY, 129: EVERY, 300: (2, EVERY[-1]), 700: (EVERY[-1],)}
ATTENTION_LENGTH = 17
# (source, target) tokens; the target counts the start token.
PAIRS = ((1, 1), (17, 9), (140, 33), (33, 300), (300, 24))
MAPS_PAIR = (17, 9)
TRAINING = ((12, 7), (40, 21), (150, 90))
BUCKET_RANGE = 400
FULL_GRADIENT = 512


def main():
    check = reference.begin(__doc__)
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) if check else HERE
        for number, kind in enumerate(KINDS):
            make(kind, SEED + 100 * number, target / kind)
            print(f"{kind}: made", flush=True)
        if check:
            worst = compare_directories(HERE, target, list(KINDS))
            print(f"goldens regenerated and equal (largest relative difference {worst:.1e})")


def make(kind, seed, directory):
    config = KINDS[kind]
    directory.mkdir(parents=True, exist_ok=True)
    weights = draw_weights(config, seed)
    (directory / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    save_file(with_leftovers(config, weights, seed), directory / "model.safetensors", metadata={"format": "pt"})

    exact = reference.load(directory, torch.float64)
    single = reference.load(directory, torch.float32)
    check_head(exact, config, weights)
    second = NumpyT5(config, weights)
    rng = np.random.default_rng(seed + 2)
    agreement = Agreement()

    expected = encoder_goldens(exact, single, second, config, rng, agreement)
    expected |= decoder_goldens(exact, single, second, config, rng, agreement)
    expected |= bucket_goldens(config)
    gradients, loss = gradient_goldens(exact, single, config, rng, agreement)
    save_file(expected, directory / "expected.safetensors")
    save_file(gradients, directory / "gradients.safetensors")
    index = {
        "made_with": {p.__name__: p.__version__.split("+")[0] for p in (torch, transformers, np)},
        "seed": seed,
        "encoder_layers": LAYERS,
        "attention_length": ATTENTION_LENGTH,
        "decoder_pairs": PAIRS,
        "decoder_maps_pair": MAPS_PAIR,
        "bucket_range": BUCKET_RANGE,
        "differences": agreement.report(),
        "loss": loss,
        "traces": generation_traces(exact, single, config, seed + 3),
        "tensors": {name: list(value.shape) for name, value in sorted(expected.items())},
        "gradients": {name: list(value.shape) for name, value in sorted(gradients.items())},
    }
    (directory / "expected.json").write_text(to_json(index))


def check_head(model, config, weights):
    """Recent transformers writes `tie_word_embeddings: true` into every T5: see that the untied head is the file's own."""
    head = model.lm_head.weight.detach().numpy()
    assert np.array_equal(head, weights["shared.weight" if is_tied(config) else "lm_head.weight"])
    assert (model.lm_head.weight is model.shared.weight) == is_tied(config)
    assert model.config.scale_decoder_outputs == is_tied(config)


def draw_ids(rng, config, length):
    """Any id but padding and `</s>`, which stands at the end where there is room."""
    ids = rng.integers(2, config["vocab_size"], length).tolist()
    if length > 1:
        ids[-1] = reference.EOS
    return ids


def encoder_goldens(exact, single, second, config, rng, agreement):
    expected, sequences, last = {}, [], []
    for length, kept in LAYERS.items():
        ids = draw_ids(rng, config, length)
        states = reference.encoder_states(exact, ids)
        agreement.add("encoder float32", reference.encoder_states(single, ids), states)
        agreement.add("encoder NumPy", second.encoder(ids), states)
        sequences.append(ids)
        last.append(states[-1])
        expected[f"encoder.{length}.input_ids"] = np.array(ids, dtype=np.int64)
        for layer in kept:
            expected[f"encoder.{length}.hidden.{layer}"] = states[layer].astype(np.float32)
    agreement.add("encoder padded batch", reference.padded_encoder(exact, sequences), last)
    ids = expected[f"encoder.{ATTENTION_LENGTH}.input_ids"].tolist()
    maps = reference.encoder_attentions(exact, ids)
    agreement.add("attention float32", reference.encoder_attentions(single, ids), maps)
    for layer, weights in enumerate(maps):
        assert weights.max() > 0.5, "attention is flat: a mistake would hide"
        expected[f"encoder.{ATTENTION_LENGTH}.attention.{layer}"] = weights.astype(np.float32)
    return expected


def decoder_goldens(exact, single, second, config, rng, agreement):
    expected = {}
    for source_length, target_length in PAIRS:
        source = draw_ids(rng, config, source_length)
        target = [reference.START] + rng.integers(2, config["vocab_size"], target_length - 1).tolist()
        out = reference.decoder_outputs(exact, source, target)
        rounded = reference.decoder_outputs(single, source, target)
        for part in out:
            agreement.add(f"decoder {part} float32", rounded[part], out[part])
        agreement.add("decoder NumPy", [second.logits(source, target)], [out["logits"]])
        name = f"decoder.{source_length}x{target_length}"
        expected[f"{name}.source_ids"] = np.array(source, dtype=np.int64)
        expected[f"{name}.target_ids"] = np.array(target, dtype=np.int64)
        expected[f"{name}.logits"] = out["logits"].astype(np.float32)
        if (source_length, target_length) == MAPS_PAIR:
            for part in ("hidden", "self_attention", "cross_attention"):
                for layer, value in enumerate(out[part]):
                    expected[f"{name}.{part}.{layer}"] = value.astype(np.float32)
    return expected


def bucket_goldens(config):
    """Buckets of the relative positions -BUCKET_RANGE ..= BUCKET_RANGE (key minus query)."""
    at = np.arange(-BUCKET_RANGE, BUCKET_RANGE + 1)
    shape = (config["relative_attention_num_buckets"], config["relative_attention_max_distance"])
    expected = {}
    for stack, bidirectional in (("encoder", True), ("decoder", False)):
        bucket = T5Attention._relative_position_bucket(torch.from_numpy(at), bidirectional, *shape).numpy()
        assert np.array_equal(bucket, relative_position_bucket(at, bidirectional, *shape)), stack
        expected[f"buckets.{stack}"] = bucket.astype(np.int64)
    return expected


def gradient_goldens(exact, single, config, rng, agreement):
    """The batch's ids, and of every parameter: the norm, a sum weighted with cos(0), cos(1), …, the first eight, small ones whole."""
    pairs = [(draw_ids(rng, config, s), draw_ids(rng, config, t)) for s, t in TRAINING]
    loss, gradients = reference.loss_and_gradients(exact, pairs)
    loss_single, rounded = reference.loss_and_gradients(single, pairs)
    assert abs(loss - loss_single) < 1e-5 * loss
    tensors = {}
    for i, (source, target) in enumerate(pairs):
        tensors[f"batch.{i}.source_ids"] = np.array(source, dtype=np.int64)
        tensors[f"batch.{i}.labels"] = np.array(target, dtype=np.int64)
    for name, gradient in gradients.items():
        agreement.add("gradients float32", [rounded[name]], [gradient])
        flat = gradient.reshape(-1)
        tensors[f"norm.{name}"] = np.array([np.linalg.norm(flat)], dtype=np.float32)
        tensors[f"cosine_sum.{name}"] = np.array([flat @ np.cos(np.arange(flat.size))], dtype=np.float32)
        tensors[f"first.{name}"] = flat[:8].astype(np.float32)
        if flat.size <= FULL_GRADIENT:
            tensors[f"full.{name}"] = gradient.astype(np.float32)
    return tensors, loss


def to_json(index):
    """Indented, but every list of numbers on one line."""
    text = json.dumps(index, indent=1)
    return re.sub(r"\[[-+.\d\se,]*\]", lambda numbers: re.sub(r"\s+", " ", numbers[0]), text) + "\n"


if __name__ == "__main__":
    sys.exit(main())
