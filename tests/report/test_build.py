"""The page: complete in itself, safe against what models write, the same for the same rows."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
import zlib
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from kleval.report.page import write_report
from kleval.store import RunStore
from kleval.types import UsageError

MakeRun = Callable[..., RunStore]
ATTACK = "<script>alert(1)</script>"
RUNNING = 4  # scripts: unpacking, the page, the sample browser, plotly


class Page(HTMLParser):
    """Tags, attributes and text of a page, scripts and styles apart."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = self.styles = ""
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else ""
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            attrs, so_far = self.scripts[-1]
            self.scripts[-1] = (attrs, so_far + data)
        elif self._inside == "style":
            self.styles += data
        else:
            self.text += data

    @property
    def words(self) -> str:
        return " ".join(self.text.split())

    @property
    def running(self) -> list[str]:
        """Scripts that run: those without a type, which data have, and the figures', which waits packed."""
        packed = [script for attrs, script in self.scripts if attrs.get("id") == "plotly"]
        unpacked = [zlib.decompress(base64.b64decode(script)).decode() for script in packed]
        return [*(script for attrs, script in self.scripts if "type" not in attrs), *unpacked]


def page(*runs: RunStore) -> Page:
    return Page(write_report(runs, runs[0].path / "report.html").read_text("utf-8"))


def test_what_a_model_writes_is_in_no_markup(make_run: MakeRun) -> None:
    found = page(make_run(text=lambda m, t, c, i: ATTACK, prompt=lambda m, t, c, i: f"{ATTACK}{t}{c}{i}"))
    assert len(found.running) == RUNNING
    assert not [script for _, script in found.scripts if "alert(1)" in script]
    assert "alert(1)" not in found.text


@pytest.mark.parametrize("name", [ATTACK, '"><img src=x onerror=alert(1)>', "'--><svg onload=alert(1)>"])
def test_what_a_user_names_is_text(make_run: MakeRun, name: str) -> None:
    failure = {"kind": "server", "message": name}
    found = page(make_run(models=(name, "other"), protocol=name, answer=lambda m, t, c, i: failure if i else 1.0))
    assert name in found.text
    assert len(found.running) == RUNNING
    assert "img" not in {tag for tag, _ in found.tags}
    assert not [attrs for _, attrs in found.tags if any(key.startswith("on") for key in attrs)]


def test_the_figures_script_is_embedded_once(make_run: MakeRun) -> None:
    found = page(make_run())
    assert [("plotly.js v" in script[:200]) for script in found.running].count(True) == 1
    assert sum(len(script) > 1_000_000 for _, script in found.scripts) == 1


def test_nothing_is_loaded_from_anywhere(make_run: MakeRun) -> None:
    found = page(make_run())
    addresses = [value for _, attrs in found.tags for key, value in attrs.items() if key in ("src", "href", "action")]
    assert addresses
    assert all(address and address.startswith("#") for address in addresses)
    assert "body {" in found.styles
    assert not re.search(r"url\(|@import", found.styles)


def test_the_policy_allows_exactly_the_embedded_scripts(make_run: MakeRun) -> None:
    found = page(make_run())
    (policy,) = [attrs["content"] for tag, attrs in found.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    hashes = {base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in found.running}
    assert policy is not None
    assert set(re.findall(r"'sha256-([^']+)'", policy)) == hashes
    assert "default-src 'none'" in policy
    assert "script-src 'unsafe-inline'" not in policy


def test_every_figure_on_the_page_has_its_data(make_run: MakeRun) -> None:
    found = page(make_run())
    (packed,) = [script for attrs, script in found.scripts if attrs.get("id") == "figures"]
    data = json.loads(zlib.decompress(base64.b64decode(packed)))
    ids = [attrs["id"] for _, attrs in found.tags if (attrs.get("class") or "") == "figure"]
    assert len(ids) == len(set(ids)) == 1 + 2 + 1
    assert set(ids) == set(data)


def test_the_same_rows_give_the_same_bytes(make_run: MakeRun) -> None:
    run = make_run()
    first = write_report([run], run.path / "a.html").read_bytes()
    assert write_report([RunStore.open(run.path)], run.path / "b.html").read_bytes() == first


def test_averages_over_missing_tasks_are_flagged(make_run: MakeRun) -> None:
    words = page(make_run()).words
    assert "Averages over fewer tasks than the family has." in words
    assert "2 of 13 tasks" in words


def test_a_whole_family_is_not_flagged(make_run: MakeRun, ruler_tasks: tuple[str, ...]) -> None:
    words = page(make_run(tasks=ruler_tasks, n=1)).words
    assert "Averages over fewer tasks" not in words
    assert "Hollow markers" not in words


def test_the_builtin_edition_is_marked_and_the_official_is_not(make_run: MakeRun) -> None:
    assert "builtin edition – not the official data" in page(make_run()).words
    assert "not the official data" not in page(make_run("official", edition="official")).words


def test_failures_are_shown_and_left_out_of_the_score(make_run: MakeRun, failed: dict[str, str]) -> None:
    words = page(make_run(answer=lambda m, t, c, i: failed if i == 0 else 1.0)).words
    assert "Some answers failed." in words
    assert failed["message"] in words
    assert "66.7 – 100.0" in words
    assert "2 / 3" in words


def test_tasks_of_several_families_keep_their_family_s_name(make_run: MakeRun, failed: dict[str, str]) -> None:
    tasks = ("ruler/vt", "lca/lib")
    run = make_run(tasks=tasks, answer=lambda m, t, c, i: failed if m == "one@nano" and not i else 1.0)
    words = page(run).words
    assert "lca/lib at 1k, 2k; ruler/vt at 1k, 2k" in words
    assert "Task1k2k ruler/vt 0.0" in words


def test_a_column_says_what_its_family_lacks_and_what_failed(make_run: MakeRun, failed: dict[str, str]) -> None:
    run = make_run(
        models=("one@nano",),
        tasks=("mrcr/2needle", "frames/oracle"),
        ctxs=(1024,),
        answer=lambda m, t, c, i: failed if t == "frames/oracle" and not i else 0.0,
    )
    found = page(run).words
    assert re.search(r"0\.0 0\.0 – [\d.]+ 1 of 3 tasks – – 0\.0 0\.0 – [\d.]+ 1 failed –", found)


def test_skips_are_shown_with_their_reason(make_run: MakeRun, make_skip: Callable[..., dict[str, Any]]) -> None:
    run = make_run(
        answer=lambda m, t, c, i: None if (t, c) == ("ruler/cwe", 1024) else 1.0,
        skips=[make_skip("ruler/cwe", 1024, model) for model in ("one@nano", "two@nano")],
    )
    found = page(run)
    assert "ruler/cwe needs 1,500 tokens" in found.words
    titles = [attrs.get("title") or "" for tag, attrs in found.tags if tag == "td"]
    assert "skipped: ruler/cwe needs 1,500 tokens" in titles


def test_a_task_that_made_no_samples_is_named_with_its_message(make_run: MakeRun) -> None:
    run = make_run(
        answer=lambda m, t, c, i: None if (t, c) == ("ruler/cwe", 1024) else 1.0,
        errors=[{"model": "one@nano", "task": "ruler/cwe", "ctx": 1024, "message": "KeyError: 'x'"}],
    )
    assert "the task could not make its samples: KeyError: 'x'" in page(run).words


@pytest.mark.parametrize("status", ["incomplete", "interrupted"])
def test_an_unfinished_run_says_so(make_run: MakeRun, status: str) -> None:
    run = make_run(status=status, answer=lambda m, t, c, i: None if i == 2 else 1.0)
    words = page(run).words
    assert "This run is not complete." in words
    assert "16 of 24 answers are here. Its command, run again, asks for what is missing." in words


def test_runs_that_do_not_compare_are_labelled(make_run: MakeRun) -> None:
    found = page(make_run("a", models=("one",)), make_run("b", models=("two",), seed=7))
    assert "Not comparable. a and b differ in what was asked: seed 42 against 7." in found.words


def test_one_model_on_one_task_at_one_length_is_a_page(make_run: MakeRun) -> None:
    words = page(make_run(models=("one",), tasks=("ruler/vt",), ctxs=(1024,), n=1)).words
    assert "Differences on the same samples" not in words
    assert "Average score by context length" not in words
    assert "All scores" in words


def test_a_run_in_which_everything_failed_is_a_page(make_run: MakeRun, failed: dict[str, str]) -> None:
    words = page(make_run(answer=lambda m, t, c, i: failed)).words
    assert "24 answers of 24 failed" in words


def test_a_full_grid_stays_below_8_megabytes(make_run: MakeRun, ruler_tasks: tuple[str, ...]) -> None:
    run = make_run(
        tasks=ruler_tasks,
        ctxs=(1024, 4096),
        n=3,
        text=lambda m, t, c, i: "<&>" * 500,
        prompt=lambda m, t, c, i: "<&>" * 500 + f"{t}{c}{i}",
    )
    assert write_report([run], run.path / "report.html").stat().st_size < 8_000_000


def test_an_empty_run_is_a_usage_error_and_writes_nothing(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no answers yet"):
        write_report([make_run(answer=lambda m, t, c, i: None)], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_heavy_libraries_are_imported_only_to_write_a_page() -> None:
    code = (
        "import sys, kleval.report.page, kleval.tables.leaderboard;"
        "print([m for m in ('plotly', 'jinja2', 'numpy', 'scipy', 'pandas', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_page_needs_no_index_of_rows(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which takes 600 bytes a row: only a run that goes on needs one."""
    run = make_run()
    monkeypatch.setattr(RunStore, "index", property(lambda store: pytest.fail("the index was made")))
    write_report([run], tmp_path / "page.html")
