"""Comparison of two runs, A and B: paired tests per task and length, averages over them, and what may be compared at all.

A pair is one sample that both were asked in the same text (id and prompt hash); repeats are averaged first. Tasks whose edition,
protocol, version or data differ are refused by name; other lengths, prompts, generation settings, engines and hardware are named.
Where failures, or answers that the budget cut, differ by more than UNEVEN between the two, the difference is also taken at both
bounds (all of B's missing answers wrong and A's right, and the other way round; a cut answer counts as it was scored, or as right)
and a verdict holds only where it holds at both.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from kleval.store import RunStore
from kleval.tables.cells import FAMILY_METRIC, has_mean
from kleval.tables.groups import Asked, Place
from kleval.tables.joined import run_setting
from kleval.tables.paired import ALPHA, Contrast, Pair, contrast, holm
from kleval.tables.scores import Entrant, collect, questions_differ, sampling_differs, versus
from kleval.text import DASH, format_length, plural, score, signed
from kleval.text import places as where
from kleval.types import UsageError, unit_of

UNEVEN = 0.02
EVERYTHING = "all tasks"
HEADS = ("task", "ctx", "pairs", "A", "B", "B - A [95 %]", "p", "B up/down", "detectable", "n for effect", "verdict")
# Of a command: what shapes prompts and answers beside what `sampling_differs` looks at.
SETTINGS = ("max_new_tokens", "reasoning", "add_bos", "template_args", "tokenizer", "api", "judge_model")


class Named(Protocol):
    """What is compared by its model."""

    @property
    def model(self) -> str: ...


M = TypeVar("M", bound=Named)


@dataclass(frozen=True, slots=True)
class Side:
    """A model in a run."""

    entrant: Entrant

    @property
    def answers(self) -> Mapping[Place, Mapping[str, Sequence[Asked]]]:
        """By (task, ctx) and sample id, each repeat."""
        return self.entrant.answers

    @property
    def model(self) -> str:
        return self.entrant.model

    @property
    def label(self) -> str:
        return f"{self.model} of {self.entrant.run.title}"

    @property
    def again(self) -> frozenset[str]:
        """Tasks with a prompt that is asked at more than one length."""
        gains = self.entrant.gains
        return self.entrant.again | (gains.again if gains else frozenset())

    def unit(self, task: str) -> str:
        """What its values are in, "" for scores."""
        return unit_of(str(self.entrant.task(task).get("protocol", "")))

    def amiss(self, places: Sequence[Place]) -> dict[str, float]:
        """Of the answers at the places, the shares that `failed` and that were `cut`."""
        n, found = 0, {"failed": 0, "cut": 0}
        for asked in (asked for place in places for one in self.answers[place].values() for asked in one):
            n += 1
            found["failed"] += asked.failed
            found["cut"] += asked.cut
        return {what: k / n if n else 0.0 for what, k in found.items()}


@dataclass(frozen=True, slots=True)
class Line:
    """A and B on a task at a length, or on the mean of several. ctx: None over all lengths. p: Holm's over the single tasks, the
    test's own of an average. bounds: at the failures' and cut answers' bounds, against B and for B; empty where they are even. unit:
    of values that are no scores; unknown: failures are uneven, and nothing bounds what such values might have been."""

    name: str
    ctx: int | None
    places: tuple[Place, ...]
    contrast: Contrast
    p: float
    bounds: tuple[Contrast, ...] = ()
    failed: tuple[float, float] = (0.0, 0.0)
    cut: tuple[float, float] = (0.0, 0.0)
    unit: str = ""
    unknown: bool = False

    @property
    def sign(self) -> int:
        """1 better, -1 worse, 0 neither shown."""
        if self.unknown:
            return 0
        signs = {self.contrast.sign if self.p <= ALPHA else 0, *(bound.sign for bound in self.bounds)}
        return signs.pop() if len(signs) == 1 else 0

    @property
    def verdict(self) -> str:
        if self.sign:
            return "B is better" if self.sign > 0 else "B is worse"
        if self.unknown:
            return "undecided: more answers of one failed, and nothing bounds what they might have been"
        shown = self.contrast.sign and self.p <= ALPHA
        return "undecided: failed or cut answers could turn it" if shown else "no difference shown"


@dataclass(frozen=True, slots=True)
class Comparison:
    """B against A. refused: tasks that are not compared, and why; labels: what else differs; unpaired: samples, and why."""

    a: Side
    b: Side
    lines: tuple[Line, ...]
    refused: tuple[str, ...]
    labels: tuple[str, ...]
    unpaired: tuple[str, ...]


def read_sides(stores: Sequence[RunStore]) -> list[Side]:
    """Every model of the runs with its answers."""
    return [Side(entrant) for entrant in collect(stores)]


def matched(a: Sequence[M], b: Sequence[M], models: Sequence[str] = ()) -> list[tuple[M, M]]:
    """What to compare: models of the same name, else the only model of each. models: one name, or A's and B's."""
    if models:
        return [(_named(a, models[0]), _named(b, models[-1]))]
    if len(a) == len(b) == 1:
        return [(a[0], b[0])]
    names, others = [side.model for side in a], [side.model for side in b]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"{twice} is in several of the runs to compare with: give one of them")
    if not set(names) & set(others):
        raise UsageError(
            f"no model is in both: A has {', '.join(names)}, B has {', '.join(others)}; name two with --model A,B"
        )
    return [(mine, theirs) for theirs in b for mine in a if mine.model == theirs.model]


def compared(a: Side, b: Side, seed: int = 0) -> Comparison:
    """UsageError, with the reasons, where no sample can be paired."""
    places, reasons, unpaired = comparable(a, b)
    found = [line(a, b, task, ctx, [(task, ctx)], seed) for task, ctx in places]
    singles = [one for one in found if one is not None]
    singles = [replace(one, p=p) for one, p in zip(singles, holm([one.contrast.p for one in singles]), strict=True)]
    means = [line(a, b, name, ctx, over, seed) for name, ctx, over in _averages(a, places)]
    order = sorted([*singles, *filter(None, means)], key=lambda one: (one.ctx or math.inf, len(one.places)))
    return Comparison(a, b, tuple(order), reasons, tuple(labels(a.entrant, b.entrant)), unpaired)


def comparable(a: Side, b: Side) -> tuple[list[Place], tuple[str, ...], tuple[str, ...]]:
    """Where both were asked the same, which tasks are refused and why, and which samples have no partner. UsageError where no two
    have a score."""
    refused = questions_differ(a.entrant, b.entrant) if a.entrant.run is not b.entrant.run else {}
    excluded = {task for tasks in refused.values() for task in tasks}
    common = sorted(place for place in a.answers.keys() & b.answers.keys() if place[0] not in excluded)
    places = [place for place in common if any(True for _ in _marked(a, b, place, "for"))]
    reasons = tuple(f"{text} ({', '.join(tasks)})" for text, tasks in refused.items())
    unpaired = tuple(_unpaired(a, b, excluded))
    if not any(True for place in places for _ in _marked(a, b, place)):
        sampled = sampling_differs(a.entrant, b.entrant) if unpaired and a.entrant.run is not b.entrant.run else ()
        why = "; ".join([*reasons, *sampled, *unpaired]) or "no task was asked of both at the same length"
        raise UsageError(f"{a.label} and {b.label} have no common samples: {why}")
    return places, reasons, unpaired


def line(a: Side, b: Side, name: str, ctx: int | None, places: Sequence[Place], seed: int = 0) -> Line | None:
    """The comparison over places at which both were asked the same; None where no two answers have a score. Where one side failed
    throughout, a place is in the bounds alone."""
    one, other = a.amiss(places), b.amiss(places)
    shares = {what: (one[what], other[what]) for what in one}
    uneven = {what: abs(one[what] - other[what]) > UNEVEN for what in one}
    unit = next((a.unit(task) for task, _ in places), "")
    by_size = name.removesuffix(f" {FAMILY_METRIC}") in a.entrant.run.groups

    again = a.again if len({length for _, length in places}) > 1 else frozenset()

    def tested(end: str = "") -> Contrast | None:
        strata: list[list[Pair]] = [[] for _ in places]
        marks = [array("Q") for _ in places]
        for place, stratum, of in zip(places, strata, marks, strict=True):
            for mark, pair in _marked(a, b, place, end, bool(end) and uneven["cut"]):
                stratum.append(pair)
                if place[0] in again:
                    of.append(mark)
        return contrast(strata, seed, unit, by_size, marks if again else None)

    found = tested()
    if found is None:
        return None
    bounds: tuple[Contrast, ...] = ()
    if any(uneven.values()) and not unit:
        bounds = tuple(bound for end in ("against", "for") if (bound := tested(end)) is not None)
    open_to = bool(unit) and uneven["failed"]
    return Line(name, ctx, tuple(places), found, found.p, bounds, shares["failed"], shares["cut"], unit, open_to)


def labels(a: Entrant, b: Entrant) -> list[str]:
    """What else differs, one line per setting: generation, tokenizer, engine, hardware, version of kleval."""
    found = sampling_differs(a, b) if a.run is not b.run else []
    one, other = dict(run_setting(a)), dict(run_setting(b))
    one["status"], other["status"] = a.run.status, b.run.status
    for name in SETTINGS:
        one[name], other[name] = a.run.setting(name), b.run.setting(name)
    for name in ("digest", "chat_template_digest"):
        one[f"tokenizer {name}"], other[f"tokenizer {name}"] = (
            (e.about.get("tokenizer") or {}).get(name) for e in (a, b)
        )
    one["kleval"], other["kleval"] = ((e.run.get("kleval", "commit") or e.run.get("kleval", "version")) for e in (a, b))
    return found + [versus(name, one[name], other[name]) for name in one if one[name] != other[name]]


def flips(a: Side, b: Side, places: Sequence[Place]) -> Iterator[dict[str, Any]]:
    """The samples that the two have different scores for, by task, length and id."""
    for task, ctx in places:
        mine, theirs = a.answers[task, ctx], b.answers[task, ctx]
        for sample in sorted(mine.keys() & theirs.keys()):
            pair = _pair(mine[sample], theirs[sample])
            if pair is not None and pair[0] != pair[1]:
                yield {
                    "task": task,
                    "ctx": ctx,
                    "sample": sample,
                    "a_score": pair[0],
                    "b_score": pair[1],
                    "difference": pair[1] - pair[0],
                    "unit": a.unit(task),
                }


def rows(found: Comparison, effect: float) -> list[dict[str, Any]]:
    """One dict per line, scores and differences x 100, or in `unit`; None where few pairs tell nothing. n_for_effect: pairs that find
    a difference of `effect` x 100 points, or of `effect` in the unit."""
    return [
        {
            "record": "difference",
            "a": found.a.label,
            "b": found.b.label,
            "task": one.name,
            "ctx": one.ctx,
            "n": one.contrast.n,
            "score_a": factor * one.contrast.a,
            "score_b": factor * one.contrast.b,
            **_limits("difference", one.contrast, factor),
            "p": one.contrast.p,
            "p_holm": one.p if len(one.places) == 1 else None,
            "test": one.contrast.test,
            "gained": one.contrast.gained,
            "lost": one.contrast.lost,
            "detectable": _times(factor, one.contrast.detectable),
            "effect": factor * effect,
            "n_for_effect": one.contrast.needed(effect),
            **{f"{what}_{side}": getattr(one, what)[i] for what in ("failed", "cut") for i, side in enumerate("ab")},
            **{
                f"{name}_{end}": value if end_of else None
                for i, end in enumerate(("against_b", "for_b"))
                for end_of in [one.bounds[i] if one.bounds else None]
                for name, value in _limits("difference", end_of or one.contrast, factor).items()
            },
            "verdict": one.verdict,
            "unit": one.unit,
        }
        for one in found.lines
        for factor in [1 if one.unit else 100]
    ]


def spelled(row: Mapping[str, Any]) -> list[str]:
    """A row of `rows` in words: HEADS."""
    p = row["p"] if row["p_holm"] is None else row["p_holm"]
    verdict, unit, factor = row["verdict"], row["unit"], 1 if row["unit"] else 100
    shown = ("difference", "difference_low", "difference_high", "detectable")
    *difference, detectable = (math.nan if row[name] is None else row[name] / factor for name in shown)
    if row["difference_against_b"] is not None:
        ends = (signed(row[f"difference_{end}"] / 100) for end in ("against_b", "for_b"))
        verdict += f" (failed or cut answers differ: {' to '.join(ends)})"
    return [
        row["task"],
        DASH if row["ctx"] is None else format_length(row["ctx"]),
        str(row["n"]),
        score(row["score_a"] / factor, unit),
        score(row["score_b"] / factor, unit),
        "{} [{}, {}]".format(*(signed(value, unit) for value in difference)),
        f"{p:.3f}" if p >= 0.001 else "<0.001",
        f"{row['gained']}/{row['lost']}",
        score(detectable, unit),
        f"{row['n_for_effect']:,}",
        verdict,
    ]


def notes(found: Comparison) -> list[dict[str, Any]]:
    """What is refused, labelled or left unpaired, a dict each."""
    kinds = {"refused": found.refused, "differs": found.labels, "unpaired": found.unpaired}
    return [{"record": kind, "text": text} for kind, texts in kinds.items() for text in texts]


def _limits(name: str, of: Contrast, factor: int) -> dict[str, float | None]:
    parts = {name: of.difference.value, f"{name}_low": of.difference.low, f"{name}_high": of.difference.high}
    return {key: _times(factor, value) for key, value in parts.items()}


def _times(factor: int, value: float) -> float | None:
    return None if math.isnan(value) else factor * value


def _named(sides: Sequence[M], name: str) -> M:
    """The side of a model, whose size may be left out where it is the only one of its name."""
    found = [side for side in sides if side.model == name] or [s for s in sides if s.model.partition("@")[0] == name]
    if len(found) != 1:
        there = ", ".join(side.model for side in sides)
        raise UsageError(f"the model {name} is needed once and found {len(found)} times: there are {there}")
    return found[0]


def _marked(a: Side, b: Side, place: Place, end: str = "", cut: bool = False) -> Iterator[tuple[int, Pair]]:
    """The pairs, each with the mark of its question."""
    mine, theirs = a.answers[place], b.answers[place]
    for sample in sorted(mine.keys() & theirs.keys()):
        if (pair := _pair(mine[sample], theirs[sample], end, cut)) is not None:
            yield mine[sample][0].prompt, pair


def _pair(a: Sequence[Asked], b: Sequence[Asked], end: str = "", cut: bool = False) -> Pair | None:
    """None where the text was another, or where one has no score. end: `against` or `for` B, all that is missing at that end."""
    if a[0].prompt != b[0].prompt:
        return None
    if end:
        return _at_end(a, end == "against", cut), _at_end(b, end == "for", cut)
    scores = [[asked.score for asked in side if asked.score is not None] for side in (a, b)]
    return (math.fsum(scores[0]) / len(scores[0]), math.fsum(scores[1]) / len(scores[1])) if all(scores) else None


def _at_end(answers: Sequence[Asked], right: bool, cut: bool) -> float:
    values = [1.0 if right and (one.score is None or (cut and one.cut)) else one.score or 0.0 for one in answers]
    return math.fsum(values) / len(values)


def _averages(a: Side, places: Sequence[Place]) -> Iterator[tuple[str, int | None, list[Place]]]:
    """Families, groups and everything, per length and over all lengths, where there are several of what they are over."""
    tasks = list(dict.fromkeys(task for task, _ in places))
    families: dict[str, Sequence[str]] = {task.split("/", 1)[0]: [] for task in tasks if "/" in task} | dict(
        a.entrant.run.groups
    )
    for task in tasks:
        if (family := task.split("/", 1)[0]) in families and family not in a.entrant.run.groups:
            families[family] = [*families[family], task]
    named = {f"{name} {FAMILY_METRIC}": of for name, of in families.items() if has_mean(name)}
    ctxs = sorted({ctx for _, ctx in places})
    for ctx in [*ctxs, None] if len(ctxs) > 1 else ctxs:
        seen: list[tuple[bool, list[Place]]] = []
        for name, of in {**named, EVERYTHING: tasks}.items():
            over = [(task, length) for task, length in places if task in of and ctx in (None, length)]
            what = name.removesuffix(f" {FAMILY_METRIC}") in a.entrant.run.groups, over
            if len(over) > 1 and what not in seen:
                seen.append(what)
                yield name, ctx, over


def _unpaired(a: Side, b: Side, excluded: set[str]) -> Iterator[str]:
    """Lengths of one side alone, prompts that differ, answers without a score."""
    found: dict[str, dict[Place, int]] = {}
    for place in sorted({*a.answers, *b.answers}):
        if place[0] in excluded:
            continue
        one, other = a.answers.get(place, {}), b.answers.get(place, {})
        both = one.keys() & other.keys()
        text = {sample for sample in both if one[sample][0].prompt != other[sample][0].prompt}
        bare = [sample for sample in both if sample not in text and _pair(one[sample], other[sample]) is None]
        for samples, why in (
            (text, "with another prompt hash (another text was asked)"),
            (bare, "without a score from both"),
            (one.keys() - other.keys(), "of A alone"),
            (other.keys() - one.keys(), "of B alone"),
        ):
            if samples:
                found.setdefault(why, {})[place] = len(samples)
    for why, counts in found.items():
        yield f"{plural(sum(counts.values()), 'sample')} {why}: {where(list(counts))}"
