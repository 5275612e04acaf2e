"""The build cache: what is loaded was built from these sources by this user, and without a library torch computes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from kleval.ops.native import build, loading

COMPILER = """#!/bin/sh
echo run >> {log}
while [ $# -gt 0 ]; do if [ "$1" = -o ]; then echo {content} > "$2"; fi; shift; done
{end}
"""


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compiler that writes a line into each file, and one into `log` beside it; its cache is empty."""
    script = tmp_path / "compiler"
    script.write_text(COMPILER.format(log=tmp_path / "log", content="built", end="exit 0"))
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.setenv("KLEVAL_NATIVE_CACHE", str(tmp_path / "cache"))
    return script


@pytest.fixture
def fresh() -> Iterator[None]:
    loading._load.cache_clear()
    yield
    loading._load.cache_clear()


def runs(compiler: Path) -> int:
    return len(compiler.with_name("log").read_text().splitlines())


def test_a_library_is_built_once_and_belongs_to_its_user(compiler: Path) -> None:
    first = build.build_library("neon")
    count = runs(compiler)
    assert build.build_library("neon") == first
    assert runs(compiler) == count
    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    assert stat.S_IMODE(first.parent.stat().st_mode) == 0o700
    assert {file.name for file in first.parent.iterdir()} <= {first.name, f"{build.library_key('neon')}.lock"}


def test_sources_flags_and_width_each_make_another_library(compiler: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {build.library_key("neon"), build.library_key("avx2")}
    monkeypatch.setenv("KLEVAL_NATIVE_FLAGS", "-g")
    keys.add(build.library_key("neon"))
    monkeypatch.setattr(build, "sources", lambda: [compiler])
    keys.add(build.library_key("neon"))
    assert len(keys) == 4


@pytest.mark.parametrize("harm", ["content", "mode", "link", "folder"])
def test_what_is_damaged_or_not_ours_alone_is_not_loaded(compiler: Path, harm: str) -> None:
    file = build.build_library("neon")
    if harm == "content":
        file.write_text("something else")
    elif harm == "mode":
        file.chmod(0o666)
    elif harm == "link":
        file.rename(compiler.with_name("elsewhere"))
        file.symlink_to(compiler.with_name("elsewhere"))
    else:
        file.parent.chmod(0o777)
    assert build.find_library("neon") is None
    if harm == "folder":
        with pytest.raises(build.BuildError, match="chmod 700"):
            build.build_library("neon")
    else:
        again = build.build_library("neon")
        assert not again.is_symlink()
        assert again.read_text() == "built\n"
        assert stat.S_IMODE(again.stat().st_mode) == 0o600


def test_a_file_of_another_user_is_not_loaded(compiler: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build.build_library("neon")
    monkeypatch.setattr(os, "getuid", lambda: 12345678)
    assert build.find_library("neon") is None


@pytest.mark.parametrize(
    ("end", "reason"), [("echo 'x.cpp:3: error: no luck' >&2; exit 4", "no luck"), ("exit 1", "no message")]
)
def test_a_compiler_that_fails_is_one_line(compiler: Path, end: str, reason: str) -> None:
    compiler.write_text(COMPILER.format(log="/dev/null", content="", end=end))
    with pytest.raises(build.BuildError, match=reason) as raised:
        build.build_library("neon")
    assert "\n" not in str(raised.value)
    assert not list(build.cache_folder().glob("*.so"))


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("why", ["no compiler", "no such compiler", "cache", "not a library", "off"])
def test_without_a_library_torch_computes(
    compiler: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, why: str
) -> None:
    if why == "no compiler":
        monkeypatch.delenv("CXX")
        monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    elif why == "no such compiler":
        monkeypatch.setenv("CXX", "/nowhere/c++")
    elif why == "cache":
        (tmp_path / "cache").write_text("a file where the folder should be")
    monkeypatch.setenv(loading.VARIABLE, "off" if why == "off" else "")
    assert loading.native() is None
    reason = loading.why_not()
    assert reason
    assert "\n" not in reason


@pytest.mark.usefixtures("fresh")
def test_who_asked_for_it_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nowhere/c++")
    monkeypatch.setenv("KLEVAL_NATIVE_CACHE", "/nowhere/cache")
    monkeypatch.setenv(loading.VARIABLE, "")  # undone after the test
    loading.choose("native")
    with pytest.warns(UserWarning, match="C\\+\\+ are not used: "):
        loading.native()
    with warnings.catch_warnings(action="error"):
        loading.native()


def test_two_processes_build_it_once(compiler: Path) -> None:
    compiler.write_text(COMPILER.format(log=compiler.with_name("log"), content="built", end="sleep 0.2"))
    script = "from kleval.ops.native import build; print(build.build_library('neon'))"
    processes = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    places = {process.communicate(timeout=60)[0] for process in processes}
    assert len(places) == 1
    units = sum(file.suffix == ".cpp" for file in build.sources())
    assert runs(compiler) == units + 1  # and the linking


def test_the_package_carries_the_sources() -> None:
    assert {file.suffix for file in build.sources()} == {".cpp", ".h"}
