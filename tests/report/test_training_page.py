"""Trainings and studies on the page and on the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stored_runs import make_run

from kleval.cli.main import call
from kleval.report.training_sections import training_sections
from kleval.tables.trainings import best, studies

__all__ = ["make_run"]


def lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def training(
    folder: Path, name: str, n: int = 300, kinds: tuple[str, ...] = ("copy", "needle"), seed: int | None = None
) -> None:
    rows = [
        {
            "name": name,
            "budget": 1000 * n,
            "step": i,
            "tokens": 1000 * i,
            "length": 128,
            "loss": 5 / i,
            "seconds": i,
            "tokens_per_second": 1000.0,
            "accuracy": {kind: min(1, i / n) for kind in kinds},
        }
        for i in range(1, n + 1)
    ]
    lines(folder / "log.jsonl", rows)
    if seed is not None:
        (folder / "training.json").write_text(json.dumps({"seed": seed, "parameters": 12345}), encoding="utf-8")


def result(task: str, model: str, length: int, peak: float, lr: float = 0.002, **more: float) -> dict:
    return {"task": task, "model": model, "length": length, "peak": peak, "lr": lr, "steps_taken": 400, **more}


def test_a_line_that_was_being_written_is_left_out(tmp_path: Path) -> None:
    training(tmp_path / "mla", "mla", 5)
    with (tmp_path / "mla" / "log.jsonl").open("a") as log:
        log.write('{"name": "mla", "tok')
    (one,) = studies([tmp_path]).trainings
    assert [point["tokens"] for point in one.points] == [1000, 2000, 3000, 4000, 5000]
    assert not one.complete


def test_two_of_one_name_are_told_apart_by_their_seeds(tmp_path: Path) -> None:
    for seed in (0, 1):
        training(tmp_path / f"seed{seed}" / "mla", "mla", 5, seed=seed)
    training(tmp_path / "seed0" / "gdn-h", "gdn-h", 5, seed=0)
    assert [one.label for one in studies([tmp_path]).trainings] == ["gdn-h", "mla, seed 0", "mla, seed 1"]


@pytest.mark.parametrize("n", [1, 2, 99, 100, 101, 1000])
def test_thinned_points_keep_the_first_and_the_last(tmp_path: Path, n: int) -> None:
    training(tmp_path, "mla", n)
    (one,) = studies([tmp_path]).trainings
    kept = one.thinned(100)
    assert len(kept) == min(n, 100)
    assert (kept[0], kept[-1]) == (one.points[0], one.points[-1])


def test_the_best_learning_rate_counts() -> None:
    rows = [
        result("mqar", "kda", 64, 0.5, 1e-3),
        result("mqar", "kda", 64, 0.9, 5e-3),
        result("mqar", "kda", 64, 0.7, 1e-2),
    ]
    assert best(rows) == [rows[1]]


def test_curves_are_the_logs_and_the_paper_stands_where_settings_match(tmp_path: Path) -> None:
    training(tmp_path / "mqar" / "kda" / "256" / "0.002", "mqar/kda/256/0.002", 4, ("mqar",))
    rows = [result("mqar", "kda", 64, 0.98), result("mqar", "kda", 256, 0.75, paper=100.0)]
    lines(tmp_path / "results.jsonl", rows)
    (section,) = training_sections(studies([tmp_path]))
    length, step = section.cards
    ours, paper = length.figures[0].series
    assert (list(ours.x), [round(y or 0) for y in ours.y]) == ([64, 256], [98, 75])
    assert (list(paper.x), list(paper.y), paper.style) == ([256], [100.0], "paper")
    assert list(step.figures[0].series[0].y) == [25, 50, 75, 100]


def test_a_page_of_trainings_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training(tmp_path / "mla", "mla", 5, seed=3)
    lines(
        tmp_path / "results.jsonl",
        [{"name": "15:1", "loss": 1.5, "parameters": 9, "tokens": 8, "paper": "9.34 / 5.82"}],
    )
    assert call(["report", str(tmp_path), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Loss against tokens seen" in page
    assert "9.34 / 5.82" in page


def test_show_says_how_a_training_went_beside_a_run(
    tmp_path: Path, make_run, capsys: pytest.CaptureFixture[str]
) -> None:
    training(tmp_path / "mla", "mla", 50, seed=3)
    run = make_run(models=("mla@nano",))
    assert call(["show", str(tmp_path / "mla"), str(run.path)]) == 0
    out = capsys.readouterr().out
    assert "mla: mla, complete, 50s, 1,000 tokens/s" in out
    assert out.index("50,000") < out.index("mla@nano")


def test_a_folder_of_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training(tmp_path / "mla", "mla", 5)
    (tmp_path / "empty").mkdir()
    assert call(["show", str(tmp_path / "mla"), str(tmp_path / "empty")]) == 2
    assert "holds no run" in capsys.readouterr().err
