"""Speed curves of the Kimi Linear paper, to compare with by eye: `paper.toml` has the points and where they are from."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from kleval.report import embed

LABEL = "paper, hardware not stated"
KERNEL_HEADS, KERNEL_HEAD_DIM = 16, 128


@dataclass(frozen=True, slots=True)
class PaperFigure:
    """curves: model or operator, as kleval names it without a size -> length -> value in unit. note: what is not stated."""

    figure: str
    unit: str
    note: str
    curves: Mapping[str, Mapping[int, float]]

    def ratio(self, model: str, baseline: str = "mla") -> dict[int, float]:
        """baseline's value over model's at every length that both have."""
        theirs, mine = self.curves[baseline], self.curves[model]
        return {ctx: theirs[ctx] / mine[ctx] for ctx in theirs if ctx in mine}


@cache
def paper_figures() -> Mapping[str, PaperFigure]:
    """By what they are of: prefill, a decode protocol, or kernels."""
    found = {}
    for name, about in tomllib.loads(embed.asset("paper.toml")).items():
        first = about.pop("first")
        figure, unit, note = (about.pop(key) for key in ("figure", "unit", "note"))
        curves = {of: {first * 2**i: v for i, v in enumerate(values) if v} for of, values in about.items()}
        found[name] = PaperFigure(figure, unit, note, curves)
    return found
