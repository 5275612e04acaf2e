"""`kleval new task|backend|metric|figure NAME`: a working example with its test and page, to go on from.

`new.toml` has the files. They are a folder of their own, outside kleval: what makes them kleval's is in CONTRIBUTING.md.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
import shlex
from collections.abc import Collection
from pathlib import Path
from string import Template

import click

from kleval.cli import options
from kleval.cli.console import note
from kleval.cli.main import Suggesting
from kleval.files import packaged, write_text
from kleval.types import UsageError

_NAME = re.compile(r"[a-z][a-z0-9_]*")
WHAT = {
    "task": "A task: what is asked and how it is scored.",
    "backend": "A backend: what answers requests.",
    "metric": "A metric: what an answer is worth.",
    "figure": "A figure of stored runs, on the page.",
}


@click.group(cls=Suggesting, short_help="Write a working example of a task, backend, metric or figure.")
def new() -> None:
    """Write a folder with a working example, its test and its page, to go on from."""


def files(kind: str, name: str) -> dict[str, str]:
    """What is written, text by file. UsageError for a name that is none, or that a module here has already."""
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise UsageError(f"{name!r} is no name for a {kind}: write small letters, digits and _, like word_count")
    if importlib.util.find_spec(name) is not None:
        raise UsageError(f"a module {name} is installed here already: choose another name")
    if name in _taken(kind):
        raise UsageError(f"kleval has a {kind} {name} already: choose another name")
    example: dict[str, str] = packaged("cli/new.toml")[kind]["files"]
    used = re.compile(rf"(?<![$\w])({name}|{_camel(name)})\b")
    if keyword.iskeyword(_camel(name)) or any(used.search(text) for text in example.values()):
        raise UsageError(f"the example uses the name {name} itself: choose another")
    return {_filled(file, name): _filled(text, name) for file, text in example.items()}


def _taken(kind: str) -> Collection[str]:
    """What kleval calls its own of that kind."""
    if kind == "task":
        from kleval.tasks.registry import families

        return families()
    if kind == "backend":
        from kleval.backends.registry import BACKENDS

        return BACKENDS
    return ()


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def _filled(text: str, name: str) -> str:
    title = " ".join(name.split("_")).strip().capitalize()
    return Template(text.lstrip("\n")).substitute(name=name, Name=_camel(name), title=title)


def write(kind: str, name: str, folder: Path) -> list[Path]:
    """The files, in a folder that must be new or empty. UsageError where it is not, and as `files`."""
    made = files(kind, name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already and not empty: give another name, or --out DIR")
    return [write_text(folder / file, text) for file, text in made.items()]


def _command(kind: str) -> click.Command:
    @click.command(kind, short_help=WHAT[kind], help=f"{WHAT[kind]} Write a working example into a new folder, ./NAME.")
    @click.argument("name")
    @options.option(
        "--out",
        envvar="KLEVAL_NEW_OUT",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="The folder.  [default: ./NAME]",
    )
    def command(name: str, out: Path | None) -> None:
        folder = Path(name) if out is None else out
        for path in write(kind, name, folder):
            click.echo(path)
        then = _filled(packaged("cli/new.toml")[kind]["next"], name).strip()
        note(f"next: cd {shlex.quote(str(folder))} && pytest, then {then}")

    return command


for _kind in WHAT:
    new.add_command(_command(_kind))
