"""What a sandboxed program gets, and what is told about it; and where nothing is run at all."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from kleval import sandbox
from kleval.sandbox import Limits, SandboxFault, jail, probe, runner, seccomp, view
from kleval.types import UsageError

isolated = pytest.mark.skipif(bool(sandbox.available()), reason=f"no isolation here: {sandbox.available()}")


@pytest.fixture
def fresh() -> object:
    probe.available.cache_clear()
    yield
    probe.available.cache_clear()


@isolated
def test_a_program_reads_and_writes() -> None:
    result = sandbox.run("print(int(input()) + int(open('a/b.txt').read()))", stdin="2\n", files={"a/b.txt": "3"})
    assert (result.status, result.exit_code, result.stdout, result.stderr) == ("ok", 0, "5\n", "")


@isolated
def test_a_program_is_main_and_has_the_standard_library() -> None:
    code = "import json, math, heapq, ctypes, decimal, sqlite3, hashlib\nif __name__ == '__main__': print(json.dumps([math.pi > 3]))"
    assert sandbox.run(code).stdout == "[true]\n"


@isolated
def test_a_package_that_is_named_can_be_imported() -> None:
    pytest.importorskip("numpy")
    assert sandbox.run("import numpy as np; print(np.arange(4).sum())", packages=("numpy",)).stdout == "6\n"


@isolated
def test_the_same_program_says_the_same() -> None:
    code = "print(hash('text'), list({'a', 'b', 'c'}))"
    assert sandbox.run(code) == pytest.approx(sandbox.run(code)) or sandbox.run(code).stdout == sandbox.run(code).stdout


@isolated
def test_two_sandboxes_do_not_see_each_other() -> None:
    found = {}

    def one(name: str) -> None:
        code = f"import os, time\nopen('{name}', 'w').close()\ntime.sleep(0.3)\nprint(os.listdir('.'))"
        found[name] = sandbox.run(code).stdout.strip()

    threads = [threading.Thread(target=one, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {"a": "['a']", "b": "['b']"}


@isolated
def test_surrogates_in_a_program_do_no_harm() -> None:
    assert sandbox.run("x = '\ud800'").status == "error"


@isolated
def test_a_fault_of_the_sandbox_is_not_the_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_BOOT", "import sys; sys.exit('broken {root}')")
    with pytest.raises(SandboxFault, match="broken"):
        sandbox.run("print(1)")


@pytest.mark.parametrize("name", ["../a", "/etc/a", "a/../../b", ""])
def test_files_must_lie_in_the_working_directory(name: str) -> None:
    with pytest.raises(ValueError, match="working directory"):
        runner.run_unchecked("", files={name: ""})


@pytest.mark.parametrize("wrong", [{"seconds": 0}, {"memory_bytes": 0}, {"processes": 0}, {"open_files": 3}])
def test_limits_are_positive(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="limits"):
        Limits(**wrong)


def test_nothing_runs_where_there_is_no_isolation(monkeypatch: pytest.MonkeyPatch, fresh: object) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(UsageError, match="Linux"):
        sandbox.run("print(1)")


def test_another_processor_is_refused(monkeypatch: pytest.MonkeyPatch, fresh: object) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert "riscv64" in sandbox.available()


def test_a_kernel_that_refuses_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch, fresh: object) -> None:
    def fault(*args: object, **options: object) -> None:
        raise SandboxFault("the sandbox failed: unshare: Operation not permitted")

    monkeypatch.setattr(probe, "run_unchecked", fault)
    with pytest.raises(UsageError, match=r"Operation not permitted.*user namespaces"):
        sandbox.require()


@isolated
@pytest.mark.parametrize(
    ("attribute", "layer"),
    [("seccomp.install", "network filter"), ("calls.no_new_privileges", "fault"), ("_limit", "process limit")],
)
def test_a_layer_that_is_missing_is_noticed(
    attribute: str, layer: str, monkeypatch: pytest.MonkeyPatch, fresh: object
) -> None:
    """Without the layer the keeper still runs the program: the check inside has to see it."""
    skip = f"import kleval.sandbox.jail as j; j.{attribute} = lambda *a: None"
    boot = runner._BOOT.replace("import main; main()", f"import main; {skip}; main()")
    monkeypatch.setattr(runner, "_BOOT", boot)
    reason = sandbox.available()
    # Without no_new_privs the kernel itself refuses the filter.
    assert (layer in reason) if layer != "fault" else reason


def test_the_filter_is_made_for_both_architectures() -> None:
    lengths = {machine: len(seccomp.program(machine)) for machine in ("x86_64", "aarch64")}
    assert all(size % 8 == 0 for size in lengths.values())
    assert lengths["x86_64"] > lengths["aarch64"]


def test_the_numbers_of_system_calls_are_the_kernels() -> None:
    headers = {0: Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), 1: Path("/usr/include/asm-generic/unistd.h")}
    if not all(path.exists() for path in headers.values()):
        pytest.skip("the kernel's headers are not installed")
    for column, path in headers.items():
        known = {}
        for line in path.read_text().splitlines():
            words = line.split()
            if len(words) == 3 and words[0] == "#define" and words[2].isdigit():
                known[words[1].removeprefix("__NR_").removeprefix("3264_")] = int(words[2])
        wrong = {n: v for n, v in seccomp._DENIED.items() if v[column] >= 0 and known.get(n, v[column]) != v[column]}
        assert wrong == {}
        assert seccomp._CLONE[column] == known["clone"]


def test_the_interpreter_is_the_one_behind_the_environment() -> None:
    assert Path(view.interpreter()).is_file()
    assert not Path(view.interpreter()).is_symlink()
    assert jail.NOBODY == 65534


@isolated
@pytest.mark.parametrize("call", ["memfd_create", "pipe"])
def test_want_of_descriptors_is_a_fault_of_the_sandbox(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(SandboxFault, match="Too many open files"):
        runner.run_unchecked("print(1)")
