"""The `kleval` command: finds the subcommand, runs it, turns what went wrong into one line and an exit code.

Subcommands live one per file and are imported when they are asked for. kleval.types has the exit codes.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

import click

from kleval import __version__
from kleval.cli import terminal
from kleval.cli.config import unknown_variables
from kleval.cli.console import begin, debugging, emit_error, note
from kleval.types import INTERNAL, INTERRUPTED, OK, USAGE, UsageError

COMMANDS = {
    "run": "kleval.cli.run:run",
    "plan": "kleval.cli.plan:plan",
    "profile": "kleval.cli.profile:profile",
    "verify": "kleval.cli.verify:verify",
    "merge": "kleval.cli.merge:merge",
    "compact": "kleval.cli.compact:compact",
    "score": "kleval.cli.score:score",
    "generate": "kleval.cli.generate:generate",
    "demo": "kleval.cli.demo:demo",
    "data": "kleval.cli.data:data",
    "ls": "kleval.cli.ls:ls",
    "show": "kleval.cli.show:show",
    "status": "kleval.cli.show:status",
    "report": "kleval.cli.report:report",
    "view": "kleval.cli.view:view",
    "leaderboard": "kleval.cli.leaderboard:leaderboard",
    "compare": "kleval.cli.compare:compare",
    "gate": "kleval.cli.gate:gate",
    "scorecard": "kleval.cli.scorecard:scorecard",
    "export": "kleval.cli.export:export",
    "new": "kleval.cli.new:new",
    "path": "kleval.cli.path:path",
    "doctor": "kleval.cli.doctor:doctor",
    "train": "kleval.cli.train:train",
    "completion": "kleval.cli.completion:completion",
}

HELP = {"-h", "--help", "--version"}  # answers at once
# What the file system refuses for a reason that its owner can do something about.
_USER_ERRNO = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EFBIG,
    errno.ENAMETOOLONG,
}


class Suggesting(click.Group):
    """A group that answers an unknown command with the nearest one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        known = self.list_commands(ctx)
        if name not in known and not name.startswith("-") and not ctx.resilient_parsing:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}"
            raise UsageError(f"unknown command '{ctx.command_path} {name}': {hint}")
        return super().resolve_command(ctx, args)


class LazyGroup(Suggesting):
    """A group whose commands, name to `module:attribute`, are imported when they are needed."""

    def __init__(self, *args: Any, targets: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.targets = targets

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.targets)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        target = self.targets.get(cmd_name)
        if target is None:
            return None
        module, attribute = target.split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(
    cls=LazyGroup,
    targets=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Every option can also be given as a variable: --ctx as KLEVAL_CTX, --data-dir as KLEVAL_DATA_DIR. What is set for"
    " run does not reach what means something else: --ctx of profile is KLEVAL_PROFILE_CTX, --out of report KLEVAL_REPORT_OUT.",
)
@click.version_option(__version__, prog_name="kleval")
def cli() -> None:
    """How well a language model uses a long context, and what that context costs.

    Start with:  kleval run --model kimi-linear --suite long
    """


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one command line (default: this process's) and exit with its code."""
    # Threads of OpenMP that wait by spinning take the processor from each other where it is shared: several times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    terminal.forgive()
    sys.exit(call(argv))


def call(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; whatever went wrong has been said in one line on stderr."""
    words = list(sys.argv[1:] if argv is None else argv)
    begin(words)
    try:
        for line in [] if HELP.intersection(words) else unknown_variables(os.environ, cli):
            note(line)
        result = cli.main(args=words, prog_name="kleval", standalone_mode=False, obj=words)
        return result if isinstance(result, int) else OK
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return USAGE
    except click.ClickException as error:
        return _fail(_click_message(error), USAGE)
    except UsageError as error:
        return _fail(str(error), USAGE, error)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", INTERRUPTED)
    except OSError as error:
        if error.errno in _USER_ERRNO:
            return _fail(_os_message(error), USAGE, error)
        return _internal(error)
    except Exception as error:
        return _internal(error)


def _fail(message: str, code: int, error: BaseException | None = None) -> int:
    _traceback_if_asked(error)
    said = " ".join(message.split())
    note(f"kleval: {said}")
    emit_error(said, code)
    return code


def _internal(error: Exception) -> int:
    if _traceback_if_asked(error):
        return INTERNAL
    what = " ".join(str(error).split())
    said = f"internal error: {type(error).__name__}{': ' + what if what else ''}"
    note(f"kleval: {said} (run with KLEVAL_DEBUG=1 for the traceback)")
    emit_error(said, INTERNAL)
    return INTERNAL


def _traceback_if_asked(error: BaseException | None) -> bool:
    if error is None or not debugging():
        return False
    import traceback

    traceback.print_exception(error, file=sys.stderr)
    return True


def _click_message(error: click.ClickException) -> str:
    context: Any = getattr(error, "ctx", None)
    hint = f" (see {context.command_path} --help)" if context is not None else ""
    said = error.format_message().rstrip(".").replace("a valid integer range", "a valid integer")
    return f"{said.replace('a valid float range', 'a valid number')}{hint}"


def _os_message(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


if __name__ == "__main__":
    main()
