"""What transformers makes of a checkpoint: hidden states, attention maps, logits, generated tokens, gradients.

Everything is asked of sequences run alone, without padding, unless the name says batch.
"""

import argparse

import numpy as np
import torch
import transformers
from transformers import GenerationConfig, T5ForConditionalGeneration

PAD, EOS, START = 0, 1, 0
IGNORED = -100


def begin(doc):
    """Reads the command line of a script that makes goldens; whether it shall only compare. Results do not depend on threads."""
    arguments = argparse.ArgumentParser(description=doc.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="compare with the committed goldens, write nothing")
    check = arguments.parse_args().check
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return check


def load(directory, dtype):
    """The model in `dtype`, eager attention; fails unless the file's own lm_head (or the shared table) is really in use."""
    model, report = T5ForConditionalGeneration.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not report["missing_keys"] and not report["mismatched_keys"], report
    return model.to(dtype).eval()


def row(ids):
    return torch.tensor([list(ids)], dtype=torch.long)


@torch.no_grad()
def encoder_states(model, ids):
    """The `output_hidden_states` tuple of the encoder: embeddings, layers, final norm last."""
    out = model.encoder(input_ids=row(ids), output_hidden_states=True)
    return [state[0].numpy() for state in out.hidden_states]


@torch.no_grad()
def encoder_attentions(model, ids):
    out = model.encoder(input_ids=row(ids), output_attentions=True)
    return [weights[0].numpy() for weights in out.attentions]


@torch.no_grad()
def padded_encoder(model, sequences):
    """Last hidden states of one padded batch, padding cut off again."""
    longest = max(map(len, sequences))
    ids = torch.tensor([list(s) + [PAD] * (longest - len(s)) for s in sequences])
    mask = torch.tensor([[1] * len(s) + [0] * (longest - len(s)) for s in sequences])
    out = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    return [out[i, : len(s)].numpy() for i, s in enumerate(sequences)]


@torch.no_grad()
def decoder_outputs(model, source, target):
    """Teacher forcing: logits `(target, vocab)`, the decoder's hidden states, its self- and cross-attention maps."""
    out = model(input_ids=row(source), decoder_input_ids=row(target), output_hidden_states=True, output_attentions=True)
    return {
        "logits": out.logits[0].numpy(),
        "hidden": [state[0].numpy() for state in out.decoder_hidden_states],
        "self_attention": [weights[0].numpy() for weights in out.decoder_attentions],
        "cross_attention": [weights[0].numpy() for weights in out.cross_attentions],
    }


@torch.no_grad()
def generate(model, source, **settings):
    """Token ids of every returned sequence (without the start token and the padding behind `</s>`) and their scores, best first."""
    config = GenerationConfig(
        pad_token_id=PAD,
        eos_token_id=EOS,
        decoder_start_token_id=START,
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
        **settings,
    )
    out = model.generate(
        row(source),
        attention_mask=torch.ones(1, len(source), dtype=torch.long),
        generation_config=config,
    )
    tokens = [trim(sequence.tolist()[1:]) for sequence in out.sequences]
    if settings.get("num_beams", 1) > 1:
        return tokens, out.sequences_scores.double().tolist(), None
    steps = torch.stack([s[0] for s in out.scores]).double()
    log_probs = steps.log_softmax(-1)
    chosen = log_probs[torch.arange(len(tokens[0])), torch.tensor(tokens[0])]
    best, second = steps.topk(2, dim=-1).values.unbind(-1)
    return tokens, [chosen.sum().item()], (best - second).min().item()


def trim(tokens):
    return tokens[: tokens.index(EOS) + 1] if EOS in tokens else tokens


def loss_and_gradients(model, pairs):
    """Mean cross-entropy over all target tokens of the batch, dropout off, and the gradient of every parameter."""
    model.zero_grad()
    longest_source = max(len(s) for s, _ in pairs)
    longest_target = max(len(t) for _, t in pairs)
    out = model(
        input_ids=torch.tensor([s + [PAD] * (longest_source - len(s)) for s, _ in pairs]),
        attention_mask=torch.tensor([[1] * len(s) + [0] * (longest_source - len(s)) for s, _ in pairs]),
        labels=torch.tensor([t + [IGNORED] * (longest_target - len(t)) for _, t in pairs]),
    )
    out.loss.backward()
    return out.loss.item(), {n: np.array(p.grad.numpy()) for n, p in model.named_parameters()}
