"""Standard output and error that never end a run: characters that the code page lacks, and a reader that went away.

What an encoding cannot say is written in ASCII where there is a usual form (x for ×, - for –), else as an escape
(\\u2713). What is written after the reader has closed its end (`| head`) is dropped, and the command goes on to its end
and its own exit code: a run's results are in its directory.
"""

from __future__ import annotations

import codecs
import io
import sys
from typing import IO, Any, TextIO

_HANDLER = "kleval"
_USUAL = {
    "×": "x", "·": "*", "–": "-", "—": "-", "−": "-", "‑": "-", "…": "...", "→": "->", "←": "<-", "≥": ">=", "≤": "<=",
    "±": "+-", "≈": "~", "“": '"', "”": '"', "‘": "'", "’": "'", "•": "*", "✓": "ok", "✔": "ok", "✗": "x", "∞": "inf",
    "µ": "u", "μ": "u", "²": "2", "³": "3", "½": "1/2", "Δ": "d", "\u00a0": " ", "\u202f": " ", "\u2009": " ",
    "█": "#", "▇": "#", "▆": "#", "▅": "=", "▄": "=", "▃": "-", "▂": "_", "▁": "_", "━": "-", "─": "-", "│": "|",
}  # fmt: skip


def forgive() -> None:
    """Put such streams in the place of this process's own."""
    codecs.register_error(_HANDLER, _written)
    sys.stdout, sys.stderr = _forgiving(sys.stdout), _forgiving(sys.stderr)


def says_everything(stream: IO[Any]) -> bool:
    """Whether its encoding has every character."""
    try:
        return codecs.lookup(getattr(stream, "encoding", None) or "ascii").name.startswith("utf")
    except LookupError:
        return False


def _written(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    plain = "".join(_USUAL.get(char) or char.encode("ascii", "backslashreplace").decode() for char in text)
    return plain, error.end


class _Forgiving(io.FileIO):
    """The file behind a stream. gone: the reader has closed its end, or nothing more can be written, which is said once."""

    gone = False

    def write(self, data: Any, /) -> int:
        if not self.gone:
            try:
                return super().write(data) or 0
            except BrokenPipeError:
                self.gone = True
            except OSError:
                self.gone = True
                raise
        return len(data)


def _forgiving(stream: TextIO) -> TextIO:
    """The same stream, forgiving; itself where it is no file."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    try:
        raw = _Forgiving(stream.fileno(), "wb", closefd=False)
    except (OSError, ValueError):
        stream.reconfigure(errors=_HANDLER)
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=_HANDLER,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
