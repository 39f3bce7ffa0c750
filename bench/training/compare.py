"""Training steps of ankh3 and of Hugging Face's T5 on the same weights and examples. Start it with bench/training/run."""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import CACHE, RESULTS, Command, Worker, checkpoint, interleave, machine, report
from proteins import draw, lognormal_lengths, write_fasta

PEER = Path(__file__).with_name("peer.py")
OPTIMIZER = {"beta1": 0.9, "beta2": 0.99, "epsilon": 1e-8, "clip_norm": 1.0}
DTYPES = {"f32": "float32", "bf16": "bfloat16"}
WAYS = {"single": "one by one, unpadded", "padded": "padded batches of like lengths"}
# The first step's loss must be the same, relative, or the work was not.
SAME = {"f32": 1e-4, "bf16": 2e-2}


def main():
    arguments = options()
    arguments.work(arguments)


def options():
    parser = argparse.ArgumentParser(prog="bench/training/run", description=__doc__)
    kinds = parser.add_subparsers(required=True, metavar="overlap|speed")
    for name, work, preset, steps, tokens in (("overlap", overlap, "nano", 200, 2048), ("speed", speed, "small", 3, 16384)):
        kind = kinds.add_parser(name)
        kind.set_defaults(work=work)
        kind.add_argument("--preset", default=preset)
        kind.add_argument("--model", help="a checkpoint to begin with; default: a random one of --preset")
        kind.add_argument("--steps", type=int, default=steps)
        kind.add_argument("--tokens", type=int, default=tokens, help="of encoder and decoder in a step")
        kind.add_argument("--max-residues", type=int, default=512)
        kind.add_argument("--train", help="FASTA; default: 512 random proteins, log-normal lengths")
        kind.add_argument("--learning-rate", type=float, default=0.01)
        kind.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
        if name == "speed":
            kind.add_argument("--rounds", type=int, default=5)
            kind.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
            kind.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="the peer's ways to batch")
            kind.add_argument("--padded-tokens", type=int, default=4096, help="of a padded batch; try several for the peer's best")
    return parser.parse_args()


class Training(Command):
    """`ankh3 pretrain`, a new run each time. Its seconds are those of the steps, as its log says; the outcome is the losses."""

    def __init__(self, name, arguments, threads):
        super().__init__(name, arguments, threads, None)
        self.plain = self.arguments

    def run(self):
        folder = Path(tempfile.mkdtemp(dir=CACHE))
        self.arguments = [*self.plain, "-o", str(folder / "run")]
        self.outcome = lambda: log(folder / "run")
        result = super().run()
        lines = result.pop("outcome")
        shutil.rmtree(folder)
        seconds = sum(line["tokens"] for line in lines) / lines[-1]["tokens_per_second"]
        # The process also checks gradients, evaluates and saves: its CPU-seconds are shared out by time.
        cpu_seconds = result["whole_process_cpu_seconds"] * seconds / result["whole_process_seconds"]
        return result | {"seconds": seconds, "cpu_seconds": cpu_seconds, "outcome": [line["loss"] for line in lines]}


def log(run):
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [line for line in lines if line["kind"] == "train"]


def prepare(arguments):
    """Options of `ankh3 pretrain`, the initial model, the file of its examples, and the learning rate of each step."""
    CACHE.mkdir(parents=True, exist_ok=True)
    model = checkpoint(arguments.model, arguments.preset)
    train = arguments.train or write_fasta(CACHE / "training.fasta", draw(lognormal_lengths(512)))
    warmup = max(arguments.steps // 10, 1) if arguments.steps > 1 else 0
    recipe = CACHE / "training.toml"
    recipe.write_text(
        f"steps = {arguments.steps}\n"
        f"[data]\ntrain = [{json.dumps(str(train))}]\nmax_residues = {arguments.max_residues}\n"
        f"[batch]\ntokens = {arguments.tokens}\n"
        f"[optimizer]\nlearning_rate = {arguments.learning_rate}\n"
        + "".join(f"{key} = {value}\n" for key, value in OPTIMIZER.items())
        + f'[schedule]\nkind = "constant"\nwarmup_steps = {warmup}\n'
        f"[checkpoints]\nevery = 1000000\n[evaluation]\nlog_every = 1\n"
    )
    pretrain = ["pretrain", str(recipe), "--init", str(model), "--device", "cpu"]
    examples = CACHE / "training.jsonl"
    subprocess.run([os.environ["ANKH3"], *pretrain, "--export-examples", str(examples)], check=True)
    rates = [arguments.learning_rate * min((step + 1) / max(warmup, 1), 1.0) for step in range(arguments.steps)]
    return pretrain, model, examples, rates


def peer(name, arguments, prepared, dtype, way, **more):
    _, model, examples, rates = prepared
    settings = {"model": str(model), "examples": str(examples), "rates": rates, "dtype": DTYPES[dtype], "way": way}
    return Worker(name, PEER, settings | {"optimizer": OPTIMIZER} | more, arguments.threads)


def overlap(arguments):
    """200 steps here, on PyTorch, and on PyTorch with the examples of each step added up backwards: the noise that rounding alone makes."""
    prepared = prepare(arguments)
    ours = Training("ankh3 f32", [*prepared[0], "--dtype", "f32"], arguments.threads)
    peers = [
        ours,
        peer("PyTorch f32", arguments, prepared, "f32", "single"),
        peer("PyTorch f32, examples backwards", arguments, prepared, "f32", "single", reversed=True),
    ]
    losses = {}
    for one in peers:
        print(f"{one.name}: {arguments.steps} steps", file=sys.stderr, flush=True)
        losses[one.name] = one.run()["outcome"]
        one.close()
    reference = losses["PyTorch f32"]
    apart = {name: [abs(a - b) for a, b in zip(found, reference, strict=True)] for name, found in losses.items()}
    lines = ["| losses apart from PyTorch's | step 1 | first tenth, largest | mean | largest | last loss |", "|---|---:|---:|---:|---:|---:|"]
    for name, gaps in apart.items():
        tenth = max(gaps[: max(len(gaps) // 10, 1)])
        lines.append(f"| {name} | {gaps[0]:.2e} | {tenth:.2e} | {statistics.mean(gaps):.2e} | {max(gaps):.2e} | {losses[name][-1]:.4f} |")
    details = {
        "start": prepared[1].name,
        "steps": f"{arguments.steps} of about {arguments.tokens} tokens; AdamW scaled by the weights' size, rate {arguments.learning_rate}",
        "noise": "the last line: what another order of additions does to PyTorch itself",
        "peers": ", ".join(f"{key} {value}" for key, value in peers[1].about.items()),
    } | machine()
    table = "\n".join(lines) + "\n\n" + "\n".join(f"- {key}: {value}" for key, value in details.items())
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "training-overlap.md").write_text(table + "\n")
    (RESULTS / "training-overlap.json").write_text(json.dumps({"details": details, "losses": losses}, indent=1) + "\n")
    print(table)
    noise, gap = max(apart["PyTorch f32, examples backwards"]), max(apart["ankh3 f32"])
    if apart["ankh3 f32"][0] > SAME["f32"] * reference[0]:
        raise SystemExit("the first step's losses differ: not the same work")
    print(f"\nlargest gap {gap:.2e}, {gap / max(noise, 1e-12):.1f} times the noise")


def speed(arguments):
    prepared = prepare(arguments)
    peers = []
    for dtype in arguments.dtypes:
        for way in arguments.ways:
            peers.append(peer(f"PyTorch {dtype}, {WAYS[way]}", arguments, prepared, dtype, way, padded_tokens=arguments.padded_tokens))
        peers.append(Training(f"ankh3 {dtype}", [*prepared[0], "--dtype", dtype], arguments.threads))
    started = time.strftime("%Y-%m-%d %H:%M")
    runs = interleave(peers, arguments.rounds, same)
    for one in peers:
        one.close()
    tokens = 0
    for line in prepared[2].read_text().splitlines()[1:]:
        example = json.loads(line)
        tokens += len(example["source"]) + len(example["labels"])
    details = {
        "checkpoint": prepared[1].name,
        "work": f"{arguments.steps} steps, {tokens} tokens of encoder and decoder in all; forward, backward, clipping, AdamW",
        "threads": arguments.threads,
        "rounds": f"{arguments.rounds} interleaved from {started}, medians",
        "bf16": "autocast on PyTorch; on ankh3 matrix products in bf16, weights and sums in f32",
        "padded batches": f"up to {arguments.padded_tokens} tokens",
        "peers": ", ".join(f"{key} {value}" for key, value in peers[0].about.items()),
    }
    report("training", f"training-{prepared[1].name}-{arguments.threads}t", peers, runs, tokens, "tokens", details)


def same(reference, name, outcome):
    needed = SAME["bf16" if "bf16" in name else "f32"]
    gap = abs(outcome[0] - reference[0]) / reference[0]
    if gap > needed or len(outcome) != len(reference):
        raise SystemExit(f"{name}: the first loss is {outcome[0]}, the first peer's {reference[0]}: not the same work")


if __name__ == "__main__":
    main()
