"""Pages in a headless Chromium. Where there is no playwright or no Chromium the tests here skip, with the reason."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from stored_profiles import write_profile
from stored_runs import FAILED, write_run

from kleval.report.page import write_report

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MODELS = ("kimi-linear@nano", "mla@nano")
TASKS = ("ruler/niah_single_1", "ruler/vt", "ruler/cwe")
N = 12
HOSTILE = '</script><img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script>'
WAIT_MS = 180_000  # a busy machine is no failure
RESET = """() => {
  for (const input of document.querySelectorAll("#browser form :is(input, select), #filter")) {
    input.value = "";
    input.dispatchEvent(new Event(input.id === "filter" ? "input" : "change"));  // at once: typing waits a little
  }
}"""
HAY = "The grass is green. The sky is blue. Here we go, there and back again. "


@dataclass
class Shown:
    """A page as it was opened, and what went wrong in it meanwhile."""

    page: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def text(self, selector: str) -> str:
        return str(self.page.locator(selector).first.inner_text())

    def texts(self, selector: str) -> list[str]:
        return [str(text) for text in self.page.locator(selector).all_inner_texts()]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make test-pages")
    path = os.environ.get("KLEVAL_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no Chromium on PATH: install Debian's package chromium, or set KLEVAL_CHROMIUM")
    # Neither a sandbox within a container nor anything that Chromium does of its own accord.
    flags = ["--no-sandbox", "--disable-quic", "--disable-background-networking", "--disable-component-update"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*flags, "--disable-dev-shm-usage"])
        yield browser
        browser.close()


Show = Callable[..., Shown]


@pytest.fixture(scope="session")
def show(chromium: Any) -> Show:
    """Open an address or a file: what it says on the console, every error, and every address it asks for are kept."""

    def open_page(where: Path | str, width: int = 1400, **options: Any) -> Shown:
        shown = Shown(chromium.new_context(viewport={"width": width, "height": 1000}, **options).new_page())
        shown.page.set_default_timeout(WAIT_MS)
        shown.page.on("console", lambda message: shown.said.append(f"{message.type}: {message.text}"))
        shown.page.on("pageerror", lambda error: shown.said.append(str(error)))
        shown.page.on("dialog", lambda dialog: (shown.said.append(dialog.message), dialog.dismiss()))
        shown.page.on("request", lambda request: shown.asked.append(request.url))
        shown.page.goto(where.as_uri() if isinstance(where, Path) else where)
        if options.get("java_script_enabled", True) and shown.page.locator("#browser").count():
            shown.page.wait_for_selector("#browser[data-ready]", state="attached")
        return shown

    return open_page


@pytest.fixture(scope="session")
def opened(show: Show, page: Path) -> Shown:
    return show(page)


@pytest.fixture
def shown(opened: Shown) -> Shown:
    """The page, opened once for all tests that only look at it, as it is when it is new."""
    opened.page.set_viewport_size({"width": 1400, "height": 1000})
    opened.page.emulate_media(color_scheme="light")
    opened.page.evaluate(RESET)
    return opened


def prompt(model: str, task: str, ctx: int, index: int) -> str:
    hay = HAY * (ctx // 16)
    return f"{hay}The number of {task} {index} is: 7391{index:02d} or 42. {hay}{HOSTILE} Which number?"


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, three tasks, two lengths: wrong, partly right and failed answers, markup in answers and prompts."""
    folder = tmp_path_factory.mktemp("pages") / "a-run"

    def answer(model: str, task: str, ctx: int, index: int) -> float | dict[str, str]:
        if task == "ruler/cwe":
            return (index % 5) / 4
        if index == 7 and model == MODELS[1]:
            return FAILED
        return float((index + (model == MODELS[1]) + ctx // 1024) % 3 > 0)

    write_run(
        folder,
        answer=answer,
        models=MODELS,
        tasks=TASKS,
        ctxs=(1024, 4096),
        n=N,
        prompt=prompt,
        text=lambda m, t, c, i: HOSTILE if i == 3 else f"It is 7391{i:02d}, says {m}." + "!" * 60 * (i == 5),
        meta=lambda m, t, c, i: {"depth_percent": [100 * i / N]},
    )
    return folder


@pytest.fixture(scope="session")
def page(run: Path) -> Path:
    """Of that run and of a profile of its models."""
    from kleval.store import RunStore

    folder = run.parent / "a-profile"
    write_profile(folder, architectures=("kimi-linear", "mla"), ctxs=(1024, 4096), repeats=2)
    return write_report([RunStore.open(run), RunStore.open(folder)], run.parent / "page.html")


@pytest.fixture(scope="session")
def board(run: Path) -> Path:
    """The leaderboard of that run as a page."""
    from kleval.report.board_page import board
    from kleval.store import RunStore
    from kleval.tables.leaderboard import to_rows

    path = run.parent / "board.html"
    path.write_text(board(to_rows([RunStore.open(run)])), encoding="utf-8")
    return path
