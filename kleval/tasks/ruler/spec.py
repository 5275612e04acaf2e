"""The 13 tasks of RULER as data: parameters, generation budgets and metrics.

Source: NVIDIA/RULER @ c3f5e3b, scripts/synthetic.yaml and scripts/data/synthetic/constants.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

PROTOCOL = "nvidia-c3f5e3b"
ANY_PLACE = f"{PROTOCOL}-random-position"
LM_EVAL = "lm-eval-0.4.13"
IN_PROMPT = f"{PROTOCOL}-prefix-in-prompt"
VERSION = "1"
NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."

Haystack = Literal["noise", "essay", "needle"]
Kind = Literal["niah", "vt", "cwe", "fwe", "qa"]
Metric = Literal["string_match_all", "string_match_part"]


@dataclass(frozen=True, slots=True)
class Needles:
    """What is hidden where: `keys` keys with `values` values each, of which `queries` keys are asked for."""

    haystack: Haystack
    key_type: str = "words"
    value_type: str = "numbers"
    keys: int = 1
    values: int = 1
    queries: int = 1


@dataclass(frozen=True, slots=True)
class Spec:
    """One task. budget: official tokens to generate. dataset: of the qa tasks."""

    name: str
    kind: Kind
    budget: int
    description: str
    metric: Metric = "string_match_all"
    needles: Needles | None = None
    dataset: str = ""

    @property
    def id(self) -> str:
        return f"ruler/{self.name}"

    @property
    def of_essays(self) -> bool:
        """Whether the haystack is prose."""
        return self.needles is not None and self.needles.haystack == "essay"

    @property
    def takes_documents(self) -> bool:
        """Whether the user's documents may be the haystack: the tasks whose haystack is prose or noise."""
        return self.needles is not None and self.needles.haystack != "needle"


@dataclass(frozen=True, slots=True)
class Draft:
    """One question as a generator makes it: input without the answer prefix, the prefix, the answers."""

    input: str
    prefix: str
    answers: tuple[str, ...]
    meta: dict[str, Any] = field(default_factory=dict)


def _niah(name: str, needles: Needles, description: str) -> Spec:
    return Spec(name, "niah", 128, description, needles=needles)


SPECS: dict[str, Spec] = {
    spec.name: spec
    for spec in (
        _niah("niah_single_1", Needles("noise"), "one number by its word, in repeated noise"),
        _niah("niah_single_2", Needles("essay"), "one number by its word, in prose"),
        _niah("niah_single_3", Needles("essay", value_type="uuids"), "one UUID by its word, in prose"),
        _niah("niah_multikey_1", Needles("essay", keys=4), "one number among four needles, in prose"),
        _niah("niah_multikey_2", Needles("needle"), "one number in a haystack of nothing but needles"),
        _niah("niah_multikey_3", Needles("needle", "uuids", "uuids"), "one UUID by UUID in a haystack of needles"),
        _niah("niah_multivalue", Needles("essay", values=4), "all four numbers of one word, in prose"),
        _niah("niah_multiquery", Needles("essay", keys=4, queries=4), "the numbers of four words, in prose"),
        Spec("vt", "vt", 30, "the five variables of one assignment chain, in noise; one demonstration"),
        Spec("cwe", "cwe", 120, "the ten most common words of a numbered list; one demonstration"),
        Spec("fwe", "fwe", 50, "the three most frequent coded words of a zeta-distributed text"),
        Spec("qa_1", "qa", 32, "one paragraph answers the question", "string_match_part", dataset="squad"),
        Spec("qa_2", "qa", 32, "two documents together answer the question", "string_match_part", dataset="hotpotqa"),
    )
}
