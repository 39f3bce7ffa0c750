"""Decoding speed: 128 new residues from 256, greedy, batch 1 and 8. Start it with bench/generate/run."""

import argparse
import os
from pathlib import Path

from harness import CACHE, Command, Worker, checkpoint, interleave, report, versions
from proteins import RESIDUES, draw, encode, vocabulary, write_fasta

HERE = Path(__file__).parent
PROMPT, NEW = 256, 128


def main():
    arguments = options()
    model = checkpoint(arguments.model, arguments.preset)
    for batch in arguments.batches:
        peers = make_peers(model, batch, arguments)
        runs = interleave(peers, arguments.rounds, same)
        for peer in peers:
            peer.close()
        details = {
            "checkpoint": model.name,
            "work": f"{batch} x {NEW} new residues from {PROMPT}, greedy, standard residues only",
            "threads": arguments.threads,
            "rounds": f"{arguments.rounds} interleaved, medians; the models' loading is not in `seconds`",
            "peers": versions(peers),
        }
        report(f"decoder, batch {batch}", f"generate-{model.name}-{batch}-{arguments.threads}t", peers, runs, batch * NEW, "residues", details)


def options():
    parser = argparse.ArgumentParser(prog="bench/generate/run", description=__doc__)
    parser.add_argument("--model", help="checkpoint directory; default: a random one of --preset")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    return parser.parse_args()


def make_peers(model, batch, arguments):
    words = vocabulary(model)
    pieces = [piece for piece, _ in sorted(words.items(), key=lambda pair: pair[1])]
    standard = {words[residue] for residue in RESIDUES}
    proteins = draw([PROMPT + NEW] * batch)
    settings = {
        "model": str(model),
        "prompts": [encode(words, "[S2S]", protein[:PROMPT]) for protein in proteins],
        "new_tokens": NEW,
        "suppressed": [i for i in range(len(pieces)) if i not in standard],
        "pieces": pieces,
        # Another checkpoint of the same name is converted anew.
        "converted": str(CACHE / f"ctranslate2-{model.name}-{int((model / 'config.json').stat().st_mtime)}"),
    }
    fasta = write_fasta(CACHE / f"generate-{batch}.fasta", proteins)

    def huggingface(name, dtype):
        return Worker(name, HERE / "huggingface.py", settings | {"dtype": dtype}, arguments.threads)

    def ctranslate(name, compute_type):
        return Worker(name, HERE / "ctranslate.py", settings | {"compute_type": compute_type}, arguments.threads)

    def ankh3(form, *options):
        output = CACHE / f"generate-{form}-{batch}.fasta"
        # Whole records of 384 residues go in; the first 256 are the prompt, the length stays.
        command = ["complete", "--model", str(model), "--keep", str(PROMPT), "--length", "same", *options]
        command += ["--output-part", "completion", "-o", str(output), str(fasta)]
        return Command(f"ankh3 {form}", command, arguments.threads, lambda: read_completions(output, words))

    return [
        huggingface("HF f32", "float32"),
        huggingface("HF bf16", "bfloat16"),
        ctranslate("CTranslate2 f32", "float32"),
        ctranslate("CTranslate2 int8", "int8"),
        ankh3("f32"),
        ankh3("bf16", "--dtype", "bf16"),
        ankh3("int8", "--weights", "int8"),
    ]


def read_completions(path, words):
    """Token ids of each record's completion."""
    records = path.read_text().split(">")[1:]
    return [[words[residue] for residue in "".join(record.splitlines()[1:])] for record in records]


def same(reference, name, outcome):
    """Every peer makes as many residues; those in f32 make the same ones."""
    if [len(tokens) for tokens in outcome] != [NEW] * len(reference):
        raise SystemExit(f"{name}: other numbers of residues: {[len(tokens) for tokens in outcome]}")
    if name.endswith("f32") and outcome != reference:
        raise SystemExit(f"{name}: other residues than the first peer's: not the same work")


if __name__ == "__main__":
    main()
