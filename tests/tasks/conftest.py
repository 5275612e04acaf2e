"""Tokenizers that tests of tasks share."""

from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from kleval.tokenization import HFTokenizer, load_tokenizer
from kleval.types import Tokenizer


@pytest.fixture(scope="session")
def words() -> Tokenizer:
    return load_tokenizer("words")


@pytest.fixture(scope="session")
def tiny_bpe(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A byte-level BPE of 600 tokens: rare words are three to six tokens, as with a small shipped vocabulary."""
    core = tokenizers.Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    text = Path(__file__).resolve().parents[2].joinpath("LICENSE").read_text(encoding="utf-8")
    noise = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.\n"
    core.train_from_iterator([text, noise * 50], trainer)
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    core.save(str(path))
    return HFTokenizer.from_file(path, name="tiny-bpe")
