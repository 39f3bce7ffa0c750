"""Worker: Hugging Face's T5EncoderModel, mean over the residues, in one of three ways to batch."""

import json
import sys

import torch
import transformers
from harness import serve
from transformers import T5EncoderModel

BATCH = 8


def load(settings):
    torch.set_num_threads(settings["threads"])
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = T5EncoderModel.from_pretrained(settings["model"], dtype=getattr(torch, settings["dtype"])).eval()
    sequences = settings["sequences"]
    about = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "attention": model.config._attn_implementation,
    }
    return about, lambda: embed(model, sequences, batches(sequences, settings["way"]))


def batches(sequences, way):
    """Lists of indices: `single`, `naive` (eight as they come), `sorted` (eight of similar length)."""
    order = list(range(len(sequences)))
    if way == "sorted":
        order.sort(key=lambda i: len(sequences[i]), reverse=True)
    size = 1 if way == "single" else BATCH
    return [order[at : at + size] for at in range(0, len(order), size)]


@torch.inference_mode()
def embed(model, sequences, batches):
    """Means over residues (prefix, `</s>` and padding left out), in input order."""
    means = [None] * len(sequences)
    for batch in batches:
        longest = max(len(sequences[i]) for i in batch)
        ids = torch.tensor([sequences[i] + [0] * (longest - len(sequences[i])) for i in batch])
        mask = (ids != 0).long() if len(batch) > 1 else None
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
        for row, i in enumerate(batch):
            means[i] = hidden[row, 1 : len(sequences[i]) - 1].float().mean(0).tolist()
    return means


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]), load)
