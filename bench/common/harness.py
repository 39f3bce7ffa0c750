"""What both benchmarks share: peers in processes of their own, interleaved rounds, medians, a table and a JSON file.

A Python peer is a worker that loads its model once and then does one timed run for each line it reads. `ankh3` is run as a user
runs it, a new process each time; the seconds of compute are those of its closing line.
"""

import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "bench"
RESULTS = ROOT / "bench" / "results"


class Worker:
    """A Python peer: `script` gets `settings` as one JSON argument, then a line for each run."""

    def __init__(self, name, script, settings, threads):
        self.name = name
        environment = os.environ | thread_variables(threads)
        self.process = subprocess.Popen(
            [sys.executable, str(script), json.dumps(settings | {"threads": threads})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.about = self._read()

    def run(self):
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        return self._read()

    def close(self):
        self.process.stdin.close()
        self.process.wait()

    def _read(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: the worker ended; see its message above")
        return json.loads(line)


class Command:
    """`ankh3`, a process a run. `outcome` reads what it wrote, to see that the work was the same."""

    def __init__(self, name, arguments, threads, outcome):
        self.name = name
        self.arguments = [os.environ["ANKH3"], *arguments, "--threads", str(threads)]
        self.outcome = outcome
        # As one would type it in the checkout: results are committed, and nobody else has these folders.
        command = " ".join(["ankh3", *self.arguments[1:]])
        self.about = {"command": command.replace(f"{Path(__file__).resolve().parents[2]}/", "")}

    def run(self):
        started = time.perf_counter()
        process = subprocess.Popen(self.arguments, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        text = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        if os.waitstatus_to_exitcode(status) != 0:
            raise SystemExit(f"{self.name} failed:\n{text}")
        whole = usage.ru_utime + usage.ru_stime
        return {
            "seconds": closing(text, r"([\d.]+) s,") or wall,
            "cpu_seconds": closing(text, r"([\d.]+) CPU-seconds") or whole,
            "whole_process_seconds": wall,
            "whole_process_cpu_seconds": whole,
            "peak_mib": usage.ru_maxrss / 1024,
            "outcome": self.outcome(),
        }

    def close(self):
        pass


def closing(text, pattern):
    """A number in the last line that reads `… residues, 12.3 s, … residues/s, 24.1 CPU-seconds`."""
    lines = [line for line in text.splitlines() if "residues/s" in line]
    found = re.search(pattern, lines[-1].split("residues", 1)[1]) if lines else None
    return float(found[1]) if found else None


def thread_variables(threads):
    return {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")}


def serve(settings, load):
    """The other end of [`Worker`]: `load(settings)` gives what to say about the peer and the function to time."""
    about, work = load(settings)
    print(json.dumps(about), flush=True)
    for _ in sys.stdin:
        reset_peak()
        before, started = cpu_seconds(), time.perf_counter()
        outcome = work()
        seconds = time.perf_counter() - started
        result = {"seconds": seconds, "cpu_seconds": cpu_seconds() - before, "peak_mib": peak_mib(), "outcome": outcome}
        print(json.dumps(result), flush=True)


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def reset_peak():
    Path("/proc/self/clear_refs").write_text("5")


def peak_mib():
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def interleave(peers, rounds, same):
    """`rounds` timed runs of every peer, one after the other, every second round backwards; a first round is not counted.

    `same(reference outcome, name, outcome)` raises where a peer did other work than the first peer.
    """
    runs = {peer.name: [] for peer in peers}
    reference = None
    for number in range(rounds + 1):
        for peer in peers if number % 2 == 0 else reversed(peers):
            result = peer.run()
            outcome = result.pop("outcome")
            reference = outcome if reference is None else reference
            same(reference, peer.name, outcome)
            if number:
                runs[peer.name].append(result)
            print(f"round {number} of {rounds}: {peer.name} {result['seconds']:.2f} s", file=sys.stderr, flush=True)
            # Let the other peers' idle threads fall asleep.
            time.sleep(0.3)
    return runs


def medians(runs):
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def report(title, file, peers, runs, units, unit, details):
    """Prints the table and writes `bench/results/<kind of processor>/<file>.json` and `.md`. `units` of work a run."""
    lines = [
        f"| {title} | {unit}/s | {unit}/CPU-second | seconds (min..max) | CPU-seconds | whole process, s | peak memory, MiB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    summary = {}
    for peer in peers:
        middle = medians(runs[peer.name])
        every = [run["seconds"] for run in runs[peer.name]]
        middle[f"{unit}_per_second"] = units / middle["seconds"]
        middle[f"{unit}_per_cpu_second"] = units / middle["cpu_seconds"]
        summary[peer.name] = {"about": peer.about, "median": middle, "runs": runs[peer.name]}
        whole = f"{middle['whole_process_seconds']:.2f}" if "whole_process_seconds" in middle else ""
        lines.append(
            f"| {peer.name} | {units / middle['seconds']:.1f} | {units / middle['cpu_seconds']:.1f} | {middle['seconds']:.2f} ({min(every):.2f}..{max(every):.2f}) | "
            f"{middle['cpu_seconds']:.1f} | {whole} | {middle['peak_mib']:.0f} |"
        )
    table = "\n".join(lines)
    details |= machine()
    about = "\n".join(f"- {key}: {value}" for key, value in details.items())
    folder = RESULTS / processor_kind()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{file}.md").write_text(f"{table}\n\n{about}\n")
    (folder / f"{file}.json").write_text(json.dumps({"details": details, "peers": summary}, indent=1) + "\n")
    print(f"{table}\n\n{about}")


def versions(peers):
    """What the peers say of themselves, each thing once."""
    return ", ".join(dict.fromkeys(f"{key} {value}" for peer in peers if isinstance(peer, Worker) for key, value in peer.about.items()))


def processor_flags():
    info = Path("/proc/cpuinfo").read_text()
    return set((re.search(r"flags\s*:\s*(.*)", info) or [""])[0].split())


def processor_kind():
    """What distinguishes processors most here: the widest of their instructions that matrix products can use. Results of different kinds lie side by side."""
    kinds = {"amx_bf16": "amx", "avx512_bf16": "avx512-bf16", "avx512f": "avx512", "avx2": "avx2"}
    flags = processor_flags()
    return next((kind for flag, kind in kinds.items() if flag in flags), platform.machine())


def machine():
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*:\s*(.*)", info)
    family = " ".join(f"{name} {found[1]}" for name in ("family", "model") if (found := re.search(rf"\b{name}\s*:\s*(\d+)", info)))
    flags = processor_flags()
    told = [f for f in ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8") if f in flags]
    version = subprocess.run([os.environ["ANKH3"], "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return {
        "processor": f"{model[1] if model else platform.machine()}{f' ({family})' if family else ''}, {os.cpu_count()} logical, {' '.join(told)}",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "ankh3": version,
        "date": time.strftime("%Y-%m-%d"),
    }


def checkpoint(directory, preset):
    """The directory asked for, else a random checkpoint of `preset`, made once."""
    if directory:
        return Path(directory)
    made = CACHE / preset
    if not (made / "config.json").exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run([os.environ["ANKH3"], "init", "--preset", preset, str(made)], check=True)
    return made
