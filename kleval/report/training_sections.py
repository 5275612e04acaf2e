"""Sections of trainings: loss and accuracy against tokens seen, and of the synthetic tests accuracy against length and against step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kleval import text as words
from kleval.report.figure import GREY, Axis, Cell, Figure, Look, Series, lengths, logarithmic, looks_of, plain, scores
from kleval.report.sections import Card, Section, card, section
from kleval.tables.trainings import Studies, Training, best

MOST_POINTS = 100
_PAPER = Look(GREY, "circle", "dot")


def training_sections(found: Studies) -> list[Section]:
    made = []
    if family := found.families:
        made.append(_curves(family))
    if found.tests:
        made.append(_tests(found))
    if found.losses:
        heads = ("training", "loss", "parameters", "tokens", "paper")
        lines = [
            (r["name"], f"{r['loss']:.3f}", f"{r['parameters']:,}", f"{r['tokens']:,}", r.get("paper", words.DASH))
            for r in found.losses
        ]
        made.append(section("studies", [card("study-losses", grid=plain(heads, lines, (1, 2, 3)))]))
    return made


def _curves(family: Sequence[Training]) -> Section:
    looks = looks_of(one.label for one in family)
    points = {one.label: one.thinned(MOST_POINTS) for one in family}
    axis = _tokens(point["tokens"] for one in points.values() for point in one)
    losses = [_series(label, looks[label], own, lambda p: p["loss"], "{:.3f}") for label, own in points.items()]
    values = [float(value) for one in losses for value in one.y if value is not None]
    loss = Figure(axis, logarithmic("loss of answer tokens, nats", values, lambda v: f"{v:g}"), tuple(losses))
    heads = ("model", "state", "seed", "tokens", "parameters", "loss", "tokens/s", "time")
    cards = [card("training-loss", [loss], plain(heads, map(_line, family), range(2, 8)))]
    kinds = list(dict.fromkeys(kind for one in family for kind in one.kinds))
    panels = []
    for kind in kinds:
        own = [
            _series(label, looks[label], [p for p in mine if kind in p["accuracy"]], _accuracy(kind), "{:.1f}")
            for label, mine in points.items()
        ]
        panels.append(Figure(replace(axis, title=""), scores(""), tuple(s for s in own if s.x), small=True))
    cards.append(card("training-kinds", panels, names=kinds))
    return section("trainings", cards)


def _line(one: Training) -> tuple[str, ...]:
    last = one.points[-1]
    seed, parameters = one.settings.get("seed"), one.settings.get("parameters")
    return (
        one.label,
        "complete" if one.complete else "under way",
        words.DASH if seed is None else str(seed),
        f"{last['tokens']:,}",
        f"{parameters:,}" if parameters else words.DASH,
        f"{last['loss']:.3f}",
        f"{last.get('tokens_per_second', 0):,.0f}",
        words.duration(last.get("seconds", 0)),
    )


def _tests(found: Studies) -> Section:
    rows = best(found.tests)
    models, tasks = (list(dict.fromkeys(row[what] for row in rows)) for what in ("model", "task"))
    looks = looks_of(models)
    against_length, against_step, names, tried = [], [], [], []
    for task in tasks:
        mine = [row for row in rows if row["task"] == task]
        own = [_lengths([r for r in mine if r["model"] == model], model, looks[model]) for model in models]
        paper = [_published([r for r in mine if r["model"] == model and "paper" in r], model) for model in models]
        axis = lengths((row["length"] for row in mine), "training length, tokens")
        against_length.append(Figure(axis, scores("peak accuracy"), tuple(s for s in (*own, *paper) if s.x)))
        names.append(task)
        longest = max(row["length"] for row in mine)
        steps = [
            _series(model, looks[model], one.thinned(MOST_POINTS), _accuracy(task), "{:.1f}", "step")
            for model in models
            for row in mine
            if row["model"] == model and row["length"] == longest
            for one in found.trainings
            if one.points[-1]["name"] == f"{task}/{model}/{longest}/{row['lr']:g}"
        ]
        if steps:
            most = max(x for one in steps for x in one.x)
            against_step.append(Figure(_even("step", most), scores("accuracy"), tuple(steps)))
            tried.append(f"{task}, length {longest:,}")
    heads = ("task", "model", "length", "accuracy", "steps", "learning rate", "paper")
    lines = [
        (
            *(r["task"], r["model"], f"{r['length']:,}", f"{100 * r['peak']:.1f}", f"{r['steps_taken']:,}"),
            *(f"{r['lr']:g}", f"{r['paper']:g}" if "paper" in r else Cell(words.DASH, kind="empty")),
        )
        for r in rows
    ]
    cards: list[Card] = [
        card("tests-length", against_length, plain(heads, lines, range(2, 7)), names=names),
        card("tests-step", against_step, names=tried),
    ]
    return section("synthetic-tests", cards)


def _lengths(rows: Sequence[Mapping[str, Any]], model: str, look: Look) -> Series:
    notes = [
        (f"{model} at {row['length']:,}", f"{100 * row['peak']:.1f} %", f"{row['steps_taken']:,} steps") for row in rows
    ]
    return Series(model, model, look, [r["length"] for r in rows], [100 * r["peak"] for r in rows], notes)


def _published(rows: Sequence[Mapping[str, Any]], model: str) -> Series:
    notes = [(f"{model} at {row['length']:,}, paper", f"{row['paper']:g} %") for row in rows]
    places, values = [row["length"] for row in rows], [row["paper"] for row in rows]
    return Series(f"{model} paper", f"{model}, paper", _PAPER, places, values, notes, style="paper")


def _accuracy(kind: str) -> Any:
    return lambda point: 100 * point["accuracy"][kind] if kind in point["accuracy"] else None


def _series(
    label: str, look: Look, points: Sequence[Mapping[str, Any]], value: Any, spell: str, over: str = "tokens"
) -> Series:
    ys = [value(point) for point in points]
    notes = [
        (f"{label} after {point[over]:,} {over.removesuffix('s')}s", words.DASH if y is None else spell.format(y))
        for point, y in zip(points, ys, strict=True)
    ]
    return Series(label, label, look, [point[over] for point in points], ys, notes)


def _tokens(values: Iterable[int]) -> Axis:
    return _even("tokens seen", max(values))


def _even(title: str, most: float) -> Axis:
    """From 0, a tick at round numbers."""
    step = next(s * 10**p for p in range(12) for s in (1, 2, 5) if most / (s * 10**p) <= 6)
    ticks = tuple((float(at), words.count(at)) for at in range(0, int(most) + 1, step))
    return Axis(title, -0.02 * most, 1.02 * most, ticks, log=False)
