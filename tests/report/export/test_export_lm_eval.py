"""Runs as lm-eval's results and samples: read by lm-eval's own functions, with nothing lost and no failure made a score."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kleval.report.export import export
from kleval.store import RunStore
from kleval.types import UsageError

FAILED = {"kind": "out_of_memory", "message": "needed 12.0 GiB, had 8.0 GiB"}


def answer(model: str, task: str, ctx: int, index: int) -> float | dict[str, str]:
    return FAILED if (task, index) == ("ruler/cwe", 1) else (index % 2) / (1 if task == "ruler/vt" else 2)


@pytest.fixture
def run(make_run: Callable[..., RunStore]) -> RunStore:
    return make_run(answer=answer, models=("one@nano",), n=4)


def results_of(paths: tuple[Path, ...]) -> dict[str, Any]:
    (path,) = (path for path in paths if path.name.startswith("results_"))
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def lines_of(paths: tuple[Path, ...], task: str) -> list[dict[str, Any]]:
    (path,) = (path for path in paths if path.name.startswith(f"samples_{task}_"))
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_names_are_those_that_lm_eval_reads(run: RunStore, tmp_path: Path) -> None:
    utils = pytest.importorskip("lm_eval.utils", reason="lm-eval is not installed: pip install -e '.[lm-eval]'")
    paths = export([run], "lm-eval", tmp_path / "out").paths
    names = [path.as_posix() for path in paths]
    (results,) = utils.get_results_filenames(names)
    samples = utils.get_sample_results_filenames(names)
    assert len(samples) == 4
    assert {utils.get_file_task_name(Path(name).name) for name in samples} == {
        f"ruler_{task}_{ctx}_kleval_builtin" for task in ("vt", "cwe") for ctx in (1024, 2048)
    }
    (date,) = {utils.get_file_datetime(Path(name).name) for name in samples}
    assert Path(results).name == f"results_{date}.json"
    assert Path(results).parent.name == utils.sanitize_model_name("one@nano")


def test_keys_are_those_of_lm_evals_schema(run: RunStore, tmp_path: Path) -> None:
    schema = pytest.importorskip("lm_eval.result_schema", reason="lm-eval is not installed")
    paths = export([run], "lm-eval", tmp_path / "out").paths
    results = results_of(paths)
    assert set(results) - set(schema.EvalResults.__annotations__) == {"kleval"}
    assert set(results["config"]) <= set(schema._EvalConfig.__annotations__)
    for line in lines_of(paths, "ruler_vt_1024_kleval_builtin"):
        assert set(schema.SampleResult.__annotations__) <= set(line)
        assert set(line) - set(schema.SampleResult.__annotations__) == set(line["metrics"])


def test_lm_evals_table_shows_every_value(run: RunStore, tmp_path: Path) -> None:
    utils = pytest.importorskip("lm_eval.utils", reason="lm-eval is not installed")
    results = results_of(export([run], "lm-eval", tmp_path / "out").paths)
    table = utils.make_table(results)
    rows = [[cell.strip() for cell in line.split("|")] for line in table.splitlines()]
    (vt,) = (row for row in rows if row[1] == "- ruler/vt @ 1024 (kleval builtin)")
    assert vt[2:6] == ["1", "none", "", "string_match_all"]
    assert vt[7] == "0.5000"
    assert any(row[1] == "ruler @ 1024 (kleval builtin), 2 of 13 tasks only" for row in rows)
    assert "average" in utils.make_table(results, "groups")


def test_samples_load_as_a_data_set(run: RunStore, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    paths = export([run], "lm-eval", tmp_path / "out").paths
    (file,) = (str(path) for path in paths if path.name.startswith("samples_ruler_vt_1024"))
    loaded = datasets.load_dataset("json", data_files=file, split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["doc_id"][:] == [0, 1, 2, 3]
    assert loaded["string_match_all"][:] == [0.0, 1.0, 0.0, 1.0]


def test_values_and_standard_errors_are_those_of_the_lines(run: RunStore, tmp_path: Path) -> None:
    paths = export([run], "lm-eval", tmp_path / "out").paths
    results = results_of(paths)
    for name in results["configs"]:
        values = [line["string_match_all"] for line in lines_of(paths, name)]
        task = results["results"][name]
        assert task["string_match_all,none"] == pytest.approx(statistics.fmean(values))
        assert task["string_match_all_stderr,none"] == pytest.approx(statistics.stdev(values) / math.sqrt(len(values)))
        assert task["sample_len"] == len(values)


def test_a_failure_is_no_line_and_is_listed(run: RunStore, tmp_path: Path) -> None:
    paths = export([run], "lm-eval", tmp_path / "out").paths
    name = "ruler_cwe_1024_kleval_builtin"
    assert [line["doc_id"] for line in lines_of(paths, name)] == [0, 2, 3]
    results = results_of(paths)
    ours = results["kleval"]["tasks"][name]
    assert ours["failures"] == [FAILED | {"n": 1}]
    assert ours["unanswered"] == [{"doc_id": 1, "id": "ruler/cwe:1024:1", "repeat": 0, **FAILED}]
    metric = ours["metrics"]["string_match_all"]
    assert (metric["n"], metric["n_scored"], metric["n_failed"]) == (4, 3, 1)
    assert metric["bound_low"] < metric["value"] < metric["bound_high"]
    assert metric["ci_low"] <= metric["value"] <= metric["ci_high"]
    assert results["n-samples"][name] == {"original": 4, "effective": 4}


def test_edition_protocol_and_data_go_along(run: RunStore, tmp_path: Path) -> None:
    results = results_of(export([run], "lm-eval", tmp_path / "out").paths)
    for name, config in results["configs"].items():
        assert name.endswith("_kleval_builtin")
        assert config["metadata"]["edition"] == "builtin"
        assert "/" not in config["dataset_path"]  # what has a slash is taken for a data set of the hub
        ours = results["kleval"]["tasks"][name]
        assert (ours["protocol"], ours["data_revision"], ours["data_digest"]) == (
            "nvidia-c3f5e3b",
            "builtin-1",
            "d" * 64,
        )


def test_a_line_holds_prompt_answer_and_their_hashes(run: RunStore, tmp_path: Path) -> None:
    line = lines_of(export([run], "lm-eval", tmp_path / "out").paths, "ruler_vt_2048_kleval_builtin")[3]
    prompt = "ruler/vt at 2048, number 3? Answer:"
    assert line["arguments"]["gen_args_0"]["arg_0"] == prompt
    assert line["prompt_hash"] == hashlib.sha256(prompt.encode()).hexdigest()
    assert line["target"] == "42"
    assert line["target_hash"] == hashlib.sha256(b"42").hexdigest()
    assert line["resps"] == [["the answer is 42"]]


def test_repeats_of_a_sample_are_one_line(tmp_path: Path, make_run: Callable[..., RunStore]) -> None:
    run = make_run(answer=answer, models=("one@nano",), tasks=("ruler/vt",), ctxs=(1024,), repeats=3)
    paths = export([run], "lm-eval", tmp_path / "out").paths
    lines = lines_of(paths, "ruler_vt_1024_kleval_builtin")
    assert [line["doc_id"] for line in lines] == [0, 1, 2]
    assert lines[0]["resps"] == [["the answer is 42"] * 3]
    assert results_of(paths)["results"]["ruler_vt_1024_kleval_builtin"]["sample_len"] == 3


def test_lm_evals_own_tasks_keep_their_names_and_filters(tmp_path: Path, official_run: RunStore) -> None:
    paths = export([official_run], "lm-eval", tmp_path / "out").paths
    results = results_of(paths)
    assert list(results["configs"]) == ["gsm8k", "arc_easy"]
    assert results["results"]["gsm8k"]["exact_match,strict-match"] == 0.5
    assert results["results"]["gsm8k"]["exact_match,flexible-extract"] == 1.0
    assert results["n-shot"] == {"gsm8k": 5, "arc_easy": 5}
    assert results["configs"]["gsm8k"]["dataset_path"] == "openai/gsm8k"
    lines = lines_of(paths, "gsm8k")
    assert [(line["filter"], line["exact_match"], line["filtered_resps"]) for line in lines[:2]] == [
        ("strict-match", 0.0, ["[invalid]"]),
        ("flexible-extract", 1.0, ["42"]),
    ]
    assert {line["doc_hash"] for line in lines} == {"f" * 64}


def test_likelihoods_are_one_argument_per_choice(tmp_path: Path, official_run: RunStore) -> None:
    paths = export([official_run], "lm-eval", tmp_path / "out").paths
    line = lines_of(paths, "arc_easy")[0]
    assert [argument["arg_1"] for argument in line["arguments"].values()] == [" yes", " no"]
    assert line["resps"] == [[["-1.5", "True"]], [["-2.5", "False"]]]
    assert line["filtered_resps"] == [["-1.5", "True"], ["-2.5", "False"]]
    assert results_of(paths)["configs"]["arc_easy"]["output_type"] == "multiple_choice"


def test_exporting_again_writes_the_same_and_two_runs_have_files_of_their_own(
    run: RunStore, tmp_path: Path, make_run: Callable[..., RunStore]
) -> None:
    first = {path: path.read_bytes() for path in export([run], "lm-eval", tmp_path / "out").paths}
    again = {path: path.read_bytes() for path in export([run], "lm-eval", tmp_path / "out").paths}
    assert again == first
    other = make_run("other", models=("one@nano",), n=1)
    both = export([run, other], "lm-eval", tmp_path / "both").paths
    assert len(set(both)) == len(both) == 2 * len(first)


def test_a_folder_that_cannot_be_written_is_a_usage_error(run: RunStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="give another --out"):
        export([run], "lm-eval", tmp_path / "file")
