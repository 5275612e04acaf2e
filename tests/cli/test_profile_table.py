"""A profile's tables name what their ratios are against."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from kleval.cli.profile_table import print_rows
from kleval.tables.cost_rows import MODEL_COLUMNS

ALONE: dict[str, Any] = dict.fromkeys(MODEL_COLUMNS) | {
    "kind": "prefill",
    "protocol": "full",
    "model": "mla@nano",
    "ctx": 4096,
    "batch": 1,
    "value": 0.7,
    "unit": "s",
    "repeats": 2,
    "spread": 0.0,
}


def test_a_ratio_s_column_is_named_after_its_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    compared = ALONE | {"model": "kimi-linear@nano", "value": 0.35, "ratio": 2.0, "baseline": "mla@nano"}
    memory = compared | {"kind": "memory", "closed_form": 0.35, "allocated_bytes": 1, "weights_bytes": 1}
    print_rows([compared, ALONE, memory], "table")
    out = capsys.readouterr().out
    assert out.count(" vs mla@nano") == 2
    assert "saved vs mla@nano" in out


def test_what_failed_is_said_once_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([ALONE | {"value": None, "failure": "too large"}], "md")
    assert capsys.readouterr().out.splitlines()[-2] == "| 4k | mla@nano | full | failed |  |  |  |  |  |  |"


def test_a_name_is_no_formula_in_csv(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([ALONE | {"model": "=1+1"}], "csv")
    assert ",'=1+1,4096," in capsys.readouterr().out


def test_a_round_that_shows_the_clients_pace_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    shown = {"load": "concurrency-2", "ctx": 64, "model": "tiny", "failure": None, "failed": 0, "tpot_estimate": False}
    for limited in (1, 0):
        print_rows([defaultdict(lambda: 1.0, shown, client_limited=limited)], "table")
        said = capsys.readouterr().out
        assert ("limited by the client" in said, "2 requests together !" in said) == (bool(limited), bool(limited))
