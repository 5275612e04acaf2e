"""`kleval path`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kleval.cli.main import call


def test_lm_eval_names_the_folder_of_tasks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert call(["path", "lm-eval"]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert (folder / "ruler" / "kleval_ruler_niah_single_1.yaml").is_file()


def test_what_is_not_there_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["path", "lm-evel"]) == 2
    assert "did you mean 'lm-eval'?" in capsys.readouterr().err


def test_a_home_that_cannot_be_written_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, one_line: Callable[..., str]
) -> None:
    (tmp_path / ".cache").write_text("a file")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert str(tmp_path / ".cache") in one_line(["path", "lm-eval"])
