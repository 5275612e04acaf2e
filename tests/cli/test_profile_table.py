"""A profile's tables name what their ratios are against."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kleval.cli.profile_table import print_profile
from kleval.tables.summary import SummaryRow

ALONE = SummaryRow(
    kind="prefill", protocol="full", model="mla@nano", ctx=4096, batch=1, value=0.7, unit="s", repeats=2, spread=0.0
)


def test_a_ratio_s_column_is_named_after_its_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    compared = replace(ALONE, model="kimi-linear@nano", value=0.35, ratio=2.0, baseline="mla@nano")
    memory = replace(compared, kind="memory", closed_form=0.35, state_bytes=1, allocated_bytes=1, weights_bytes=1)
    print_profile([compared, ALONE, memory], "table")
    out = capsys.readouterr().out
    assert out.count(" vs mla@nano") == 2
    assert "saved vs mla@nano" in out
