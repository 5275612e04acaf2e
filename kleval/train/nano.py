"""`kleval train nano`: the nano family, four architectures trained alike.

One stream of batches, one token budget, one optimiser and one schedule for every architecture (`recipe.toml`), so that the models
differ in their mixers alone. Batch i depends on seed, i and the tokens seen so far, never on the architecture or on how well it does.

A training that was interrupted, killed or moved goes on when the same command is given again: with the same --out, --seed and
--tokens it finds its checkpoint there. The CPU operators it goes through may change in between (a faster form of the same function
changes rounding, not data or order); training.json says what it ended with.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from kleval import files
from kleval.models.config import ModelConfig
from kleval.models.decoder import Decoder
from kleval.tokenization import HFTokenizer, load_tokenizer, nano_file
from kleval.train import loop, recipe
from kleval.train.loop import Batch, Progress
from kleval.train.recipe import Recipe
from kleval.train.start import in_words, structured_start
from kleval.train.stream import FAMILIES, MIXTURE, Stream
from kleval.train.tokenizer import EOS
from kleval.train.variants import vary


def train_nano(
    architecture: str,
    out: Path,
    made: Recipe | None = None,
    device: str = "cpu",
    threads: int = 0,
    on_progress: Callable[[Progress], None] = lambda _: None,
    **settings: Any,
) -> Path:
    """Train one architecture at nano size into out/ARCHITECTURE and return that folder.

    made: the recipe (default: the package's). The folder also gets the tokenizer. settings: of `loop.train`. UsageError as there.
    """
    made = made or recipe.load()
    if threads:
        torch.set_num_threads(threads)
    folder = out / architecture
    with files.usage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(nano_file(made.tokenizer), folder / "tokenizer.json")
        files.write_text(folder / "tokenizer_config.json", json.dumps({"eos_token": EOS}) + "\n")
    loop.train(job(architecture, made), folder, device, on_progress, **settings)
    return folder


def job(
    architecture: str,
    made: Recipe,
    change: Callable[[ModelConfig], ModelConfig] = lambda config: config,
    varied: Mapping[str, Any] = MappingProxyType({}),
) -> loop.Job:
    """The training of one architecture. change: another shape; varied: arguments of `variants.vary`, other linear mixers."""
    tokenizer = load_tokenizer(made.tokenizer)
    assert isinstance(tokenizer, HFTokenizer)
    stream = Stream(tokenizer, made.seed)
    plain = made.config(architecture, tokenizer.vocab_size, stream.desk.eos_id)
    config = change(plain)
    model = Decoder(config)
    if varied:
        vary(model, **varied)
    model.init_weights(made.seed)
    if made.begin == "induction":
        structured_start(model, config, made.seed)

    def batch(step: int, tokens: int) -> Batch:
        length = made.length_at(tokens)
        return stream.batch(step, length, max(1, made.tokens_per_batch // length))

    more = {k: v for k, v in config.to_dict().items() if v != plain.to_dict()[k]} | dict(varied)
    return loop.Job(
        architecture,
        made.settings(architecture=architecture, mixture=stream.shares(), **more),
        model,
        made.tokens,
        batch,
        made.learning_scale,
        tuple(MIXTURE),
        made.muon_lr,
        made.adam_lr,
        made.clip,
        made.precision,
        facts={"families": list(FAMILIES), "start": in_words(config) if made.begin == "induction" else made.begin},
    )
