"""Cards: what a task says of itself in words, out of `card.toml` in its family's folder.

The file's top level holds for all tasks, `tasks.NAME` for one or for a kind of them; in each, `builtin`, `official` and
`protocols.NAME` hold for an edition or a protocol, and `own` for the builtin one that reads the user's documents. What is more
particular takes the place of the rest; lists add up. `{name}` in a text is a value that the task gives, or another text of the card.

The table `family` is of the family as a whole: `tasks`, which name is which `module:attribute` of its folder (`module:attribute:NAME`
where the attribute takes a name first), in the order of lists; `mean`, whether it has one over them (yes); `documents`, those that the
user's may be the haystack of; `bins`, the lengths in which its data are published, which its metrics are named after; `lm_eval`,
whether lm-eval can ask it too. `needs`, among the texts, says what of it needs more than a model that answers: names of NEEDS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kleval.tasks import packaged
from kleval.tasks.data import MissingData

# What a task may need -> the attribute of the task that says so (`kleval.types.TaskOptions`).
NEEDS = {
    "judge": "needs_judge",
    "code execution": "needs_code_execution",
    "continued text": "needs_continued_text",
}


def needs_of(task: Any) -> list[str]:
    return [what for what, attribute in NEEDS.items() if getattr(task, attribute, False)]


class Card:
    """names: of the parts that hold for the task, the most particular last."""

    def __init__(
        self, family: str, names: Sequence[str], edition: str, protocol: str, values: Mapping[str, object] | None = None
    ) -> None:
        whole = packaged.load(f"{family}/card.toml")
        parts = [whole, *(whole.get("tasks", {}).get(name, {}) for name in dict.fromkeys(names))]
        editions = ("builtin", edition) if edition == "own" else (edition,)
        self._layers: list[Mapping[str, Any]] = [
            layer for part in parts for layer in (part, *(part.get(name, {}) for name in editions))
        ]
        self._layers += [part.get("protocols", {}).get(protocol, {}) for part in parts]
        self._values = values or {}

    def needs(self, what: str) -> bool:
        return what in self._last("needs", ())

    def _last(self, key: str, default: Any) -> Any:
        return next((layer[key] for layer in reversed(self._layers) if key in layer), default)

    def text(self, key: str, default: str = "") -> str:
        return str(self._last(key, default)).format_map(self)

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(text.format_map(self) for layer in self._layers for text in layer.get(key, ()))

    def table(self, key: str) -> dict[str, Any]:
        """The values of a table, those of the most particular part over the rest."""
        return {name: value for layer in self._layers for name, value in layer.get(key, {}).items()}

    def __getitem__(self, name: str) -> object:
        """What a text says for `{name}`."""
        if name in self._values:
            return self._values[name]
        if not any(name in layer for layer in self._layers):
            raise KeyError(name)
        return self.text(name)


def head(task: Any, source: str) -> dict[str, Any]:
    """How cards begin. source: of the form in which the task asks; the builtin edition has data of its own."""
    try:
        revision, digest = task.data_revision, task.data_digest
    except MissingData as error:
        revision, digest = f"not here: {error.how}", "none"
    return {
        "id": task.id,
        "version": task.version,
        "edition": task.edition,
        "protocol": task.protocol,
        "description": task.description,
        "source": source if task.edition == "official" else f"made by kleval in the shape of {source}",
        "revision": revision,
        "data_revision": revision,
        "data_digest": digest,
    }
