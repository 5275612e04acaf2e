"""Command lines run in this process, in an empty directory, without the caller's KLEVAL_ variables."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("KLEVAL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KLEVAL_SAMPLE_CACHE", "off")
    # A refusal is one line, however busy the machine is.
    monkeypatch.setattr("kleval.cli.watch.HEAD_AFTER_SECONDS", 3600.0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kleval.report.stills.inside", lambda sections: {})  # a third of a page's time


@pytest.fixture
def one_line(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command line that must fail with code, and return the single line that it leaves on stderr."""

    def run(argv: list[str], code: int = 2) -> str:
        from kleval.cli.main import call

        assert call(argv) == code
        said = capsys.readouterr()
        assert said.out == ""
        lines = said.err.splitlines()
        assert len(lines) == 1, said.err
        assert lines[0].startswith("kleval: ")
        return lines[0]

    return run
