"""Hugging Face's T5 on the GPU: embedding, generation, a training step. Reads its work from stdin, writes a JSON line for each result, and ends in time."""

import json
import sys
import time

import torch
import transformers
from transformers import T5EncoderModel, T5ForConditionalGeneration

TOKENS = 32768  # a batch, padding included


def main():
    settings = json.loads(sys.stdin.read())
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    end = time.monotonic() + settings["seconds"]
    {"embed": embed, "generate": generate, "train": train}[settings["task"]](settings, end)


def say(**what):
    print(json.dumps(what), flush=True)


def dtype(settings):
    return torch.float32 if settings["device"] == "cpu" else torch.bfloat16


def wait(device):
    if device != "cpu":
        torch.cuda.synchronize()


def peak(device):
    return torch.cuda.max_memory_allocated() / 2**20 if device != "cpu" else None


def reset(device):
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()


def attempt(name, work):
    """A way that this version of transformers does not have is told, not fatal."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001
        say(peer=name, error=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


def embed(settings, end):
    models = {}
    for way in settings["ways"]:
        kind, order = way.split()
        for name, sequences in settings["work"].items():
            if time.monotonic() > end:
                return
            attempt(f"HF {way}", lambda: embed_one(settings, models, kind, order, name, sequences))


def embed_one(settings, models, kind, order, name, sequences):
    device = settings["device"]
    implementation = "eager" if kind == "eager" else "sdpa"
    if implementation not in models:
        models.clear()
        model = T5EncoderModel.from_pretrained(settings["model"], dtype=dtype(settings), attn_implementation=implementation)
        models[implementation] = model.eval().to(device)
    model = models[implementation]
    if kind == "compiled":
        model = models.setdefault("compiled", torch.compile(model, dynamic=name == "ragged"))
    groups = batches(sequences, order)
    with torch.inference_mode():
        run(model, sequences, groups[:2], device)  # warm
        wait(device)
        reset(device)
        begin = time.perf_counter()
        run(model, sequences, groups, device)
        wait(device)
    seconds = time.perf_counter() - begin
    residues = sum(map(len, sequences)) - 2 * len(sequences)
    say(work=name, peer=f"HF {kind} {order}", value=residues / seconds, unit="residues/s", peak=peak(device))


def batches(sequences, order):
    """Up to TOKENS with the padding; `naive` as they come, `sorted` longest first."""
    indices = list(range(len(sequences)))
    if order == "sorted":
        indices.sort(key=lambda i: len(sequences[i]), reverse=True)
    found, longest = [[]], 0
    for i in indices:
        grown = max(longest, len(sequences[i]))
        if found[-1] and grown * (len(found[-1]) + 1) > TOKENS:
            found.append([])
            grown = len(sequences[i])
        found[-1].append(i)
        longest = grown
    return found


def run(model, sequences, groups, device):
    means = []
    for group in groups:
        rows = [sequences[i] for i in group]
        ids, mask = pad(rows, device)
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask.clone()
        weights[:, 0] = 0  # the prefix, and the end, are no residues
        weights[torch.arange(len(rows)), [len(row) - 1 for row in rows]] = 0
        means.append((hidden * weights[..., None]).sum(1).float() / weights.sum(1, keepdim=True))
    return torch.cat(means).cpu()


def pad(rows, device, filling=0):
    longest = max(map(len, rows))
    ids = torch.tensor([row + [filling] * (longest - len(row)) for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
    return ids, mask


def generate(settings, end):
    device, work = settings["device"], settings["work"]
    model = T5ForConditionalGeneration.from_pretrained(settings["model"], dtype=dtype(settings)).eval().to(device)
    for batch in work["batches"]:
        if time.monotonic() > end:
            return
        ids = torch.randint(7, 27, (batch, work["prompt"]), device=device)
        asked = {"do_sample": False, "min_new_tokens": work["new"], "max_new_tokens": work["new"]}
        with torch.inference_mode():
            model.generate(ids, do_sample=False, max_new_tokens=4)
            wait(device)
            reset(device)
            begin = time.perf_counter()
            model.generate(ids, **asked)
            wait(device)
        value = batch * work["new"] / (time.perf_counter() - begin)
        say(work=f"{batch} x {work['new']}", peer="HF generate", value=value, unit="tokens/s", peak=peak(device))


def train(settings, end):
    for name, compiled in [("PyTorch autocast, fused AdamW", False), ("PyTorch compiled", True)]:
        if time.monotonic() < end:
            attempt(name, lambda name=name, compiled=compiled: train_one(settings, name, compiled))


def train_one(settings, name, compiled):
    device, work = settings["device"], settings["work"]
    model = T5ForConditionalGeneration.from_pretrained(settings["model"], dtype=torch.float32).train().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=device != "cpu")
    step = torch.compile(model) if compiled else model
    batch = max(work["tokens"] // (work["length"] + work["target"]), 1)
    ids = torch.randint(7, 27, (batch, work["length"]), device=device)
    labels = torch.randint(7, 27, (batch, work["target"]), device=device)

    def once():
        with torch.autocast(device, torch.bfloat16, enabled=device != "cpu"):
            loss = step(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    once()
    once()
    wait(device)
    reset(device)
    begin = time.perf_counter()
    for _ in range(work["steps"]):
        once()
    wait(device)
    tokens = work["steps"] * batch * (work["length"] + work["target"])
    value = tokens / (time.perf_counter() - begin)
    say(work=f"{work['tokens']} tokens a step", peer=name, value=value, unit="tokens/s", peak=peak(device))


if __name__ == "__main__":
    main()
