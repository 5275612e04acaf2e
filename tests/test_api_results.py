"""Results of calls from Python: as tables, figures, comparisons, pages, and in a notebook."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from backends.test_given import Bytes, Sums

import kleval
from kleval.api import Evaluation, Profile
from kleval.types import UsageError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    place = tmp_path_factory.mktemp("own") / "run"
    return kleval.evaluate(
        Sums(False), Bytes(), name="<b>mine", tasks="ruler/niah_single_1", ctx=800, limit=2, out=place
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Profile:
    place = tmp_path_factory.mktemp("own") / "profile"
    return kleval.profile(Sums(True), ctx=[64, 128], repeats=1, decode_tokens=4, name="mine", out=place)


def test_a_module_is_evaluated(run: Evaluation) -> None:
    assert run.result.status == "complete"
    (line,) = run.to_pandas().to_dict("records")
    assert (line["model"], line["n"], line["backend"]) == ("<b>mine", 2, "given")
    assert len(run.to_pandas("samples")) == 2


def test_a_module_is_profiled(measured: Profile) -> None:
    table = measured.to_pandas()
    assert list(table["ctx"]) == [64, 128]
    assert all(table["tpot_ms"] > 0)
    assert set(table["backend"]) == {"given"}


def test_a_notebook_shows_what_matters_and_no_markup_of_a_name(run: Evaluation, measured: Profile) -> None:
    shown = run._repr_html_()
    assert "&lt;b&gt;mine" in shown
    assert "<b>mine" not in shown
    assert "has no cache: every token of an answer" in shown
    assert "tpot_ms" not in shown
    assert "mine" in measured._repr_html_()


def test_the_page_and_the_table_are_those_of_the_command(run: Evaluation, measured: Profile, tmp_path: Path) -> None:
    from kleval.cli.main import call

    assert call(["report", str(run.out), "--out", str(tmp_path / "theirs.html")]) == 0
    assert run.report(tmp_path / "ours.html").read_bytes() == (tmp_path / "theirs.html").read_bytes()
    assert run.report() == run.out / "report.html"
    assert run.to_csv().read_text().startswith("model,task,ctx")
    assert measured.to_csv() == measured.out / "profile.csv"


def test_figures(run: Evaluation, measured: Profile) -> None:
    assert list(run.plot().data[-1].x) == [800]
    assert list(measured.plot("ttft").data[-1].x) == [64, 128]
    for result, what in ((run, "rular"), (measured, "decode")):
        with pytest.raises(UsageError, match="choose one of"):
            result.plot(what)


def test_two_results_are_compared(run: Evaluation, measured: Profile, tmp_path: Path) -> None:
    other = kleval.evaluate(Sums(True), Bytes(), tasks="ruler/niah_single_1", ctx=800, limit=2, out=tmp_path / "other")
    found = run.compare(other)
    assert set(found.to_pandas()["difference"]) == {0.0}
    assert "against" in found._repr_html_()
    assert "no difference shown" in repr(found)
    with pytest.raises(UsageError, match="cannot be compared"):
        run.compare(measured)


def test_progress_is_one_line_on_stderr_where_somebody_looks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def again() -> str:
        kleval.evaluate(Sums(True), Bytes(), tasks="ruler/niah_single_1", ctx=800, limit=1)
        return capsys.readouterr().err

    assert again() == ""
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    assert "1/1 answers" in again()


def test_several_model_objects_have_the_names_of_a_dict(tmp_path: Path) -> None:
    models = {"a": Sums(True), "b": Sums(True)}
    found = kleval.evaluate(models, Bytes(), tasks="ruler/niah_single_1", ctx=800, limit=1, out=tmp_path / "run")
    assert set(found.to_pandas()["model"]) == {"a", "b"}


def test_a_changed_model_does_not_continue_a_run(tmp_path: Path) -> None:
    def go(model: torch.nn.Module) -> Any:
        return kleval.evaluate(model, Bytes(), tasks="ruler/niah_single_1", ctx=800, limit=1, out=tmp_path / "run")

    model = Sums(True)
    go(model)
    assert go(model).result.counts["answered"] == 1
    with torch.no_grad():
        model.head.bias[0] += 1
    with pytest.raises(UsageError, match="weights_sha256"):
        go(model)


@pytest.mark.parametrize(
    ("model", "settings", "said"),
    [
        (3, {}, "3 is no model"),
        (Sums, {}, "is no model"),
        ([Sums(True), Sums(True)], {}, "two models are called 'Sums'"),
        (Sums(True), {"device": "cuda"}, "those of the model object"),
        ("kimi-linear", {"tokenizer": Bytes()}, "tokenizer of a model object"),
        ([Sums(True), Sums(False)], {"name": "x"}, "name is for one model object"),
    ],
)
def test_a_wrong_model_is_one_line(model: Any, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        kleval.evaluate(model, **{"tokenizer": Bytes(), **settings}, tasks="ruler/vt", ctx=512)
    assert "\n" not in str(error.value)
