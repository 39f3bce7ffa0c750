"""Writes tests/golden/<kind>/scores.json: pseudo-likelihoods and filled masks as transformers computes them, for the kinds of VOCABULARIES.

    rows      log-probabilities of the 20 residues at every position, each masked alone: decoder input [start, <extra_id_0>]
    forced    the same at several positions masked in one copy, the decoder fed the sequence's own residues between the sentinels
    left      masks filled greedily from left to right in one decoder sequence
    certain   masks filled one at a time, the most probable first, each time encoded anew
    rounds    more masks than sentinels: the later ones stand as X until their round

Values are float64 results; float32 must agree with them before anything is written. Every choice is clear: the second best residue is well below the best.
Run it with the Python of ./regenerate.
"""

import json
import sys
from pathlib import Path

import torch

import reference

HERE = Path(__file__).resolve().parent
RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
ANKH3 = "<pad> </s> <unk> O [NLU] [S2S] [NLG] L A G S V E R T I D P K N F Q Y H M C W X U B Z".split()
ANKH_V1 = "<pad> </s> <unk> A L G V S R E D T I P K F Q N Y M H W C X B O U Z".split()
# kind: (pieces before the sentinels, size of the vocabulary, prefix)
VOCABULARIES = {
    "untied-gated-silu": (ANKH3, 256, ["[NLU]"]),
    "tied-gated-gelu": (ANKH_V1, 144, []),
}
SEQUENCE = "MKTAYIAKQRXISFVKSHFSRQUEERLGLIEVQ"
FORCED = [2, 7, 8, 20, 31]
MASKED = "MK?AYI??QRXIS?VKSHF?"
MARGIN = 1e-3


class Model:
    """A checkpoint with a vocabulary: residues in, log-probabilities of residues out."""

    def __init__(self, kind, dtype):
        pieces, self.size, self.prefix = VOCABULARIES[kind]
        self.ids = {piece: i for i, piece in enumerate(pieces)}
        self.sentinels = self.size - len(pieces)
        self.model = reference.load(HERE / kind, dtype)

    def sentinel(self, k):
        assert k < self.sentinels
        return self.size - 1 - k

    def encoder_input(self, residues, asked):
        """`?` at the positions in `asked` are sentinels in that order, any other `?` is an unknown residue."""
        ids = [self.ids[piece] for piece in self.prefix]
        for position, residue in enumerate(residues):
            at = self.sentinel(asked.index(position)) if position in asked else self.ids["X" if residue == "?" else residue]
            ids.append(at)
        return [*ids, reference.EOS]

    def log_probs(self, source, target):
        """Of the residues, after the last token of `target`."""
        logits = torch.from_numpy(reference.decoder_outputs(self.model, source, target)["logits"][-1]).double()
        return torch.log_softmax(logits[[self.ids[residue] for residue in RESIDUES]], 0).tolist()

    def ask(self, residues, asked, chosen=None):
        """Rows at the positions `asked`, the decoder fed `chosen(position, row)` between the sentinels."""
        source = self.encoder_input(residues, asked)
        target, rows = [reference.START], []
        for k, position in enumerate(asked):
            target.append(self.sentinel(k))
            rows.append(self.log_probs(source, target))
            target.append(self.ids[chosen(position, rows[-1])])
        return rows


def best(row):
    """The most probable residue; fails where it is not clearly so."""
    first, second = sorted(row, reverse=True)[:2]
    assert first - second > MARGIN, "two residues are nearly as probable; choose another sequence"
    return RESIDUES[row.index(first)]


def greedy(_, row):
    return best(row)


def pseudo_likelihood(model):
    own = lambda position, _: SEQUENCE[position]
    standard = [i for i, residue in enumerate(SEQUENCE) if residue in RESIDUES]
    rows = [model.ask(SEQUENCE, [i], own)[0] for i in standard]
    return {
        "sequence": SEQUENCE,
        "positions": standard,
        "rows": rows,
        "log_likelihood": sum(row[RESIDUES.index(SEQUENCE[i])] for i, row in zip(standard, rows)),
        "forced": {"positions": FORCED, "rows": model.ask(SEQUENCE, FORCED, own)},
    }


def open_sites(residues):
    return [i for i, residue in enumerate(residues) if residue == "?"]


def put(residues, position, residue):
    return residues[:position] + residue + residues[position + 1 :]


def fill_left(model, residues):
    sites = []
    while asked := open_sites(residues)[: model.sentinels]:
        for position, row in zip(asked, model.ask(residues, asked, greedy)):
            sites.append((position, row))
            residues = put(residues, position, best(row))
    return residues, sites


def fill_certain(model, residues):
    sites = []
    while asked := open_sites(residues)[: model.sentinels]:
        rows = model.ask(residues, asked, greedy)
        ranked = sorted(zip(asked, rows), key=lambda site: max(site[1]), reverse=True)
        assert len(ranked) < 2 or max(ranked[0][1]) - max(ranked[1][1]) > 1e-5, "two sites are equally certain"
        position, row = ranked[0]
        sites.append((position, row))
        residues = put(residues, position, best(row))
    return residues, sites


def filled(masked, result, whole):
    residues, sites = result
    found = {"masked": masked, "filled": residues, "positions": [position for position, _ in sites]}
    return found | ({"rows": [row for _, row in sites]} if whole else {"best": [max(row) for _, row in sites]})


def scores(kind, dtype):
    model = Model(kind, dtype)
    many = "MK" + "?" * (model.sentinels + 3) + "QR"
    return pseudo_likelihood(model) | {
        "prefix": "".join(model.prefix),
        "left": filled(MASKED, fill_left(model, MASKED), True),
        "certain": filled(MASKED, fill_certain(model, MASKED), True),
        "rounds": filled(many, fill_left(model, many), False),
    }


def leaves(value):
    """All leaves of a tree, in order."""
    if isinstance(value, dict):
        return [leaf for key in value for leaf in leaves(value[key])]
    if isinstance(value, list):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def differ(a, b):
    """The largest difference of log-probabilities, relative to the largest magnitude; words and positions must be equal."""
    pairs = list(zip(leaves(a), leaves(b), strict=True))
    assert all(x == y for x, y in pairs if not isinstance(y, float)), "other residues were chosen"
    pairs = [(x, y) for x, y in pairs if isinstance(y, float)]
    # The sums are as exact as their terms.
    largest = max(abs(y) for _, y in pairs if y not in (a["log_likelihood"], b["log_likelihood"]))
    return max(abs(x - y) / max(largest, abs(y)) for x, y in pairs)


def shortened(value):
    """Nine significant digits: more than float32 has."""
    if isinstance(value, dict):
        return {key: shortened(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shortened(item) for item in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


def main():
    check = reference.begin(__doc__)
    for kind in VOCABULARIES:
        exact = shortened(scores(kind, torch.float64))
        assert differ(scores(kind, torch.float32), exact) < 2e-5
        path = HERE / kind / "scores.json"
        if check:
            assert differ(json.loads(path.read_text()), exact) < 1e-8, path
        else:
            path.write_text(json.dumps(exact) + "\n")
        print(f"{kind}: {'equal' if check else 'made'}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
