"""What transformers' ConvBertLayer computes and learns, and plain NumPy forms of the corrections and measures of contacts.

    probe/convbert.safetensors   weights, input, output, gradients of Σ output · probe (float64 results rounded to float32)
    probe/contacts.json          random maps and natives with their APC and precisions
    probe/jacobian.safetensors   a whole Jacobian of the tiny checkpoint `untied-gated-silu` for a given set of rounds, and the contact map made of it

Run it through ./regenerate.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from transformers import ConvBertConfig
from transformers.models.convbert.modeling_convbert import ConvBertLayer

import reference
from compare import compare_tensors

HERE = Path(__file__).resolve().parent
WIDTH, LENGTH = 16, 21
PROTEIN = "MKTAYIAKQRX"
ALPHABET = "ACDEFGHIKLMNPQRSTVWY"
# Ankh3's ids, as tests/golden/make_scores.py has them.
IDS = dict(zip("LAGSVERTIDPKNFQYHMCW", range(7, 27))) | {"X": 27}
NLU, EOS, START = 4, 1, 0
ROUNDS = [
    {"masked": [0, 3, 7], "substituted": [1, 2, 4, 5, 6, 8, 9, 10]},
    {"masked": [1, 9], "substituted": [0, 2, 3, 10]},
]


def main():
    check = reference.begin(__doc__)
    files = {"convbert.safetensors": convbert(), "jacobian.safetensors": jacobian()}
    text = json.dumps(contacts()) + "\n"
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) if check else HERE / "probe"
        target.mkdir(exist_ok=True)
        for name, tensors in files.items():
            save_file(tensors, target / name)
        (target / "contacts.json").write_text(text)
        if check:
            for name in files:
                compare_tensors(load_file(HERE / "probe" / name), load_file(target / name), name)
            assert json.loads((HERE / "probe/contacts.json").read_text()) == json.loads(text)
            print("probe goldens regenerated and equal")


def convbert():
    torch.manual_seed(3)
    config = ConvBertConfig(
        hidden_size=WIDTH,
        num_attention_heads=4,
        head_ratio=2,
        intermediate_size=WIDTH // 2,
        conv_kernel_size=7,
        num_groups=1,
        hidden_dropout_prob=0.2,
        attention_probs_dropout_prob=0.1,
        layer_norm_eps=1e-12,
    )
    config._attn_implementation = "eager"
    layer = ConvBertLayer(config).double().eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            # Every weight matters: none is zero, none is one.
            parameter.copy_((0.4 * torch.randn_like(parameter) + (parameter.mean() > 0.9).double()).float().double())
    x = torch.randn(1, LENGTH, WIDTH).float().double()
    probe = torch.randn(LENGTH, WIDTH).float().double()
    out = layer(x)
    out = out[0] if isinstance(out, tuple) else out
    out = out.reshape(LENGTH, WIDTH)
    (out * probe).sum().backward()
    tensors = {"input": x[0], "output": out.detach(), "probe": probe}
    for name, parameter in layer.named_parameters():
        tensors[f"convbert.{name}"] = parameter.detach()
        tensors[f"gradient.convbert.{name}"] = parameter.grad
    return {name: value.numpy().astype(np.float32) for name, value in tensors.items()}


def apc(a):
    return a - a.sum(1, keepdims=True) * a.sum(0, keepdims=True) / a.sum()


def contacts():
    """Maps of several lengths with their correction, and precisions counted the slow way."""
    rng = np.random.default_rng(5)
    cases = []
    for length in (7, 30, 61):
        values = rng.uniform(0, 1, (length, length)).round(3)
        places = rng.normal(0, 5, (length, 3)).round(3).tolist()
        for missing in rng.choice(length, length // 6, replace=False):
            places[missing] = None
        corrected = apc(values + values.T)
        precisions = {}
        for name, near, far in (("short", 6, 12), ("medium", 12, 24), ("long", 24, length)):
            pairs = [
                (-corrected[i, j], i, j, np.linalg.norm(np.subtract(places[i], places[j])) < 8)
                for i in range(length)
                for j in range(i + 1, length)
                if near <= j - i < far and places[i] is not None and places[j] is not None
            ]
            for part in (1, 2, 5):
                top = sorted(pairs)[: max(1, sum(p is not None for p in places) // part)]
                precisions[f"{name} {part}"] = sum(bool(p[3]) for p in top) / len(top) if top else None
        cases.append(
            {"values": values.ravel().tolist(), "places": places, "corrected": corrected.ravel().tolist(), "precisions": precisions}
        )
    return cases


def jacobian():
    """log p(b at j | a at i) from the encoder-decoder asked copy by copy, then the published post-processing on the whole array."""
    model = reference.load(HERE / "untied-gated-silu", torch.float64)
    length, kinds = len(PROTEIN), len(ALPHABET)
    columns = [IDS[letter] for letter in ALPHABET]
    whole = np.zeros((length, kinds, length, kinds))
    for number, case in enumerate(ROUNDS):
        for i in case["substituted"]:
            for a in range(kinds):
                encoder = [IDS[letter] for letter in PROTEIN]
                encoder[i] = columns[a]
                decoder = [START]
                for k, j in enumerate(case["masked"]):
                    if k > 0:
                        decoder.append(IDS[PROTEIN[case["masked"][k - 1]]])
                    encoder[j] = 255 - k
                    decoder.append(255 - k)
                logits = reference.decoder_outputs(model, [NLU, *encoder, EOS], decoder)["logits"]
                for k, j in enumerate(case["masked"]):
                    row = logits[1 + 2 * k, columns]
                    whole[i, a, j] = row - row.max() - np.log(np.exp(row - row.max()).sum())
    centred = whole.copy()
    for axis in range(4):
        centred -= centred.mean(axis, keepdims=True)
    norms = np.sqrt((centred**2).sum((1, 3)))
    np.fill_diagonal(norms, 0)
    corrected = apc(norms)
    return {
        "jacobian": whole.astype(np.float32),
        "norms": norms.astype(np.float32),
        "map": ((corrected + corrected.T) / 2).astype(np.float32),
    }


if __name__ == "__main__":
    sys.exit(main())
