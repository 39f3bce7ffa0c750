"""Worker: CTranslate2, greedy, an exact number of new tokens, standard residues only. Converts the checkpoint on first use."""

import json
import sys
from pathlib import Path

import ctranslate2
import transformers
from ctranslate2.converters.transformers import T5Loader
from harness import serve
from transformers import T5ForConditionalGeneration


def load(settings):
    converted = Path(settings["converted"])
    if not (converted / "model.bin").exists():
        convert(settings["model"], settings["pieces"], converted)
    translator = ctranslate2.Translator(
        str(converted), compute_type=settings["compute_type"], inter_threads=1, intra_threads=settings["threads"]
    )
    pieces = settings["pieces"]
    prompts = [[pieces[i] for i in prompt] for prompt in settings["prompts"]]
    suppressed = [[pieces[i]] for i in settings["suppressed"]]
    ids = {piece: i for i, piece in enumerate(pieces)}

    def work():
        results = translator.translate_batch(
            prompts,
            beam_size=1,
            max_batch_size=len(prompts),
            max_decoding_length=settings["new_tokens"],
            min_decoding_length=settings["new_tokens"],
            max_input_length=0,
            suppress_sequences=suppressed,
        )
        return [[ids[piece] for piece in result.hypotheses[0]] for result in results]

    return {"ctranslate2": ctranslate2.__version__}, work


def convert(model, pieces, directory):
    """As ct2-transformers-converter does, but with the pieces given: it would ask for a tokenizer class."""
    transformers.logging.disable_progress_bar()
    model = T5ForConditionalGeneration.from_pretrained(model)
    loader = T5Loader()
    # transformers says `tied` of every T5; the head in use tells.
    model.config.tie_word_embeddings = model.lm_head.weight is model.shared.weight
    spec = loader.get_model_spec(model)
    loader.set_vocabulary(spec, pieces)
    spec.config.bos_token, spec.config.eos_token, spec.config.unk_token = pieces[0], pieces[1], pieces[2]
    spec.config.decoder_start_token = pieces[0]
    spec.config.add_source_eos = False
    spec.validate()
    spec.optimize()
    directory.mkdir(parents=True, exist_ok=True)
    spec.save(str(directory))


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]), load)
