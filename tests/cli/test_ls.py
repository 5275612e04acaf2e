"""`kleval ls` shows the registries as they are."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kleval import paper
from kleval.backends.registry import all_backends
from kleval.cli.main import call
from kleval.models.registry import MODELS
from kleval.models.sizes import preset
from kleval.suites import SUITES
from kleval.tasks.registry import all_tasks

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("what", "name", "expected"),
    [
        ("models", "model", list(MODELS)),
        ("tasks", "id", list(all_tasks())),
        ("suites", "suite", list(SUITES)),
        ("backends", "backend", list(all_backends())),
    ],
)
def test_json_lines_are_the_registry(what: str, name: str, expected: list[str], capsys: Capture) -> None:
    assert call(["ls", what, "--json"]) == 0
    assert [json.loads(line)[name] for line in capsys.readouterr().out.splitlines()] == expected


@pytest.mark.parametrize("what", ["models", "tasks", "suites", "backends"])
def test_tables_have_a_line_each(what: str, capsys: Capture) -> None:
    assert call(["ls", what, "--json"]) == 0
    n = len(capsys.readouterr().out.splitlines())
    assert call(["ls", what]) == 0
    assert len(capsys.readouterr().out.splitlines()) == n + 2


def test_a_models_json_is_all_that_is_known(capsys: Capture) -> None:
    assert call(["ls", "models", "kimi-linear@48b-a3b", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    config = preset("kimi-linear", "48b-a3b")
    assert record["record"] == "model"
    assert record["config"] == config.describe()
    assert (record["parameters"], record["active"]) == (49_122_681_728, 3_106_972_544)
    assert sum(record["parameters_by_component"].values()) == record["parameters"]
    assert (record["kv_bytes_per_token"], record["weight_bytes"]) == (8064, config.weight_bytes())
    assert [cost["ctx"] for cost in record["costs"]] == [4096, 131072, 1048576]
    for cost in record["costs"]:
        state = cost["state_bytes"]
        assert state["latent"] + state["recurrent"] + state["conv"] == state["total"]
        assert state["total"] == config.state_bytes(cost["ctx"]).total
        for name in ("prefill_flops", "decode_flops", "decode_bytes"):
            assert sum(cost[f"{name}_by_component"].values()) == cost[name]
        assert cost["prefill_flops"] == config.prefill_flops(cost["ctx"])
        assert cost["decode_bytes"] == config.decode_bytes(cost["ctx"])


def test_a_models_card_is_for_people(capsys: Capture) -> None:
    assert call(["ls", "models", "kimi-linear@48b-a3b"]) == 0
    card = capsys.readouterr().out
    parts = (
        "49.12 B",
        "3.11 B",
        "91.5 GiB",
        "20 KDA, 7 MLA (4, 8, 12, 16, 20, 24, 27)",
        "NoPE",
        "256 experts",
        "7.9 GiB",
    )
    assert [text for text in parts if text not in card] == []


def test_a_directory_has_a_card_too(capsys: Capture) -> None:
    folder = str(MODELS["mla@nano"].path)
    assert call(["ls", "models", folder, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["model"], record["weights"], record["config"]["vocab_size"]) == (folder, "here", 1536)


@pytest.mark.parametrize(
    ("name", "hint"), [("kimi-linaer", "did you mean kimi-linear?"), ("mla@7b", "nano, 0.1b, 1b, 48b-a3b")]
)
def test_an_unknown_model_is_one_line(name: str, hint: str, capsys: Capture) -> None:
    assert call(["ls", "models", name]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert hint in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("words", [["ls", "models"], ["ls", "models", "gdn-h@48b-a3b", "--json"]])
def test_models_are_listed_without_torch(words: list[str]) -> None:
    code = (
        f"import sys; from kleval.cli.main import call; call({words}); print('torch' in sys.modules, file=sys.stderr)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr == "False\n"


def test_a_card_says_what_a_task_is(capsys: Capture) -> None:
    assert call(["ls", "tasks", "ruler/vt", "--card"]) == 0
    card = capsys.readouterr().out
    assert [text for text in ("ruler/vt", "nvidia-c3f5e3b", "string_match_all", "builtin") if text not in card] == []


def test_a_card_says_where_nothing_deviates(capsys: Capture) -> None:
    assert call(["ls", "tasks", "ruler/vt", "--card", "--edition", "official"]) == 0
    assert re.search("^deviations +none$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize("family", ["ruler", "mrcr", "helmet_icl", "longbench2", "frames", "repoqa", "lca"])
def test_an_official_card_needs_no_data(family: str, capsys: Capture, tmp_path: Path) -> None:
    assert call(["ls", "tasks", family, "--card", "--edition", "official", "--data-dir", str(tmp_path), "--json"]) == 0
    cards = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {card["edition"] for card in cards} == {"official"}
    assert any(f"kleval data fetch {family}" in card["data_revision"] for card in cards)


def test_a_card_is_of_one_protocol(capsys: Capture) -> None:
    assert call(["ls", "tasks", "mrcr/2needle", "--card", "--protocol", "google-v2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["protocol"] == "google-v2"


def test_a_group_of_lm_evals_is_its_tasks_in_the_official_edition(capsys: Capture) -> None:
    pytest.importorskip("lm_eval")
    assert call(["ls", "tasks", "lm_eval/bbh", "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert call(["ls", "tasks", "lm_eval/bbh", "--edition", "official", "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 27


def test_the_paper_s_table_is_for_people(capsys: Capture) -> None:
    assert call(["ls", "tasks", "--paper"]) == 0
    shown = capsys.readouterr().out
    parts = (
        "Table 3: base",
        "lm_eval/gsm8k:8shot",
        "81.7 / 82.2 / 82.9",
        "code/humaneval_plus + code/mbpp_plus",
        "LiveBench",
        "none",
        "ruler --ctx 1m",
        "5*",
    )
    assert [text for text in parts if text not in shown] == []
    assert len([line for line in shown.splitlines() if line.startswith("Table ")]) == len(paper.TABLES)


def test_the_paper_s_table_is_for_machines(capsys: Capture) -> None:
    assert call(["ls", "tasks", "--paper", "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["benchmark"] for record in records] == [row.benchmark for row in paper.ROWS]
    hellaswag = records[0]
    assert hellaswag["record"] == "benchmark"
    assert (hellaswag["tasks"], hellaswag["shots"], hellaswag["paper_shots"]) == (["lm_eval/hellaswag"], 0, None)
    assert hellaswag["scores"] == {"MLA": 81.7, "GDN-H": 82.2, "Kimi Linear": 82.9}
    assert (hellaswag["temperature"], hellaswag["repeats"]) == (1.0, 1)


@pytest.mark.parametrize("words", [["ruler"], ["--card"]])
def test_the_paper_s_table_is_whole_or_not_at_all(words: list[str], capsys: Capture) -> None:
    assert call(["ls", "tasks", "--paper", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_damaged_run_does_not_hide_the_others(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "run.json").write_text("{")
    assert call(["ls", "runs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "damaged"


def test_no_runs_is_said(capsys: Capture) -> None:
    assert call(["ls", "runs"]) == 0
    assert capsys.readouterr().err == "no runs in runs\n"


def test_a_card_keeps_its_longest_name_apart_from_its_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["ls", "tasks", "code/humaneval_plus", "--card"]) == 0
    assert "needs_code_execution True" in capsys.readouterr().out
