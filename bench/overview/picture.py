"""The README's picture: a map of protein families by their embeddings, and the speed of embedding beside its peers.

picture.py EMBEDDINGS.npz FAMILIES.fasta ENCODER.md OUT.svg
"""

import re
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.manifold import TSNE
from sklearn.model_selection import LeaveOneOut, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

OURS, PEERS = "#1b6ca8", "#b8bec5"


def families(fasta: Path) -> dict[str, str]:
    """The family of each protein, from `>ID FAMILY OS=…`."""
    headers = [line[1:].split(" ", 1) for line in fasta.read_text().splitlines() if line.startswith(">")]
    return {identifier: description.split(" OS=")[0] for identifier, description in headers}


def speeds(table: Path) -> dict[str, float]:
    """Residues per CPU-second of each engine, from a table of bench/encoder."""
    rows = re.findall(r"^\| (ankh3|HF|OpenVINO) (\w+).*?\| [\d.]+ \| ([\d.]+) \|", table.read_text(), re.M)
    names = {"HF": "Hugging Face", "OpenVINO": "OpenVINO", "ankh3": "ankh3"}
    return {f"{names[engine]} {number}": float(speed) for engine, number, speed in rows}


def draw_map(axes, embeddings: np.ndarray, labels: np.ndarray) -> None:
    nearest = KNeighborsClassifier(1)
    hits = cross_val_score(nearest, embeddings, labels, cv=LeaveOneOut()).mean()
    chance = max(np.mean(labels == label) for label in labels)
    places = TSNE(perplexity=20, random_state=0, init="pca").fit_transform(embeddings)
    for label in sorted(set(labels)):
        axes.scatter(*places[labels == label].T, s=16, label=label)
    axes.set_title(f"{len(labels)} Swiss-Prot proteins, mean embeddings of nano (t-SNE)", fontsize=9)
    axes.set_xlabel(f"the nearest neighbour is of the same family for {hits:.0%} (largest family: {chance:.0%})", fontsize=8)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.legend(fontsize=6.5, loc="upper left", bbox_to_anchor=(1.0, 1.02), frameon=False)


def draw_speeds(axes, engines: dict[str, float]) -> None:
    order = sorted(engines, key=engines.get)
    values = [engines[name] for name in order]
    bars = axes.barh(order, values, color=[OURS if name.startswith("ankh3") else PEERS for name in order])
    axes.bar_label(bars, [f"{value:.0f}" for value in values], padding=3, fontsize=8)
    axes.set_title("Residues embedded per CPU-second\n61 million parameters, one thread, AMD EPYC (Zen 5)", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.set_xticks([])
    axes.margins(x=0.14)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)


def main(embeddings: Path, fasta: Path, table: Path, out: Path) -> None:
    arrays = np.load(embeddings)
    family = families(fasta)
    labels = np.array([family[identifier] for identifier in arrays])
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.5, 3.6), width_ratios=[1, 0.9])
    draw_map(left, np.stack([arrays[identifier] for identifier in arrays]), labels)
    draw_speeds(right, speeds(table))
    figure.subplots_adjust(left=0.02, right=0.98, top=0.86, bottom=0.09, wspace=1.12)
    plt.rcParams["svg.hashsalt"] = "ankh3"
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
