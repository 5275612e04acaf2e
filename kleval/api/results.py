"""Results of calls from Python: tables, figures, comparisons and pages of a run directory, each read when it is asked for.

In a notebook each shows itself (`_repr_html_`). Everything is text of the run: HTML is escaped.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kleval.harness.rescoring import rescore
from kleval.report.own import OwnFigure
from kleval.report.page import write_report
from kleval.store import Point, Row, RunStore
from kleval.tables import contrasts, cost_rows, positions
from kleval.tables.costs import read_profile
from kleval.tables.frame import Loaded, load
from kleval.tables.leaderboard import to_rows, write_csv
from kleval.tables.scores import collect
from kleval.types import Task, UsageError
from kleval.work import Result

if TYPE_CHECKING:
    import pandas
    from plotly.graph_objects import Figure

_AS_SHOWN: dict[str, Any] = {"na_rep": "–", "float_format": lambda value: f"{value:,.4g}"}
SHOWN = ("model", "task", "ctx", "metric", "value", "ci_low", "ci_high", "n", "n_failed", "n_skipped")
SHOWN_COSTS = ("model", "kind", "protocol", "ctx", "batch", "value", "low", "high", "unit", "estimate", "state_bytes")
SHOWN_DIFFERENCES = (
    "task",
    "ctx",
    "n",
    "score_a",
    "score_b",
    "difference",
    "difference_low",
    "difference_high",
    "p",
    "verdict",
)
SHOWN_RATIOS = (
    "value",
    "kind",
    "protocol",
    "ctx",
    "value_a",
    "value_b",
    "unit",
    "ratio",
    "ratio_low",
    "ratio_high",
    "verdict",
)


@dataclass(frozen=True, slots=True, repr=False)
class Stored:
    """What a call came to. result: its status, counts and message. out: its run directory, which every command reads."""

    result: Result
    out: Path

    @property
    def tables(self) -> Loaded:
        """All tables, as of `kleval.load`."""
        return load(self.out)

    def compare(self, other: Stored | Path | str, *, model: str | None = None, effect: float | None = None) -> Contrast:
        """Another result, or run directory, against this one, as `kleval compare`: this is A, the other B.

        model: the one to compare, or A's and B's ("a,b"). effect: of which the needed samples are said, in points (costs: percent).
        """
        there = other.out if isinstance(other, Stored) else Path(other)
        a, b = ([RunStore.open(path) for path in RunStore.find_named([place])] for place in (self.out, there))
        names = [part.strip() for part in (model or "").split(",") if part.strip()]
        return Contrast(tuple(contrasts.records(a, b, names, effect)))

    def report(self, path: Path | str | None = None, own: Sequence[OwnFigure] = ()) -> Path:
        """Write the page, as the command does: report.html in the run directory unless a path is given. own: functions f(tables)
        that draw further figures, as `--add-figure`."""
        place = self.out / "report.html" if path is None else Path(path)
        return write_report([RunStore.open(self.out)], place, own=own)

    def __repr__(self) -> str:
        counts = ", ".join(f"{n} {name}" for name, n in self.result.counts.items() if n)
        return f"<{type(self).__name__} {self.result.status}: {counts or self.result.message}; {self.out}>"

    def _html(self, table: pandas.DataFrame) -> str:
        caveats = RunStore.open(self.out).manifest["caveats"]
        notes = [text for text in (self.result.message, *caveats) if text]
        said = "".join(f"<li>{html.escape(text)}</li>" for text in notes)
        return f"<p>{html.escape(repr(self)[1:-1])}</p>{_table(table)}{f'<ul>{said}</ul>' if said else ''}"


@dataclass(frozen=True, slots=True, repr=False)
class Evaluation(Stored):
    """What an evaluation came to. own: the task objects that were asked, by id. named: what was given by name, files among it."""

    own: Mapping[str, Task] = field(default_factory=dict)
    named: tuple[str, ...] = ()

    @property
    def rows(self) -> list[Row]:
        """Every answer as it is stored: score, failure, outcomes, what was extracted."""
        return list(RunStore.open(self.out).rows())

    @property
    def scores(self) -> list[dict[str, Any]]:
        """One dict per model, task, length and metric, as in leaderboard.csv: `value` with interval, n, failures."""
        return to_rows([RunStore.open(self.out)])

    def to_pandas(self, table: Literal["scores", "samples", "positions"] = "scores") -> pandas.DataFrame:
        """`scores`, a line per model, task, length and metric; `samples`, a line per answer; `positions`, the negative
        log-likelihood of texts (`ppl:FILE`) by position."""
        if table not in ("scores", "samples", "positions"):
            raise UsageError(f"there is no table {table!r}: scores, samples or positions")
        if table == "positions":
            import pandas

            return pandas.DataFrame.from_records(positions.positions(self.rows), columns=list(positions.COLUMNS))
        found: pandas.DataFrame = getattr(self.tables, table)
        return found

    def to_csv(self, path: Path | str | None = None) -> Path:
        """Write the table of scores, as the command does: leaderboard.csv in the run directory unless a path is given."""
        return write_csv([RunStore.open(self.out)], self.out / "leaderboard.csv" if path is None else Path(path))

    def plot(self, task: str | None = None) -> Figure:
        """Scores against context length, with 95 % intervals. task: an id, or a family's mean; the first unless given."""
        from kleval.report.header import looks
        from kleval.report.score_curves import Shape, score_figure

        entrants = collect([RunStore.open(self.out)])
        shape = Shape.of(entrants)
        known = (*shape.families, *shape.tasks)
        name = known[0] if task is None else task
        if name not in known:
            raise UsageError(f"there are no scores of {name!r}: choose one of {', '.join(known)}")
        return _drawn(score_figure(entrants, name, shape, looks(entrants, [])[0]), name)

    def score(
        self,
        *,
        tasks: Task | Sequence[Task] = (),
        metric: str | Callable[..., Any] | None = None,
        allow_code_execution: bool = False,
    ) -> Evaluation:
        """Score the stored answers again without asking, as `kleval score`, after a metric was changed; this result shows them then.

        tasks: objects in the place of those that were asked. metric: `./m.py:f`, a function f(answer, references), or "none" for the
        tasks' own. allow_code_execution: of tasks that run what the model wrote. UsageError where other prompts would be asked now,
        and for a file that run.json names and nobody here.
        """
        given: list[Any] = [tasks] if hasattr(tasks, "step") else list(tasks)
        by_id = {**self.own, **{task.id: task for task in given}}
        rescore(self.out, by_id, metric, allow_code_execution=allow_code_execution, named=self.named)
        return self

    def _repr_html_(self) -> str:
        return self._html(self.to_pandas()[list(SHOWN)]) if self.result.counts.get("finished") else self._html_empty()

    def _html_empty(self) -> str:
        return f"<p>{html.escape(repr(self)[1:-1])} {html.escape(self.result.message)}</p>"


@dataclass(frozen=True, slots=True, repr=False)
class Profile(Stored):
    """What a profile came to."""

    @property
    def points(self) -> list[Point]:
        """Every measurement as it is stored."""
        return list(RunStore.open(self.out).points())

    def to_pandas(self) -> pandas.DataFrame:
        """A line per measurement over its repeats, as in profile.csv."""
        return self.tables.cost

    def to_csv(self, path: Path | str | None = None) -> Path:
        """Write the table of costs, as the command does: profile.csv in the run directory unless a path is given."""
        store = RunStore.open(self.out)
        return cost_rows.write_profile_csv(store, self.out / "profile.csv" if path is None else Path(path))

    def plot(self, what: str | None = None) -> Figure:
        """A cost against context length: `decode` (or `batch-8`, `largest-batch`), `prefill`; of a served model `ttft`, `tpot`,
        `throughput`. The first that was measured unless given."""
        from kleval.report.cost_sections import decode_figure, prefill_figure
        from kleval.report.header import looks
        from kleval.report.served_sections import QUANTITIES, served_figure

        found = read_profile(RunStore.open(self.out))
        of_models = looks([], [found])[1]
        drawers: dict[str, Any] = {}
        if found.of("decode"):
            protocols = found.protocols("decode")
            drawers["decode"] = lambda: decode_figure(found, protocols[0], of_models)
            drawers |= {one: lambda one=one: decode_figure(found, one, of_models) for one in protocols}
        if found.of("prefill"):
            drawers["prefill"] = lambda: prefill_figure(found, of_models)
        if found.of("served"):
            drawers |= {one: lambda one=one: served_figure(found, one) for one in QUANTITIES}
        name = next(iter(drawers), "") if what is None else what
        if name not in drawers:
            raise UsageError(
                f"there is no figure of {name!r}: choose one of {', '.join(drawers) or 'none, nothing was measured'}"
            )
        return _drawn(drawers[name](), name)

    def _repr_html_(self) -> str:
        table = self.to_pandas()
        return self._html(table[[name for name in SHOWN_COSTS if name in table]])


@dataclass(frozen=True, slots=True, repr=False)
class Contrast:
    """B against A. records: a dict per difference of scores, ratio of costs, and thing that is refused, differs or is unpaired."""

    records: Sequence[Mapping[str, Any]]

    def to_pandas(self) -> pandas.DataFrame:
        """Differences of scores x 100, or ratios of costs, with intervals and a verdict; a line each."""
        import pandas

        first = [row for row in self.records if row["record"] in ("difference", "ratio")]
        return pandas.DataFrame.from_records(first)

    @property
    def notes(self) -> list[str]:
        """What is refused, differs or is unpaired, in words."""
        return [f"{row['record']}: {row['text']}" for row in self.records if "text" in row]

    def __repr__(self) -> str:
        table = self.to_pandas()
        return "\n".join([table[self._columns(table)].to_string(index=False, **_AS_SHOWN), *self.notes])

    def _repr_html_(self) -> str:
        table = self.to_pandas()
        said = "".join(f"<li>{html.escape(text)}</li>" for text in self.notes)
        pair = self.records[0]
        title = f"<p>B {html.escape(str(pair['b']))} against A {html.escape(str(pair['a']))}</p>"
        return f"{title}{_table(table[self._columns(table)])}{f'<ul>{said}</ul>' if said else ''}"

    @staticmethod
    def _columns(table: pandas.DataFrame) -> list[str]:
        return [name for name in (SHOWN_DIFFERENCES if "difference" in table else SHOWN_RATIOS) if name in table]


def _table(table: pandas.DataFrame) -> str:
    found: str = table.to_html(index=False, border=0, escape=True, **_AS_SHOWN)
    return found


def _drawn(figure: Any, title: str) -> Figure:
    from plotly.graph_objects import Figure as Drawn

    from kleval.report.plotly_drawer import plotly

    drawn = Drawn(plotly(figure))
    drawn.update_layout(title=html.escape(title), template="plotly_white", width=760, height=420)
    return drawn
