"""Held-out perplexity of n-gram models on the very examples that `ankh3 pretrain` evaluates on. Start it with bench/baselines/run."""

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import zstandard
from check import check
from ngrams import RESIDUES, Model, encode

RESULTS = Path(__file__).resolve().parents[1] / "results"


def main():
    arguments = options()
    check()
    print("reading the held-out examples", file=sys.stderr)
    tasks, longest = held_out(arguments)
    print(f"fitting on {arguments.train}", file=sys.stderr)
    sequences = list(fasta(arguments.train))
    started = time.perf_counter()
    models = {order: Model(sequences, order) for order in range(1, arguments.order + 1)}
    print(f"fitted in {time.perf_counter() - started:.0f} s", file=sys.stderr)

    figures = {}
    for task, examples in tasks.items():
        for order, model in models.items():
            figures[task, f"{order}-gram"] = judge(model, examples, longest, Model.after)
        if task.startswith("masking"):
            figures[task, "3-gram, both sides"] = judge(models[3], examples, longest, None)
    report(arguments, sequences, figures)


def options():
    parser = argparse.ArgumentParser(prog="bench/baselines/run", description=__doc__)
    parser.add_argument("--train", required=True, help="the training data: FASTA, plain or zstd")
    parser.add_argument("--valid", required=True, help="the held-out FASTA")
    parser.add_argument("--recipe", help="its objectives, evaluation and data.max_residues decide the examples [default: the tool's]")
    parser.add_argument("--order", type=int, default=4, help="the longest n-gram, at least 3")
    arguments = parser.parse_args()
    if arguments.order < 3:
        parser.error("--order must be at least 3")
    return arguments


def held_out(arguments):
    """The examples by task: lists of (residues, positions judged), and the crop of long sequences."""
    recipe = [arguments.recipe] if arguments.recipe else ["--preset", "nano"]
    train = f"data.train={json.dumps([arguments.valid])}"
    # The training data is named anew so that no step's examples of the real one are made.
    small = ["--set", train, "--set", f"data.valid={json.dumps([arguments.valid])}", "--set", "steps=1"]
    small += ["--set", "schedule.warmup_steps=0", "--set", "batch.accumulation=1"]
    command = [os.environ["ANKH3"], "pretrain", *recipe, *small, "--export-examples", "-"]
    lines = subprocess.run(command, capture_output=True, text=True, check=False)
    if lines.returncode:
        raise SystemExit(lines.stderr)
    first, *rest = lines.stdout.splitlines()
    pieces = enumerate(json.loads(first)["vocabulary"])
    residue_of = {number: RESIDUES.index(piece) for number, piece in pieces if piece and piece in RESIDUES}
    tasks = defaultdict(list)
    for line in rest:
        example = json.loads(line)
        if example["split"] == "held-out":
            tasks[example["task"]].append(read(example, residue_of))
    return tasks, max(len(residues) for residues, _ in tasks[next(iter(tasks))])


def read(example, residue_of):
    """The whole sequence of an example and which of its positions are judged."""
    source, labels = example["source"][1:-1], example["labels"][:-1]
    if example["task"] == "completion":
        tokens = source + labels
        judged = np.arange(len(source), len(tokens))
    else:
        # Each sentinel of the source stands for the residues behind it in the target.
        behind, sentinel = defaultdict(list), None
        for token in labels:
            if token in residue_of:
                behind[sentinel].append(token)
            else:
                sentinel = token
        tokens, judged = [], []
        for token in source:
            filled = behind.get(token, [token])
            if token in behind:
                judged += range(len(tokens), len(tokens) + len(filled))
            tokens += filled
    return np.array([residue_of[token] for token in tokens], np.uint8), np.array(judged)


def judge(model, examples, longest, rule):
    """Perplexity and accuracy over all judged residues."""
    loss = right = count = 0
    for residues, judged in examples:
        if rule is None:
            # One of the longest was cropped there, most likely: what follows is unknown.
            probabilities = model.between(residues, judged, whole=len(residues) < longest)
        else:
            probabilities = rule(model, residues)[judged]
        truth = residues[judged]
        loss -= np.log(probabilities[np.arange(len(judged)), truth]).sum()
        right += int((probabilities.argmax(1) == truth).sum())
        count += len(judged)
    return {"perplexity": math.exp(loss / count), "loss": loss / count, "accuracy": right / count, "residues": count}


def fasta(path):
    """Sequences of a FASTA file as numbers."""
    with open(path, "rb") as file:
        data = file.read()
    if data[:4] == b"\x28\xb5\x2f\xfd":
        data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    for record in data.split(b">")[1:]:
        _, _, body = record.partition(b"\n")
        yield encode(b"".join(body.split()))


def report(arguments, sequences, figures):
    tasks = list(dict.fromkeys(task for task, _ in figures))
    models = sorted({model for _, model in figures})
    lines = [f"| perplexity a residue (accuracy) | {' | '.join(tasks)} |", "|---|" + "---:|" * len(tasks)]
    for model in models:
        cells = []
        for task in tasks:
            found = figures.get((task, model))
            cells.append(f"{found['perplexity']:.3f} ({found['accuracy']:.4f})" if found else "")
        lines.append(f"| {model} | {' | '.join(cells)} |")
    table = "\n".join(lines)
    details = {
        "training data": f"{Path(arguments.train).name}: {len(sequences)} sequences, {sum(map(len, sequences))} residues",
        "held out": f"{Path(arguments.valid).name}: " + ", ".join(f"{task} {figures[task, '1-gram']['residues']} residues" for task in tasks),
        "smoothing": "Witten-Bell, over residues alone (no mass on the end of a sequence, which favours the n-grams)",
        "n-gram": "from the residues before; a decoder has written the masked ones among them, so they are known",
        "both sides": "the 3-gram model's exact posterior given all residues before and the unmasked ones behind",
        "made with": f"numpy {np.__version__}, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}",
    }
    about = "\n".join(f"- {key}: {value}" for key, value in details.items())
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "baselines.md").write_text(f"{table}\n\n{about}\n")
    nested = defaultdict(dict)
    for (task, model), found in figures.items():
        nested[task][model] = found
    (RESULTS / "baselines.json").write_text(json.dumps({"details": details, "tasks": nested}, indent=1) + "\n")
    print(f"{table}\n\n{about}")


if __name__ == "__main__":
    main()
