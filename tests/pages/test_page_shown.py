"""The page in a browser: drawn, quiet, closed in itself, sorted, filtered, searched, printed, readable by everybody."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from stored_runs import write_run

from kleval.report.page import write_report

from .conftest import HOSTILE, MODELS, TASKS, N, Show, Shown

pytestmark = pytest.mark.pages
SAMPLES = len(TASKS) * 2 * N


def heads(shown: Shown) -> list[str]:
    return shown.texts("#samples-list .what")


def settle(shown: Shown, wanted: str) -> None:
    """Wait until the browser has found what it looks for."""
    shown.page.wait_for_function(
        "wanted => document.getElementById('samples-count').textContent.startsWith(wanted)", arg=wanted
    )


def test_nothing_is_said_on_the_console_and_nothing_is_asked_for_elsewhere(shown: Shown, page: Path) -> None:
    shown.page.locator("#samples-list .head").first.click()
    shown.page.wait_for_selector("#samples-list .sides")
    assert shown.said == []
    assert [address for address in shown.asked if address != page.as_uri()] == []


def test_every_figure_is_a_drawing_until_a_pointer_comes_and_then_answers_to_it(shown: Shown) -> None:
    figures = shown.page.locator(".figure")
    assert figures.count() >= 5
    assert shown.page.locator(".figure .still svg").count() == figures.count()
    assert shown.page.locator(".figure .live > *").count() == 0
    for figure in figures.all():
        figure.hover()
        figure.locator(":scope.drawn :is(.trace, .points, .bars)").first.wait_for(state="attached")
        assert not figure.locator(".still").is_visible()


def test_points_without_a_drawing_are_drawn_by_themselves(show: Show, tmp_path: Path) -> None:
    run = write_run(tmp_path / "one", ctxs=(1024,), models=MODELS[:1])
    shown = show(write_report([run], tmp_path / "page.html"))
    figure = shown.page.locator(".figure:has(> .still:empty)").first
    figure.scroll_into_view_if_needed()
    figure.locator(":scope.drawn .points").first.wait_for(state="attached")
    assert shown.said == []


def test_a_figure_says_a_points_numbers_and_its_legend_takes_a_model_away(shown: Shown) -> None:
    card = shown.page.locator("#overview [data-legend]").first
    lines = card.locator(".live .trace:has(.point)")
    card.hover()
    lines.first.locator(".point").last.hover(force=True)  # plotly listens above it
    assert "answers scored" in str(card.locator(".hovertext").first.text_content())
    button = card.locator("button[data-trace]").first
    button.click()
    lines.nth(1).wait_for(state="detached")
    button.click()
    lines.nth(1).wait_for(state="attached")


def test_the_table_of_scores_sorts_by_a_click_on_its_head(shown: Shown) -> None:
    column = "#scores tbody td:nth-child(4)"
    button = shown.page.locator("#scores thead th:nth-child(4) button")
    button.click()
    up = [float(text) for text in shown.texts(column)]
    button.click()
    down = [float(text) for text in shown.texts(column)]
    assert up == sorted(up)
    assert down == sorted(up, reverse=True)
    assert up[0] < up[-1]


def test_the_table_of_scores_filters_by_words(shown: Shown) -> None:
    shown.page.fill("#filter", f"vt {MODELS[0]} 4k")
    rows = [row for row in shown.texts("#scores tbody tr:visible") if row]
    assert len(rows) == 1
    assert "ruler/vt" in rows[0]


def test_a_table_downloads_as_csv(shown: Shown) -> None:
    link = shown.page.locator("a[download$='.csv']").first
    link.scroll_into_view_if_needed()
    with shown.page.expect_download() as coming:
        link.click()
    rows = list(csv.reader(io.StringIO(Path(coming.value.path()).read_text("utf-8"))))
    assert len(rows) > 1
    assert {len(row) for row in rows} == {len(rows[0])}


def test_samples_are_filtered_by_result_task_length_and_model(shown: Shown) -> None:
    settle(shown, f"{SAMPLES} samples")
    shown.page.select_option("#samples-result", label="Failed")
    settle(shown, "4 of")
    assert all("#7" in head for head in heads(shown))
    shown.page.select_option("#samples-task", label="ruler/vt")
    settle(shown, "2 of")
    shown.page.select_option("#samples-length", label="4k")
    settle(shown, "1 of")
    shown.page.select_option("#samples-model", label=MODELS[0])
    settle(shown, "0 of")


def test_samples_are_ordered_by_their_score(shown: Shown) -> None:
    shown.page.select_option("#samples-task", label="ruler/cwe")
    shown.page.select_option("#samples-model", label=MODELS[0])
    orders = {}
    for order in ("low", "high"):
        shown.page.select_option("#samples-order", value=order)
        settle(shown, f"{2 * N} of")
        orders[order] = [float(row.split()[-1]) for row in shown.texts("#samples-list .results")]
    assert orders["low"] == sorted(orders["high"])
    assert orders["high"] == sorted(orders["low"], reverse=True)
    assert orders["low"][0] < orders["low"][-1]


def test_flips_are_the_samples_on_which_two_models_differ(shown: Shown) -> None:
    shown.page.select_option("#samples-task", label="ruler/vt")
    shown.page.select_option("#samples-flips", value="any")
    settle(shown, "1")
    results = [row.split("\n") for row in shown.texts("#samples-list .results")]
    assert 0 < len(results) < 2 * N
    assert all(one.split()[-1] != other.split()[-1] for one, other in results)


def test_search_finds_what_stands_in_a_prompt_and_in_an_answer(shown: Shown) -> None:
    shown.page.fill("#samples-search", "739111 niah_single_1")
    settle(shown, "2 of")
    assert all("niah_single_1" in head and "#11" in head for head in heads(shown))
    shown.page.fill("#samples-search", "nothing holds this")
    settle(shown, "0 of")


def test_a_sample_opens_with_its_prompt_both_answers_and_the_reasons(shown: Shown) -> None:
    shown.page.locator("#samples-list .head").nth(2).click()
    shown.page.wait_for_selector("#samples-list .sides")
    assert shown.page.locator(".sides article").count() == 2
    assert "says mla@nano" in shown.text(".sides article:nth-child(2) pre.answer")
    assert "string_match_all" in shown.text(".sides .why")
    assert "characters" in shown.text("#samples-list details summary")


def test_two_models_stand_side_by_side_where_both_are_chosen(shown: Shown) -> None:
    shown.page.select_option("#samples-model", label=MODELS[1])
    shown.page.select_option("#samples-beside", label=f"and {MODELS[0]}")
    shown.page.locator("#samples-list .head").first.click()
    shown.page.wait_for_selector("#samples-list .sides")
    assert shown.texts(".sides header b") == [MODELS[1], MODELS[0]]


def test_the_needle_is_marked_in_a_prompt_that_is_an_excerpt(show: Show, page: Path) -> None:
    key = "/".join(quote(part, safe="") for part in ("a-run", MODELS[0], "ruler/vt:4096:2", "0"))
    shown = show(f"{page.as_uri()}#sample={key}")
    shown.page.wait_for_selector("#samples-list .open .sides")
    assert "left out" in shown.text("#samples-list .open pre.prompt")
    assert shown.texts("#samples-list .open mark") == ["The number of ruler/vt 2 is: 739102 or 42."]
    assert shown.text("#samples-list .open .what").startswith("ruler/vt 4k #2")


def test_a_link_to_a_sample_that_is_not_there_says_so(show: Show, page: Path) -> None:
    shown = show(f"{page.as_uri()}#sample=a-run/nobody/x/0")
    assert "is not on this page" in shown.text("#samples-count")


def test_markup_in_answers_and_prompts_stays_text(shown: Shown) -> None:
    shown.page.locator("#samples-list .head").nth(3).click()
    shown.page.wait_for_selector("#samples-list .sides")
    assert HOSTILE in shown.text(".sides pre.answer")
    assert HOSTILE in shown.text("#samples-list pre.prompt")
    assert shown.page.locator("img").count() == 0
    assert "owned" not in shown.page.title()
    assert shown.said == []


@pytest.mark.parametrize(("scheme", "width"), [("light", 1400), ("dark", 1400), ("light", 390)])
def test_axe_finds_nothing(shown: Shown, scheme: str, width: int) -> None:
    shown.page.set_viewport_size({"width": width, "height": 1000})
    shown.page.emulate_media(color_scheme=scheme)
    shown.page.locator("#samples-list .head").nth(3).click()
    shown.page.wait_for_selector("#samples-list .sides")
    assert findings(shown.page) == []


def findings(page: Any) -> list[str]:
    """Every violation that axe-core finds, one line for each element."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed: make test-pages")
    found = axe.Axe().run(page).response["violations"]
    return [f"{rule['id']}: {node['html'][:160]}" for rule in found for node in rule["nodes"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_leaderboard_sorts_filters_and_axe_finds_nothing(show: Show, board: Path, scheme: str) -> None:
    shown = show(board, color_scheme=scheme)
    shown.page.locator("#scores thead button", has_text="Score").first.click()
    heads = shown.texts("#scores thead th")
    scores = [row.split("\t")[heads.index("Score")] for row in shown.texts("#scores tbody tr")]
    assert [float(score) for score in scores] == sorted(map(float, scores))
    shown.page.fill("#filter", f"vt {MODELS[0]} 4k")
    assert len([row for row in shown.texts("#scores tbody tr:visible") if row]) == 1
    assert findings(shown.page) == []
    assert (shown.said, shown.asked) == ([], [board.as_uri()])


def test_a_narrow_screen_scrolls_in_one_direction(shown: Shown) -> None:
    shown.page.set_viewport_size({"width": 390, "height": 1000})
    shown.page.locator("#samples-list .head").first.click()
    shown.page.wait_for_selector("#samples-list .sides")
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_print_has_the_first_score_on_its_first_page(shown: Shown) -> None:
    pypdf = pytest.importorskip("pypdf", reason="pypdf is not installed: make test-pages")
    score = shown.text(".board td b")
    pages = pypdf.PdfReader(io.BytesIO(shown.page.pdf())).pages
    assert score in pages[0].extract_text()


def test_without_scripts_figures_are_drawings_and_tables_are_there(show: Show, page: Path) -> None:
    shown = show(page, java_script_enabled=False)
    assert shown.page.locator(".figure .still svg:visible").count() == shown.page.locator(".figure").count() >= 5
    assert shown.page.locator("#scores tbody tr").count() > 5
