#!/usr/bin/env python3
"""Makes published.safetensors, the selection of published values that `ankh3 doctor --model` uses.

    src/check/published.py FOLDER

FOLDER has NAME.safetensors and NAME.json of https://github.com/Synthyra/FastPLMs, tests/goldens, at
the commit below (Apache-2.0). They hold the outputs of the authors' code in bf16 on an NVIDIA H100.
The selection is 48 dimensions of every residue, as published, evenly spaced among the dimensions
that are left without the 5 % of largest and the 5 % of smallest mean square: a few dimensions far
above all others would decide every cosine.
"""

import json
import struct
import sys
from pathlib import Path

import numpy

SOURCE = "https://github.com/Synthyra/FastPLMs, tests/goldens, commit 1f782820"
LICENCE = "Apache-2.0"
NAMES = ["ankh3_large", "ankh3_xl", "ankh_base", "ankh_large", "ankh2_large"]
COUNT = 48
# The first residue's token id, and the residues in the order of their token ids.
ANKH3 = 7, "LAGSVERTIDPKNFQYHMCW"
ANKH_V1 = 3, "ALGVSREDTIPKFQNYMHWC"


def read(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__")
    types = {"I64": "<i8", "BOOL": "?", "BF16": "<u2"}
    return {
        name: numpy.frombuffer(
            data[8 + length :][slice(*entry["data_offsets"])], types[entry["dtype"]]
        ).reshape(entry["shape"])
        for name, entry in header.items()
    }


def dimensions(values):
    squares = (values.astype(numpy.float64) ** 2).mean(axis=0)
    low, high = numpy.quantile(squares, [0.05, 0.95])
    usual = numpy.flatnonzero((squares > low) & (squares < high))
    return usual[numpy.arange(COUNT) * len(usual) // COUNT]


def main(folder):
    tensors, parts, offset = {}, [], 0
    metadata = {"source": SOURCE, "licence": LICENCE}
    for name in NAMES:
        checkpoint = json.loads((folder / f"{name}.json").read_text())["checkpoint"]
        found = read(folder / f"{name}.safetensors")
        ids, residues = found["input__input_ids"], found["residue_mask"]
        lengths = found["input__attention_mask"].sum(axis=1)
        assert (residues.sum(axis=1) == lengths - 1).all()
        first, residue = ANKH3 if name.startswith("ankh3") else ANKH_V1
        bits = found["output__last_hidden_state"][residues]
        values = (bits.astype("<u4") << 16).view("<f4")
        chosen = dimensions(values)
        rows = [row[:length].tolist() for row, length in zip(ids, lengths)]
        letters = ["".join(residue[i - first] for i in row[:-1]) for row in rows]
        repo = checkpoint["repo_id"]
        metadata[repo] = json.dumps(
            {
                "revision": checkpoint["revision"],
                "width": bits.shape[1],
                "dimensions": chosen.tolist(),
                "sequences": letters,
                "token_ids": rows,
            }
        )
        part = numpy.ascontiguousarray(bits[:, chosen]).astype("<u2").tobytes()
        tensors[repo] = {
            "dtype": "BF16",
            "shape": [bits.shape[0], COUNT],
            "data_offsets": [offset, offset + len(part)],
        }
        offset += len(part)
        parts.append(part)
    header = json.dumps({"__metadata__": metadata, **tensors}).encode()
    header += b" " * (-len(header) % 8)
    target = Path(__file__).with_suffix(".safetensors")
    target.write_bytes(struct.pack("<Q", len(header)) + header + b"".join(parts))
    print(f"{target}: {target.stat().st_size} bytes", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
