"""What goes wrong is one line and the documented exit code; what is imported is what is needed."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import click
import pytest

from kleval.cli import main as entry
from kleval.types import UsageError


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException | int) -> None:
    """`kleval boom` raises error, or returns it when it is a number."""

    def body() -> Any:
        if isinstance(error, int):
            return error
        raise error

    module = ModuleType("kleval_boom")
    module.boom = click.command("boom")(body)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kleval_boom", module)
    monkeypatch.setitem(entry.COMMANDS, "boom", "kleval_boom:boom")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom kleval.cli.main import call\nassert call(['--help']) == 0\n"
        "heavy = {'torch', 'plotly', 'pandas', 'scipy', 'numpy', 'transformers', 'nltk', 'wonderwords', 'tiktoken',"
        " 'tokenizers', 'pydantic', 'rich', 'jinja2', 'httpx2'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "kleval run --model kimi-linear --suite long" in done.stdout


@pytest.mark.parametrize("module", ["kleval", "kleval.cli.main"])
def test_modules_that_are_run_are_the_command(module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, "rnu"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "kleval: unknown command 'kleval rnu': did you mean 'run'?\n"


@pytest.mark.parametrize("name", list(entry.COMMANDS))
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.call([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: kleval {name}")


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["rnu"], "kleval: unknown command 'kleval rnu': did you mean 'run'?"),
        (["ls", "modles"], "kleval: unknown command 'kleval ls modles': did you mean 'models'?"),
        (["run", "--contxt", "4k"], "--ctx"),
        (["run", "--limit", "0"], "--limit"),
        (["run", "--limit", "many"], "--limit"),
        (["report"], "DIR"),
        (["completion", "tcsh"], "fish"),
    ],
)
def test_bad_command_lines(argv: list[str], expected: str, one_line: Callable[..., str]) -> None:
    assert expected in one_line(argv)


def test_unlike_anything_lists_the_commands(one_line: Callable[..., str]) -> None:
    assert "leaderboard" in one_line(["zzz"])


def test_usage_error_is_its_message(monkeypatch: pytest.MonkeyPatch, one_line: Callable[..., str]) -> None:
    raising(monkeypatch, UsageError("do this\ninstead"))
    assert one_line(["boom"]) == "kleval: do this instead"


def test_internal_error_is_one_line_and_1(monkeypatch: pytest.MonkeyPatch, one_line: Callable[..., str]) -> None:
    raising(monkeypatch, ZeroDivisionError("by\nzero"))
    assert one_line(["boom"], code=1) == (
        "kleval: internal error: ZeroDivisionError: by zero (run with KLEVAL_DEBUG=1 for the traceback)"
    )


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("KLEVAL_DEBUG", "1")
    raising(monkeypatch, ZeroDivisionError("by zero"))
    assert entry.call(["boom"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_interrupt_is_130(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(monkeypatch, error)
    assert entry.call(["boom"]) == 130
    assert "kleval: interrupted" in capsys.readouterr().err


def test_a_full_disk_is_one_line_and_2(monkeypatch: pytest.MonkeyPatch, one_line: Callable[..., str]) -> None:
    raising(monkeypatch, OSError(errno.ENOSPC, "No space left on device", "runs/a"))
    assert one_line(["boom"]) == "kleval: runs/a: No space left on device"


def test_the_code_a_command_returns_is_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, 3)
    with pytest.raises(SystemExit) as caught:
        entry.main(["boom"])
    assert caught.value.code == 3


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from kleval import __version__

    assert entry.call(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_is_a_script_for_kleval(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.call(["completion", shell]) == 0
    assert "_KLEVAL_COMPLETE" in capsys.readouterr().out
