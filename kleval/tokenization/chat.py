"""Chat templates: jinja2 in its sandbox, with the helpers that Hugging Face's templates count on.

`raise_exception(message)`, `strftime_now(format)` (the local date, as transformers gives it: a template that prints it makes prompts
that differ from day to day), the filter `tojson` without HTML escapes, and loop controls.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from kleval.types import Message, Prompt, UsageError


def join_prompt(prompt: Prompt, answer_prefix: str) -> str:
    """Prompt and answer prefix without a chat template; messages are their contents joined by newlines."""
    text = prompt if isinstance(prompt, str) else "\n".join(m["content"] for m in prompt)
    return text + answer_prefix


def find_template(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The chat template of a tokenizer: the file chat_template.jinja, else the field of tokenizer_config.json."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise UsageError(f"{file} cannot be read as text: {error}") from error
    template = config.get("chat_template")
    if isinstance(template, list):
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default")
    if not isinstance(template, str):
        return None
    try:
        template.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"the chat template in {folder / 'tokenizer_config.json'} is no text: {error}") from error
    return template


def render_chat(template: str, messages: Sequence[Message], special: Mapping[str, str]) -> str:
    """Messages as the model sees them, up to where its answer begins. special: bos_token, eos_token and the like by name.

    UsageError when the template refuses, or does what the sandbox forbids. The sandbox keeps a template away from the machine and
    its ranges below 100,000; how long nested loops take it does not limit.
    """
    import jinja2

    failures = (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError, MemoryError)
    try:
        return _compile(template).render(
            messages=[dict(m) for m in messages], add_generation_prompt=True, tools=None, **special
        )
    except failures as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"the tokenizer's chat template cannot render this prompt: {said}") from error


@lru_cache(maxsize=8)
def _compile(template: str) -> Any:
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def now(pattern: str) -> str:
        return datetime.now().strftime(pattern)

    def to_json(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    # The result is a prompt, not HTML: escaping would change what the model sees.
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, autoescape=False, extensions=["jinja2.ext.loopcontrols"]
    )
    env.globals["raise_exception"] = refuse
    env.globals["strftime_now"] = now
    env.filters["tojson"] = to_json
    return env.from_string(template)
