"""What a progress line says, and when."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kleval.cli.progress import ProgressView
from kleval.work.events import Progress
from kleval.work.progress import told

HALF = Progress("task at 1k", 1, 2, 100, 200, 0, 10.0, 1234.5, 100.0)
DONE = replace(HALF, n_done=2, work_done=200, eta_seconds=0.0, n_failed=1)


def test_a_line_has_speed_and_time_to_go() -> None:
    assert told(HALF, "answers", "tokens") == "1/2 answers, 1,234 tokens/s, 1m40s to go"


def test_nothing_is_promised_before_anything_is_known() -> None:
    assert told(replace(HALF, work_per_second=None, eta_seconds=None), "answers", "tokens") == "1/2 answers"


def test_failures_are_said() -> None:
    assert told(DONE, "answers", "tokens") == "2/2 answers, 1,234 tokens/s, 1 failed"


def test_plain_lines_are_rare_and_end_with_the_last_answer(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressView("answers", "tokens") as view:
        view.show(HALF)
        view.show(DONE)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "2/2 answers, 1,234 tokens/s, 1 failed  (task at 1k)\n"


def test_quiet_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressView("answers", quiet=True) as view:
        view.say("hello")
        view.show(DONE)
    assert capsys.readouterr() == ("", "")
