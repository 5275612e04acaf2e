"""`kleval plan`: what is counted without data, where its times are from, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from kleval.cli.main import call
from kleval.suites import SUITES
from kleval.tasks import packaged
from kleval.tasks.code.task import CodeTask
from kleval.tasks.lm_eval.task import LmEvalTask
from kleval.tasks.short.task import ShortTask

REPORT = Path(__file__).parent.parent.parent / "reports" / "cpu-nano" / "4k-64k"
LONG = ["plan", "--model", "kimi-linear@48b-a3b", "--suite", "long-official", "--ctx", "128k,1m"]


def planned(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, list[dict[str, Any]]]:
    assert call([*words, "--json"]) == 0
    found: dict[str, list[dict[str, Any]]] = {}
    for line in capsys.readouterr().out.splitlines():
        record = json.loads(line)
        found.setdefault(record["record"], []).append(record)
    return found


def test_the_official_long_suite_is_planned_without_its_data(capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(capsys, *LONG, "--hardware", "8xH200", "--limit", "all", "--price", "2")
    (total,) = found["plan"]
    ruler = [cell for cell in found["cell"] if cell["task"] == "ruler/vt"]
    assert [(cell["ctx"], cell["samples"], cell["read"]) for cell in ruler] == [
        (ctx, 500, 500 * (ctx - 30)) for ctx in (131072, 1 << 20)
    ]
    low, high = total["device_hours"]
    assert high == pytest.approx(3 * low)
    assert total["money"] == pytest.approx([2 * low, 2 * high])
    assert total["read"] == sum(cell["read"] for cell in found["cell"])
    assert total["wall_hours"] == pytest.approx([low / 8, high / 8])
    assert "assumed 20% to 60%" in found["model"][0]["basis"]
    assert total["rows"] == []
    assert {skip["task"].partition("/")[0] for skip in total["skipped"]} == {"helmet_icl"}


def test_a_task_without_a_prompt_of_a_length_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--suite", "long-official", "--hardware", "8xh200", "--ctx", "1k,4k", "--limit", "1"]
    (total,) = planned(capsys, *words)["plan"]
    why = {(skip["task"].partition("/")[0], skip["ctx"]): skip["reason"] for skip in total["skipped"]}
    assert why["mrcr", 4096] == "none of its official prompts fits with its answer"
    assert why["helmet_icl", 1024] == "its official data are of 4k,8k,16k,32k,64k,128k alone"


@pytest.mark.parametrize("suite", ["paper-base", "paper-sft", "paper-released-base", "paper-released", "short"])
def test_the_paper_s_short_tables_are_planned_without_data_or_lm_eval(
    suite: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kleval.tasks.lm_eval.task_index.index", lambda: pytest.fail("lm-eval is not needed"))
    words = ["plan", "--suite", suite, "--edition", "official", "--hardware", "8xh200"]
    found = planned(capsys, *words, "--limit", "all")
    assert {cell["task"] for cell in found["cell"]} == set(SUITES[suite].tasks)
    (total,) = found["plan"]
    assert total["skipped"] == []
    assert set(total["counted"]) == set(total["assumed"]) == set(SUITES[suite].tasks)


def test_a_question_is_read_once_per_choice_and_a_group_s_limit_is_of_each_of_its_tasks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["plan", "--tasks", "lm_eval/mmlu:5shot", "--edition", "official", "--ctx", "4k"]
    for limit, samples in (("10", 570), ("all", 14042)):
        (cell,) = planned(capsys, *words, "--limit", limit)["cell"]
        assert (cell["samples"], cell["requests"], cell["written"]) == (samples, 4 * samples, 4 * samples)
        assert cell["read"] == 4 * samples * 670


def test_what_does_not_grow_is_counted_once_where_the_lengths_are_the_command_s_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["plan", "--tasks", "lm_eval/mmlu:5shot,ruler/vt", "--edition", "official"]
    asked = [(cell["task"], cell["ctx"]) for cell in planned(capsys, *words)["cell"]]
    assert asked == [*(("ruler/vt", ctx) for ctx in (1024, 2048)), ("lm_eval/mmlu:5shot", 4096), ("ruler/vt", 4096)]
    given = planned(capsys, *words, "--ctx", "1k,2k,4k")["cell"]
    assert [cell["ctx"] for cell in given if cell["task"] == "lm_eval/mmlu:5shot"] == [1024, 2048, 4096]


def test_no_task_that_is_counted_by_its_name_grows() -> None:
    families = {name.partition("/")[0] for name in packaged.load("counts.toml")["counts"]}
    grows = {"lm_eval": LmEvalTask.grows, "short": ShortTask.grows, "code": CodeTask.grows}
    assert {family: grows[family] for family in families} == dict.fromkeys(families, False)


def test_the_same_counts_and_assumptions_are_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["plan", "--tasks", "short/hmmt25,lm_eval/aime25", "--edition", "official", "--ctx", "64k"]) == 0
    out = capsys.readouterr().out
    assert "counted   short/hmmt25, lm_eval/aime25: docs/en/benchmarks" in out
    assert "assumed   lm_eval/aime25: a problem of 500 characters" in out


def test_money_is_never_invented(capsys: pytest.CaptureFixture[str]) -> None:
    assert planned(capsys, *LONG, "--hardware", "h200")["plan"][0]["money"] is None


def test_without_hardware_tokens_alone_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    (total,) = planned(capsys, *LONG)["plan"]
    assert (total["device_hours"], total["partial"]) == (None, False)
    assert total["requests"] > 0


def test_what_does_not_fit_is_a_result(capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(capsys, *LONG, "--hardware", "h100")
    assert [(row["fits"], "does not fit" in row["why"]) for row in found["memory"]] == [(False, True)] * 2
    assert found["plan"][0]["device_hours"] is None
    assert call([*LONG, "--hardware", "h100"]) == 0
    assert "nothing fits" in capsys.readouterr().out


def test_totals_without_what_does_not_fit_say_so_in_every_line(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--tasks", "ruler/vt", "--edition", "official", "--hardware", "h200", "--price", "3"]
    for more, partial in (
        (["--model", "mla@48b-a3b", "--ctx", "128k,8m"], [True]),
        (["--model", "mla@48b-a3b,kimi-linear@48b-a3b", "--ctx", "128k,4m"], [True, False]),
        (["--model", "mla@48b-a3b", "--ctx", "128k"], [False]),
    ):
        found = planned(capsys, *words, *more)
        assert [model["partial"] for model in found["model"]] == partial
        assert found["plan"][0]["partial"] is any(partial)
        assert call([*words, *more]) == 0
        told = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("time ", "money "))]
        expected = [*partial, any(partial), any(partial)]
        assert [line.endswith("; without what does not fit") for line in told] == expected


def test_the_ninth_sample_on_eight_replicas_is_a_second_round(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--tasks", "ruler/vt", "--edition", "official", "--hardware", "8xh200"]
    walls = {}
    for ctx, limit in (("1m", "8"), ("1m", "9"), ("1m", "16"), ("1m", "500"), ("4k,1m", "9")):
        (total,) = planned(capsys, *words, "--ctx", ctx, "--limit", limit)["plan"]
        walls[ctx, limit] = total["wall_hours"][0]
    one = walls["1m", "8"]
    assert [walls["1m", limit] / one for limit in ("9", "16", "500")] == pytest.approx([2, 2, 63])
    assert walls["4k,1m", "9"] == pytest.approx(2 * one)  # the short ones fill what the second round leaves idle


def test_whole_rounds_are_of_the_samples_that_take_as_long_or_longer(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--tasks", "ruler/vt,ruler/fwe", "--edition", "official", "--ctx", "1m", "--hardware", "8xh200"]
    found = planned(capsys, *words, "--limit", "5")
    shorter = min(cell["replica_seconds"][0] / 5 for cell in found["cell"])
    assert 3600 * found["plan"][0]["wall_hours"][0] == pytest.approx(2 * shorter)


def test_a_model_takes_as_few_devices_as_hold_it(capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(capsys, *LONG, "--hardware", "8xh100")
    assert {(row["devices_per_replica"], row["replicas"]) for row in found["memory"]} == {(2, 4)}


def test_measured_rows_give_one_number_and_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "plan",
        "--model",
        "kimi-linear",
        "--tasks",
        "ruler/niah_single_1",
        "--ctx",
        "4k",
        "--measured",
        str(REPORT),
    ]
    found = planned(capsys, *words)
    (total,) = found["plan"]
    assert total["device_hours"][0] == total["device_hours"][1] > 0
    assert found["model"][0]["basis"].startswith("measured: ")
    assert f"{REPORT}: prefill/full/kimi-linear@nano/4096/1" in total["rows"]


def test_rows_in_another_format_give_a_range(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "plan",
        "--model",
        "kimi-linear",
        "--tasks",
        "ruler/niah_single_1",
        "--ctx",
        "4k",
        "--measured",
        str(REPORT),
    ]
    for more in (["--dtype", "bfloat16"], ["--weights", "int4"]):
        found = planned(capsys, *words, *more)
        assert found["model"][0]["basis"].startswith("a range: "), more


def test_profiles_of_two_machines_are_one_line(one_line: Any, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(REPORT, other)
    points = (other / "points.jsonl").read_text("utf-8").replace("AMD EPYC", "Another CPU")
    (other / "points.jsonl").write_text(points, "utf-8")
    assert "one machine" in one_line([*LONG, "--measured", str(REPORT), "--measured", str(other)])


def test_rows_of_other_models_give_a_range(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--model", "kimi-linear@0.1b", "--tasks", "ruler/vt", "--edition", "official", "--ctx", "4k"]
    found = planned(capsys, *words, "--measured", str(REPORT))
    low, high = found["plan"][0]["device_hours"]
    assert 0 < low < high
    assert found["model"][0]["basis"].startswith("a range: the highest and lowest rates that rows of kimi-linear@nano")


def test_of_the_builtin_edition_samples_are_made_as_a_dry_run_makes_them(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "kimi-linear", "--tasks", "ruler/vt,ruler/qa_1", "--ctx", "1k,2k", "--limit", "3"]
    (total,) = planned(capsys, "plan", *words)["plan"]
    assert call(["run", *words, "--dry-run", "--json"]) == 0
    done = json.loads(capsys.readouterr().out.splitlines()[-1])["forecast"]
    assert [total[name] for name in ("requests", "read", "written")] == [
        done[name] for name in ("requests", "read", "written")
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--hardware", "8xfoo"], "h200"),
        (["--hardware", "0xh200"], "0 devices"),
        (["--hardware", "8xh200", "--tp", "3"], "--tp 3"),
        (["--hardware", "h200", "--limit", "none"], "--limit none"),
        (["--hardware", "h200", "--measured", str(REPORT)], "a CPU"),
        (["--hardware", "h200", "--measured", "nowhere"], "nowhere"),
        (["--model", "gpt-none", "--hardware", "h200"], "gpt-none"),
        (["--hardware", "h200", "--price", "nan"], "nan"),
        (["--hardware", "h200", "--price", "inf"], "inf"),
    ],
)
def test_bad_input_is_one_line(words: list[str], says: str, one_line: Any) -> None:
    assert says in one_line([*LONG, *words])


def test_counts_by_name_are_of_a_task_s_first_protocol_alone(one_line: Any, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--tasks", "short/hmmt25", "--edition", "official", "--data-dir", "none", "--ctx", "64k"]
    assert planned(capsys, *words)["plan"][0]["requests"] == 10
    said = one_line([*words, "--protocol", "kleval-2"])
    assert "counts are not known" in said
    assert "kleval data fetch" in said
