"""`kleval train nano` says what is wrong before it says what it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from kleval.cli.main import call
from kleval.types import USAGE


def test_an_unknown_architecture_is_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["train", "nano", "--model", "kimi-linear,foo", "--out", str(tmp_path / "nano")]) == USAGE
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert "foo" in said.err
    assert not (tmp_path / "nano").exists()
