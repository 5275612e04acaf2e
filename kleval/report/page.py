"""Stored runs and profiles as one HTML page that needs no network: everything it shows and runs is in the file.

Sections appear where there are records, in the order that a reader asks: the verdict, scores and costs at a glance, then each in
full, failures, all scores, samples, methods, settings. Model answers and prompts are untrusted: the template escapes all text
(autoescape), figures and samples travel packed, in base64, and a content security policy lets nothing run but the page's own
scripts, by their hashes, and nothing load. The same records give the same bytes: ids are counted, times are the runs' own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kleval.files import write_text
from kleval.report import (
    absences,
    contrasts,
    cost_sections,
    cost_trends,
    embed,
    kernel_sections,
    score_curves,
    score_grids,
    served_sections,
    stills,
    training_sections,
    trends,
    verify_sections,
)
from kleval.report.answer_sections import answer_section
from kleval.report.gain_sections import gain_sections
from kleval.report.header import Header, header, looks
from kleval.report.notices import runs_of
from kleval.report.own import OwnFigure, own_section
from kleval.report.plotly_drawer import plotly
from kleval.report.position_sections import position_section
from kleval.report.samples import Samples, samples_section
from kleval.report.score_cost import score_cost_section
from kleval.report.scorecard import scorecard_section
from kleval.report.sections import Card, Section, section, words
from kleval.report.seed_sections import seed_section
from kleval.report.verdict import Verdict, verdict
from kleval.store import Row, RunStore
from kleval.tables import cost_rows
from kleval.tables.answer_lengths import AnswerLengths
from kleval.tables.costs import Profile, read_profile
from kleval.tables.depths import Depths
from kleval.tables.frame import Loaded
from kleval.tables.positions import Positions
from kleval.tables.scores import Entrant, Run, collect
from kleval.tables.trainings import Studies
from kleval.types import NATS, UsageError


def write_report(
    stores: Sequence[RunStore],
    path: Path,
    left_out: Callable[[str], object] | None = None,
    figures: Path | None = None,
    trend: str = trends.AUTO,
    trained: Studies | None = None,
    own: Sequence[OwnFigure] = (),
) -> Path:
    """Write the page of runs and profiles to path, all of it or nothing; about 2.5 MB, most of it the figures' script.

    left_out: told of each directory that holds nothing to show; without it, and where nothing is left, that is a UsageError. So are
    two profiles that hold the same model's cost, and a path that cannot be written. figures: a folder for the page's figures as files.
    trend: `auto` (many runs of a model are shown as its latest and how it went), `off`, `date` or a tag that it is shown over.
    trained: trainings and studies that the page shows too. own: functions that draw further figures (`own`).
    """
    if figures is not None:
        stills.check(figures)
    text, found = page_of(stores, Samples(n_runs=len(stores)), left_out, trend, trained, own)
    write_text(path, text)
    if figures is not None:
        stills.write(found, figures)
    return path


def page_of(
    stores: Sequence[RunStore],
    samples: Samples,
    left_out: Callable[[str], object] | None = None,
    trend: str = trends.AUTO,
    trained: Studies | None = None,
    own: Sequence[OwnFigure] = (),
) -> tuple[str, list[Section]]:
    """The page's text and its sections; samples is filled with what its browser shows. trend, trained, own, UsageErrors: as of
    `write_report`."""
    if not stores and not trained:
        raise UsageError("no run given: name at least one run directory, see kleval ls runs")
    missing: list[str] = []
    runs: list[RunStore] = []
    profiles: list[Profile] = []
    for store in stores:
        if store.is_run:
            runs.append(store)
        try:
            profiles += [read_profile(store)] if store.is_profile else []
        except UsageError as error:
            missing.append(str(error))
    entrants: list[Entrant] = []
    watched = Watched(samples)
    trends.check(stores, trend)
    last, costs = trends.latest(runs, trend), cost_trends.latest(profiles, trend)
    if runs:
        try:
            entrants = collect(runs, lambda run: watched.watch(run) if run.store in last else lambda row: None)
        except UsageError as error:
            missing.append(str(error))
        else:
            answered = [e.run.store for e in entrants]
            missing += [f"{run.path} has no answers yet" for run in runs if run not in answered]
    if missing and (left_out is None or not (entrants or profiles)):
        raise UsageError("; ".join(missing))
    for text in missing:
        assert left_out is not None
        left_out(text)
    shown = [e for e in entrants if e.run.store in last]
    found = sections(shown, costs, watched)
    if len(costs) < len(profiles):
        found = [cost_trends.cost_trend_section(profiles, trend), *found]
    if len(shown) < len(entrants):
        found = [*trends.trend_sections(entrants, trend), *found]
    last_words = found.pop()  # methods
    if trained:
        found += training_sections.training_sections(trained)
    if own:
        found.append(own_section(own, Loaded(tuple(runs), tuple(s for s in stores if s.is_profile))))
    found.append(last_words)
    return render(shown, costs, found, samples.served), found


@dataclass(frozen=True, slots=True)
class Watched:
    """What is collected from rows while they are read, once."""

    samples: Samples
    depths: Depths = field(default_factory=Depths)
    gains: Depths = field(default_factory=lambda: Depths(NATS))
    lengths: AnswerLengths = field(default_factory=AnswerLengths)
    positions: Positions = field(default_factory=Positions)

    def watch(self, run: Run) -> Callable[[Row], None]:
        collectors = (self.samples, self.depths, self.gains, self.lengths, self.positions)
        watching = [each.watch(run) for each in collectors]

        def see(row: Row) -> None:
            for each in watching:
                each(row)

        return see


def sections(entrants: Sequence[Entrant], profiles: Sequence[Profile], watched: Watched) -> list[Section]:
    """In the page's order. UsageError naming two profiles that hold the same model's cost."""
    every, scored = whole(entrants), [e for e in entrants if e.cells]
    shape, of_all = score_curves.Shape.of(scored), score_curves.Shape.of(every)
    of_scores, of_models = looks(entrants, profiles)
    editions = list(dict.fromkeys(cell.edition for e in every for cell in e.cells.values()))
    found: list[Section | None] = []
    costs = (
        score_cost_section(scored, profiles, shape, of_scores) if scored and any(p.models for p in profiles) else None
    )
    if scored:
        first = _overview(score_curves.overall_card(scored, shape, of_scores), costs)
        found += [
            first,
            score_curves.average_section(scored, shape, of_scores) if shape.families else None,
            score_curves.task_section(scored, shape, of_scores),
            score_grids.heat_section(scored, shape, of_scores),
            score_grids.depth_section(scored, watched.depths, shape, of_scores),
            position_section(scored, watched.positions, of_scores),
            score_grids.column_section(scored, of_scores),
            *contrasts.contrast_sections(scored, shape),
            seed_section(scored),
        ]
    gains = [e.gains for e in entrants if e.gains]
    found += gain_sections(gains, watched.gains, of_scores)
    found += contrasts.contrast_sections(gains, score_curves.Shape.of(gains))
    mark = "" if editions in ([], ["official"]) else f"{' and '.join(editions)} edition"
    found = [replace(one, mark=mark) for one in found if one]
    if costs:
        found.append(replace(costs, cards=tuple(card for card in costs.cards if card not in first.cards)))
    for i, profile in enumerate(profiles):
        prefix = f"p{i}-" if entrants or len(profiles) > 1 else ""
        found += [one and _named(one, prefix) for one in _costs(profile, of_models)]
    found.append(contrasts.ratio_section(profiles) if len(profiles) > 1 else None)
    found.append(scorecard_section(scored, profiles))
    found.append(answer_section(every, of_all.ctxs, watched.lengths, of_scores) if entrants else None)
    found.append(absences.absence_section(entrants, profiles))
    if entrants:
        found.append(score_grids.table_section(every, of_all, of_scores))
        found.append(samples_section(watched.samples, entrants, of_all, of_scores))
    kept = [one for one in found if one and (one.cards or one.lead or one.samples)]
    return [*kept, _methods(kept, every)]


def whole(entrants: Sequence[Entrant]) -> list[Entrant]:
    """Each with what it was asked: scores, else gains."""
    return [e if e.cells or e.gains is None else e.gains for e in entrants]


def _overview(scores: Card, costs: Section | None) -> Section:
    """What the first screen shows under its numbers: score against length, and against the first of its costs."""
    first = [card for card in costs.cards if card.figures][:1] if costs else []
    return section("overview", [scores, *first], layout="pair")


def _costs(profile: Profile, of_models: score_curves.Looks) -> list[Section | None]:
    rows = cost_rows.records(profile)
    found = [
        verify_sections.verify_section(profile),
        served_sections.served_section(profile, rows),
        cost_sections.prefill_section(profile, rows, of_models),
        cost_sections.decode_section(profile, rows, of_models),
        cost_sections.ratio_section(profile, rows, of_models),
        cost_sections.state_section(profile, rows, of_models),
        cost_sections.bound_section(profile, rows, of_models),
        kernel_sections.kernel_section(profile, rows),
    ]
    return found


def _named(section: Section, prefix: str) -> Section:
    """With every id behind a prefix, where several profiles share a page."""
    cards = tuple(replace(card, id=f"{prefix}{card.id}") for card in section.cards)
    return replace(section, id=f"{prefix}{section.id}", cards=cards)


def _apart(profiles: Sequence[Profile]) -> list[str]:
    """A name for each: its own, numbered where another one before it has the same."""
    names = [profile.name for profile in profiles]
    before = [names[:i].count(name) for i, name in enumerate(names)]
    return [f"{name}-{n + 1}" if n else name for name, n in zip(names, before, strict=True)]


def _methods(kept: Iterable[Section], entrants: Sequence[Entrant]) -> Section:
    """How the numbers of these sections are made."""
    metrics, intervals = words()["metric"], words()["interval"]
    used = {name for one in kept for name in one.methods} | {"lengths"}
    cells = [cell for e in entrants for cell in e.cells.values()]
    named = {cell.metric for cell in cells} | {c.metric for e in entrants for c in e.others if c.metric in metrics}
    ways = sorted({cell.ci_method for cell in cells} & set(intervals))
    more = {
        "scores": [f"`{name}`: {metrics.get(name, 'defined by the task; see its card.')}" for name in sorted(named)],
        "intervals": [f"`{name}`, {intervals[name]}" for name in ways],
    }
    cards = [
        Card(title=method["title"], text=" ".join([method["text"], *more.get(name, [])]))
        for name, method in words()["method"].items()
        if name in used
    ]
    return section("methods", cards, layout="prose")


def render(
    entrants: Sequence[Entrant], profiles: Sequence[Profile], found: Sequence[Section], served: bool = False
) -> str:
    """The page's text. found: its sections. served: it may ask whoever serves it for whole prompts."""
    return document(
        found,
        header(whole(entrants), profiles, score_curves.Shape.of(whole(entrants))),
        verdict(entrants, profiles, *looks(entrants, profiles)),
        looks(entrants, profiles)[0],
        {
            name: embed.data_uri(cost_rows.whole(p), "text/csv")
            for name, p in zip(_apart(profiles), profiles, strict=True)
        },
        [*(run.title for run in runs_of(entrants)), *(profile.name for profile in profiles)],
        served,
    )


def document(
    found: Sequence[Section],
    head: Header,
    first: Verdict,
    of_scores: score_curves.Looks,
    downloads: Mapping[str, str],
    sources: Sequence[str],
    served: bool = False,
) -> str:
    """HTML of sections under a header. downloads: name -> address of a file; sources: what it was made from."""
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    drawn = {
        f"fig-{card.id}-{i}": plotly(figure)
        for one in found
        for card in one.cards
        for i, figure in enumerate(card.figures)
    }
    mine = ["unpack.js", "page.js", *(["samples.js"] if any(one.samples for one in found) else [])]
    scripts = [embed.script(text) for text in map(embed.asset, mine)]
    later = [get_plotlyjs()] if drawn else []
    text: str = (
        _environment()
        .get_template("page.html.j2")
        .render(
            verdict=first,
            header=head,
            sections=found,
            looks=of_scores,
            downloads=downloads,
            sources=sources,
            style=Markup(embed.asset("page.css", "samples.css")),
            stills={name: Markup(svg) for name, svg in stills.inside(found).items()},
            figure_data=embed.packed(json.dumps(drawn, separators=(",", ":"), sort_keys=True, allow_nan=False)),
            scripts=[Markup(script) for script in scripts],
            figures_script=embed.packed(later[0]) if later else "",
            policy=embed.policy([*scripts, *later], asks=served),
        )
    )
    return text


def _environment() -> Any:
    """The template beside this file, with autoescape."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    env = Environment(
        loader=PackageLoader("kleval.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters["marked"] = embed.marked
    return env
