"""Worker: the official pseudo-likelihood loop with Hugging Face's T5. Each residue in turn is replaced by <extra_id_0>, the decoder reads
<start> <extra_id_0>, and its logits over the 20 standard residues become log-probabilities. `copies` of a protein go through the network together
(they are equally long, so nothing is padded); the official code takes one."""

import json
import sys

import torch
import transformers
from harness import serve
from transformers import T5ForConditionalGeneration


def load(settings):
    torch.set_num_threads(settings["threads"])
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = T5ForConditionalGeneration.from_pretrained(settings["model"], dtype=getattr(torch, settings["dtype"])).eval()
    proteins = [torch.tensor(protein) for protein in settings["proteins"]]
    sentinel, copies = settings["sentinel"], settings["copies"]
    standard = torch.tensor(settings["standard"])
    columns = {token: column for column, token in enumerate(settings["standard"])}

    def log_likelihood(protein):
        # Between the prefix and </s>.
        sites = torch.arange(1, len(protein) - 1)
        total = 0.0
        for some in sites.split(copies):
            masked = protein.repeat(len(some), 1)
            masked[torch.arange(len(some)), some] = sentinel
            decoder = torch.tensor([[0, sentinel]]).repeat(len(some), 1)
            logits = model(input_ids=masked, decoder_input_ids=decoder, use_cache=False).logits
            log_probs = logits[:, 1, standard].double().log_softmax(-1)
            own = torch.tensor([columns[int(token)] for token in protein[some]])
            total += float(log_probs[torch.arange(len(some)), own].sum())
        return total

    @torch.inference_mode()
    def work():
        return [log_likelihood(protein) for protein in proteins]

    about = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "attention": model.config._attn_implementation,
    }
    return about, work


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]), load)
