"""RULER's scoring: NVIDIA/RULER @ c3f5e3b, scripts/eval/evaluate.py and scripts/eval/synthetic/constants.py.

Per sample and in [0, 1]; the official file-level score is their mean × 100, rounded to two digits. Known and kept:
references are looked for as substrings ("bar" is found in "barrier"), and an empty reference is always found.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_CONTROL = re.compile("[\x00-\x1f]")


def postprocess(prediction: str) -> str:
    """Stripped, control characters (newlines and tabs too) made newlines, stripped again."""
    return _CONTROL.sub("\n", prediction.strip()).strip()


def string_match_all(prediction: str, references: Sequence[str]) -> float:
    """The part of the references that the prediction contains, whatever their case."""
    text = prediction.lower()
    return sum(r.lower() in text for r in references) / len(references)


def string_match_part(prediction: str, references: Sequence[str]) -> float:
    """1 if the prediction contains any reference, whatever its case."""
    text = prediction.lower()
    return float(any(r.lower() in text for r in references))


METRICS = {"string_match_all": string_match_all, "string_match_part": string_match_part}
