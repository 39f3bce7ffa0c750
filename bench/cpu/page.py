"""Puts the results of the CPU benchmarks on one page a kind of processor, with the ratios that matter: residues a CPU-second of ankh3 to the best of each peer."""

import json
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "results"
# File, what is compared, ours, theirs (the best of those whose names begin so), and what we aim at.
RATIOS = [
    *(
        (f"encoder-{shape}-{threads}t", f"encoder, {shape}, {threads} threads", ours, theirs, aim)
        for shape in ("small", "base")
        for threads in (1, 2)
        for ours, theirs, aim in (
            ("ankh3 bf16", "OpenVINO bf16", 1.5),
            ("ankh3 bf16", "HF bf16", 2.5),
            ("ankh3 f32", "OpenVINO f32", 1.0),
            ("ankh3 f32", "HF f32", 1.0),
        )
    ),
    *(
        (f"generate-{shape}-{batch}-1t", f"generation, {shape}, batch {batch}", ours, theirs, aim)
        for shape in ("small", "base")
        for batch in (1, 8)
        for ours, theirs, aim in (
            ("ankh3 bf16", "CTranslate2 f32", 2.0),
            ("ankh3 int8", "CTranslate2 int8", 1.2),
        )
    ),
    ("training-small-1t", "training step, small", "ankh3 bf16", "PyTorch bf16", 1.2),
]


def main():
    for folder in sorted({path.parent for path in RESULTS.glob("*/encoder-*.json")}):
        write(folder)


def write(folder):
    lines = [f"# The CPU core against its peers: {folder.name}", "", "| work | | ratio | aim |", "|---|---|---:|---:|"]
    tables = []
    for file, work, ours, theirs, aim in RATIOS:
        path = folder / f"{file}.json"
        if path.exists():
            peers = json.loads(path.read_text())["peers"]
            lines.append(f"| {work} | {ours} : {theirs} | {best(peers, ours) / best(peers, theirs):.2f} | {aim} |")
            table = (folder / f"{file}.md").read_text()
            if table not in tables:
                tables.append(table)
    lines += ["", "Ratios of units of work a CPU-second; medians of interleaved rounds.", ""]
    page = "\n".join(lines) + "\n" + "\n".join(tables)
    (folder / "cpu.md").write_text(page)
    print(page)


def best(peers, name):
    """Units a CPU-second of the fastest peer of that name."""
    rates = [
        next(value for key, value in peer["median"].items() if key.endswith("_per_cpu_second"))
        for peer_name, peer in peers.items()
        if peer_name.startswith(name)
    ]
    if not rates:
        raise SystemExit(f"no {name} among {', '.join(peers)}")
    return max(rates)


if __name__ == "__main__":
    main()
