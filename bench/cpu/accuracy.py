"""What bf16 and int8 cost in exactness: cosine of every residue's embedding with f32's, and the change of perplexities. Start it with bench/cpu/accuracy."""

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

FORMS = {"f32": [], "bf16": ["--dtype", "bf16"], "int8": ["--weights", "int8"]}


def main():
    parser = argparse.ArgumentParser(prog="bench/cpu/accuracy", description=__doc__)
    parser.add_argument("model", help="a checkpoint directory; numbers of a random one say little")
    parser.add_argument("fasta")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {name: measure(arguments, form, Path(folder) / name) for name, form in FORMS.items()}
    reference = found["f32"]
    print("| weights | cosine a residue: mean | lowest 1 % | lowest | pseudo-perplexity, mean (largest change) | completion perplexity, mean (largest change) |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, (embeddings, pseudo, completion) in found.items():
        cosine = np.concatenate([cosines(reference[0][key], embeddings[key]) for key in embeddings])
        pseudo_change = np.abs(pseudo / reference[1] - 1).max()
        completion_change = np.abs(completion / reference[2] - 1).max()
        print(
            f"| {name} | {cosine.mean():.6f} | {np.quantile(cosine, 0.01):.6f} | {cosine.min():.6f} "
            f"| {pseudo.mean():.4f} ({pseudo_change:.2%}) | {completion.mean():.4f} ({completion_change:.2%}) |"
        )


def measure(arguments, form, out):
    """Embeddings by id, pseudo-perplexities, and perplexities of half of each protein given the other half, sampled by f32 or not: the residues differ."""
    run("embed", arguments, form, "--format", "npz", "-o", f"{out}.npz", arguments.fasta)
    with np.load(f"{out}.npz", allow_pickle=False) as file:
        embeddings = {key: file[key] for key in file.files if file[key].ndim == 2}
    run("score", arguments, form, "--mask-fraction", "0.15", "--format", "jsonl", "-o", f"{out}.jsonl", arguments.fasta)
    pseudo = [json.loads(line)["pseudo_perplexity"] for line in Path(f"{out}.jsonl").read_text().splitlines()]
    run("complete", arguments, form, "-o", f"{out}.fasta", arguments.fasta)
    headers = [line for line in Path(f"{out}.fasta").read_text().splitlines() if line.startswith(">")]
    completion = [float(header.split("perplexity=")[1].split()[0]) for header in headers]
    return embeddings, np.array(pseudo), np.array(completion)


def run(command, arguments, form, *more):
    subprocess.run([os.environ["ANKH3"], "-q", command, "--model", arguments.model, *form, *more], check=True)


def cosines(one, other):
    one, other = one.astype(np.float64), other.astype(np.float64)
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


if __name__ == "__main__":
    main()
