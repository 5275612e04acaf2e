"""Shapes of models that kleval has no decoder for, and the published ones that have a name: what they cost, not what they compute.

A shape is read from a config.json by `checkpoint.families`. The figures behind the names are in `published_configs`, one config.json
each, of which `_source` says where it was read.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from kleval.models.costs import Costs
from kleval.models.shape import Delta, Layer
from kleval.types import UsageError

FOLDER = Path(__file__).parent / "published_configs"
# name -> file of FOLDER
PUBLISHED = {
    "kimi-k3": "kimi-k3.json",
    "glm-5.3-flash": "glm-5.3-flash.json",
    "qwen3.5": "qwen3.5-397b-a17b.json",
    "qwen3.5-35b-a3b": "qwen3.5-35b-a3b.json",
    "deepseek-v3": "deepseek-v3.json",
    "llama-3.1-70b": "llama-3.1-70b.json",
}


@dataclass(frozen=True, slots=True)
class Shape(Costs):
    """family: the model type of its config.json. stack: the layers in their order. not_counted: what its config.json has besides
    (vision, layers that predict further tokens)."""

    family: str
    vocab_size: int
    hidden_size: int
    tie_word_embeddings: bool
    stack: tuple[Layer, ...]
    max_position_embeddings: int | None = None
    last_residual: int = 0
    quantized: str | None = None
    not_counted: tuple[str, ...] = ()

    def layers(self) -> Counter[Layer]:
        return Counter(self.stack)

    def full_attention(self) -> Shape:
        attention = next((layer.mixer for layer in self.stack if not isinstance(layer.mixer, Delta)), None)
        if attention is None:
            raise UsageError(f"a {self.family} without any attention layer has nothing to be compared with")
        return replace(
            self,
            stack=tuple(
                replace(layer, mixer=attention) if isinstance(layer.mixer, Delta) else layer for layer in self.stack
            ),
        )

    @property
    def final_residual(self) -> int:
        return self.last_residual


def published_file(name: str) -> Path | None:
    """The config.json behind a name, None where there is none."""
    file = PUBLISHED.get(name)
    return None if file is None else FOLDER / file
