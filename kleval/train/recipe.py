"""Recipe of the nano family: `recipe.toml` as a record, its schedules, and the differences of two recipes in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from kleval import files
from kleval.models.config import ModelConfig
from kleval.models.sizes import preset


@dataclass(frozen=True, slots=True)
class Recipe:
    """Fields as `recipe.toml` explains them. tokens: the budget, counted as rows x length of every batch."""

    name: str
    tokenizer: str
    tokens: int
    tokens_per_batch: int
    seed: int
    muon_lr: float
    adam_lr: float
    clip: float
    warmup_steps: int
    decay_share: float
    curriculum: tuple[tuple[float, int], ...]
    begin: str
    precision: str
    mlp_width: Mapping[str, int] = field(hash=False)

    def length_at(self, tokens: int) -> int:
        """Tokens per sequence once so many are seen."""
        share = tokens / self.tokens
        return next((length for until, length in self.curriculum if share < until), self.curriculum[-1][1])

    def learning_scale(self, step: int, tokens: int) -> float:
        """Factor on both learning rates: warm-up by steps, decay by tokens seen."""
        warm = min(1.0, (step + 1) / self.warmup_steps)
        return warm * min(1.0, (1.0 - tokens / self.tokens) / self.decay_share)

    def config(self, architecture: str, vocab_size: int, eos_token_id: int) -> ModelConfig:
        """The nano configuration of an architecture. UsageError for one that there is not."""
        config = preset(architecture, "nano", vocab_size=vocab_size, eos_token_id=eos_token_id)
        return replace(config, intermediate_size=self.mlp_width[architecture])

    def settings(self, **more: Any) -> dict[str, Any]:
        """JSON values: what a training is told apart by."""
        return asdict(self) | {"curriculum": [list(part) for part in self.curriculum], **more}


def load(**changed: Any) -> Recipe:
    """The recipe of the package, with these fields instead; None leaves one as it is."""
    values = files.packaged("train/recipe.toml") | {k: v for k, v in changed.items() if v is not None}
    return Recipe(**values | {"curriculum": tuple((share, length) for share, length in values["curriculum"])})


def differences(made: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """`muon_lr 0.02 -> 0.01, seed 0 -> 1`, "" where nothing differs. Of both, what stands in `asked`."""
    return ", ".join(f"{k} {made.get(k)} -> {v}" for k, v in asked.items() if made.get(k) != v)
