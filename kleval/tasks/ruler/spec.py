"""The 13 tasks of RULER as data: parameters, generation budgets, metrics and texts (`tasks.toml`, which names the source)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from kleval.tasks import packaged

PROTOCOL = "nvidia-c3f5e3b"
ANY_PLACE = f"{PROTOCOL}-random-position"
LM_EVAL = "lm-eval-0.4.13"
IN_PROMPT = f"{PROTOCOL}-prefix-in-prompt"
VERSION = "1"


class Texts(NamedTuple):
    """What a question says, places unfilled, and the answer prefix."""

    question: str
    prefix: str


_FOUND = packaged.load("ruler/tasks.toml")
NOISE: str = _FOUND["noise"]
NEEDLE: str = _FOUND["needle"]
TEXTS = {form: Texts(**texts) for form, texts in _FOUND["texts"].items()}


@dataclass(frozen=True, slots=True)
class Needles:
    """What is hidden where: `keys` keys with `values` values each, of which `queries` keys are asked for."""

    haystack: Literal["noise", "essay", "needle"]
    key_type: str = "words"
    value_type: str = "numbers"
    keys: int = 1
    values: int = 1
    queries: int = 1

    @property
    def texts(self) -> Texts:
        return TEXTS["one" if self.queries * self.values == 1 else "many"]


@dataclass(frozen=True, slots=True)
class Spec:
    """One task. budget: official tokens to generate. needles: of the niah tasks. dataset: of the qa tasks."""

    name: str
    kind: Literal["niah", "vt", "cwe", "fwe", "qa"]
    budget: int
    metric: Literal["string_match_all", "string_match_part"] = "string_match_all"
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
    def texts(self) -> Texts:
        return TEXTS[self.kind] if self.needles is None else self.needles.texts


@dataclass(frozen=True, slots=True)
class Draft:
    """One question as a generator makes it: input without the answer prefix, the prefix, the answers."""

    input: str
    prefix: str
    answers: tuple[str, ...]
    meta: dict[str, Any] = field(default_factory=dict)


SPECS: dict[str, Spec] = {
    name: Spec(name, **{**facts, "needles": Needles(**facts["needles"]) if "needles" in facts else None})
    for name, facts in _FOUND["tasks"].items()
}
