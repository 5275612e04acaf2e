"""Speed curves of the Kimi Linear paper (arXiv 2510.26692), to compare with by eye: not measured here.

Fig. 1b, 2 and 7: coordinates recovered from the vector paths of the figures in the report's PDF
(MoonshotAI/Kimi-Linear:tech_report.pdf at 858dba5), good to about 0.5 %; the ratios that the paper prints beside them are 2.3 and
2.9 (Fig. 7a, at 512k and 1M), 1.8 and 2.2 (Fig. 7b), 4.8, 5.7 and 6.3 (Fig. 1b). The paper names no hardware, precision or engine; for
Fig. 1b no batch sizes either, its ratio falls between 64k and 128k and its text calls the speedup theoretical. It does not
say how its MLA baseline encodes positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LABEL = "paper, hardware not stated"
_K = 1024
_LENGTHS = tuple(4 * _K * 2**i for i in range(9))  # 4k ... 1M


@dataclass(frozen=True, slots=True)
class PaperFigure:
    """curves: model or operator, as kleval names it without a size -> length -> value in unit. note: what is not stated."""

    figure: str
    unit: str
    curves: Mapping[str, Mapping[int, float]]
    note: str = ""

    def ratio(self, model: str, baseline: str = "mla") -> dict[int, float]:
        """baseline's value over model's at every length that both have."""
        theirs, mine = self.curves[baseline], self.curves[model]
        return {ctx: theirs[ctx] / mine[ctx] for ctx in theirs if ctx in mine}


def _curve(*values: float | None) -> dict[int, float]:
    return {ctx: value for ctx, value in zip(_LENGTHS, values, strict=True) if value is not None}


PREFILL = PaperFigure(
    "Fig. 7a",
    "s",
    {
        "mla": _curve(0.064, 0.099, 0.181, 0.362, 0.794, 2.009, 5.764, 18.63, 65.46),
        "gdn-h": _curve(0.099, 0.123, 0.187, 0.327, 0.625, 1.343, 3.101, 7.848, 22.42),
        "kimi-linear": _curve(0.099, 0.128, 0.187, 0.327, 0.642, 1.396, 3.218, 8.070, 22.76),
    },
    "batch 1",
)
TPOT_BATCH_1 = PaperFigure(
    "Fig. 7b",
    "ms",
    {
        "mla": _curve(5.32, 5.37, 6.20, 6.52, 6.88, 7.67, 9.10, 11.96, 17.76),
        "gdn-h": _curve(5.07, 5.07, 5.32, 5.39, 5.48, 5.75, 5.97, 6.62, 7.94),
        "kimi-linear": _curve(5.09, 5.12, 5.37, 5.41, 5.53, 5.74, 6.00, 6.66, 7.99),
    },
    "batch 1",
)
TPOT_LARGE_BATCH = PaperFigure(
    "Fig. 1b",
    "ms",
    {
        "mla": _curve(0.093, 0.134, 0.213, 0.400, 0.781, 1.83, 3.10, 5.88, 11.48),
        "gdn-h": _curve(0.100, None, 0.090, 0.100, 0.150, 0.46, 0.65, 1.04, 1.84),
        "kimi-linear": _curve(0.100, 0.090, 0.090, 0.100, 0.150, 0.46, 0.65, 1.05, 1.84),
    },
    "batch sizes not stated",
)
KERNELS = PaperFigure(
    "Fig. 2",
    "ms",
    {
        "dplr": {2 * _K * 2**i: v for i, v in enumerate((2.02, 3.90, 7.55, 14.89, 29.64, 59.22))},
        "kda": {2 * _K * 2**i: v for i, v in enumerate((1.70, 2.03, 3.87, 7.60, 14.81, 29.83))},
    },
    "batch 1, 16 heads of 128",
)
BY_QUANTITY = {"prefill": PREFILL, "batch-1": TPOT_BATCH_1, "largest-batch": TPOT_LARGE_BATCH}
KERNEL_HEADS, KERNEL_HEAD_DIM = 16, 128
KERNEL_SAVING = 2.0  # "roughly 100 %" faster than general DPLR, section 6.2
