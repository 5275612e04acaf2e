"""Packages beside kleval: the line that installs an optional extra, and plugins, which other packages bring as entry points.

kleval is on no registry, so the line of an extra names that extra's own requirements, as kleval's metadata have them.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from functools import cache
from importlib import import_module, metadata
from typing import Any

from kleval.types import UsageError


def install_line(extra: str) -> str:
    """The command that installs what an extra needs on this machine; in a checkout that is not installed, the extra by its name."""
    from packaging.requirements import Requirement

    try:
        listed = metadata.requires("kleval") or []
    except metadata.PackageNotFoundError:
        listed = []
    plain, found = {"extra": ""}, []
    for requirement in map(Requirement, listed):
        marker = requirement.marker
        if marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate(plain):
            requirement.marker = None
            found.append(str(requirement))
    return f"pip install {shlex.join(found or ['-e', f'.[{extra}]'])}"


def need(package: str, extra: str, what: str) -> Any:
    """The module of an optional package. UsageError with the line that installs it. what: the thing that needs it."""
    try:
        return import_module(package)
    except ImportError as error:
        if error.name and error.name.partition(".")[0] != package.partition(".")[0]:
            raise UsageError(f"{what} needs {package}, which cannot be imported: {error}") from error
        raise UsageError(f"{what} needs {package}: {install_line(extra)}") from error


@cache
def plugins(group: str) -> dict[str, metadata.EntryPoint]:
    """The entry points of a group by name. A package whose list of them cannot be read is passed over."""
    try:
        return {point.name: point for point in metadata.entry_points(group=group)}
    except Exception:  # of one package's metadata, which says nothing about the others
        return {point.name: point for _, points in _listed() for point in points or () if point.group == group}


def unreadable() -> list[str]:
    """The packages whose list of entry points cannot be read."""
    return [_called(distribution) for distribution, points in _listed() if points is None]


def _listed() -> Iterator[tuple[metadata.Distribution, metadata.EntryPoints | None]]:
    for distribution in metadata.distributions():
        try:
            yield distribution, distribution.entry_points
        except Exception:
            yield distribution, None


def origin(plugin: metadata.EntryPoint) -> str:
    """The package that brings a plugin, and its version."""
    return "no package" if plugin.dist is None else _called(plugin.dist)


def _called(distribution: metadata.Distribution) -> str:
    try:
        return f"{distribution.name} {distribution.version}"
    except Exception:
        return "a package without a name"


def load(plugin: metadata.EntryPoint) -> Any:
    """What a plugin points to. UsageError that names its package, whatever went wrong."""
    try:
        return plugin.load()
    except (Exception, SystemExit) as error:
        raise broken(plugin, error) from error


def broken(plugin: metadata.EntryPoint, error: BaseException) -> UsageError:
    """That a plugin cannot be used: which, of what package, and why."""
    said = " ".join(str(error).split())
    reason = f"{type(error).__name__}{': ' + said if said else ''}"
    return UsageError(f"{plugin.name} of package {origin(plugin)} cannot be used: {reason}")
