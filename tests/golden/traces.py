"""Greedy and beam traces of `generate`, of sources picked so that the traces are worth having and safe to ask for.

Safe: float64, float32 and weights shaken by 1e-6 all generate the same tokens, so no other arithmetic may differ. Worth having: in
one trace the greedy run ends with `</s>`, in one it does not, and in one the two length penalties choose different sequences.
"""

import copy

import numpy as np
import torch

import reference

MAX_NEW = 40
BEAMS = {"num_beams": 3, "num_return_sequences": 3, "early_stopping": False, "max_new_tokens": MAX_NEW}
RUNS = {
    "greedy": {"max_new_tokens": MAX_NEW},
    # `</s>` suppressed to the end: an exact number of tokens.
    "greedy_exact": {"max_new_tokens": MAX_NEW, "min_new_tokens": MAX_NEW},
    "beam_penalty_1.0": BEAMS | {"length_penalty": 1.0},
    "beam_penalty_0.6": BEAMS | {"length_penalty": 0.6},
}
SOURCE_LENGTHS = (9, 33, 140)
MIN_MARGIN = 1e-3
TRIES = 400


def generation_traces(exact, single, config, seed):
    shaken = shake(exact, seed)
    rng = np.random.default_rng(seed)
    wanted = {"ends": ends, "goes_on": goes_on, "penalty_matters": penalty_matters}
    traces = []
    for (purpose, fits), length in zip(wanted.items(), SOURCE_LENGTHS, strict=True):
        for _ in range(TRIES):
            source = rng.integers(2, config["vocab_size"], length - 1).tolist() + [reference.EOS]
            trace = {"purpose": purpose, "source_ids": source, "runs": {}}
            if complete(trace, exact, (single, shaken), fits):
                traces.append(trace)
                break
        else:
            raise AssertionError(f"no source found where: {purpose}")
    return traces


def complete(trace, exact, others, fits):
    """Fills `runs`; false where the trace is not what is sought or hangs by a hair."""
    for name, settings in RUNS.items():
        tokens, scores, margin = reference.generate(exact, trace["source_ids"], **settings)
        if margin is not None and margin < MIN_MARGIN:
            return False
        trace["runs"][name] = {"settings": settings, "tokens": tokens, "scores": scores}
        if name == "greedy" and trace["purpose"] != "penalty_matters" and not fits(trace):
            return False
    return fits(trace) and all(
        reference.generate(other, trace["source_ids"], **settings)[0] == trace["runs"][name]["tokens"]
        for other in others
        for name, settings in RUNS.items()
    )


def ends(trace):
    tokens = trace["runs"]["greedy"]["tokens"][0]
    return tokens[-1] == reference.EOS and len(tokens) >= 5


def goes_on(trace):
    """Never ends, nor merely repeats itself."""
    tokens = trace["runs"]["greedy"]["tokens"][0]
    return reference.EOS not in tokens and len(set(tokens)) >= 8


def penalty_matters(trace):
    best = [trace["runs"][name]["tokens"][0] for name in RUNS if name.startswith("beam")]
    return best[0] != best[1]


def shake(model, seed):
    shaken = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in shaken.parameters():
            parameter *= 1 + 1e-6 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return shaken
