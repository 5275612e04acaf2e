"""Notebooks run without Jupyter: their cells in one namespace, and outputs as a kernel stores them.

`python tests/notebooks.py docs/in_a_notebook.ipynb` runs it in an empty folder and writes its outputs into it. A cell that raises
ends it.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FORMS = {"_repr_html_": "text/html", "_repr_svg_": "image/svg+xml"}


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def code(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    """The cells that run."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def run(notebook: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """The outputs of each code cell, as it has run in the current folder."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(code(notebook), 1):
        yield _run("".join(cell["source"]), names, number)


def _run(source: str, names: dict[str, Any], number: int) -> list[dict[str, Any]]:
    out, err = io.StringIO(), io.StringIO()
    body = ast.parse(source).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    value = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        exec(compile(ast.Module(body, []), f"<cell {number}>", "exec"), names)  # noqa: S102
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), f"<cell {number}>", "eval"), names)  # noqa: S307
    texts = [("stdout", out.getvalue()), ("stderr", err.getvalue())]
    found: list[dict[str, Any]] = [
        {"output_type": "stream", "name": name, "text": _lines(_seen(text))} for name, text in texts if text
    ]
    if value is not None:
        found.append({"output_type": "execute_result", "execution_count": number, "metadata": {}, "data": _data(value)})
    return found


def _data(value: Any) -> dict[str, Any]:
    data: dict[str, Any] = {"text/plain": _lines(_plain(value))}
    for method, kind in FORMS.items():
        if hasattr(type(value), method) and (shown := getattr(value, method)()) is not None:
            data[kind] = _lines(shown)
    if hasattr(value, "to_plotly_json"):
        data = {"application/vnd.plotly.v1+json": json.loads(value.to_json()), "text/plain": data["text/plain"]}
    return data


def _plain(value: Any) -> str:
    return f"Figure of {len(value.data)} lines" if hasattr(value, "to_plotly_json") else repr(value)


def _seen(text: str) -> str:
    """What a line that is written over shows in the end."""
    return "".join(line.rpartition("\r")[2] for line in text.splitlines(keepends=True))


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def execute(path: Path) -> None:
    """Run a notebook and write its outputs into it."""
    notebook, home = read(path), Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for number, (cell, outputs) in enumerate(zip(code(notebook), run(notebook), strict=True), 1):
                cell |= {"execution_count": number, "outputs": outputs}
        finally:
            os.chdir(home)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    execute(Path(sys.argv[1]))
