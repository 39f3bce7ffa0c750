"""The downstream tasks of the paper, measured with `ankh3 probe` and `ankh3 contacts`, as one page. Start it with bench/downstream/run."""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from published import CONTACTS, SECONDARY_STRUCTURE
from tasks import GB1_SPLITS, SIZES, Input, jobs

HERE = Path(__file__).resolve().parent
ANKH3 = os.environ.get("ANKH3", "ankh3")
TASKS = ("ssp3", "ssp8", "fluorescence", "gb1", "contacts")


def main():
    arguments = options()
    size = SIZES["quick" if arguments.quick else "full" if arguments.full else "medium"]
    work = Path(arguments.work or HERE / "work") / size.name
    results, cache = work / "heads", Path(arguments.cache or work / "embeddings")
    results.mkdir(parents=True, exist_ok=True)
    inputs, width = sources(arguments)
    rows = {}
    for source in inputs:
        for job in jobs(arguments.data, size, source, width, arguments.tasks):
            rows[(source.name, job.task)] = run(job, results, cache, arguments.threads)
            write_page(arguments, size, inputs, rows)


def options():
    parser = argparse.ArgumentParser(prog="bench/downstream/run", description=__doc__)
    parser.add_argument("--model", action="append", required=True, help="a checkpoint directory or the name of a fetched model; NAME=DIR names its rows; several")
    parser.add_argument("--data", required=True, help="the directory of ssp, fluorescence, gb1 and contacts (see bench/downstream/README.md)")
    parser.add_argument("--prefixes", nargs="+", default=["nlu", "s2s"])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--no-baselines", action="store_true", help="leave one-hot and BLOSUM62 out")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--quick", action="store_true", help="a few proteins of each set")
    group.add_argument("--full", action="store_true", help="all of each set")
    parser.add_argument("--work", help="where heads are kept [bench/downstream/work]")
    parser.add_argument("--cache", help="where embeddings are kept [embeddings in --work]")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("-o", "--output", default=str(HERE.parent / "results" / "downstream.md"))
    return parser.parse_args()


def sources(arguments):
    """The rows of the tables, and how wide a baseline must be to have a head of the same size."""
    inputs, width = [], 256
    for given in arguments.model:
        name, _, model = given.rpartition("=")
        name = name or Path(model).name
        config = Path(model) / "config.json"
        width = json.loads(config.read_text())["d_model"] if config.is_file() else 1536
        for prefix in arguments.prefixes:
            inputs.append(Input(f"{name} {prefix}", ("--model", model, "--prefix", prefix), model))
    if not arguments.no_baselines:
        inputs += [Input(name, ("--features", name)) for name in ("onehot", "blosum62")]
    return inputs, width


def run(job, results, cache, threads):
    """The head of a job; made only where it is not there already."""
    model = job.input.model
    marks = json.dumps([job.command, weights_mark(model)])
    name = f"{job.task} {job.input.name} {hashlib.sha256(marks.encode()).hexdigest()[:10]}".replace(" ", "-")
    head, measured = results / name, results / f"{name}.json"
    if measured.is_file():
        return json.loads(measured.read_text())
    command = [ANKH3, *job.command, "--cache-dtype", "f16", "--threads", str(threads), "-o", str(head)]
    if model and "attention" not in job.task:
        command += ["--cache", str(cache)]
    if job.command[0] == "probe":
        command += ["--plot", f"{head}.png"]
    print(f"{job.task}, {job.input.name}: {' '.join(command)}", file=sys.stderr, flush=True)
    begun = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.DEVNULL)
    if done.returncode != 0:
        raise SystemExit(f"{job.task}, {job.input.name}: ankh3 ended with {done.returncode}")
    seconds = round(time.monotonic() - begun)
    description = json.loads((head / "head.json").read_text())
    kept = {"metrics": description["metrics"], "seconds": seconds, "note": job.note, "data": description["data"]}
    kept["made_by"] = description["made_by"]
    measured.write_text(json.dumps(kept))
    return kept


def weights_mark(model):
    """Other weights under the same name are another model."""
    if model is None or not Path(model).is_dir():
        return model
    files = sorted(path for path in Path(model).iterdir() if path.suffix in (".safetensors", ".bin"))
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]


def shown(estimate, percent=True):
    if estimate is None:
        return "–"
    factor = 100 if percent else 1
    digits = 1 if percent else 3
    value, low, high = (factor * estimate[key] for key in ("value", "low", "high"))
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def table(header, rows):
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return "\n".join(lines + [f"| {' | '.join(map(str, row))} |" for row in rows])


def write_page(arguments, size, inputs, rows):
    names = [source.name for source in inputs]
    part = lambda name, task: rows.get((name, task), {}).get("metrics", {})
    out = ["# Downstream tasks", ""]
    out += [f"Made by `bench/downstream/run`, size `{size.name}`. Measured here: value and 95 % interval (1000 bootstrap draws over proteins) in brackets.", ""]
    tests = ("casp12.csv", "ts115.csv", "casp14.csv")
    for task, title in (("ssp3", "Q3"), ("ssp8", "Q8")):
        if task in arguments.tasks:
            body = [[name, *(shown(part(name, task).get(test, {}).get("accuracy")) for test in tests)] for name in names]
            out += [f"## Secondary structure, {title}, %", "", table(["", "CASP12", "TS115", "CASP14"], body), ""]
    if "fluorescence" in arguments.tasks:
        body = [[name, *(shown(part(name, "fluorescence").get("test", {}).get(m), False) for m in ("spearman", "pearson", "mse"))] for name in names]
        out += ["## Fluorescence, TAPE's split", "", table(["", "Spearman", "Pearson", "MSE"], body), ""]
    if "gb1" in arguments.tasks:
        body = [[name, *(shown(part(name, f"gb1 {split}").get("test", {}).get("spearman"), False) for split in GB1_SPLITS)] for name in names]
        out += ["## GB1, FLIP's splits, Spearman", "", table(["", *GB1_SPLITS], body), ""]
    if "contacts" in arguments.tasks:
        measures = [f"{where}_{m}" for where in ("long", "medium") for m in ("P@L", "P@L/2", "P@L/5")]
        body = []
        for name in names:
            for task in ("contacts head", "contacts attention"):
                found = part(name, task).get("test")
                if found:
                    body.append([f"{name}, {task.split()[1]}", *(shown(found.get(m)) for m in measures)])
        first = next((part(name, "contacts head").get("test") for name in names if part(name, "contacts head")), None)
        if first:
            body.append(["separation alone", *(shown(first.get(f"separation_only_{m}")) for m in measures)])
        out += ["## Contacts, TS50, precision in %", "", table(["", *(m.replace("_", " ") for m in measures)], body), ""]
    out += published()
    out += ["## How it was made", "", table(["head", "seconds", "learnt from", "note"], [
        [f"{task}, {name}", row["seconds"], row["data"].get("train_proteins", row["data"].get("train_chains")), row["note"]]
        for (name, task), row in rows.items()
    ]), ""]
    made = next(iter(rows.values()))["made_by"]
    out += [f"{made['tool']} on {made['device']}; settings are the paper's (one ConvBERT layer, 5 epochs, batch 16, rate 1e-3) unless the note says otherwise; warm-up is at most half of all steps; embeddings are kept as f16."]
    path = Path(arguments.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(out) + "\n")
    path.with_suffix(".json").write_text(json.dumps([{"input": n, "task": t, **row} for (n, t), row in rows.items()], indent=1) + "\n")


def published():
    """Not measured here: what the authors of Ankh publish for the real models."""
    return [
        "## Published, not rerun",
        "",
        "As the authors of Ankh publish them (README of agemagician/Ankh, June 2025; other test sets and training data than above for contacts):",
        "",
        table(["published", "Q3 CASP12", "Q3 CASP14", "Q8 CASP12", "Q8 CASP14", "fluorescence ρ"], SECONDARY_STRUCTURE),
        "",
        table(["published, ProteinNet", "long-range P@L", "long-range P@L/5"], CONTACTS),
        "",
    ]


if __name__ == "__main__":
    main()
