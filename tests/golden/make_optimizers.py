"""Writes tests/golden/optimizers.json: a few steps of the optimizers of PyTorch and transformers on made-up weights and gradients.

Weights have names of T5. As in transformers' Trainer, norms and biases are in a group without weight decay. Values are float64 results.
Run it with the Python of ./regenerate.
"""

import json
import math
import sys
from pathlib import Path

import torch
from transformers.optimization import Adafactor
from transformers.trainer_pt_utils import get_parameter_names

import reference

HERE = Path(__file__).resolve().parent
STEPS = 4
SHAPES = {
    "shared.weight": (5, 3),
    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": (4, 2),
    "encoder.block.0.layer.1.layer_norm.weight": (3,),
    "encoder.block.0.layer.1.DenseReluDense.wo.weight": (3, 4),
    "decoder.final_layer_norm.weight": (3,),
}
# Trainer.get_decay_parameter_names
FORBIDDEN = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]


def numbers(shape, phase, size):
    count = math.prod(shape)
    return torch.tensor([size * math.sin(phase + 1.7 * i) for i in range(count)], dtype=torch.float64).reshape(shape)


class Tree(torch.nn.Module):
    """A module whose parameters have the names of SHAPES."""

    def __init__(self, values):
        super().__init__()
        for name, value in values.items():
            module = self
            *path, last = name.split(".")
            for part in path:
                if part not in module._modules:
                    module.add_module(part, torch.nn.Module())
                module = module._modules[part]
            module.register_parameter(last, torch.nn.Parameter(value))


def steps(make, decay):
    model = Tree({name: numbers(shape, phase, 0.8) for phase, (name, shape) in enumerate(SHAPES.items())})
    decayed = set(get_parameter_names(model, [torch.nn.LayerNorm], FORBIDDEN))
    named = dict(model.named_parameters())
    groups = [
        {"params": [p for name, p in named.items() if name in decayed], "weight_decay": decay},
        {"params": [p for name, p in named.items() if name not in decayed], "weight_decay": 0.0},
    ]
    optimizer = make(groups)
    for step in range(STEPS):
        for phase, parameter in enumerate(named.values()):
            parameter.grad = numbers(parameter.shape, 10 * step + phase, 0.1 * (step + 1))
        optimizer.step()
    return {name: parameter.detach().flatten().tolist() for name, parameter in named.items()}


def main():
    check = reference.begin(__doc__)
    makers = {
        "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.1, betas=(0.9, 0.99), eps=1e-8),
        "adafactor": lambda groups: Adafactor(groups, lr=0.1, scale_parameter=True, relative_step=False, warmup_init=False),
    }
    found = {
        "initial": {name: numbers(shape, phase, 0.8).flatten().tolist() for phase, (name, shape) in enumerate(SHAPES.items())},
        "gradients": [
            {name: numbers(shape, 10 * step + phase, 0.1 * (step + 1)).flatten().tolist() for phase, (name, shape) in enumerate(SHAPES.items())}
            for step in range(STEPS)
        ],
        "shapes": SHAPES,
        "runs": [
            {"kind": kind, "weight_decay": decay, "weights": steps(make, decay)} for kind, make in makers.items() for decay in (0.0, 0.3)
        ],
    }
    path = HERE / "optimizers.json"
    if not check:
        path.write_text(json.dumps(found, indent=1) + "\n")
        return
    committed = json.loads(path.read_text())
    for old, new in zip(committed["runs"], found["runs"], strict=True):
        for name, values in old["weights"].items():
            worst = max(abs(a - b) for a, b in zip(values, new["weights"][name], strict=True))
            assert worst < 1e-9, f"optimizers.json: {old['kind']} {name} differs by {worst:.1e}"
    print("optimizers.json: the same", file=sys.stderr)


main()
