"""Masking only, completion only, and both: held-out figures of each objective. Start it with bench/multitask/run."""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results"
# Weights of the two objectives in each run.
RUNS = {"masking only": (1.0, 0.0), "completion only": (0.0, 1.0), "both": (1.0, 1.0)}


def main():
    arguments = options()
    found = {name: train(name, arguments) for name in RUNS}
    report(arguments, found)


def options():
    parser = argparse.ArgumentParser(prog="bench/multitask/run", description=__doc__)
    parser.add_argument("--train", required=True, nargs="+", help="FASTA, plain or compressed")
    parser.add_argument("--valid", required=True, nargs="+", help="held-out FASTA")
    recipe = parser.add_mutually_exclusive_group()
    recipe.add_argument("--preset", default="nano")
    recipe.add_argument("--recipe", help="a recipe instead of a preset; its data and weights of objectives are replaced")
    parser.add_argument("--steps", type=int, help="of each run: the budget, for every step has batch.tokens × batch.accumulation tokens")
    parser.add_argument("--dtype", default="f32", choices=("f32", "bf16"), help="of the products")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--runs", type=Path, default=ROOT / ".cache" / "bench" / "multitask", help="where the runs are kept")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="goes over the recipe of all three, as in `ankh3 pretrain`")
    return parser.parse_args()


def train(name, arguments):
    """Trains, or goes on where an earlier start was cut off; returns the last evaluation and the tokens seen."""
    masking, completion = RUNS[name]
    run = arguments.runs / name.replace(" ", "-")
    run.parent.mkdir(parents=True, exist_ok=True)
    recipe = [arguments.recipe] if arguments.recipe else ["--preset", arguments.preset]
    values = [
        f"data.train={json.dumps([str(Path(path).resolve()) for path in arguments.train])}",
        f"data.valid={json.dumps([str(Path(path).resolve()) for path in arguments.valid])}",
        f"objectives.masking={masking}",
        f"objectives.completion={completion}",
        # Each run is judged on both, whatever it was trained on.
        "evaluation.all_tasks=true",
        *([f"steps={arguments.steps}"] if arguments.steps else []),
        *arguments.set,
    ]
    sets = [part for value in values for part in ("--set", value)]
    print(f"{name}: {run}", file=sys.stderr, flush=True)
    options = ["--dtype", arguments.dtype, "--threads", str(arguments.threads)]
    subprocess.run([os.environ["ANKH3"], "pretrain", *recipe, *options, "-o", str(run), "--resume", *sets], check=True)
    subprocess.run([os.environ["ANKH3"], "plot-training", str(run)], check=True)
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["kind"] == "evaluation"][-1]
    made = json.loads((run / "model" / "config.json").read_text())["ankh3_pretrain"]
    assert last["step"] == made["steps"], "the last evaluation is that of the last step"
    return {"tokens": made["tokens"], "steps": made["steps"], "tasks": {task["task"]: task for task in last["tasks"]}}


def report(arguments, found):
    tasks = list(found["both"]["tasks"])
    lines = [
        f"| trained on | tokens seen | {' | '.join(f'{task}: loss' for task in tasks)} | {' | '.join(f'{task}: perplexity' for task in tasks)} |",
        "|---|---:|" + "---:|" * (2 * len(tasks)),
    ]
    for name, run in found.items():
        losses = [f"{run['tasks'][task]['loss']:.4f}" for task in tasks]
        perplexities = [f"{run['tasks'][task]['residue_perplexity']:.3f}" for task in tasks]
        lines.append(f"| {name} | {run['tokens'] / 1e6:.1f} M | {' | '.join(losses + perplexities)} |")
    details = {
        "recipe": arguments.recipe or f"preset {arguments.preset}",
        "changed": ", ".join(arguments.set) or "nothing",
        "products": arguments.dtype,
        "training data": ", ".join(Path(path).name for path in arguments.train),
        "held out": ", ".join(Path(path).name for path in arguments.valid),
        "figures": "loss of a label (sentinels and ends included), perplexity of a residue; of the last step, all on the same examples",
        "caution": "one seed: differences of a few thousandths may be chance",
        "ankh3": subprocess.run([os.environ["ANKH3"], "--version"], capture_output=True, text=True, check=True).stdout.strip(),
        "date": time.strftime("%Y-%m-%d"),
    }
    table = "\n".join(lines) + "\n\n" + "\n".join(f"- {key}: {value}" for key, value in details.items())
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "multitask.md").write_text(table + "\n")
    (RESULTS / "multitask.json").write_text(json.dumps({"details": details, "runs": found}, indent=1) + "\n")
    print(table)


if __name__ == "__main__":
    main()
