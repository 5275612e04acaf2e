"""Parts of the page: what runs, or one profile, put into its head, its navigation, its sections and its words on methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kleval.text import plural

_NEXT = "<!-- next part -->"  # no text can hold it: all are escaped


@dataclass(frozen=True, slots=True)
class Part:
    """Markup of one part, and its figures by their element's id. names: what it is about; sources: directories it was made from."""

    names: tuple[str, ...]
    sources: tuple[str, ...]
    figures: Mapping[str, Any]
    scores: bool
    lead_in: str
    head: str
    nav_lead: str
    lead: str
    nav_tail: str
    tail: str
    methods: str

    @staticmethod
    def rendered(
        template: str,
        figures: Mapping[str, Any],
        names: tuple[str, ...],
        sources: tuple[str, ...],
        scores: bool = False,
        lead_in: str = "",
        **values: Any,
    ) -> Part:
        """The template with the values in it, all text escaped."""
        from markupsafe import Markup

        pieces = environment().get_template(template).render(**values).split(_NEXT)
        return Part(names, sources, figures, scores, lead_in, *(Markup(piece) for piece in pieces))


def environment() -> Any:
    """The templates beside this file, with autoescape."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    env = Environment(
        loader=PackageLoader("kleval.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.globals.update(plural=plural)
    return env
