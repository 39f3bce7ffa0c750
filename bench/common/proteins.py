"""Random proteins of realistic lengths, the same on every machine, and their token ids for the peers."""

import json

import numpy as np

RESIDUES = "LAGVERSTIDPKFQNYMHWC"
EOS = 1


def lognormal_lengths(count=64, median=300, shortest=30, longest=1022, seed=7):
    """`count` lengths of a log-normal with sigma 0.7, redrawn where out of bounds."""
    rng = np.random.default_rng(seed)
    lengths = []
    while len(lengths) < count:
        length = round(float(np.exp(np.log(median) + 0.7 * rng.standard_normal())))
        if shortest <= length <= longest:
            lengths.append(length)
    return lengths


def draw(lengths, seed=8):
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list(RESIDUES), length)) for length in lengths]


def write_fasta(path, proteins):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f">random_{i}\n{protein}\n" for i, protein in enumerate(proteins)))
    return path


def vocabulary(model):
    """Piece → id from the checkpoint's tokenizer.json."""
    pieces = json.loads((model / "tokenizer.json").read_text())["model"]["vocab"]
    return dict(pieces) if isinstance(pieces, dict) else {piece: i for i, (piece, _) in enumerate(pieces)}


def encode(vocabulary, prefix, protein):
    """`[prefix] + residues + </s>`, as ankh3 makes it."""
    return [vocabulary[prefix], *(vocabulary[r] for r in protein), EOS]
