"""One GPU, one run: doctor's table, then ankh3 against Hugging Face, each in the time that is left. Start it with bench/gpu/run."""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from harness import RESULTS, closing
from proteins import draw, encode, lognormal_lengths, vocabulary, write_fasta

PEER = Path(__file__).with_name("peer.py")
ANKH3 = os.environ["ANKH3"]
# Seconds that a section may take at most, of the nine minutes.
SHARES = {"doctor": 60, "embed": 330, "generate": 60, "train": 80}
WAYS = ["sdpa sorted", "eager sorted", "eager naive", "sdpa naive", "compiled sorted"]


def main():
    arguments = options()
    begin = time.monotonic()
    bench = Bench(arguments, begin + 60 * arguments.minutes)
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        bench.folder = Path(folder)
        for name in arguments.only:
            print(f"== {name}", file=sys.stderr, flush=True)
            try:
                getattr(bench, name)(min(bench.end, time.monotonic() + SHARES[name] * arguments.minutes / 9))
            except (subprocess.SubprocessError, OSError, ValueError, KeyError) as error:
                bench.failures.append(f"{name}: {error}")
    bench.report(time.monotonic() - begin)


def compute_seconds(text):
    """Of the last line of a command: what it says itself, loading apart."""
    seconds = closing(text, r"([\d.]+) s,")
    if not seconds:
        raise ValueError(f"no seconds in {text[-300:]!r}")
    return seconds


def options():
    parser = argparse.ArgumentParser(prog="bench/gpu/run", description=__doc__)
    parser.add_argument("--rehearse", action="store_true", help="on a CPU with a tiny shape: no measurement")
    parser.add_argument("--minutes", type=float, default=8.5)
    parser.add_argument("--scratch", help="where models are written (16 GB); default: the system's temporary folder")
    parser.add_argument("--only", nargs="+", choices=SHARES, default=list(SHARES))
    return parser.parse_args()


class Bench:
    def __init__(self, arguments, end):
        self.rehearsal = arguments.rehearse
        self.device = "cpu" if self.rehearsal else "cuda"
        self.dtype = "f32" if self.rehearsal else "bf16"
        self.end = end
        self.rates, self.rows, self.failures = {}, [], []

    # -- what is measured --------------------------------------------------------------------------------------------------------------------------------

    def doctor(self, end):
        result = subprocess.run([ANKH3, "doctor", "--device", self.device], capture_output=True, text=True, timeout=max(end - time.monotonic(), 1))
        print(result.stdout)
        if result.returncode:
            self.failures.append(f"doctor: {result.stderr.strip().splitlines()[-1]}")
        for name, value, unit in re.findall(r"^  (.+?)\s{2,}([\d.]+) (GB/s|TFLOP/s)$", result.stdout, re.M):
            self.rates[name] = {"value": float(value), "unit": unit}

    def embed(self, end):
        shapes = [("nano", [256], 8)] if self.rehearsal else [("large", ["ragged", 512, 256, 1024, 2048], 1 << 18), ("xl", [512, "ragged"], 1 << 17)]
        for number, (shape, lengths, tokens) in enumerate(shapes):
            # The first shape gets two thirds of the time, the second the rest.
            share = time.monotonic() + (end - time.monotonic()) * (2 / 3 if number + 1 < len(shapes) else 1)
            model = self.model(shape)
            if model is None:
                return
            sets = {str(length): self.proteins(length, tokens) for length in lengths}
            for name, proteins in sets.items():
                self.ours(shape, name, model, proteins)
            self.peer("embed", shape, model, sets, WAYS, share)

    def ours(self, shape, name, model, proteins):
        fasta = write_fasta(self.folder / f"{name}.fasta", proteins)
        output = self.folder / "embeddings.npy"
        command = [ANKH3, "embed", "--model", str(model), "--pooling", "mean", "--format", "npy", "--device", self.device, "--dtype", self.dtype]
        best, peak = None, None
        for _ in range(2):  # the first run warms the driver's cache
            if time.monotonic() > self.end:
                break
            result, peak = watched([*command, "-o", str(output), str(fasta)])
            seconds = compute_seconds(result)
            best = seconds if best is None else min(best, seconds)
        if best:
            self.add("embed", shape, name, "ankh3", sum(map(len, proteins)) / best, "residues/s", peak)

    def generate(self, end):
        shape = "nano" if self.rehearsal else "large"
        model = self.model(shape)
        if model is None:
            return
        new, prompt, batches = (8, 16, [1]) if self.rehearsal else (256, 256, [1, 32])
        for batch in batches:
            fasta = write_fasta(self.folder / "prompts.fasta", draw([prompt + new] * batch))
            command = [ANKH3, "complete", "--model", str(model), "--keep", str(prompt), "--length", "same", "--device", self.device, "--dtype", self.dtype]
            text, peak = watched([*command, "-o", str(self.folder / "completed.fasta"), str(fasta)])
            self.add("generate", shape, f"{batch} x {new}", "ankh3", batch * new / compute_seconds(text), "tokens/s", peak)
        self.peer("generate", shape, model, {"prompt": prompt, "new": new, "batches": batches}, [], end)

    def train(self, end):
        shape = "nano" if self.rehearsal else "base"
        model = self.model(shape)
        if model is None:
            return
        tokens, steps = (1024, 2) if self.rehearsal else (32768, 12)
        recipe, run = self.folder / "train.toml", self.folder / "run"
        fasta = write_fasta(self.folder / "train.fasta", draw(lognormal_lengths(64 if self.rehearsal else 4096)))
        recipe.write_text(
            f"steps = {steps}\n[data]\ntrain = [{json.dumps(str(fasta))}]\nmax_residues = 512\n[batch]\ntokens = {tokens}\n"
            "[optimizer]\nlearning_rate = 0.001\n[schedule]\nkind = \"constant\"\nwarmup_steps = 1\n[checkpoints]\nevery = 1000000\n[evaluation]\nlog_every = 1\n"
        )
        command = [ANKH3, "pretrain", str(recipe), "--init", str(model), "--device", self.device, "--dtype", self.dtype]
        _, peak = watched([*command, "-o", str(run)])
        lines = [line for line in map(json.loads, (run / "log.jsonl").read_text().splitlines()) if line["kind"] == "train"]
        self.add("train", shape, f"{tokens} tokens a step", "ankh3", lines[-1]["tokens_per_second"], "tokens/s", peak)
        self.peer("train", shape, model, {"tokens": tokens, "steps": steps, "length": 256, "target": 64}, [], end)

    # -- how ---------------------------------------------------------------------------------------------------------------------------------------------

    def model(self, shape):
        folder = self.folder / shape
        if not folder.exists():
            if time.monotonic() > self.end:
                return None
            subprocess.run([ANKH3, "init", str(folder), "--preset", shape, "--dtype", self.dtype], check=True, capture_output=True)
        return folder

    def proteins(self, length, tokens):
        if length == "ragged":
            lengths = lognormal_lengths(max(tokens // 350, 4), longest=2046)
        else:
            lengths = [length] * max(tokens // length, 4)
        return draw(lengths)

    def peer(self, task, shape, model, work, ways, end):
        """Hugging Face in a process of its own, which ends by itself in time; a line for each result."""
        left = end - time.monotonic()
        if left < 15 and not self.rehearsal:
            self.failures.append(f"{task} {shape}: no time left for Hugging Face")
            return
        words = vocabulary(model)
        if task == "embed":
            work = {name: [encode(words, "[NLU]", protein) for protein in proteins] for name, proteins in work.items()}
        settings = {"task": task, "model": str(model), "device": self.device, "work": work, "ways": ways, "seconds": left}
        process = subprocess.Popen([sys.executable, str(PEER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        # A way that hangs (compiling, above all) must not take the table with it.
        timer = threading.Timer(left + 10, process.kill)
        timer.start()
        process.stdin.write(json.dumps(settings))
        process.stdin.close()
        for line in process.stdout:
            found = json.loads(line)
            if "error" in found:
                self.failures.append(f"{task} {shape} {found['peer']}: {found['error']}")
            else:
                self.add(task, shape, found["work"], found["peer"], found["value"], found["unit"], found["peak"])
        process.wait()
        timer.cancel()

    def add(self, task, shape, work, peer, value, unit, peak):
        self.rows.append({"task": task, "shape": shape, "work": work, "peer": peer, "value": value, "unit": unit, "peak_mib": peak})
        print(f"{task} {shape} {work} {peer}: {value:,.0f} {unit}", file=sys.stderr, flush=True)

    # -- the table ---------------------------------------------------------------------------------------------------------------------------------------

    def report(self, seconds):
        card = "rehearsal" if self.rehearsal else gpu_name()
        gemm = next((rate["value"] for name, rate in self.rates.items() if name.startswith("matrix product")), None)
        details = {
            "device": card,
            "date": time.strftime("%Y-%m-%d"),
            "version": subprocess.run([ANKH3, "--version"], capture_output=True, text=True).stdout.strip(),
            "python": platform.python_version(),
            "seconds": round(seconds),
        }
        lines = ["| task | shape | work | who | rate | of the matrix product's | ratio to HF's best | peak, MiB |", "|---|---|---|---|---:|---:|---:|---:|"]
        for row in self.rows:
            same = [r["value"] for r in self.rows if (r["task"], r["shape"], r["work"]) == (row["task"], row["shape"], row["work"]) and r["peer"] != "ankh3"]
            ratio = f"{row['value'] / max(same):.2f}" if same and row["peer"] == "ankh3" else ""
            used = ""
            if gemm and row["task"] == "embed":
                row["mfu"] = row["value"] * operations(row) / gemm / 1e12
                used = f"{100 * row['mfu']:.0f} %"
            cells = [row["task"], row["shape"], row["work"], row["peer"], f"{row['value']:,.0f} {row['unit']}", used, ratio, f"{row['peak_mib'] or 0:,.0f}"]
            lines.append("| " + " | ".join(cells) + " |")
        text = "\n".join(lines)
        text += "".join(f"\n- {key}: {value}" for key, value in details.items())
        text += "".join(f"\n- {name}: {rate['value']} {rate['unit']}" for name, rate in self.rates.items())
        text += "".join(f"\n- NOT MEASURED: {failure}" for failure in self.failures)
        if self.rehearsal:
            text = "REHEARSAL ON A CPU WITH A TINY SHAPE: these numbers mean nothing.\n\n" + text
        else:
            RESULTS.mkdir(parents=True, exist_ok=True)
            file = RESULTS / f"gpu-{re.sub('[^a-z0-9]+', '-', card.lower()).strip('-')}"
            file.with_suffix(".json").write_text(json.dumps(details | {"rates": self.rates, "rows": self.rows, "failures": self.failures}, indent=1) + "\n")
            file.with_suffix(".md").write_text(text + "\n")
        print(text)
        sys.exit(bool(self.failures and self.failures[0].startswith("doctor")))


def operations(row):
    """Floating-point operations a residue: two for each weight of the encoder that multiplies, and attention's own at this length."""
    d_model, inner, d_ff, layers = {"large": (1536, 1024, 3840, 48), "xl": (2560, 2048, 6720, 48)}.get(row["shape"], (256, 256, 640, 6))
    length = float(row["work"]) if row["work"].isdigit() else 350
    return layers * (2 * (4 * d_model * inner + 3 * d_model * d_ff) + 4 * length * inner)


def watched(command):
    """Runs it; its messages, and the most memory that the GPU had in use meanwhile (MiB)."""
    peak = [0]
    done = threading.Event()

    def look():
        while not done.wait(0.2):
            peak[0] = max(peak[0], gpu_memory())

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    result = subprocess.run(command, capture_output=True, text=True)
    done.set()
    watcher.join()
    if result.returncode:
        raise ValueError(f"{' '.join(command[1:3])} failed: {result.stderr.strip().splitlines()[-1]}")
    return result.stderr, peak[0]


def gpu_memory():
    text = smi("memory.used")
    return int(text) if text.isdigit() else 0


def gpu_name():
    return smi("name") or "unknown"


def smi(what):
    try:
        command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()
    except (OSError, subprocess.SubprocessError, IndexError):
        return ""


if __name__ == "__main__":
    main()
