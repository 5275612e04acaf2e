"""`kleval train ablation` and `kleval train ladder`: the paper's Table 1 and Figure 5 at a toy's scale, on the nano family's data.

Ablation: one thing of `kimi-linear` changed at a time, under one budget (half the recipe's), 16 layers of width 64, since the ratio
15:1 needs 16. Ladder: four sizes of `kimi-linear` and `mla`, tokens in proportion to parameters, loss L = a C^-b fitted over
compute C in PFLOP, 6 per parameter and token. Loss is the mean over the last steps on data that never came before, on answer
tokens: no perplexity of text, and a toy's: the order of two rows may be another one at 48B.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kleval.models.config import ModelConfig
from kleval.train import loop, nano
from kleval.train.loop import Progress
from kleval.train.recipe import Recipe
from kleval.train.synthetic import read_results
from kleval.types import UsageError

LAYERS = 16
PFLOP = 1e15

# variant -> what it changes: linear layers per MLA layer, `variants.vary`'s arguments, positions; and the paper's training and
# validation perplexity of text (Table 1, 16 layers, 16 heads).
ABLATIONS: Mapping[str, tuple[dict[str, Any], tuple[float, float] | None]] = {
    "3:1": ({}, (9.23, 5.65)),
    "0:1": ({"ratio": 0}, (9.45, 5.77)),
    "1:1": ({"ratio": 1}, (9.29, 5.66)),
    "7:1": ({"ratio": 7}, (9.23, 5.70)),
    "15:1": ({"ratio": 15}, (9.34, 5.82)),
    "no output gate": ({"gate": "none"}, (9.25, 5.67)),
    "swish gate": ({"gate": "swish"}, (9.43, 5.81)),
    "no short convolution": ({"conv": False}, (9.29, 5.70)),
    "RoPE": ({"rope": True}, None),
}
# width, heads of both mixers.
LADDER = ((64, 1), (96, 2), (128, 2), (192, 3))
LADDER_MODELS = ("kimi-linear", "mla")


@dataclass(frozen=True, slots=True)
class Rung:
    """A training of a study. change: of the configuration; vary: of the linear mixers."""

    name: str
    architecture: str
    change: Mapping[str, Any]
    vary: Mapping[str, Any]
    made: Recipe


def ablation(made: Recipe, names: Sequence[str] = ()) -> list[Rung]:
    """The trainings of the ablation, those of these names alone where any is given."""
    if unknown := [name for name in names if name not in ABLATIONS]:
        raise UsageError(f"unknown variant {unknown[0]!r}: choose out of {', '.join(ABLATIONS)}")
    half = replace(made, tokens=made.tokens // 2)
    rungs = []
    for name in names or ABLATIONS:
        asked = dict(ABLATIONS[name][0])
        ratio, rope = asked.pop("ratio", 3), asked.pop("rope", False)
        mixers = tuple("mla" if (i + 1) % (ratio + 1) == 0 else "kda" for i in range(LAYERS))
        change = {**_shape(64, 1), "layer_mixers": mixers, "mla_use_nope": not rope}
        rungs.append(Rung(name, "kimi-linear", change, asked, half))
    return rungs


def ladder(made: Recipe) -> list[Rung]:
    """The trainings of the scaling study: tokens of the recipe at width 128."""
    return [
        Rung(
            f"{architecture} {width}",
            architecture,
            _shape(width, heads),
            {},
            replace(made, tokens=_budget(made, width)),
        )
        for width, heads in LADDER
        for architecture in LADDER_MODELS
    ]


def _budget(made: Recipe, width: int) -> int:
    return int(made.tokens * (width / 128) ** 2)


def _shape(width: int, heads: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "kda_num_heads": heads,
        "kda_head_dim": 64,
        "num_attention_heads": 2 * heads,
        "kv_lora_rank": 3 * width // 4,
        "embedding_multiplier": width**0.5,
    }


def train_rung(
    rung: Rung,
    out: Path,
    device: str = "cpu",
    on_progress: Callable[[Progress], None] = lambda _: None,
    **settings: Any,
) -> dict[str, Any]:
    """Train it into a folder below `out`; the result is also a line of out/results.jsonl. Done before: that line."""
    asked = {"name": rung.name, "architecture": rung.architecture, "recipe": rung.made.settings()}
    for row in read_results(out):
        if all(row.get(k) == v for k, v in asked.items()):
            return row
    # Roots of induction heads are written for the nano shape: here all begin at random.
    made = replace(rung.made, begin="random")

    def changed(config: ModelConfig) -> ModelConfig:
        return replace(config, **rung.change)

    job = nano.job(rung.architecture, made, changed, dict(rung.vary))
    folder = out / rung.name.replace(":", "-").replace(" ", "-")
    at = loop.train(job, folder, device, on_progress, **settings) or loop.ended(folder, job)
    parameters = sum(p.numel() for p in job.model.parameters())
    row = {
        **asked,
        "parameters": parameters,
        "tokens": at.tokens,
        "loss": round(at.loss, 4),
        "seconds": round(at.seconds, 1),
    }
    if published := ABLATIONS.get(rung.name, ({}, None))[1]:
        row["paper"] = f"{published[0]:.2f} / {published[1]:.2f}"
    loop.append(out / "results.jsonl", row)
    return row


def fitted(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """(a, b) of loss = a C^-b by least squares of logarithms, C = 6 parameters tokens in PFLOP. At least two sizes."""
    points = [(math.log(6 * r["parameters"] * r["tokens"] / PFLOP), math.log(r["loss"])) for r in rows]
    if len({x for x, _ in points}) < 2:
        raise UsageError("a power law is fitted through at least two sizes")
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    return math.exp(mean_y - slope * mean_x), -slope


def fits(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line per architecture with two sizes or more: its power law.

    The paper's, of text at 650M to 1.7B: MLA 2.3092 C^-0.0536, Kimi Linear 2.2879 C^-0.0527, C in PFLOP/s-days.
    """
    lines = []
    for architecture in LADDER_MODELS:
        mine = [r for r in rows if r["architecture"] == architecture]
        if len(mine) > 1:
            a, b = fitted(mine)
            lines.append(
                f"{architecture}: loss = {a:.3f} C^-{b:.4f}, C in PFLOP, a toy's fit through {len(mine)} points"
            )
    return lines
