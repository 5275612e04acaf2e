"""A program run in a sandbox, on a machine that is known to isolate it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kleval.sandbox.kinds import Limits, Result
from kleval.sandbox.probe import require
from kleval.sandbox.runner import run_unchecked


def run(
    code: str,
    *,
    stdin: str = "",
    files: Mapping[str, str] | None = None,
    packages: Sequence[str] = (),
    limits: Limits | None = None,
) -> Result:
    """Run `code` as a program (`__main__`) and say what became of it. Any number may run at once, from any thread.

    files: name -> text, put into the working directory. packages: names of installed packages that it may import, read-only
    (`numpy`); nothing else of site-packages is there. Standard input is `stdin`, then its end.
    UsageError where this machine cannot isolate; SandboxFault when the sandbox failed, which says nothing about the program.
    """
    require()
    return run_unchecked(code, stdin=stdin, files=files, packages=packages, limits=limits)
