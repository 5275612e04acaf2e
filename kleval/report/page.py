"""Stored runs and profiles as one HTML page that needs no network: everything it shows and runs is in the file.

Sections appear where there are records: scores, score against cost, costs, failures, samples, methods. Model answers and prompts are
untrusted: the templates escape all text (autoescape), figures travel as JSON in which no tag can end, and a content security policy
lets nothing run but the page's own scripts, by their hashes, and nothing load. The same records give the same bytes: ids are counted,
times are the runs' own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from kleval.files import write_text
from kleval.report import embed
from kleval.report.cost_sections import costs_part
from kleval.report.parts import Part, environment
from kleval.report.score_cost import Joint, joint
from kleval.report.score_sections import scores_part
from kleval.store import RunStore
from kleval.tables.costs import read_profile
from kleval.types import UsageError


def write_report(stores: Sequence[RunStore], path: Path, left_out: Callable[[str], object] | None = None) -> Path:
    """Write the page of runs and profiles to path, all of it or nothing; about 5 MB, most of it the figures' script.

    left_out: told of each directory that holds nothing to show; without it, and where nothing is left, that is a UsageError. So are
    two profiles that hold the same model's cost, and a path that cannot be written.
    """
    if not stores:
        raise UsageError("no run given: name at least one run directory, see kleval ls runs")
    missing: list[str] = []
    runs = [store for store in stores if store.manifest.get("kind", "run") == "run"]
    profiles = []
    for store in stores:
        if store not in runs:
            try:
                profiles.append(read_profile(store))
            except UsageError as error:
                missing.append(str(error))
    parts, together = [], None
    if runs:
        try:
            scores, entrants = scores_part(runs)
        except UsageError as error:
            missing.append(str(error))
        else:
            parts.append(scores)
            together = joint(entrants, profiles) if any(profile.models for profile in profiles) else None
    alone = len(stores) == len(profiles) == 1
    parts += [costs_part(profile, "" if alone else f"p{i}-") for i, profile in enumerate(profiles)]
    if missing and (left_out is None or not parts):
        raise UsageError("; ".join(missing))
    for text in missing:
        assert left_out is not None
        left_out(text)
    return write_text(path, render(parts, together))


def render(parts: Sequence[Part], together: Joint | None = None) -> str:
    """The page's text. together: scores beside costs."""
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    scored = any(part.scores for part in parts)
    own = ("figures.js", "page.js") if scored else ("figures.js",)
    scripts = [embed.script(get_plotlyjs()), embed.script(embed.asset(*own))]
    drawn = {div: figure for part in parts for div, figure in part.figures.items()}
    if together:
        drawn |= {panel.div: panel.figure for panel in together.panels}
    text: str = (
        environment()
        .get_template("page.html.j2")
        .render(
            parts=parts,
            lead_in="Score and cost: " if scored and not all(part.scores for part in parts) else parts[0].lead_in,
            names=list(dict.fromkeys(name for part in parts for name in part.names)),
            sources=[source for part in parts for source in part.sources],
            joint=together,
            style=Markup(embed.asset("page.css", "profile.css")),
            figure_data=Markup(embed.to_json(drawn)),
            scripts=[Markup(script) for script in scripts],
            policy=embed.policy(scripts),
        )
    )
    return text
