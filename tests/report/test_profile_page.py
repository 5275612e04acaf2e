"""The profile's page: complete in itself, every number from a point, what is no measurement called what it is."""

from __future__ import annotations

import base64
import dataclasses
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
from kleval.store import Point, RunStore
from kleval.types import UsageError

MakeProfile = Callable[..., RunStore]
ATTACK = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Tags, scripts, styles and text of a page; tables as lists of rows of texts, by the id of the card around them."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text = self.styles = ""
        self._inside, self._card = "", ""
        self._cells: list[str] | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        self._inside = tag if tag in ("script", "style") else ""
        if tag == "script":
            self.scripts.append((given, ""))
        if tag == "section" or (tag == "div" and "card" in (given.get("class") or "").split()):
            self._card = given.get("id") or self._card
        if tag == "tr":
            self._cells = []
        if tag in ("td", "th") and self._cells is not None:
            self._cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""
        if tag == "tr" and self._cells is not None:
            self.tables.setdefault(self._card, []).append([" ".join(cell.split()) for cell in self._cells])
            self._cells = None

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            attrs, so_far = self.scripts[-1]
            self.scripts[-1] = (attrs, so_far + data)
        elif self._inside == "style":
            self.styles += data
        else:
            self.text += data
            if self._cells:
                self._cells[-1] += " " + data

    @property
    def words(self) -> str:
        return " ".join(self.text.split())

    @property
    def figures(self) -> dict[str, Any]:
        (data,) = [script for attrs, script in self.scripts if attrs.get("id") == "figures"]
        return json.loads(zlib.decompress(base64.b64decode(data)))

    def row(self, card: str, label: str) -> list[str]:
        return next(row for row in self.tables[card] if row and row[0].startswith(label))


def page(store: RunStore) -> Page:
    return Page(write_report([store], store.path / "report.html").read_text("utf-8"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, profile_writer: Callable[..., RunStore]) -> Page:
    """All lengths of the published shape, sampled beyond 128k, kernels too."""
    return page(profile_writer(tmp_path_factory.mktemp("whole") / "run", size="48b-a3b", full_up_to=8192, kernels=True))


def test_it_loads_nothing_and_runs_only_its_own_scripts(whole: Page) -> None:
    (policy,) = [a["content"] for tag, a in whole.tags if a.get("http-equiv") == "Content-Security-Policy"]
    (packed,) = [script for attrs, script in whole.scripts if attrs.get("id") == "plotly"]
    figures = zlib.decompress(base64.b64decode(packed)).decode()
    running = [figures, *(script for attrs, script in whole.scripts if "type" not in attrs)]
    hashes = {base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in running}
    assert policy is not None
    assert set(re.findall(r"'sha256-([^']+)'", policy)) == hashes
    assert sum("plotly.js v" in script for script in running) == 1
    addresses = [v for _, a in whole.tags for k, v in a.items() if k in ("src", "href", "action", "poster", "data")]
    assert all(address and address.startswith(("#", "data:text/csv;")) for address in addresses)
    assert not re.search(r"url\(|@import", whole.styles)


def test_every_figure_has_its_data_and_every_legend_button_its_traces(whole: Page) -> None:
    drawn = {a["id"] for tag, a in whole.tags if (a.get("class") or "") == "figure"}
    assert drawn == set(whole.figures)
    assert all(figure["data"] for figure in whole.figures.values())
    keys = {trace["legendgroup"] for figure in whole.figures.values() for trace in figure["data"]}
    assert {a["data-trace"] for _, a in whole.tags if "data-trace" in a} == keys


def test_ids_are_unique(whole: Page) -> None:
    ids = [a["id"] for _, a in whole.tags if "id" in a]
    assert len(ids) == len(set(ids))
    targets = [a["href"] for tag, a in whole.tags if tag == "a" and (a.get("href") or "").startswith("#")]
    assert {target[1:] for target in targets if target} <= set(ids)


def test_both_decode_protocols_are_labelled_and_batches_shown(whole: Page) -> None:
    assert "TPOT, batch 1" in whole.words
    assert "TPOT, largest batch that fits" in whole.words
    cells = whole.row("largest-batch", "kimi-linear@48b-a3b")[1:]
    assert all(re.search(r"batch [\d,]+", cell) for cell in cells)
    assert "batch" not in whole.row("batch-1", "kimi-linear@48b-a3b")[1]


def test_estimates_are_called_so_and_checked(whole: Page) -> None:
    rows = [row for row in whole.tables["prefill"] if "sampled: estimate" in row[0]]
    assert len(rows) == 4
    figure = whole.figures["fig-prefill-0"]["data"]
    sampled = [trace for trace in figure if trace["line"]["dash"] == "3px,3px"]
    assert len(sampled) == 4
    assert all(symbol.endswith("-open") for trace in sampled for symbol in trace["marker"]["symbol"])
    check = whole.row("sampling-check", "mla@48b-a3b")
    assert len(check) == 3  # the two lengths that were run both ways
    assert re.match(r"[+\u2212]\d+\.\d % ≈ .* full ", check[1])


def test_the_ceiling_is_that_of_the_profiled_layers(whole: Page, make_profile: MakeProfile) -> None:
    def said(found: Page) -> set[str]:
        return {a["text"] for a in found.figures["fig-ratio-state-0"]["layout"]["annotations"]}

    assert said(whole) == {"layers alone: 27/7 = 3.86"}
    assert said(page(make_profile(size="nano"))) == {"layers alone: 4/1 = 4.00"}
    assert (
        "73.9 % saved"
        in page(make_profile("long", size="48b-a3b", ctxs=(1 << 20,))).row("ratio-state", "kimi-linear@")[1]
    )


def test_the_papers_times_are_on_plots_of_the_published_shape_only(whole: Page, make_profile: MakeProfile) -> None:
    def papers(found: Page, div: str) -> set[str]:
        return {t["legendgroup"] for t in found.figures[div]["data"] if t["legendgroup"].startswith("paper ")}

    assert papers(whole, "fig-prefill-0") == {"paper mla", "paper kimi-linear", "paper gdn-h"}
    assert papers(whole, "fig-kernel-16-128-0") == {"paper kda", "paper dplr"}
    assert papers(whole, "fig-kernel-32-128-0") == set()
    small = page(make_profile(size="nano", kernels=True, device="cpu"))
    assert papers(small, "fig-prefill-0") == papers(small, "fig-batch-1-0") == set()
    assert papers(small, "fig-kernel-16-128-0") == set()
    for div in ("fig-ratio-prefill-full-0", "fig-ratio-decode-batch-1-0", "fig-ratio-decode-largest-batch-0"):
        assert papers(small, div) == {"paper kimi-linear", "paper gdn-h"}
    labels = [row for row in small.words.split("kimi-linear: ") if row.startswith("paper, hardware not stated (Fig.")]
    assert labels


def test_positions_weights_and_what_the_paper_does_not_say_are_said(whole: Page) -> None:
    assert "mla@48b-a3b RoPE" in whole.words
    assert "The paper does not state how its MLA baseline encodes positions" in whole.words
    assert "random weights" in whole.words


def test_a_failure_is_an_absence_with_its_reason(make_profile: MakeProfile) -> None:
    def change(point: Point) -> Point:
        if (point.kind, point.protocol, point.ctx) == ("decode", "batch-1", 8192) and point.model.startswith("mla"):
            failure = {"kind": "out_of_memory", "message": "needed 12.0 GiB"}
            return dataclasses.replace(point, values={}, closed_form={}, failure=failure)
        return point

    found = page(make_profile(change=change, status="incomplete"))
    row = found.row("batch-1", "mla@nano")
    assert row[2] == "failed"
    (trace,) = [t for t in found.figures["fig-batch-1-0"]["data"] if t["legendgroup"] == "mla@nano"]
    assert 8192 not in trace["x"]
    assert len(found.row("ratio-decode-batch-1", "kimi-linear@nano")) == 3  # no ratio at that length
    failed = next(row for row in found.tables["failures"] if row[0] == "3")
    assert failed[1:] == ["mla@nano · decode batch-1", "8k", "out_of_memory", "needed 12.0 GiB"]
    assert "3 measurements failed" in found.words
    assert "This run is not complete" in found.words


def test_noise_is_warned_of(make_profile: MakeProfile) -> None:
    def change(point: Point) -> Point:
        if point.kind == "prefill" and point.repeat == 1 and point.model.startswith("gdn"):
            return dataclasses.replace(point, values=point.values | {"seconds": 2 * (point.values["seconds"] or 0)})
        return point

    assert "The machine was noisy" not in page(make_profile("quiet")).words
    words = page(make_profile("loud", change=change)).words
    assert "The machine was noisy" in words
    assert re.search(r"the worst by \d+% \(prefill \w+ of gdn-h@nano", words)


def test_what_was_not_measured_is_listed(make_profile: MakeProfile) -> None:
    left = [
        {"model": "mla@nano", "ctx": 1 << 20, "protocol": "batch-8", "reason": "8 x 9 bytes of state, 40 in the budget"}
    ]
    found = page(make_profile(unmeasured=left))
    assert ["mla@nano · batch-8", "1M", "8 x 9 bytes of state, 40 in the budget"] in found.tables["failures"]


@pytest.mark.parametrize("name", [ATTACK, '"><img src=x onerror=alert(1)>', "'--><svg onload=alert(1)>"])
def test_what_a_point_says_is_text(make_profile: MakeProfile, name: str) -> None:
    def change(point: Point) -> Point:
        if point.kind == "memory":
            return dataclasses.replace(point, values={}, closed_form={}, failure={"kind": name, "message": name})
        if point.kind == "machine":
            return point
        return dataclasses.replace(point, id=f"{point.id}/x", model=point.model.replace("gdn-h", name))

    found = page(make_profile(change=change, environment={}, caveats=[name], settings={name: name}))
    assert name in found.text
    assert len(found.scripts) == 4
    assert "img" not in {tag for tag, _ in found.tags}
    assert not [attrs for _, attrs in found.tags if any(key.startswith("on") for key in attrs)]
    hover = [
        text
        for figure in found.figures.values()
        for trace in figure["data"]
        for text in [*trace["hovertext"], trace["name"]]
    ]
    assert not [text for text in hover if name in text]


def test_sections_without_points_are_not_there(make_profile: MakeProfile) -> None:
    kernels = page(make_profile("k", architectures=(), kernels=True, device="cpu"))
    headings = {a.get("id") for tag, a in kernels.tags if tag == "section"}
    assert headings == {"kernels", "scorecard", "methods", "setup"}
    models = page(make_profile("m"))
    assert "kernels" not in {a.get("id") for tag, a in models.tags if tag == "section"}
    alone = page(make_profile("one", architectures=("kimi-linear",), repeats=1, ctxs=(4096,)))
    assert "ratios" not in {a.get("id") for tag, a in alone.tags if tag == "section"}


def test_the_same_points_give_the_same_bytes(make_profile: MakeProfile) -> None:
    store = make_profile(repeats=1, ctxs=(4096,))
    one = write_report([store], store.path / "a.html").read_bytes()
    assert write_report([store], store.path / "b.html").read_bytes() == one


def test_a_run_without_measurements_is_refused(make_profile: MakeProfile) -> None:
    store = make_profile(change=lambda point: point if point.kind == "machine" else None)
    with pytest.raises(UsageError, match="holds no measurements"):
        write_report([store], store.path / "report.html")
    assert not (store.path / "report.html").exists()


def test_importing_the_page_loads_no_figures() -> None:
    code = "import sys, kleval.report.page; print([m for m in ('plotly', 'jinja2', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_downloads_hold_what_their_tables_show(whole: Page) -> None:
    links = {a["download"]: a["href"] for tag, a in whole.tags if tag == "a" and "download" in a}
    assert {"prefill.csv", "batch-1.csv", "largest-batch.csv", "state-bytes.csv", "kernel-ratio.csv"} <= set(links)
    text = base64.b64decode((links["batch-1.csv"] or "").partition("base64,")[2]).decode()
    lines = text.splitlines()
    assert lines[0].startswith("kind,protocol,model,ctx,batch")
    assert len(lines) == 1 + 4 * 3
    assert all(line.startswith("decode,batch-1,") for line in lines[1:])


def test_a_page_is_written_whole_or_not_at_all(make_profile: MakeProfile, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a directory"):
        write_report([make_profile(repeats=1, ctxs=(4096,))], tmp_path)


def test_points_with_the_least_values_still_make_a_page(make_profile: MakeProfile) -> None:
    """What other versions measured, and what a machine cannot measure, may be missing."""
    needed = {"seconds", "ms_per_token", "state_bytes", "bytes_per_second", "flops_per_second"}

    def change(point: Point) -> Point:
        kept = {name: value for name, value in point.values.items() if name in needed}
        return dataclasses.replace(point, values=kept, closed_form={}, settings={}, environment={})

    found = page(make_profile(change=change, models={}, kernels=True, counts={}))
    assert len(found.row("prefill", "mla@nano")) == 4
    assert "NaN" not in found.text
