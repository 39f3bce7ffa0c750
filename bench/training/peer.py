"""Worker: the steps of an `ankh3 pretrain` run done by Hugging Face's T5ForConditionalGeneration, with AdamW scaled by the weights' root mean square."""

import json
import sys
from contextlib import nullcontext

import torch
import transformers
from harness import serve
from torch.nn.functional import cross_entropy
from transformers import T5ForConditionalGeneration

IGNORED = -100
LEAST_RMS = 1e-3


def load(settings):
    torch.set_num_threads(settings["threads"])
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = T5ForConditionalGeneration.from_pretrained(settings["model"], dtype=torch.float32)
    # Dropout off, as in the recipe; gradients are computed all the same.
    model.eval()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    steps = read(settings["examples"])
    about = {"torch": torch.__version__, "transformers": transformers.__version__, "attention": model.config._attn_implementation}

    def work():
        model.load_state_dict(start)
        return train(model, steps, settings)

    return about, work


def read(path):
    """The examples of each step, in order."""
    steps = {}
    with open(path) as lines:
        for line in lines:
            example = json.loads(line)
            if example.get("split") == "train":
                steps.setdefault(example["step"], []).append((example["source"], example["labels"]))
    return [steps[number] for number in sorted(steps)]


def train(model, steps, settings):
    """The mean loss of a label at every step."""
    moments = {}
    losses = []
    for number, (examples, rate) in enumerate(zip(steps, settings["rates"], strict=True), 1):
        model.zero_grad(set_to_none=True)
        labels = sum(len(label) for _, label in examples)
        total = 0.0
        for batch in batches(examples, settings):
            loss = loss_of(model, batch, settings["dtype"])
            loss.backward()
            total += loss.item()
        losses.append(total / labels)
        update(model, moments, number, rate, labels, settings["optimizer"])
    return losses


def batches(examples, settings):
    """`single`: each by itself, nothing padded; `padded`: like lengths together, up to a number of tokens with the padding."""
    if settings["way"] == "single":
        ordered = reversed(examples) if settings.get("reversed") else examples
        return [[example] for example in ordered]
    found, longest = [[]], [0, 0]
    for example in sorted(examples, key=lambda example: (len(example[0]), len(example[1]))):
        grown = [max(now, len(side)) for now, side in zip(longest, example, strict=True)]
        if found[-1] and sum(grown) * (len(found[-1]) + 1) > settings["padded_tokens"]:
            found.append([])
            grown = [len(side) for side in example]
        found[-1].append(example)
        longest = grown
    return found


def loss_of(model, batch, dtype):
    """The sum of all labels' losses."""
    start = model.config.decoder_start_token_id
    source = padded([source for source, _ in batch], model.config.pad_token_id)
    target = padded([[start, *labels[:-1]] for _, labels in batch], model.config.pad_token_id)
    labels = padded([labels for _, labels in batch], IGNORED)
    mask = None
    if len(batch) > 1:
        lengths = torch.tensor([len(source) for source, _ in batch])
        mask = (torch.arange(source.shape[1])[None] < lengths[:, None]).long()
    half = torch.autocast("cpu", torch.bfloat16) if dtype == "bfloat16" else nullcontext()
    with half:
        # The decoder is causal, and labels behind a sequence's end are ignored: its padding needs no mask.
        logits = model(input_ids=source, attention_mask=mask, decoder_input_ids=target, use_cache=False).logits
    return cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")


def padded(rows, filling):
    longest = max(map(len, rows))
    return torch.tensor([row + [filling] * (longest - len(row)) for row in rows])


@torch.no_grad()
def update(model, moments, step, rate, labels, optimizer):
    """AdamW without decay, its steps times each weight's root mean square; gradients of the sum of losses become those of the mean and are clipped."""
    beta1, beta2 = optimizer["beta1"], optimizer["beta2"]
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    gradients = [parameter.grad for parameter in parameters]
    norm = torch.stack(torch._foreach_norm(gradients)).norm().item() / labels
    scale = min(1.0, optimizer["clip_norm"] / norm) / labels
    if not moments:
        moments["first"] = [torch.zeros_like(parameter) for parameter in parameters]
        moments["second"] = [torch.zeros_like(parameter) for parameter in parameters]
    torch._foreach_mul_(gradients, scale)
    torch._foreach_lerp_(moments["first"], gradients, 1 - beta1)
    torch._foreach_mul_(moments["second"], beta2)
    torch._foreach_addcmul_(moments["second"], gradients, gradients, 1 - beta2)
    for parameter, first, second in zip(parameters, moments["first"], moments["second"], strict=True):
        size = max(parameter.norm().item() / parameter.numel() ** 0.5, LEAST_RMS)
        root = (second / (1 - beta2**step)).sqrt_().add_(optimizer["epsilon"])
        parameter.addcdiv_(first, root, value=-rate * size / (1 - beta1**step))


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]), load)
