"""Worker: Hugging Face's `generate`, greedy, an exact number of new tokens, standard residues only."""

import json
import sys

import torch
import transformers
from harness import serve
from transformers import GenerationConfig, T5ForConditionalGeneration


def load(settings):
    torch.set_num_threads(settings["threads"])
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = T5ForConditionalGeneration.from_pretrained(settings["model"], dtype=getattr(torch, settings["dtype"])).eval()
    prompts = torch.tensor(settings["prompts"])
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=settings["new_tokens"],
        min_new_tokens=settings["new_tokens"],
        suppress_tokens=settings["suppressed"],
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )

    @torch.inference_mode()
    def work():
        tokens = model.generate(prompts, attention_mask=torch.ones_like(prompts), generation_config=config)
        return tokens[:, 1:].tolist()

    about = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "attention": model.config._attn_implementation,
    }
    return about, work


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]), load)
