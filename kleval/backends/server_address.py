"""Address of a server, and its secrets, which are never written: keys, and credentials in the address.

What is printed, logged, stored or raised goes through `Server.hide`, and names the address without user, password and query.
"""

from __future__ import annotations

import base64
import os
import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from kleval.types import UsageError

DEFAULT_KEY_ENV = "OPENAI_API_KEY"
HIDDEN = "***"
_ENDPOINTS = ("/chat/completions", "/completions", "/models")
_LOOKS_LIKE_A_KEY = re.compile(r"\b(?:sk|pk|hf|gsk|xai|key|Bearer)[-_ ][\w.*+/=-]{6,}", re.IGNORECASE)
_SHORTEST_SECRET = 4  # shorter ones are also parts of ordinary words
_SHORTEST_TOLD = 12  # local servers are asked with keys like EMPTY, which an answer may hold by chance


@dataclass(frozen=True, slots=True)
class Server:
    """url: scheme, host and path, like http://localhost:8000/v1: safe to print. key_env: the variable of the key.

    has_key: whether it held one. The other fields are what each request is sent with, and are not shown.
    """

    url: str
    key_env: str = DEFAULT_KEY_ENV
    has_key: bool = False
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    params: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def root(self) -> str:
        """The address without /v1: where servers keep what the OpenAI API does not have."""
        return self.url.removesuffix("/v1")

    @property
    def is_local(self) -> bool:
        """On this machine: no proxy of the environment stands between."""
        return urlsplit(self.url).hostname in ("localhost", "127.0.0.1", "::1", "0.0.0.0")

    def hide(self, text: str) -> str:
        """A text of the server's on one line, without anything secret that it repeats, cut at 500 characters."""
        return " ".join(_LOOKS_LIKE_A_KEY.sub(HIDDEN, self.without_secrets(text)).split())[:500]

    def without_secrets(self, text: str) -> str:
        """A name of the server's, which may look like a key (`hf-internal-testing/…`), without what it was asked with."""
        for secret in self.secrets:
            text = text.replace(secret, HIDDEN)
        return text

    def is_told_in(self, text: str) -> bool:
        """Whether a text holds something secret that cannot be there by chance."""
        return any(secret in text for secret in self.secrets if len(secret) >= _SHORTEST_TOLD)


def parse_address(base_url: str, key_env: str = DEFAULT_KEY_ENV) -> Server:
    """A server from `--base-url` and the environment. UsageError when the address is none, or the named key is not set."""
    url = base_url.strip()
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError(
            "--base-url is an address like http://localhost:8000/v1, with http:// or https:// before the host"
        )
    path = parts.path.rstrip("/")
    for endpoint in _ENDPOINTS:
        path = path.removesuffix(endpoint)
    name = f"[{host}]" if ":" in host else host
    shown = f"{parts.scheme}://{name}{'' if port is None else f':{port}'}{path}"
    params = tuple(parse_qsl(parts.query, keep_blank_values=True))
    secrets = {value for _, value in params}
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    key = _key(key_env)
    headers = []
    if user or password:
        basic = base64.b64encode(f"{user}:{password}".encode()).decode()
        headers.append(("Authorization", f"Basic {basic}"))
        secrets |= {basic, password or user, parts.password or parts.username or ""}
    elif key:
        headers.append(("Authorization", f"Bearer {key}"))
    secrets |= {key} | {quote(secret) for secret in secrets}
    longest_first = sorted((s for s in secrets if len(s) >= _SHORTEST_SECRET), key=len, reverse=True)
    return Server(shown, key_env, bool(headers), tuple(headers), params, tuple(longest_first))


def _key(name: str) -> str:
    key = os.environ.get(name, "").strip()
    if not key and name != DEFAULT_KEY_ENV:
        raise UsageError(f"--api-key-env {name}: there is no such variable, or it is empty: set it to the server's key")
    if not (key.isascii() and (key.isprintable() or not key)):
        raise UsageError(f"the key in {name} has characters that no key has: set it again")
    return key
