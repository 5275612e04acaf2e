"""Byte-level BPE of 1,536 entries, the nano models' tokenizer `nano-2`: made for the tasks' templates, lossless on any UTF-8 text.

All 256 bytes are in the vocabulary, so nothing is unknown. What a template says between its blanks is one token
(`templates.phrases`, with and without a blank before it): a model of a million parameters should not spend its context on
instructions. Digits are taken two at a time from the left, and no merge crosses them, so no token was made for a number that a
task asks for. All other merges are learned from the `train` split of kleval's prose and articles, from training samples (as
recipe nano-2 made them), and from the topics of Python's help: from no evaluation text, and from none of the word lists that
keys are drawn from. The end token is a vocabulary entry that no text encodes to: writing its name in a prompt yields the
letters.

`nano-1`, of 1,024 entries with every digit a token, is the tokenizer of the first nano models. Both are files of the package
(`kleval/tokenization/nano`), and names that `--tokenizer` takes.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kleval.tasks import articles, prose
from kleval.tokenization import HFTokenizer
from kleval.train import templates
from kleval.train.stream import MIXTURE, Stream

VOCAB_SIZE = 1536
EOS = "<|eos|>"
TRAINING_WORDS = 200_000
_HELP_CHARS = 200_000
_SAMPLED = ("needle", "track", "labels", "exam", "function", "library", "commit", "conversation")
_SAMPLES = 60  # of each kind
# GPT-2's words, with digits in pairs.
_WORDS = r"\p{N}{1,2}|'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def corpus(samples: Sequence[str]) -> Iterator[str]:
    """What the merges are learned from, in order. samples: texts of training samples."""
    from pydoc_data.topics import topics

    yield from prose.essay(TRAINING_WORDS, seed="tokenizer", split="train").split("\n\n")
    for article in articles.corpus(300, "tokenizer", "train"):
        yield article.text
    yield from samples
    yield "\n".join(topics[name] for name in sorted(topics))[:_HELP_CHARS]


def train_tokenizer(folder: Path) -> Path:
    """Learn the merges and write tokenizer.json into folder. Returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    first = _learned(folder / "tokenizer.json", ())
    # Samples are made to fit a length in tokens: those that merges are learned from, by a tokenizer without them.
    stream = Stream(HFTokenizer.from_file(first, name="first"), seed=-1, bank_size=1000)
    rng = random.Random("tokenizer")
    made = (stream.made(MIXTURE[kind][0], rng, 1024) for kind in _SAMPLED for _ in range(_SAMPLES))
    texts = [stream.desk.tokenizer.decode(sample[0][:-1].tolist()) for sample in made if sample is not None]
    return _learned(first, texts)


def _learned(path: Path, samples: Sequence[str]) -> Path:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    phrases = templates.phrases()
    fixed = "|".join(re.sub(r"([^\w\s])", r"\\\1", phrase) for phrase in phrases)
    pairs = [f"{i:02}" for i in range(100)]
    tokenizer = Tokenizer(models.BPE())
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    # No merge is learned inside a phrase or a number.
    without = pre_tokenizers.Split(Regex(rf" ?(?:{fixed})|\p{{N}}"), "removed")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([without, pre_tokenizers.Split(Regex(_WORDS), "isolated"), plain])
    tokenizer.decoder = decoders.ByteLevel()
    whole = [plain.pre_tokenize_str(blank + phrase)[0][0] for phrase in phrases for blank in ("", " ")]
    whole = list(dict.fromkeys(whole))
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - 1 - len(pairs) - len(whole),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(samples), trainer)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(rf" ?(?:{fixed})|{_WORDS}"), "isolated"), plain]
    )
    state: dict[str, Any] = json.loads(tokenizer.to_str())
    model = state["model"]
    # Not added tokens: those are recognised inside texts whatever stands around them, and a prompt could end itself.
    for token in (*pairs, *whole, EOS):
        model["vocab"].setdefault(token, len(model["vocab"]))
    model["merges"] += [[*pair] for pair in pairs]
    model["ignore_merges"] = True  # a phrase is looked up, not put together
    path.write_text(json.dumps(state, ensure_ascii=False, indent=None, separators=(",", ":")), encoding="utf-8")
    return path
