"""How far two results are apart, always relative to the largest magnitude of the tensor that is right."""

import json

import numpy as np
from safetensors.numpy import load_file

# transformers keeps the variance of its norms in float32 even in a float64 model; true float64 differs by about 1e-7.
LIMITS = {"float32": 1e-5, "NumPy": 2e-6, "padded batch": 1e-6}
# Between machines: another BLAS, another number of cores.
SAME = 1e-6


def relative_difference(value, right):
    scale = np.abs(right).max()
    return float(np.abs(value - right).max() / scale) if scale else float(np.abs(value).max())


class Agreement:
    """Collects the largest difference of each kind and fails at once where one is too large."""

    def __init__(self):
        self.worst = {}

    def add(self, name, values, rights):
        if isinstance(values, np.ndarray):
            values, rights = [values], [rights]
        limit = next(limit for end, limit in LIMITS.items() if name.endswith(end))
        for value, right in zip(values, rights, strict=True):
            difference = relative_difference(value, right)
            assert difference <= limit, f"{name}: {difference:.2e} > {limit:.0e}"
            self.worst[name] = max(self.worst.get(name, 0.0), difference)

    def report(self):
        return {name: float(f"{difference:.2e}") for name, difference in sorted(self.worst.items())}


def compare_tensors(old, new, name):
    """Raises where two files of tensors are not the same; returns the largest difference."""
    assert old.keys() == new.keys(), f"{name}: other tensors"
    worst = 0.0
    for key, right in old.items():
        difference = relative_difference(new[key].astype(np.float64), right.astype(np.float64))
        assert difference <= SAME, f"{name}: {key} differs by {difference:.1e}"
        worst = max(worst, difference)
    return worst


def compare_directories(committed, made, kinds):
    """The largest difference between committed and remade goldens; raises where they are not the same goldens."""
    worst = 0.0
    for kind in kinds:
        for name in ("config.json", "model.safetensors"):
            assert (committed / kind / name).read_bytes() == (made / kind / name).read_bytes(), f"{kind}/{name} differs"
        for name in ("expected.safetensors", "gradients.safetensors"):
            old, new = load_file(committed / kind / name), load_file(made / kind / name)
            worst = max(worst, compare_tensors(old, new, f"{kind}/{name}"))
        old, new = (json.loads((root / kind / "expected.json").read_text()) for root in (committed, made))
        for one, other in zip(old["traces"], new["traces"], strict=True):
            assert one["source_ids"] == other["source_ids"], f"{kind}: other sources"
            for how in one["runs"]:
                assert one["runs"][how]["tokens"] == other["runs"][how]["tokens"], f"{kind}: {how} generates other tokens"
    return worst
