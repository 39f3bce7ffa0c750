"""An interpolated n-gram model of residues, and what it says of masked ones when both sides are known.

Smoothing is Witten and Bell's (IEEE Trans. Inf. Theory 37, 1991): P(x | h) = (c(h x) + t(h) P(x | h')) / (c(h) + t(h)), where h' is h without its
first symbol, c counts and t(h) is the number of different symbols seen behind h; below the unigram every symbol is equally likely.
"""

import numpy as np

RESIDUES = "ACDEFGHIKLMNPQRSTVWYXBUZO"
# Symbols around a sequence: the one before its first residue and the one behind its last.
BEGIN, END = len(RESIDUES), len(RESIDUES) + 1
SYMBOLS = len(RESIDUES) + 2

_CODES = np.full(256, RESIDUES.index("X"), np.uint8)
for _number, _letter in enumerate(RESIDUES):
    _CODES[ord(_letter)] = _CODES[ord(_letter.lower())] = _number


def encode(text):
    """Residues as numbers; a letter that is none counts as X."""
    return _CODES[np.frombuffer(text, np.uint8)]


class Model:
    """P(symbol | the `order - 1` symbols before it); `table` has one axis a symbol, the last is the one foretold."""

    def __init__(self, sequences, order):
        self.order = order
        counts = count(sequences, order)
        self.table = np.full(SYMBOLS, 1 / (SYMBOLS - 1))
        # Nothing foretells the begin of a sequence.
        self.table[BEGIN] = 0
        for length in range(1, order + 1):
            # Every order's counts are sums over the longest, but for the first symbol's axis of what was before.
            now = counts.sum(axis=tuple(range(order - length))).astype(np.float64)
            seen = now.sum(-1, keepdims=True)
            kinds = (now > 0).sum(-1, keepdims=True)
            weight = np.where(seen > 0, seen + kinds, 1)
            lower = np.broadcast_to(self.table, now.shape)
            self.table = np.where(seen > 0, (now + kinds * lower) / weight, lower)

    def of_residues(self):
        """`table` given that the next symbol is a residue."""
        residues = self.table[..., : len(RESIDUES)]
        return residues / residues.sum(-1, keepdims=True)

    def after(self, residues):
        """P(residue | residues before it) at every position: `(length, 25)`. No mass goes to the end, for only residues are judged."""
        history = np.concatenate([np.full(self.order - 1, BEGIN, np.uint8), residues])
        contexts = tuple(history[shift : shift + len(residues)] for shift in range(self.order - 1))
        return np.broadcast_to(self.of_residues()[contexts], (len(residues), len(RESIDUES)))

    def between(self, residues, masked, whole):
        """P(residue | residues before it and those behind it that are not masked) for every position of `masked`, exactly, for order 3.

        The posterior of a Markov chain: P(x | before) times what the symbols behind say of x, masked ones summed over. `whole`: the sequence
        ends where `residues` do; else what follows is unknown.
        """
        assert self.order == 3
        # message[a, b]: the probability of all that is known behind a position, if it holds b and the one before it a.
        if whole:
            message = self.table[:, :, END].copy()
        else:
            message = np.ones((SYMBOLS, SYMBOLS))
        forward = self.after(residues)
        history = np.concatenate([np.full(2, BEGIN, np.uint8), residues])
        is_masked = np.zeros(len(residues), bool)
        is_masked[masked] = True
        found = {}
        for at in range(len(residues) - 1, -1, -1):
            before, here = history[at + 1], history[at + 2]
            if is_masked[at]:
                posterior = forward[at] * message[before, : len(RESIDUES)]
                found[at] = posterior / posterior.sum()
                message = np.einsum("abc,bc->ab", self.table[:, :, : len(RESIDUES)], message[:, : len(RESIDUES)])
            else:
                message = self.table[:, :, here] * message[None, :, here]
            message /= message.max()
        return np.array([found[at] for at in masked])


def count(sequences, order):
    """How often each run of `order` symbols occurs, sequences surrounded by their ends."""
    size = SYMBOLS**order
    counts = np.zeros(size, np.int64)
    pending, waiting = [], 0
    for residues in sequences:
        pending += [np.full(order - 1, BEGIN, np.uint8), residues, np.array([END], np.uint8)]
        waiting += len(residues)
        if waiting > 4_000_000:
            counts += _count(np.concatenate(pending), order, size)
            pending, waiting = [], 0
    if pending:
        counts += _count(np.concatenate(pending), order, size)
    return counts.reshape((SYMBOLS,) * order)


def _count(symbols, order, size):
    if order > 1:
        keys = np.zeros(len(symbols) - order + 1, np.int64)
    else:
        keys = np.zeros(len(symbols), np.int64)
    for shift in range(order):
        keys = keys * SYMBOLS + symbols[shift : shift + len(keys)]
    # A run whose last symbol is a begin foretells nothing.
    return np.bincount(keys[keys % SYMBOLS != BEGIN], minlength=size)
