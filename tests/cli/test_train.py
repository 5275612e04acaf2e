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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--steps", "3", "--tokens", "4096"], "give one of them"),
        (["--model", ""], "names no architecture"),
        (["--model", "mla", "--out", "/proc/nano", "--steps", "1"], "/proc/nano"),
        (["--model", "mla", "--device", "tpu"], "unknown device"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "nano")]
    assert call(["train", "nano", *arguments, *out]) == USAGE
    told = capsys.readouterr()
    assert told.out == ""
    assert said in told.err.splitlines()[-1]
    assert "Traceback" not in told.err


def test_a_dry_run_says_the_budget_and_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["train", "nano", "--model", "mla", "--steps", "20", "--out", str(tmp_path), "--dry-run"]) == 0
    assert "train mla: 81,920 tokens, seed 0" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
