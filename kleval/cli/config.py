"""Configuration of a command: options in a YAML or JSON file, or those of an earlier run, and the variables that name no option.

A file maps the names of options to values, `ctx: 4k,8k` or `ctx: [4k, 8k]`, `engine-arg: {prefill_tokens: 512}`. The run.json of
a run, or its directory, stands for the options that it was given; its place is not among them, nor are secrets, which it does not hold.
What stands on the command line, or in a variable, is stronger.
"""

from __future__ import annotations

import difflib
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from kleval.cli.console import note
from kleval.types import UsageError

# What belongs to one time that a command ran, not to what it asks for.
PASSING = ("config", "out", "amend", "dry_run", "as_json", "quiet", "name")
# What of a run's spec an option says, and how the option is called.
OF_SPEC = {
    **{
        name: name
        for name in ("limit", "repeats", "edition", "protocol", "seed", "temperature", "max_new_tokens", "reasoning")
    },
    **{name: name for name in ("add_bos", "tokenizer", "judge_model", "backend", "device", "dtype", "batch")},
    "models": "model",
    "ctxs": "ctx",
    "tasks": "tasks",
    "suite": "suite",
}
HIDDEN = "***"
# Variables that no option has.
OTHER_VARIABLES = frozenset(
    {
        "KLEVAL_DEBUG",
        "KLEVAL_NATIVE",
        "KLEVAL_NATIVE_CACHE",
        "KLEVAL_NATIVE_FLAGS",
        "KLEVAL_FIXTURES",
        "KLEVAL_REAL_DATA",
    }
)


def use(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    """Callback of --config: what the file says becomes the defaults of the command's other options."""
    if path is not None:
        found = read(path, context.command)
        options_ = options_of(context.command)
        known = {name: parameter for name, parameter in options_.items() if parameter.name != "config"}
        context.default_map = {**(context.default_map or {}), **defaults(found, known, path)}


def read(path: Path, command: click.Command) -> Mapping[str, Any]:
    """Options by name. UsageError for what holds none."""
    file = path / "run.json" if path.is_dir() else path
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {file}: {getattr(error, 'strerror', None) or 'not a text file'}") from error
    found = _parsed(text, file)
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise UsageError(f"--config {file}: write options by name, like ctx: 4k,8k")
    return _of_run(found, file, command) if isinstance(found.get("spec"), Mapping) else found


def _parsed(text: str, file: Path) -> Any:
    import yaml

    try:
        return json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except ValueError as error:
        raise UsageError(f"--config {file} is no JSON: {error}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"--config {file} is no YAML: {' '.join(str(error).split())}") from error


def _of_run(manifest: Mapping[str, Any], file: Path, command: click.Command) -> dict[str, Any]:
    """What a run was given, and what its defaults were."""
    if manifest.get("kind", "run") != "run":
        raise UsageError(f"--config {file} is of a {manifest['kind']}: give the run.json of a run")
    spec = manifest["spec"]
    given = (
        dict(spec["options"])
        if isinstance(spec.get("options"), Mapping)
        else _of_command(command, str(spec.get("command", "")))
    )
    for name, option in OF_SPEC.items():
        if spec.get(name) not in (None, [], ()):
            given[option] = spec[name]
    if spec.get("suite"):
        given.pop("tasks", None)
    if not spec.get("ctxs_given", True):
        given.pop("ctx", None)
    secret = [name for name, value in given.items() if HIDDEN in json.dumps(value)]
    for name in secret:
        note(f"note: {file} does not hold the secrets of --{name.replace('_', '-')}: give it again")
    return {name: value for name, value in given.items() if name not in (*PASSING, *secret)}


def _of_command(command: click.Command, line: str) -> dict[str, Any]:
    """The options of a run's command line, by the names of their parameters."""
    try:
        words = shlex.split(line)
        parser = command.make_parser(click.Context(command, resilient_parsing=True))
        found, _, _ = parser.parse_args(words[words.index("run") + 1 :] if "run" in words else [])
    except (ValueError, click.ClickException) as error:
        raise UsageError(f"the command {line!r} of the run cannot be read any more: {error}") from error
    return dict(found)


def options_of(command: click.Command) -> dict[str, click.Option]:
    """By every name that a file may use: gpu-arg and gpu_arg, and those of the parameter."""
    found: dict[str, click.Option] = {}
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            longest = [name[2:] for name in parameter.opts if name.startswith("--")]
            for name in (*longest, *(name.replace("-", "_") for name in longest), str(parameter.name)):
                found[name] = parameter
    return found


def defaults(found: Mapping[str, Any], known: Mapping[str, click.Option], path: Path) -> dict[str, Any]:
    """By parameter, values as the command line would have them. UsageError for an option that there is not, and a value of no use."""
    values: dict[str, Any] = {}
    for name, value in found.items():
        option = known.get(name)
        if option is None:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "`kleval run --help` lists them"
            raise UsageError(f"--config {path}: there is no option {name!r}: {hint}")
        if value is not None:
            assert option.name is not None
            values[option.name] = _value(option, value, f"--config {path}: {name}")
    return values


def _value(option: click.Option, value: Any, where: str) -> Any:
    if option.is_flag:
        if not isinstance(value, bool):
            raise UsageError(f"{where} is true or false, not {value!r}")
        return value
    if option.multiple:
        if isinstance(value, Mapping):
            return [f"{key}={part if isinstance(part, str) else json.dumps(part)}" for key, part in value.items()]
        return [_text(option, part, where) for part in (value if isinstance(value, list | tuple) else [value])]
    if isinstance(value, list | tuple):
        return ",".join(_text(option, part, where) for part in value)
    return _text(option, value, where)


def _text(option: click.Option, value: Any, where: str) -> str:
    if isinstance(value, bool):  # YAML's yes, no, on and off
        words = (
            ("yes", "no") if isinstance(option.type, click.Choice) and "yes" in option.type.choices else ("on", "off")
        )
        return words[0] if value else words[1]
    if isinstance(value, str | int | float):
        return str(value)
    raise UsageError(f"{where} is a text, a number or a list of such, not {value!r}")


def unknown_variables(names: Iterable[str], command: click.Command) -> list[str]:
    """A line for each KLEVAL_ variable among the names that means nothing to any command."""
    ours = {name for name in names if name.startswith("KLEVAL_")} - OTHER_VARIABLES
    if not ours:
        return []  # without importing every command
    known = OTHER_VARIABLES | set(_variables(command))
    lines = []
    for name in sorted(ours - known):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
        lines.append(f"note: {name} is no variable of kleval{f': did you mean {near[0]}?' if near else ''}")
    return lines


def _variables(command: click.Command) -> Iterator[str]:
    for parameter in command.params:
        if isinstance(parameter, click.Option) and isinstance(parameter.envvar, str):
            yield parameter.envvar
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            if (found := command.get_command(context, name)) is not None:
                yield from _variables(found)
