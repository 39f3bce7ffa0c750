"""The n-gram model against sums over every possibility, on tiny sequences of four letters. bench/baselines/run begins with it."""

import itertools

import numpy as np
from ngrams import BEGIN, END, RESIDUES, SYMBOLS, Model


def check():
    random = np.random.default_rng(0)
    sequences = [random.integers(0, 4, random.integers(3, 12)).astype(np.uint8) for _ in range(50)]
    unigrams(sequences)
    model = Model(sequences, 3)
    assert np.allclose(model.table.sum(-1), 1)
    residues = np.array([0, 1, 2, 3, 1, 0], np.uint8)
    for whole in (True, False):
        for masked in ([0], [2, 3], [1, 2, 5], [0, 4, 5]):
            found = model.between(residues, np.array(masked), whole)
            for number, at in enumerate(masked):
                expected = posterior(model, residues, at, masked[number + 1 :], whole)
                assert np.allclose(found[number], expected, rtol=1e-9), (masked, at)


def unigrams(sequences):
    """Witten and Bell's formula written out."""
    counts = np.bincount(np.concatenate(sequences), minlength=SYMBOLS).astype(float)
    counts[END] = len(sequences)
    lower = np.full(SYMBOLS, 1 / (SYMBOLS - 1))
    lower[BEGIN] = 0
    kinds = (counts > 0).sum()
    assert np.allclose(Model(sequences, 1).table, (counts + kinds * lower) / (counts.sum() + kinds))


def posterior(model, residues, at, later, whole):
    """P(residue at `at` | all others but those at `later`): the joint probability of every filling, added up."""
    found = np.zeros(len(RESIDUES))
    for residue in range(len(RESIDUES)):
        for filling in itertools.product(range(len(RESIDUES)), repeat=len(later)):
            filled = residues.copy()
            filled[at] = residue
            filled[later] = filling
            symbols = [BEGIN, BEGIN, *filled] + [END] * whole
            found[residue] += np.prod([model.table[tuple(symbols[i - 2 : i + 1])] for i in range(2, len(symbols))])
    return found / found.sum()


if __name__ == "__main__":
    check()
