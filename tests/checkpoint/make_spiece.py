"""Makes `spiece.model` beside this file with SentencePiece itself, and the ids that it gives for a few sequences.

    python -m venv env && env/bin/pip install sentencepiece==0.2.3 && env/bin/python make_spiece.py
"""

import json
import pathlib
import random

import sentencepiece

here = pathlib.Path(__file__).parent
random.seed(7)
corpus = ("".join(random.choices("ACDEFGHIKLMNPQRSTVWYX", k=60)) for _ in range(500))
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=corpus, model_prefix=str(here / "spiece"), model_type="unigram", vocab_size=27,
    hard_vocab_limit=False, max_sentencepiece_length=1, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
    user_defined_symbols=["[NLU]", "[S2S]"], add_dummy_prefix=False, normalization_rule_name="identity",
)
(here / "spiece.vocab").unlink()
processor = sentencepiece.SentencePieceProcessor(model_file=str(here / "spiece.model"))
texts = ["[NLU]MKAYVLINSRGP", "[S2S]ACDEFGHIKLMNPQRSTVWYX", "WWW"]
ids = {text: processor.encode(text) + [processor.eos_id()] for text in texts}
(here / "spiece_ids.json").write_text(json.dumps(ids, indent=1) + "\n")
