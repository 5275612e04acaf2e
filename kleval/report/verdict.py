"""Verdict of the page: one sentence, and each model's large numbers with their intervals, from `tables.headline`.

The sentence averages everything that was asked, says where that is not whole or training recipes differ, and names a model ahead only
where intervals leave no doubt. Numbers stand in the same order for every model, so that they compare by column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kleval.report.figure import Look
from kleval.report.sections import words
from kleval.tables.cells import Cell
from kleval.tables.costs import Measure, Profile
from kleval.tables.headline import Effective, Headline, ahead, cost_headlines, headlines, not_the_same, recipes_differ
from kleval.tables.intervals import wilson
from kleval.tables.joined import joined
from kleval.tables.ruler import THRESHOLD
from kleval.tables.scores import Entrant
from kleval.tables.verify import law_rows, verified
from kleval.text import DASH, format_length, limits, percent, plural, score, seconds, size
from kleval.types import NATS

MOST_NAMED = 4  # models in the sentence; of more, the ends
MOST_NUMBERS = 5  # of a model
MOST_LINES = 8  # models with large numbers; the rest is in the tables


@dataclass(frozen=True, slots=True)
class Number:
    """A large number. interval: under it; note: smaller words on what it is of."""

    value: str
    interval: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A model's numbers, one per column."""

    label: str
    look: Look
    numbers: tuple[Number, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """sentence: "" where nothing can be said. columns: (name, whether less is better). more: models without a line."""

    sentence: str
    columns: tuple[tuple[str, bool], ...] = ()
    lines: tuple[Line, ...] = ()
    more: int = 0


def verdict(
    entrants: Sequence[Entrant],
    profiles: Sequence[Profile],
    looks: Mapping[str, Look],
    of_models: Mapping[str, Look],
) -> Verdict:
    """looks: by an entrant's key, of_models: by a profile's model."""
    scored, gains = [e for e in entrants if e.cells], [e.gains for e in entrants if e.gains]
    if not scored:
        return _of_gains(gains, looks) if gains else _of_costs(profiles, of_models)
    found = headlines(scored, joined(scored, profiles))
    columns, rows = _numbers(found)
    lines = [Line(one.entrant.label, looks[one.entrant.key], row) for one, row in zip(found, rows, strict=True)]
    told = " ".join(text for text in (sentence(found), _gains(gains)) if text)
    return Verdict(told, columns, tuple(lines[:MOST_LINES]), max(0, len(lines) - MOST_LINES))


def _of_gains(gains: Sequence[Entrant], looks: Mapping[str, Look]) -> Verdict:
    """Of runs with `--protocol likelihood` alone."""
    ctx = max((ctx for e in gains for ctx in e.overall), default=0)
    lines = [Line(e.label, looks[e.key], (_gain(e.overall.get(ctx)), _lost_of(e))) for e in gains]
    columns = [(f"{words()['number']['gain']} at {format_length(ctx)}", False), (words()["number"]["failed"], True)]
    return Verdict(_gains(gains), tuple(columns), tuple(lines[:MOST_LINES]), max(0, len(lines) - MOST_LINES))


def _gains(gains: Sequence[Entrant]) -> str:
    """What the context is worth to each, at the longest length with a gain."""
    ctx = max((ctx for e in gains for ctx in e.overall), default=0)
    at = [(e, cell) for e in gains if (cell := e.overall.get(ctx)) is not None]
    told = [
        f"{e.label} {'loses' if cell.value < 0 else 'gains'} {score(abs(cell.value), NATS)} nats per token of the reference"
        f" ({limits(cell.ci_low, cell.ci_high, NATS)})"
        for e, cell in at
    ]
    if not told:
        return " ".join(f"{e.label} has no gain: no answer was scored." for e in gains)
    over = _tasks([e for e, _ in at], [cell for _, cell in at])
    editions = dict.fromkeys(cell.edition for e in gains for cell in e.cells.values())
    data = f" ({' and '.join(editions)} data)" if list(editions) != ["official"] else ""
    more = f" and {len(told) - MOST_NAMED} more" if len(told) > MOST_NAMED else ""
    none = [e.label for e in gains if ctx not in e.overall]
    lost = f" {_listed(none)} {'has' if len(none) == 1 else 'have'} no gain at that length." if none else ""
    return f"With the context of {format_length(ctx)}, {over}{data}, {_listed(told[:MOST_NAMED])}{more}.{lost}"


def _tasks(entrants: Sequence[Entrant], cells: Sequence[Cell]) -> str:
    """`averaged over all 9 tasks asked`; where some have no value in a mean, of how many."""
    asked = {frozenset(task for task, _ in e.cells) for e in entrants}
    counts = [cell.n_tasks for cell in cells]
    if len(asked) > 1:
        span = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else f"{counts[0]}"
        return f"averaged over the tasks that each was asked ({span})"
    (tasks,), least = asked, min(counts)
    if len(tasks) == 1:
        return f"on {next(iter(tasks))}"
    few = f"all {len(tasks)}" if least == len(tasks) else f"{least} of the {len(tasks)}"
    return f"averaged over {few} tasks asked"


def _gain(cell: Cell | None) -> Number:
    if cell is None:
        return Number(DASH, note="no answer was scored")
    note = f"nats per token, 95 %, {plural(cell.n_tasks, 'task')}, n = {cell.n_samples:,}"
    return Number(score(cell.value, cell.unit), limits(cell.ci_low, cell.ci_high, cell.unit), note)


def _lost_of(e: Entrant) -> Number:
    total, failed = _all(e, "n_total", "n_failed")
    return _share(failed, total) if failed else Number(DASH, note="none")


def sentence(found: Sequence[Headline]) -> str:
    """On scores first, then on costs at the same length, then on what limits both."""
    say = words()["verdict"]
    scored = [one for one in found if one.score is not None]
    lost = [_lost(one) for one in found if one.score is None]
    if not scored:
        return f"{'; '.join(lost)}."
    parts = [_scores(scored, say), *lost]
    if len(found) > 1:
        best = ahead(found)
        parts.append(say["ahead"].format(label=best.entrant.label) if best else say[_undecided(found)])
    parts += [_failures(scored, say), _costs(scored, say)]
    if differ := recipes_differ([one.entrant for one in found]):
        parts.append(say["recipes"].format(parts=", ".join(say["recipe"][name] for name in differ)))
    whole = "; ".join(part for part in parts if part)
    return (
        f"{whole}."
        if all(one.entrant.run.complete for one in found)
        else f"{say['so_far']}{whole[:1].lower()}{whole[1:]}."
    )


def _scores(scored: Sequence[Headline], say: Mapping[str, str]) -> str:
    ctxs = {one.ctx for one in scored}

    def told(one: Headline, verb: str = "") -> str:
        cell, at = one.cells[one.ctx], "" if len(ctxs) == 1 else f" at {format_length(one.ctx)}"
        return f"{one.entrant.label} {verb}{score(cell.value)} ({limits(cell.ci_low, cell.ci_high)}){at}"

    if len(scored) > MOST_NAMED:
        order = sorted(scored, key=lambda one: one.cells[one.ctx].value)
        scores = f"{len(scored)} models score from {told(order[0])} to {told(order[-1])}"
    else:
        scores = _listed([told(one, "" if i else "scores ") for i, one in enumerate(scored)])
    at = say["at"].format(ctx=format_length(next(iter(ctxs)))) if len(ctxs) == 1 else ""
    return _capital(f"{at}{_over(scored)}, {scores}")


def _over(scored: Sequence[Headline]) -> str:
    """`averaged over all 9 tasks asked (builtin data)`; what is missing of these at the length is said."""
    cells = [one.cells[one.ctx] for one in scored]
    editions = dict.fromkeys(cell.edition for cell in cells)
    data = f" ({' and '.join(editions)} data)" if list(editions) != ["official"] else ""
    return f"{_tasks([one.entrant for one in scored], cells)}{data}"


def _undecided(found: Sequence[Headline]) -> str:
    if any(one.score is None for one in found) or len({one.ctx for one in found}) > 1:
        return "apart"
    if not_the_same(found):
        return "other_questions"
    return "overlap" if len(found) == 2 else "overlaps"


def _lost(one: Headline) -> str:
    """Of a model that has no score at all."""
    e = one.entrant
    n = sum(map(len, e.failures.values()))
    if not n:
        return f"{e.label} has no scored answer"
    kinds = ", ".join(dict.fromkeys(kind for kind, _ in e.failures))
    return f"{e.label} has no score: {'its only answer' if n == 1 else f'all {n:,} answers'} failed ({kinds})"


def _failures(scored: Sequence[Headline], say: Mapping[str, str]) -> str:
    """How far failures at this length could move a score."""
    told = []
    for one in scored:
        cell = one.cells[one.ctx]
        if cell.n_failed:
            bounds = limits(cell.bound_low, cell.bound_high)
            told.append(
                say["failed"].format(
                    n=cell.n_failed, of=plural(cell.n_total, "answer"), label=one.entrant.label, bounds=bounds
                )
            )
    return "; ".join(told) if len(told) <= MOST_NAMED else say["failed_many"].format(n=len(told))


def _costs(scored: Sequence[Headline], say: Mapping[str, str]) -> str:
    if len(scored) > MOST_NAMED:
        return ""
    timed = [one for one in scored if one.tpot_ms is not None]
    told = []
    if timed:
        told.append(
            say["token"].format(times=_listed([_times(_label(one, scored), one.tpot_ms, len(scored)) for one in timed]))
        )
    for one in scored:
        if one.saved:
            less = "less" if one.saved > 0 else "more"
            told.append(say["state"].format(label=one.entrant.label, share=percent(abs(one.saved)), less=less))
    return ", ".join(told)


def _label(one: Headline, scored: Sequence[Headline]) -> str:
    """With its length and its hardware where these differ."""
    same = len({other.ctx for other in scored}) == 1
    label = one.entrant.label if same else f"{one.entrant.label} at {format_length(one.ctx)}"
    known = {other.hardware for other in scored if other.tpot_ms is not None and other.hardware}
    return f"{label} on {one.hardware or 'unknown hardware'}" if len(known) > 1 else label


def _times(label: str, ms: float | None, n: int) -> str:
    return f"{seconds((ms or 0) / 1000)}{f' with {label}' if n > 1 else ''}"


def _listed(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _numbers(found: Sequence[Headline]) -> tuple[tuple[tuple[str, bool], ...], list[tuple[Number, ...]]]:
    """Columns that at least one model has a number in."""
    say = words()["number"]
    ctxs = {one.ctx for one in found if one.score}
    at = f" at {format_length(next(iter(ctxs)))}" if len(ctxs) == 1 else ""
    several = any(one.saved is not None for one in found)
    columns = [
        (say["score"] + at, False, [_score(one) for one in found]),
        (say["effective"], False, [_effective(one.effective) for one in found]),
        (say["tpot"] + at, True, [_tpot(one.tpot, one.tpot_ms) for one in found]),
        (
            (say["saved"] if several else say["state"]) + at,
            not several,
            [_state(one.state_bytes, one.saved, several) for one in found],
        ),
        (say["failed"] + at, True, [_failed(one) for one in found]),
        (say["area"], False, [_area(one) for one in found]),
        (say["broken"] + at, True, [_broken(one) for one in found]),
    ]
    shown = [column for column in columns if any(number.value != DASH for number in column[2])][:MOST_NUMBERS]
    return tuple((name, less) for name, less, _ in shown), list(zip(*(numbers for *_, numbers in shown), strict=True))


def _score(one: Headline) -> Number:
    cell = one.score
    if cell is None:
        return Number(DASH, note="no answer was scored")
    return Number(
        score(cell.value),
        limits(cell.ci_low, cell.ci_high),
        f"95 %, {plural(cell.n_tasks, 'task')}, n = {cell.n_samples:,}",
    )


def _effective(found: Effective | None) -> Number:
    if found is None:
        return Number(DASH, note="takes two lengths")

    def spelled(ctx: int | None) -> str:
        if ctx is None:
            return f"below {format_length(found.first)}"
        return f"{format_length(ctx)} or more" if ctx == found.last else format_length(ctx)

    both = (spelled(found.low), spelled(found.high))
    interval = " – ".join(both) if both[0] != both[1] else "at both limits"
    return Number(spelled(found.at), interval, f"score of {THRESHOLD} or more up to there")


def _area(one: Headline) -> Number:
    if one.area is None:
        return Number(DASH, note="takes two lengths")
    found, tasks = one.area
    note = f"mean score over log length, {found.span}, {plural(len(tasks), 'task')}"
    return Number(score(found.value), limits(found.low, found.high), note)


def _tpot(m: Measure | None, ms: float | None) -> Number:
    if m is None or ms is None:
        return Number(DASH, note="not measured at this length")
    of = f"{plural(m.repeats, 'round' if m.kind == 'served' else 'repeat')}{', estimate' if m.estimate else ''}"
    together = "one request at a time" if m.kind == "served" else "batch 1"
    if m.repeats < 2:
        return Number(seconds(ms / 1000), note=f"{of}, no interval, {together}")
    both = f"{seconds(m.low / 1000)} – {seconds(m.high / 1000)}"
    return Number(seconds(ms / 1000), both, f"least and most of {of}, {together}")


def _state(held: float | None, saved: float | None, several: bool) -> Number:
    """several: whether another model's state is compared with the baseline's."""
    if held is None:
        return Number(DASH, note="not measured at this length")
    spelled = size(held, precise=True)
    if not several:
        return Number(spelled, note="of one sequence")
    return Number(
        percent(saved or 0.0), spelled, "of one sequence" if saved is not None else "of one sequence, the baseline"
    )


def _failed(one: Headline) -> Number:
    cell = one.score
    total, failed = (cell.n_total, cell.n_failed) if cell else _all(one.entrant, "n_total", "n_failed")
    return _share(failed, total) if failed else Number(DASH, note="none")


def _broken(one: Headline) -> Number:
    cell = one.score
    if cell is None or not cell.n_texts:
        return Number(DASH)
    return _share(cell.n_scored - cell.n_completed, cell.n_scored)


def _all(entrant: Entrant, *names: str) -> tuple[int, ...]:
    return tuple(sum(getattr(cell, name) for cell in entrant.cells.values()) for name in names)


def _share(n: int, total: int) -> Number:
    low, high = wilson(n, total)
    return Number(percent(n / total), f"{percent(low)} – {percent(high)}", f"95 %, {n:,} of {total:,}")


def _of_costs(profiles: Sequence[Profile], looks: Mapping[str, Look]) -> Verdict:
    """Of profiles alone: the first that decoded anything."""
    say, number = words()["verdict"], words()["number"]
    profile = next((one for one in profiles if cost_headlines(one)), None)
    if profile is None:
        laws = [law for one in profiles for law in one.laws]
        return Verdict(verified(law_rows(laws)) if laws else "")
    found = cost_headlines(profile)
    ctx = found[0].ctx
    times = [_times(one.model, one.tpot.value, len(found)) for one in found]
    parts = [say["at"].format(ctx=format_length(ctx)) + say["token"].format(times=_listed(times))]
    at, several = f" at {format_length(ctx)}", any(one.saved is not None for one in found)
    lines = [
        Line(
            one.model, looks[one.model], (_tpot(one.tpot, one.tpot.value), _state(one.state_bytes, one.saved, several))
        )
        for one in found
    ]
    columns = ((number["tpot"] + at, True), (number["saved" if several else "state"] + at, not several))
    text = _capital("; ".join([*parts, *_ratios(profile, ctx, say)]))
    return Verdict(f"{text}.", columns, tuple(lines[:MOST_LINES]), max(0, len(lines) - MOST_LINES))


def _ratios(profile: Profile, ctx: int, say: Mapping[str, str]) -> list[str]:
    """Whether a model is faster than the baseline beyond the spread of repeats, and by how much."""
    told = []
    for r in profile.ratios:
        if (r.kind, r.protocol, r.ctx) != ("decode", "batch-1", ctx):
            continue
        interval = f"{r.low:.2f} – {r.high:.2f}"
        how = "single" if r.n < 2 else "not_apart" if r.low <= 1 <= r.high else "faster"
        said = {"model": r.model, "baseline": r.baseline, "ratio": f"{r.value:.2f}×", "interval": interval}
        told.append(say[how].format(**said, n=plural(r.n, "repeat")))
    return told[:MOST_NAMED]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
