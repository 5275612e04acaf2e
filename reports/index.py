"""Index of the published reports, and the figures that README opens with: made from the pages and rows below this folder.

    python reports/index.py [--check]

Writes the table between the marks in `reports/README.md`: each page below this folder with its title and its verdict, as the page has
it; and the files of FIGURES into `docs/images`, drawn from stored rows by what `kleval report --figures` draws with. --check writes
nothing and fails where the table is another one. A page that has been made anew, or rows that have changed, ask for it again.
"""

from __future__ import annotations

import argparse
import html
import re
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
README = HERE / "README.md"
IMAGES = HERE.parent / "docs" / "images"
MARKS = re.compile(r"(<!-- index:begin -->\n).*?(<!-- index:end -->)", re.DOTALL)
NANO = [f"nano/{name}" for name in ("kimi-linear", "kimi-linear-rope", "gdn-h", "mla", "profile")]
# name in docs/images: (stored directories below this folder, section of the page, file that `kleval report --figures` gives it)
FIGURES = {
    "time-per-token": (["cpu-nano/to-1m"], "tpot", "tpot-tpot-batch-1"),
    "prefill": (["cpu-nano/to-1m"], "prefill-latency", "prefill-latency-prefill-latency"),
    "score": (NANO, "overview", "overview-score-against-length"),
    "score-against-time": (NANO, "overview", "overview-score-against-time-per-token-batch-1"),
}


def table() -> str:
    """A row per page: where it lies, what it is of, its verdict."""
    lines = ["| report | verdict |", "| --- | --- |"]
    for page in sorted(HERE.rglob("report.html")):
        text = page.read_text("utf-8")
        where = page.relative_to(HERE)
        title = _words(re.search(r"<h1>(.*?)</h1>", text, re.DOTALL))
        said = _words(re.search(r'<p class="verdict">(.*?)</p>', text, re.DOTALL))
        lines.append(
            f"| [{where.parent}]({where}): {title} | {said or 'none: a page of another kind, or an old one'} |"
        )
    return "\n".join(lines) + "\n"


def _words(found: re.Match[str] | None) -> str:
    text = html.unescape(re.sub(r"<[^>]*>", "", found[1])) if found else ""
    return " ".join(text.split()).replace("|", "\\|")


def draw() -> list[Path]:
    """The files of FIGURES."""
    from kleval.files import write_text
    from kleval.report import stills
    from kleval.report.page import page_of
    from kleval.report.samples import Samples
    from kleval.store import RunStore

    written = []
    for name, (folders, section, file) in FIGURES.items():
        _, found = page_of([RunStore.open(HERE / folder) for folder in folders], Samples())
        with tempfile.TemporaryDirectory() as folder:
            stills.write([one for one in found if one.id == section], Path(folder))
            written.append(write_text(IMAGES / f"{name}.svg", (Path(folder) / f"{file}.svg").read_text("utf-8")))
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    old = README.read_text("utf-8")
    new = MARKS.sub(lambda found: found[1] + table() + found[2], old)
    if check:
        sys.exit("reports/README.md is not current: make figures" if new != old else None)
    README.write_text(new, encoding="utf-8")
    print(README, *draw(), sep="\n")


if __name__ == "__main__":
    main()
