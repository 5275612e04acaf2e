"""One frame of answers and measurements, and its views."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kleval
from kleval.store import RunStore
from kleval.tables import cost_rows, formats, leaderboard
from kleval.tables.frame import ANSWER, COMMON, ENDS, frame, load
from kleval.types import UsageError

pandas = pytest.importorskip("pandas")
Make = Callable[..., RunStore]


def test_every_row_and_every_point_has_one_line(make_run: Make, make_profile: Make) -> None:
    run, profile = make_run(), make_profile()
    found = frame([run.path, profile.path])
    assert (found["record"] == "answer").sum() == len(list(run.rows()))
    assert (found["record"] == "measurement").sum() == len(list(profile.points()))
    assert list(found.columns[: len(COMMON)]) == list(COMMON)


def test_values_are_the_stored_ones(make_run: Make, make_profile: Make) -> None:
    run, profile = make_run(answer=lambda m, t, c, i: float(i == 0)), make_profile()
    found = frame([run.path, profile.path])
    assert found[found.record == "answer"]["value"].tolist() == [row.score for row in run.rows()]
    decode = found[found.kind == "decode"]
    assert decode["value"].tolist() == decode["measured.ms_per_token"].tolist()


def test_runs_are_called_what_their_command_named_them(make_run: Make, make_profile: Make) -> None:
    """Two of one name are told apart by when they began."""
    first = make_run("first", title="new kernels")
    second = make_run("second", title="new kernels", started="2026-03-02T10:00:00+00:00")
    stores = [first, second, make_run("third")]
    found = frame([store.path for store in [*stores, make_profile()]])
    named = ["new kernels 2026-03-01 10:00 UTC", "new kernels 2026-03-02 10:00 UTC", stores[2].name]
    assert list(found[found.record == "answer"]["run"].unique()) == named
    assert list(load(*(store.path for store in stores)).samples["run"].unique()) == named


def test_flags_of_answers_are_columns(make_run: Make) -> None:
    run = make_run(text=lambda m, t, c, i: ("42", "", "!" * 40)[i], finish="length")
    found = load(run.path).samples
    assert set(found.columns) == {*COMMON, *ENDS, *ANSWER}
    assert found.groupby("index")[["cut", "empty", "looped", "completed"]].any().to_numpy().tolist() == [
        [True, False, False, False],
        [True, True, False, False],
        [True, False, True, False],
    ]


def test_a_failed_answer_has_its_failure_and_no_value(make_run: Make, failed: dict[str, str]) -> None:
    found = load(make_run(answer=lambda m, t, c, i: failed).path).samples
    assert set(found["failure"]) == {failed["kind"]}
    assert found["value"].isna().all()
    assert not found["completed"].any()


def test_views_have_the_columns_of_the_files(make_run: Make, make_profile: Make) -> None:
    loaded = kleval.load(make_run().path, make_profile().path)
    assert tuple(loaded.scores.columns) == leaderboard.COLUMNS
    assert tuple(loaded.cost.columns) == cost_rows.COLUMNS
    assert list(loaded.joined.columns)[: len(leaderboard.COLUMNS) + 1] == [*leaderboard.COLUMNS, "cost_of"]


def test_a_folder_stands_for_what_is_in_it_and_nothing_twice(make_run: Make, make_profile: Make) -> None:
    run = make_run()
    make_profile()
    loaded = load(run.path.parent, str(run.path))
    assert (len(loaded.runs), len(loaded.profiles)) == (1, 1)


def test_profiles_alone_have_no_scores_and_runs_alone_no_cost(make_run: Make, make_profile: Make) -> None:
    assert load(make_profile().path).scores.empty
    assert load(make_run().path).cost.empty


def test_a_place_without_a_run_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no run"):
        load(tmp_path)


def test_json_and_parquet_hold_the_rows(make_run: Make) -> None:
    rows: list[dict[str, Any]] = leaderboard.to_rows([make_run()])
    columns = leaderboard.columns_of(rows)
    assert json.loads(formats.to_json(rows, columns)) == rows
    pytest.importorskip("pyarrow")
    read = pandas.read_parquet(io.BytesIO(formats.to_parquet(rows, columns)))
    assert list(read.columns) == columns
    assert read["value"].tolist() == [row["value"] for row in rows]


def test_parquet_without_pyarrow_is_one_line_that_installs_it(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    rows = leaderboard.to_rows([make_run()])
    with pytest.raises(UsageError, match="pip install 'pyarrow>="):
        formats.to_parquet(rows, leaderboard.COLUMNS)


def test_the_manuals_example_runs(make_run: Make, make_profile: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "python.md").read_text("utf-8")
    (example,) = [text for text in page.split("```") if text.startswith("python\n") and "kleval.load(" in text]
    models = ("kimi-linear@nano", "mla@nano")
    place = make_run("demo/run", models=models, ctxs=(4096,), answer=lambda m, t, c, i: float(i > 0)).path.parent.parent
    make_profile("demo/profile")
    monkeypatch.chdir(place)
    names: dict[str, Any] = {}
    exec(example.removeprefix("python\n"), names)  # noqa: S102 - the manual's own
    assert len(names["wrong"]) == 2 * 2
    assert names["both"]["tpot_ms_batch1"].notna().all()
    assert not names["cut"].to_numpy().any()
