"""Scorecard: each claim of a paper beside what stored runs and profiles hold of it, a line per claim and place that was measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from kleval.store import Point
from kleval.tables import differences
from kleval.tables.cells import Cell
from kleval.tables.claims import Claim, Claims, Measured, row_of
from kleval.tables.costs import Profile
from kleval.tables.joined import profile_setting, run_setting
from kleval.tables.ratios import Ratio, ratios
from kleval.tables.scores import Entrant, conflicts, expected_tasks, members
from kleval.text import DASH, format_length, number, plural

LOST_SHARE = 0.02  # of answers that failed: above it, a score is not the claim's


def scorecard(
    claims: Claims, entrants: Sequence[Entrant], profiles: Sequence[Profile], whole: bool = False
) -> list[dict[str, Any]]:
    """Rows with `claims.COLUMNS`, in the file's order.

    A line per profile or run and size of its models: at the claim's own length where that was measured, else at the longest below it,
    and of several claimed lengths at each. Where nothing was measured, one line stands for all lengths or benchmarks, unless `whole`.
    """
    rows = []
    for claim in claims.claims:
        find = _of_costs(claim, profiles) if claim.kind else _of_scores(claims, claim, entrants)
        absent = claims.by_benchmark(claim) if whole else [claims.head(claim)]
        rows += [row_of(part, one) for part, one in find] or [row_of(part, None) for part in absent]
    return rows


def spelled(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row in words: HEADS, then BEHIND."""
    sign = {"at least": "", "at most": "≤ ", "about": "≈ "}[row["side"]]
    at = f" at {row['claimed_ctx']}" if row["claimed_ctx"] else ""
    published = "" if row["published"] is None else f"{sign}{row['published']:g} {row['unit']}"
    if row["value"] is None:
        return f"{row['claim']}{at}", published, DASH, DASH, row["verdict"], "", row["why"], ""
    limits = f" [{row['low']:.3g}, {row['high']:.3g}], n {row['n']}" if row["low"] is not None else f", n {row['n']}"
    return (
        *(f"{row['claim']}{at}", published),
        number(row["value"]) + (", counted" if row["unit"] == "%" else limits),
        DASH if row["of_published"] is None else f"{row['of_published']:.2f}",
        row["verdict"],
        f"{row['model']} at {format_length(row['ctx'])}, {row['protocol']}; {row['setting']}",
        *(row["why"], row["rows"]),
    )


HEADS = ("claim", "published", "measured", "of published", "verdict")
BEHIND = ("measured where", "why", "rows")


def _is(name: str, wanted: str) -> bool:
    """Whether a model here is the claim's: of any size, or a checkpoint of that name in any folder."""
    return name.partition("@")[0] == wanted or ("/" in wanted and name.rpartition("/")[2] == wanted.rpartition("/")[2])


def _pair(claim: Claim, model: str, baseline: str) -> bool:
    """Whether two models are the claim's, of one size."""
    sizes = {name.partition("@")[2] for name in (model, baseline)}
    return len(sizes) == 1 and _is(model, claim.model) and _is(baseline, claim.baseline)


def _order(claim: Claim, ctx: int) -> tuple[bool, int]:
    """Lengths in the order they are taken: the longest up to the claim's, then the shortest above."""
    above = ctx > max(claim.lengths, default=ctx)
    return above, ctx if above else -ctx


def _elsewhere(claim: Claim, ctx: int, model: str) -> Iterator[str]:
    if claim.lengths and ctx not in claim.lengths:
        yield f"at {format_length(ctx)}, claimed at {format_length(claim.lengths[0])}"
    if claim.scale and (size := model.partition("@")[2]) != claim.scale:
        yield f"size {size or 'not told'}, claimed of {claim.scale}"


def _setting(facts: Mapping[str, Any]) -> str:
    names = ("hardware", "dtype", "backend", "server_software")
    return ", ".join(str(facts[name]) for name in names if facts.get(name))


def _of_costs(claim: Claim, profiles: Sequence[Profile]) -> Iterator[tuple[Claim, Measured]]:
    saving = claim.measure == "saving"
    for profile in profiles:
        points = [p for p in profile.points if p.kind == claim.kind and not p.failed]
        names = dict.fromkeys(p.model for p in points)
        for model, baseline in product(names, names):
            if not _pair(claim, model, baseline):
                continue
            mine = [p for p in points if p.model in (model, baseline)]
            found = list(_byte_ratios(claim, profile, model, baseline)) if saving else ratios(mine, baseline)
            found = [r for r in found if r.protocol in claim.protocols and claim.heads in (None, r.heads)]
            found.sort(key=lambda r: (*_order(claim, r.ctx), claim.protocols.index(r.protocol)))
            for part in claim.by_length():
                if best := next((r for r in found if part is claim or r.ctx in part.lengths), None):
                    at = next(p for p in mine if (p.protocol, p.ctx, p.model) == (best.protocol, best.ctx, model))
                    values = [100 * (1 - 1 / v) if saving else v for v in (best.value, best.low, best.high)]
                    yield part, _cost(part, profile, best, at, *values)


def _byte_ratios(claim: Claim, profile: Profile, model: str, baseline: str) -> Iterator[Ratio]:
    """Of bytes that were counted: the interval is the value."""
    sizes = {(m.protocol, m.ctx, m.model): m.of(claim.quantity) for m in profile.of(claim.kind)}
    for (protocol, ctx, name), mine in sizes.items():
        if name == model and mine and (theirs := sizes.get((protocol, ctx, baseline))):
            value = theirs / mine
            yield Ratio(claim.kind, protocol, ctx, model, baseline, value, low=value, high=value)


def _cost(claim: Claim, profile: Profile, ratio: Ratio, at: Point, value: float, low: float, high: float) -> Measured:
    device = str(at.settings.get("device") or "")
    differs = list(_elsewhere(claim, ratio.ctx, ratio.model))
    if claim.device and not device.startswith(claim.device):
        differs.append(f"on {device or 'a device that is not told'}, claimed on {claim.device}")
    if ratio.estimate:
        differs.append("sampled: an estimate")
    several = ratio.protocol == "largest-batch"
    sequences = f", {plural(ratio.batch, 'sequence')} against {ratio.baseline_batch}" if several else ""
    return Measured(
        *(value, low, high, ratio.n, f"{ratio.model}, {ratio.baseline}", ratio.ctx),
        protocol=f"{claim.kind} {ratio.protocol}{sequences}",
        setting=_setting(profile_setting(profile, ratio.model)),
        differs=tuple(differs),
        rows=f"{profile.name}: {plural(ratio.n, 'repeat')} of each, id {at.id}",
    )


def _of_scores(claims: Claims, claim: Claim, entrants: Sequence[Entrant]) -> Iterator[tuple[Claim, Measured]]:
    for part in claims.by_benchmark(claim):
        for entrant in (e for e in entrants if _is(e.model, part.model)):
            known = {**entrant.cells, **entrant.averages}
            mine = [c for (task, _), c in known.items() if task == part.task and not math.isnan(c.value)]
            mine.sort(key=lambda cell: _order(part, cell.ctx))
            if part.measure == "score" and mine:
                limits = (mine[0].value, mine[0].ci_low, mine[0].ci_high)
                yield part, _score(part, mine[:1], [entrant], mine[0].n_samples, *limits)
            for other in entrants if part.measure == "difference" else ():
                if _pair(part, entrant.model, other.model):
                    shared = ((cell, _difference(part.task, cell.ctx, entrant, other)) for cell in mine)
                    if first := next(((cell, mean) for cell, mean in shared if mean), None):
                        cell, mean = first
                        place = (cell.task, cell.ctx)
                        theirs = other.averages.get(place) or other.cells.get(place)
                        both = [cell, *([theirs] if theirs else [])]
                        yield part, _score(part, both, [entrant, other], mean.n, mean.value, mean.low, mean.high)


def _difference(of: str, ctx: int, a: Entrant, b: Entrant) -> differences.Difference | None:
    """Paired by sample, averaged over the tasks of a family; None where they share none."""
    tasks = [task for task, at in a.scores if at == ctx]
    over = [of] if of in tasks else members(of, a, tasks)
    found = (differences.paired(a.scores[task, ctx], b.scores.get((task, ctx), {})) for task in over)
    pairs = [pair for pair in found if pair]
    return differences.mean(pairs, [pair.n for pair in pairs] if of in a.run.groups else None)


def _score(claim: Claim, cells: Sequence[Cell], who: Sequence[Entrant], n: int, *values: float) -> Measured:
    """cells: of each of who, the first one's first."""
    first, last, cell = who[0], who[-1], cells[0]
    differs = [*_elsewhere(claim, cell.ctx, first.model), *conflicts(first, last)]
    if cell.edition != claim.edition:
        differs.append(f"{cell.edition} edition")
    if (cell.task, cell.ctx) in first.averages:
        n_tasks, expected = min((one.n_tasks, expected_tasks(one.task, one)) for one in cells)
        if n_tasks < expected:
            differs.append(f"{n_tasks} of {expected} tasks")
    if claim.temperature is not None and first.temperature != claim.temperature:
        differs.append(f"temperature {first.temperature}, claimed at {claim.temperature:g}")
    for one, e in zip(cells, who, strict=False):
        of = f" ({e.label})" if len(who) > 1 else ""
        if one.degenerate:
            differs.append(f"every answer is a loop, perhaps by a fault of the engine{of}")
        if one.n_failed > LOST_SHARE * one.n_total:
            differs.append(f"{one.n_failed} of {plural(one.n_total, 'answer')} failed{of}")
    runs = ", ".join(dict.fromkeys(e.run.title for e in who))
    value, low, high = (100 * v for v in values)
    return Measured(
        *(value, low, high, n, ", ".join(e.label for e in who), cell.ctx),
        protocol=cell.protocol,
        setting=_setting(run_setting(first)),
        differs=tuple(differs),
        rows=f"{runs}: {cell.task} at {format_length(cell.ctx)}",
    )
