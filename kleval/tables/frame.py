"""Every record of runs and profiles in one pandas DataFrame, and its views: scores, cost, samples, both joined.

`frame(paths)` has a line per answer (`record` is `answer`) and per measurement (`measurement`). Columns of both:

    run, record, kind, model, ctx, protocol, repeat, id     run: its `--name`, else its directory's, told apart where several have one;
                                                            kind: `answer`, or the point's (`prefill`, `decode`, `memory`, ...)
    value, unit                                             the score in [0, 1], or what is measured, in its unit
    failure, failure_message, finished                      empty where nothing failed

of answers: task, index, edition, metric, metrics (all, as a dict), prompt_tokens, output_tokens, seconds, finish_reason,
text (the last one generated), extracted, references, cut, empty, looped, reasoning_cut, completed (see
`kleval.tables.answers`), prompt_hash;
of measurements: batch, estimate, backend, dtype, device, `measured.NAME` and `closed_form.NAME` for everything that a point holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kleval.store import Point, Row, RunStore
from kleval.store.remote import here
from kleval.tables import cost_rows, leaderboard
from kleval.tables.answers import BROKEN, condition
from kleval.tables.costs import METRIC, UNITS, read_profile
from kleval.tables.scores import names_of

if TYPE_CHECKING:
    import pandas

COMMON = ("run", "record", "kind", "model", "ctx", "protocol", "repeat", "id", "value", "unit")
ENDS = ("failure", "failure_message", "finished")
ANSWER = (
    *("task", "index", "edition", "metric", "metrics", "prompt_tokens", "output_tokens", "seconds", "finish_reason"),
    *("text", "extracted", "references", *BROKEN, "completed", "prompt_hash"),
)
MEASUREMENT = ("batch", "estimate", "backend", "dtype", "device")


@dataclass(frozen=True, slots=True)
class Loaded:
    """Runs and profiles that were opened together; every table is read from the disk when it is asked for."""

    runs: tuple[RunStore, ...]
    profiles: tuple[RunStore, ...]

    @property
    def frame(self) -> pandas.DataFrame:
        """A line per answer and per measurement; see the module."""
        return frame(list(dict.fromkeys(store.path for store in (*self.runs, *self.profiles))))

    @property
    def samples(self) -> pandas.DataFrame:
        """A line per answer: the columns of `frame` that answers have."""
        return _table([*_answers(self.runs)], (*COMMON, *ENDS, *ANSWER))

    @property
    def scores(self) -> pandas.DataFrame:
        """The leaderboard: a line per model, task, length and metric, with the columns of leaderboard.csv."""
        return _table(leaderboard.to_rows(self.runs) if self.runs else [], leaderboard.COLUMNS)

    @property
    def cost(self) -> pandas.DataFrame:
        """A line per measurement over its repeats, with the columns of profile.csv."""
        rows = [row for store in self.profiles for row in cost_rows.records(read_profile(store))]
        return _table(rows, cost_rows.COLUMNS)

    @property
    def joined(self) -> pandas.DataFrame:
        """`scores` with `cost_of` and a column per cost (`kleval.tables.joined`)."""
        rows = leaderboard.to_rows(self.runs, self.profiles) if self.runs else []
        return _table(rows, leaderboard.columns_of(rows))


def load(*paths: str | Path) -> Loaded:
    """Open run directories and profiles, or folders of them, here or at remote addresses (`s3://…`). UsageError for one that is
    not there or cannot be read."""
    stores = [RunStore.open(path) for path in RunStore.find_named(map(here, paths))]
    return Loaded(tuple(s for s in stores if s.is_run), tuple(s for s in stores if s.is_profile))


def frame(paths: Sequence[str | Path]) -> pandas.DataFrame:
    """Every record of the runs and profiles at the paths; see the module. UsageError as `load`."""
    loaded = load(*paths)
    answers = [*_answers(loaded.runs)]
    titles = [title for _, title in names_of(loaded.profiles)]
    points = [
        _measurement(t, point) for t, store in zip(titles, loaded.profiles, strict=True) for point in store.points()
    ]
    named = dict.fromkeys(name for point in points for name in point if "." in name)
    own = (*(ANSWER if answers else ()), *(MEASUREMENT if points else ()))
    return _table([*answers, *points], (*COMMON, *ENDS, *own, *named))


def _table(records: Sequence[dict[str, Any]], columns: Sequence[str]) -> pandas.DataFrame:
    import pandas

    return pandas.DataFrame.from_records(records, columns=list(columns))


def _answers(runs: Sequence[RunStore]) -> Iterator[dict[str, Any]]:
    for store, (_, title) in zip(runs, names_of(runs), strict=True):
        yield from (_answer(title, row) for row in store.rows())


def _answer(run: str, row: Row) -> dict[str, Any]:
    found = condition(row.outcomes, row.references)
    last: dict[str, Any] = next((o for o in reversed(row.outcomes) if o.get("kind") == "generate"), {})
    return {
        **{name: getattr(row, name) for name in (*COMMON, *ENDS, *ANSWER) if name in Row.__dataclass_fields__},
        **{name: last.get(name) for name in ("output_tokens", "finish_reason", "text")},
        **{name: name in found for name in BROKEN},
        "completed": not row.failed and not found.intersection(BROKEN),
        **_head(run, row, "answer", row.score, row.unit or "score"),
        "kind": "answer",
    }


def _measurement(run: str, point: Point) -> dict[str, Any]:
    # Of the machine, the one thing that was measured.
    value = point.values.get(METRIC[point.kind]) if point.kind in METRIC else next(iter(point.values.values()), None)
    unit = UNITS.get(point.kind, "bytes/s" if point.protocol == "copy" else "flops/s")
    return {
        **{name: getattr(point, name) for name in (*COMMON, *ENDS, "batch", "estimate") if hasattr(point, name)},
        **{name: point.settings.get(name) for name in ("backend", "dtype", "device")},
        **{f"measured.{name}": value for name, value in point.values.items()},
        **{f"closed_form.{name}": value for name, value in point.closed_form.items()},
        **_head(run, point, "measurement", value, unit),
    }


def _head(run: str, record: Row | Point, kind: str, value: Any, unit: str) -> dict[str, Any]:
    failure = record.failure or {}
    told = {"failure": failure.get("kind"), "failure_message": failure.get("message")}
    return {"run": run, "record": kind, "value": value, "unit": unit, **told}
