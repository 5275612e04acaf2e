"""Putting scripts, data and files into one HTML page that loads nothing: escaping, and the policy that allows just them."""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Sequence
from importlib import resources
from typing import Any


def asset(*names: str) -> str:
    """The text of files beside this one, joined."""
    folder = resources.files("kleval.report")
    return "\n".join(folder.joinpath(name).read_text("utf-8") for name in names)


def script(source: str) -> str:
    """A script's text so that it cannot end its own element early."""
    source = source.replace("\r\n", "\n").replace("\r", "\n")  # as an HTML parser does before it is hashed
    return source.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def packed(text: str, level: int = 4) -> str:
    """Text for a script element that is no script, as `unpack.js` reads it: UTF-8, deflated (zlib, RFC 1950), in base64."""
    return base64.b64encode(zlib.compress(text.encode("utf-8", "replace"), level)).decode("ascii")


def policy(scripts: Sequence[str], asks: bool = False) -> str:
    """A content security policy: these scripts and inline styles (the figures' script adds some), nothing else; asks: and requests
    to the page's own server."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{h}'" for h in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'" + ("; connect-src 'self'" if asks else "")
    )


def data_uri(text: str, kind: str) -> str:
    """A file as the address of a download link. kind: its media type."""
    return f"data:{kind};charset=utf-8;base64,{base64.b64encode(text.encode('utf-8', 'replace')).decode()}"


def marked(text: str) -> Any:
    """Words for people as HTML: escaped, then `code` and **bold**."""
    from markupsafe import Markup, escape

    found = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    return Markup(re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", found))
