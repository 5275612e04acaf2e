"""Figures without a browser: matplotlib draws what plotly draws, inside the page and as files."""

from __future__ import annotations

import html
import math
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kleval.report import matplotlib_drawer as drawer
from kleval.report import stills
from kleval.report.figure import Figure, Look, Series, lengths, logarithmic, looks_of, scores
from kleval.report.page import write_report
from kleval.report.plotly_drawer import plotly
from kleval.report.score_curves import Shape, score_figure
from kleval.report.stills import inside
from kleval.store import RunStore
from kleval.tables.scores import collect

MakeRun = Callable[..., RunStore]
CTXS = (1024, 2048, 4096, 8192)
HOSTILE = "<script>alert(1)</script> $\\frac{1}{0}$ _x & \x07"


def many() -> Figure:
    """A curve of every style, with gaps, bands, whiskers, labels, hollow points and a level."""
    looks = list(looks_of("abcd").values())
    y = [90.0, 75.0, None, 50.0]
    low, high = [85.0, 70.0, 0.0, 40.0], [95.0, 80.0, 0.0, 60.0]
    notes = [("words",)] * 4
    series = (
        Series("a", "one@nano", looks[0], CTXS, y, notes, low, high, labels=("1k", "", "", "8k")),
        Series("b", HOSTILE, looks[1], CTXS, [9.0, 8.0, 7.0, 6.0], notes, hollow=(True, False, True, False)),
        Series("c", "guess", looks[2], CTXS, [30.0] * 4, notes, style="estimate"),
        Series("d", "bound", looks[3], CTXS, [99.0] * 4, notes, style="allowed"),
        Series("p", "paper", Look("#8a929b", "circle", "dash"), CTXS, [10.0] * 4, notes, style="paper"),
    )
    return Figure(lengths(CTXS, "context length"), scores(), series, ((85.6, "effective"),), banded=True, apart=0.011)


def logs() -> Figure:
    one = Series("a", "one", Look("#0072B2", "circle", "solid"), CTXS, [1.0, 20.0, 300.0, 4000.0], [()] * 4)
    return Figure(lengths(CTXS, ""), logarithmic("", one.y, "{:g} s".format), (one,), small=True)  # type: ignore[arg-type]


@pytest.fixture
def axes() -> Iterator[Callable[[Figure], Any]]:
    """Of a figure, as matplotlib has it."""
    with drawer.settings():
        yield lambda figure: drawer.axes(drawer.blank((760, 300)), figure, (0, 0, 1, 1), (760, 300))


@pytest.mark.parametrize("make", [many, logs])
def test_both_drawers_show_the_same_series_values_and_labels(
    make: Callable[[], Figure], axes: Callable[[Figure], Any]
) -> None:
    figure = make()
    theirs, mine = plotly(figure), axes(figure)
    drawn = {line.get_label(): line for line in mine.get_lines() if not line.get_label().startswith("_")}
    traces = [trace for trace in theirs["data"] if "name" in trace]
    assert list(drawn) == [drawer.printable(html.unescape(trace["name"])) for trace in traces]
    for line, trace in zip(drawn.values(), traces, strict=True):
        assert list(line.get_xdata()) == trace["x"]
        assert [None if math.isnan(y) else y for y in line.get_ydata()] == trace["y"]
        assert line.get_color() == trace["line"]["color"]
    words = {text.get_text() for text in mine.texts}
    assert words == {text for one in figure.series for text in one.labels if text} | {t for _, t in figure.levels}
    for name, axis in (("x", mine.xaxis), ("y", mine.yaxis)):
        layout = theirs["layout"][f"{name}axis"]
        assert [label.get_text() for label in axis.get_ticklabels()] == layout["ticktext"]
        assert list(axis.get_ticklocs()) == pytest.approx(layout["tickvals"])
        shown = axis.get_view_interval()
        assert (list(map(math.log10, shown)) if layout["type"] == "log" else list(shown)) == pytest.approx(
            layout["range"]
        )


def test_bands_and_whiskers_have_plotlys_limits(make_run: MakeRun, axes: Callable[[Figure], Any]) -> None:
    run = make_run(answer=lambda m, t, c, i: None if c == 2048 else float(i == 0), ctxs=(1024, 2048, 4096, 8192))
    entrants = collect([run])
    shape = Shape(("ruler/vt",), CTXS, ())
    figure = score_figure(entrants, "ruler/vt", shape, looks_of([e.key for e in entrants]))
    theirs, mine = plotly(figure), axes(figure)
    bands = [trace for trace in theirs["data"] if trace.get("fill")]
    filled = [c for c in mine.collections if c.get_alpha()]
    assert [sorted(set(band["y"])) for band in bands] == [
        pytest.approx(sorted({y for _, y in c.get_paths()[0].vertices})) for c in filled
    ]
    whiskers = [trace["error_y"] for trace in theirs["data"] if "error_y" in trace]
    lengths_of = [
        [segment[1][1] - segment[0][1] for segment in c.get_segments()] for c in mine.collections if not c.get_alpha()
    ]
    assert lengths_of == [
        pytest.approx([u + d for u, d in zip(w["array"], w["arrayminus"], strict=True) if u or d]) for w in whiskers
    ]


def test_a_page_shows_the_svg_of_each_figure_before_any_script_runs(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stills, "inside", inside)
    run = make_run(models=("one@nano", HOSTILE), tasks=("ruler/vt", "ruler/cwe"))
    text = write_report([run], tmp_path / "page.html").read_text("utf-8")
    parts = text.split('<div class="still">')[1:]
    assert len(parts) == text.count('class="figure"') > 0
    ids: list[str] = []
    for part in parts:
        root = ET.fromstring(part[: part.index("</div>")].replace("xlink:href", "href"))
        ids += [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
        words = [element.text for element in root.iter() if element.text and element.text.strip()]
        assert {"1k", "2k"} <= set(words)
        used = {element.attrib["href"][1:] for element in root.iter() if "href" in element.attrib}
        assert used <= set(ids)
        assert not [e for e in root.iter() if e.tag == "script"]
    assert len(ids) == len(set(ids))
    assert text == write_report([run], tmp_path / "again.html").read_text("utf-8")


def test_points_alone_are_left_to_the_tables(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run at one length is done before matplotlib is imported."""
    monkeypatch.setattr(stills, "inside", inside)
    monkeypatch.setattr(drawer, "available", lambda: pytest.fail("looked for matplotlib"))
    text = write_report([make_run(ctxs=(1024,))], tmp_path / "page.html").read_text("utf-8")
    assert text.count('<div class="still"></div>') == text.count('class="figure"') > 0


def test_every_figure_is_an_svg_and_a_png_with_title_and_legend(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(models=("one@nano", HOSTILE), tasks=("ruler/vt", "ruler/../cwe"))
    write_report([run], tmp_path / "page.html", figures=tmp_path / "figures")
    text = (tmp_path / "page.html").read_text("utf-8")
    n = text.count('class="figure"') + text.count('<table class="heat')
    svgs, pngs = (sorted((tmp_path / "figures").glob(f"*.{kind}")) for kind in ("svg", "png"))
    assert len(svgs) == len(pngs) == n > 0
    assert len(list(tmp_path.iterdir())) == 3
    for svg in svgs:
        words = "\n".join(ET.parse(svg).getroot().itertext())
        of = [name for name in ("one@nano", drawer.printable(HOSTILE)) if name in words]
        assert len(of) == (1 if svg.name.startswith("heat") else 2)
    assert "figures/tasks-vt.svg" in [str(svg.relative_to(tmp_path)) for svg in svgs]
    assert all(png.read_bytes().startswith(b"\x89PNG") for png in pngs)
