"""kleval: how well a language model uses a long context, and what that context costs."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "evaluate", "load", "load_backend", "profile"]


def __getattr__(name: str) -> Any:
    """`kleval.evaluate`, `kleval.profile`, `kleval.load` and `kleval.load_backend`, imported when asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'kleval' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("kleval.tables.frame" if name == "load" else "kleval.api"), name)
