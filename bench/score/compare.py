"""Pseudo-likelihood speed: sites (masked residues) a second. Start it with bench/score/run."""

import argparse
import os
from pathlib import Path

from harness import CACHE, Command, Worker, checkpoint, interleave, report, versions
from proteins import RESIDUES, draw, encode, vocabulary, write_fasta

HERE = Path(__file__).parent


def main():
    arguments = options()
    model = checkpoint(arguments.model, arguments.preset)
    peers = make_peers(model, arguments)
    runs = interleave(peers, arguments.rounds, same)
    for peer in peers:
        peer.close()
    sites = sum(arguments.lengths)
    details = {
        "checkpoint": model.name,
        "work": f"log-likelihoods of random proteins of {', '.join(map(str, arguments.lengths))} residues, each residue masked in turn: {sites} sites",
        "threads": arguments.threads,
        "rounds": f"{arguments.rounds} interleaved, medians; the models' loading is not in `seconds`",
        "peers": versions(peers),
    }
    report("pseudo-likelihood", f"score-{model.name}-{arguments.threads}t", peers, runs, sites, "sites", details)


def options():
    parser = argparse.ArgumentParser(prog="bench/score/run", description=__doc__)
    parser.add_argument("--model", help="checkpoint directory; default: a random one of --preset")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 128, 256])
    return parser.parse_args()


def make_peers(model, arguments):
    words = vocabulary(model)
    proteins = draw(arguments.lengths)
    settings = {
        "model": str(model),
        "proteins": [encode(words, "[NLU]", protein) for protein in proteins],
        "sentinel": words["<extra_id_0>"],
        "standard": [words[residue] for residue in RESIDUES],
    }
    fasta = write_fasta(CACHE / "score.fasta", proteins)

    def huggingface(name, dtype, copies):
        return Worker(name, HERE / "huggingface.py", settings | {"dtype": dtype, "copies": copies}, arguments.threads)

    def ankh3(form, *options):
        output = CACHE / f"score-{form}.tsv"
        command = ["score", "--model", str(model), *options, "-o", str(output), str(fasta)]
        return Command(f"ankh3 {form}", command, arguments.threads, lambda: read_scores(output))

    return [
        huggingface("HF f32, one copy at a time", "float32", 1),
        huggingface("HF f32, 8 copies", "float32", 8),
        huggingface("HF bf16, 8 copies", "bfloat16", 8),
        ankh3("f32"),
        ankh3("bf16", "--dtype", "bf16"),
    ]


def read_scores(path):
    header, *rows = (line.split("\t") for line in path.read_text().splitlines())
    column = header.index("log_likelihood")
    return [float(row[column]) for row in rows]


def same(reference, name, outcome):
    """Every peer scores as many proteins; those in f32 find the same log-likelihoods."""
    if len(outcome) != len(reference):
        raise SystemExit(f"{name}: {len(outcome)} proteins")
    for own, first in zip(outcome, reference):
        tolerance = 2e-5 if "f32" in name else 2e-2
        if abs(own - first) > tolerance * abs(first):
            raise SystemExit(f"{name}: log-likelihood {own} for the first peer's {first}: not the same work")


if __name__ == "__main__":
    main()
