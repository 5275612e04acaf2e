"""The nano models' tokenizer: byte-level BPE of 1024 entries, lossless on any UTF-8 text.

All 256 bytes are in the vocabulary, so nothing is unknown; every digit is a token of its own and no merge crosses digits, so no
token was made for a number that a task asks for. Merges are learned from the `train` split of kleval's prose and articles and
from task instructions: from no evaluation text, and from none of the word lists that keys are drawn from. The end token is a
vocabulary entry that no text encodes to: writing its name in a prompt yields the letters.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from kleval.tasks import articles, prose
from kleval.train import templates

VOCAB_SIZE = 1024
EOS = "<|eos|>"
TRAINING_WORDS = 200_000


def corpus() -> Iterator[str]:
    """What the merges are learned from, in order."""
    yield from prose.essay(TRAINING_WORDS, seed="tokenizer", split="train").split("\n\n")
    for article in articles.corpus(300, "tokenizer", "train"):
        yield article.text
    yield from templates.instructions() * 60


def train_tokenizer(folder: Path) -> Path:
    """Learn the merges and write tokenizer.json and tokenizer_config.json into folder. Returns the path of the former."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    split_digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split_digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - 1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    state = json.loads(tokenizer.to_str())
    # Not an added token: those are recognised inside texts, and then a prompt could end itself.
    state["model"]["vocab"][EOS] = len(state["model"]["vocab"])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(state, ensure_ascii=False, indent=None, separators=(",", ":")), encoding="utf-8")
    settings = {"eos_token": EOS, "model_max_length": 1_048_576}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    return path
