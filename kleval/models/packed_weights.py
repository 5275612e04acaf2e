"""Packed weights, made once from the parameters for inference: concatenated projections, transposed taps, decay rates.

They are made again as soon as a parameter is another object, lies elsewhere or has been written to; from parameters that want a
gradient nothing is kept. (Writing through `.data` leaves no trace that could be seen here; writing under `torch.no_grad()` does.)
Memory: a second copy of the projections concerned, 2 % of all weights at 48b-a3b.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


class Packed(Generic[T]):
    """make(): what is packed. names: the parameters of `module` and of modules below it that it is made of."""

    __slots__ = ("_key", "_make", "_slots", "_value")

    def __init__(self, module: nn.Module, names: Sequence[str], make: Callable[[], T]) -> None:
        owners = [(module.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in names]
        self._slots = [(owner._parameters, name) for owner, name in owners]
        self._make = make
        self._key: list[int] | None = None
        self._value: T | None = None

    def get(self) -> T | None:
        """The value, up to date; None where a parameter wants a gradient."""
        parameters = [owned[name] for owned, name in self._slots]
        if parameters[0].requires_grad:  # type: ignore[union-attr]
            return None
        key = _state(parameters)  # type: ignore[arg-type]
        if key != self._key:
            if any(p.requires_grad for p in parameters):  # type: ignore[union-attr]
                return None
            with torch.no_grad():
                self._value, self._key = self._make(), key
        return self._value

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """A copied or pickled module packs its own again."""
        return type(None), ()


def _state(parameters: list[Tensor]) -> list[int]:
    """Changes whenever one of them is replaced, moved or written to; called at every decoded token."""
    state = [id(p) for p in parameters]
    state += [p.data_ptr() for p in parameters]
    try:
        state += [p._version for p in parameters]
    except RuntimeError:  # tensors made in inference mode count no versions
        state += [0 if p.is_inference() else p._version for p in parameters]
    return state
