"""What the page says of one run or profile against another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from stored_profiles import make_profile
from stored_runs import make_run

from kleval.report.page import write_report
from kleval.store import RunStore

__all__ = ["make_profile", "make_run"]
Make = Callable[..., RunStore]
ONE = {"models": ("one@nano",), "ctxs": (1024,), "n": 20}


def test_two_runs_have_their_tests_and_what_differs(make_run: Make, tmp_path: Path) -> None:
    worse = make_run(
        "b", answer=lambda model, task, ctx, index: float(index > 9), **ONE, describe=lambda m: {"dtype": "int4"}
    )
    text = write_report([make_run("a", **ONE), worse], tmp_path / "page.html").read_text("utf-8")
    for said in ("B is one@nano of a, A is one@nano of b", "B is better", "dtype int4 against float32"):
        assert said in text


def test_two_profiles_have_their_ratios(make_profile: Make, tmp_path: Path) -> None:
    text = write_report([make_profile("p"), make_profile("q")], tmp_path / "page.html").read_text("utf-8")
    for said in ("Profile against profile", "mla@nano: B is q, A is p", "1 and 1 of 3 sessions per side"):
        assert said in text
