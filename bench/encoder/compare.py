"""Encoder speed on 64 ragged random proteins. Start it with bench/encoder/run."""

import argparse
import os
from pathlib import Path

import numpy as np
from harness import CACHE, Command, Worker, checkpoint, interleave, report, versions
from proteins import draw, encode, lognormal_lengths, vocabulary, write_fasta

HUGGINGFACE = Path(__file__).with_name("huggingface.py")
OPENVINO = Path(__file__).with_name("openvino_peer.py")
WAYS = {"single": "one by one, unpadded", "sorted": "sorted batches of 8", "naive": "naive batches of 8"}
PEERS = ["huggingface", "openvino"]
DTYPES = {"f32": "float32", "bf16": "bfloat16"}
# Cosine of each protein's mean embedding with the first peer's: the work must be the same to be compared.
SAME = {"f32": 0.999999, "bf16": 0.999, "int8": 0.99}


def main():
    arguments = options()
    model = checkpoint(arguments.model, arguments.preset)
    lengths = lognormal_lengths(arguments.count)
    proteins = draw(lengths)
    fasta = write_fasta(CACHE / "encoder.fasta", proteins)
    words = vocabulary(model)
    sequences = [encode(words, "[NLU]", protein) for protein in proteins]

    peers = []
    for dtype in arguments.dtypes:
        for way in arguments.ways if "huggingface" in arguments.peers else []:
            settings = {"model": str(model), "dtype": DTYPES[dtype], "way": way, "sequences": sequences}
            peers.append(Worker(f"HF {dtype}, {WAYS[way]}", HUGGINGFACE, settings, arguments.threads))
        if "openvino" in arguments.peers:
            settings = {"model": str(model), "dtype": DTYPES[dtype], "sequences": sequences}
            peers.append(Worker(f"OpenVINO {dtype}, {WAYS['single']}", OPENVINO, settings, arguments.threads))
        peers.append(ankh3(model, fasta, f"ankh3 {dtype}", ["--dtype", dtype], arguments.threads))
    peers.append(ankh3(model, fasta, "ankh3 int8", ["--weights", "int8"], arguments.threads))
    runs = interleave(peers, arguments.rounds, same)
    for peer in peers:
        peer.close()
    details = {
        "checkpoint": model.name,
        "proteins": f"{len(lengths)}, {min(lengths)}..{max(lengths)} residues, {sum(lengths)} in all",
        "threads": arguments.threads,
        "rounds": f"{arguments.rounds} interleaved, medians; the models' loading is not in `seconds`",
        "peers": versions(peers),
    }
    report("encoder", f"encoder-{model.name}-{arguments.threads}t", peers, runs, sum(lengths), "residues", details)


def options():
    parser = argparse.ArgumentParser(prog="bench/encoder/run", description=__doc__)
    parser.add_argument("--model", help="checkpoint directory; default: a random one of --preset")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=64, help="proteins")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="Hugging Face's ways to batch")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS)
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    return parser.parse_args()


def ankh3(model, fasta, name, form, threads):
    output = CACHE / f"encoder-{form[-1]}.npy"
    arguments = ["embed", "--model", str(model), "--pooling", "mean", "--format", "npy", *form]
    arguments += ["-o", str(output), str(fasta)]

    def outcome():
        return np.load(output, allow_pickle=False).astype(np.float64).tolist()

    return Command(name, arguments, threads, outcome)


def same(reference, name, outcome):
    one, other = np.array(reference), np.array(outcome)
    if one.shape != other.shape:
        raise SystemExit(f"{name}: shape {other.shape}, expected {one.shape}")
    cosine = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    needed = SAME[next((kind for kind in ("bf16", "int8") if kind in name), "f32")]
    if cosine.min() < needed:
        raise SystemExit(f"{name}: cosine {cosine.min():.6f} with the first peer, {needed} needed: not the same work")


if __name__ == "__main__":
    main()
