"""Metric of the user's own: a function of an answer, in the place of a task's.

`f(answer, references)` or `f(answer, references, sample)` gives a number in [0, 1], true or false, None for "not scored", or a dict of
such with the function's name as its headline. answer: the text, without reasoning; references: a tuple of texts.
"""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kleval.tasks.own.code import digest, digests
from kleval.tasks.own.files import attribute
from kleval.text import plural
from kleval.types import Completion, Failure, Request, Sample, Score, Task, Tokenizer, Unfit, UsageError

Metric = Callable[..., Any]
_WORDS = re.compile(r"\w+")


def exact(answer: str, references: Sequence[str]) -> bool:
    """Whether the answer is one of the references, white space around it aside."""
    return answer.strip() in [reference.strip() for reference in references]


def contains(answer: str, references: Sequence[str]) -> bool:
    """Whether one of the references stands in the answer, in any case."""
    return any(reference.strip().lower() in answer.lower() for reference in references)


def f1(answer: str, references: Sequence[str]) -> float:
    """Words that answer and reference share, as the harmonic mean of their shares; the best over the references."""
    return max((_f1(_words(answer), _words(reference)) for reference in references), default=0.0)


def similarity(answer: str, references: Sequence[str]) -> float:
    """difflib's ratio of equal characters; the best over the references."""
    return max((difflib.SequenceMatcher(None, answer.strip(), one).ratio() for one in references), default=0.0)


PLAIN: Mapping[str, Metric] = {"exact": exact, "contains": contains, "f1": f1, "similarity": similarity}


def find_metric(name: str | Metric, beside: Path | None = None) -> tuple[str, Metric]:
    """The name and the function of `exact`, `./m.py:f` or a function. beside: the folder that files are looked for in.

    UsageError for what is none of these.
    """
    if callable(name):
        found, called = name, getattr(name, "__name__", type(name).__name__)
    elif name in PLAIN:
        return name, PLAIN[name]
    elif ".py:" not in name:
        near = difflib.get_close_matches(name, PLAIN, n=1)
        hint = f"did you mean {near[0]}?" if near else f"give {', '.join(PLAIN)} or FILE.py:FUNCTION"
        raise UsageError(f"unknown metric {name!r}: {hint}")
    else:
        given = Path(name).expanduser()
        target = str(beside / given) if beside is not None else name
        found, called = attribute(target), name.rpartition(":")[2]
    if not callable(found) or isinstance(found, type):
        raise UsageError(f"{name} is no function: a metric is f(answer, references) or f(answer, references, sample)")
    if _takes(found) not in (2, 3):
        raise UsageError(
            f"{name} takes {plural(_takes(found), 'argument')}: a metric is f(answer, references) or f(answer, references, sample)"
        )
    return called, found


def measured(name: str, metric: Metric, answer: str, sample: Sample) -> Score:
    """What a metric makes of an answer."""
    given = (answer, sample.references, sample)[: _takes(metric)]
    found = metric(*given)
    values = dict(found) if isinstance(found, Mapping) else {name: found}
    return Score(
        {key: math.nan if value is None else float(value) for key, value in values.items()}, extracted=answer.strip()
    )


class OwnMetric:
    """A task whose answers are scored by a function. Everything else is the task's; a judge is not asked."""

    needs_judge = False

    def __init__(self, task: Task, name: str, metric: Metric) -> None:
        self._task, self.metric, self._function = task, name, metric
        self.code = digests(task)[0], digest([metric])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def samples(self, tokenizer: Tokenizer, ctx: int, n: int, seed: int) -> Iterator[Sample | Unfit]:
        return self._task.samples(tokenizer, ctx, n, seed)

    def step(self, sample: Sample, outcomes: Sequence[Completion]) -> Sequence[Request] | Score | Failure:
        """UsageError for a task that asks for no text."""
        if not outcomes:
            asked = self._task.step(sample, outcomes)
            if not isinstance(asked, Score | Failure) and any(request.kind == "loglikelihood" for request in asked):
                raise UsageError(f"--metric scores a text, and {self._task.id} asks for likelihoods: leave it out")
            return asked
        return measured(self.metric, self._function, outcomes[-1].text, sample)


def with_metric(load: Callable[[str], Task], name: str | Metric | None) -> Callable[[str], Task]:
    """The same tasks, scored by the metric; as they are for None."""
    if name is None:
        return load
    called, metric = find_metric(name)
    return lambda task: OwnMetric(load(task), called, metric)


def _takes(metric: Metric) -> int:
    """How many arguments it is called with: two or three, or how many it cannot do without."""
    try:
        parameters = list(inspect.signature(metric).parameters.values())
    except (TypeError, ValueError):
        return 2
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p for p in places if p.default is p.empty]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return max(2, len(needed))
    return len(needed) if len(needed) > 2 else min(len(places), 2)


def _words(text: str) -> list[str]:
    return _WORDS.findall(text.lower())


def _f1(answer: list[str], reference: list[str]) -> float:
    same = sum((Counter(answer) & Counter(reference)).values())
    return 2 * same / (len(answer) + len(reference)) if same else 0.0
