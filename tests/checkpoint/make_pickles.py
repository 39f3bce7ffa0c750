"""Makes the pickled checkpoints beside this file: a tiny T5 as `pytorch_model.bin`, whole and sharded.

    python -m venv env && env/bin/pip install torch==2.13.0 numpy && env/bin/python make_pickles.py

tiny.bin           13 tensors and two aliases of the embedding table: a tied state dict as torch.save writes it
tiny-0000?-of-2    the same in two shards by pytorch_model.bin.index.json, bf16
evil.bin           a pickle that would create the file `ankh3-was-executed` if anything executed it
legacy.bin         the format of PyTorch before 1.6
expected.json      sum and first value of every tensor, as torch sees them
"""

import collections
import json
import os
import pathlib
import pickle

import torch

here = pathlib.Path(__file__).parent
V, D, KV, H, F = 40, 8, 4, 3, 12  # inner width 12 differs from d_model 8
torch.manual_seed(20250520)


def attention(at, kind):
    for p in "qkv":
        yield f"{at}.{kind}.{p}.weight", torch.randn(H * KV, D)
    # Stored transposed, as conversions from Flax leave it.
    yield f"{at}.{kind}.o.weight", torch.randn(H * KV, D).T


def tensors():
    yield "shared.weight", torch.randn(V, D)
    at = "encoder.block.0.layer.0"
    yield from attention(at, "SelfAttention")
    yield f"{at}.SelfAttention.relative_attention_bias.weight", torch.randn(32, H)
    yield f"{at}.layer_norm.weight", torch.ones(D)
    both = torch.randn(2 * F, D)  # two views of one storage: an offset that is not 0
    at = "encoder.block.0.layer.1"
    yield f"{at}.DenseReluDense.wi_0.weight", both[:F]
    yield f"{at}.DenseReluDense.wi_1.weight", both[F:]
    yield f"{at}.DenseReluDense.wo.weight", torch.randn(D, F)
    yield f"{at}.layer_norm.weight", torch.ones(D)
    yield "encoder.final_layer_norm.weight", torch.ones(D)


state = collections.OrderedDict(tensors())
expected = {
    name: {"shape": list(t.shape), "sum": t.double().sum().item(), "first": t.flatten()[0].item(),
           "last": t.flatten()[-1].item()}
    for name, t in state.items()
}
(here / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")

aliased = collections.OrderedDict(state)
aliased["encoder.embed_tokens.weight"] = state["shared.weight"]
aliased["lm_head.weight"] = state["shared.weight"]
torch.save(aliased, here / "tiny.bin")

names = list(state)
parts = names[:5], names[5:]
weight_map = {}
for number, part in enumerate(parts, 1):
    file = f"pytorch_model-0000{number}-of-00002.bin"
    torch.save({name: state[name].bfloat16() for name in part}, here / file)
    weight_map |= {name: file for name in part}
(here / "pytorch_model.bin.index.json").write_text(
    json.dumps({"metadata": {}, "weight_map": weight_map}, indent=1) + "\n"
)


class Evil:
    def __reduce__(self):
        return os.system, ("touch ankh3-was-executed",)


torch.save({"shared.weight": Evil()}, here / "evil.bin")
torch.save(dict(list(state.items())[:1]), here / "legacy.bin", _use_new_zipfile_serialization=False)

config = dict(model_type="t5", architectures=["T5EncoderModel"], vocab_size=V, d_model=D, d_kv=KV, d_ff=F,
              num_layers=1, num_heads=H, feed_forward_proj="gated-gelu", relative_attention_num_buckets=32,
              pad_token_id=0, eos_token_id=1, decoder_start_token_id=0)
(here / "config.json").write_text(json.dumps(config, indent=1) + "\n")
