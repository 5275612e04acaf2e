"""Device kernels against the plain recurrent forms in float64, before anything is believed or timed.

Inputs are random and new for every seed, rounded to the kernel's dtype first, so that only the kernel's own arithmetic is compared;
memory that the kernels will be given is filled with NaN before, so that an element nobody writes is seen. What is wrong or raises is
reported and disabled: from then on operators use the torch form (`available`).
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kleval.ops.available import KERNELS, disable, enable, kernels_in_use, why_not
from kleval.ops.check_cases import CHECKS, SMALL, TOLERANCES, Sizes

__all__ = ["SMALL", "TOLERANCES", "KernelCheck", "Sizes", "check_kernels", "check_once", "kernels_in_use"]

_FAILED = "failed its check"


@dataclass(frozen=True, slots=True)
class KernelCheck:
    """error: largest relative error of its outputs, NaN where nothing was computed. available: whether it could run here at all."""

    name: str
    passed: bool
    error: float
    detail: str
    available: bool = True


def check_kernels(
    device: torch.device | str, seed: int = 0, sizes: Sizes | None = None, names: Sequence[str] = KERNELS
) -> list[KernelCheck]:
    """One entry per name of `available.KERNELS`; those that fail are disabled. Mostly compilation and tuning on a GPU.

    sizes: default the published model's on a GPU, SMALL on a CPU, where only Triton's interpreter has anything to check.
    """
    place = torch.device(device)
    sizes = sizes or (Sizes() if place.type == "cuda" else SMALL)
    checks = [_check(name, place, sizes, seed) for name in names]
    if place.type == "cuda":
        torch.cuda.empty_cache()
    return checks


@functools.cache
def check_once(device: torch.device, sizes: Sizes, names: tuple[str, ...] = KERNELS) -> tuple[KernelCheck, ...]:
    """`check_kernels`, at most once per process for the same arguments; a warning for each kernel that failed."""
    checks = tuple(check_kernels(device, 0, sizes, names))
    for check in checks:
        if check.available and not check.passed:
            warnings.warn(f"kernel {check.name} is not used on {device}: {check.detail}", stacklevel=2)
    return checks


@torch.no_grad()
def _check(name: str, device: torch.device, sizes: Sizes, seed: int) -> KernelCheck:
    if (why_not(name, device) or "").startswith(_FAILED):
        enable(name)
    if reason := why_not(name, device):
        return KernelCheck(name, False, float("nan"), f"not used: {reason}", available=False)
    generator = torch.Generator(device).manual_seed(seed)
    worst, part = 0.0, ""
    try:
        for label, tolerance, pair in CHECKS[name](device, sizes, generator):
            error = _error(*pair)
            if not error <= tolerance:  # NaN too
                raise _WrongError(f"{label}: relative error {error:.1e}, tolerance {tolerance:.0e}", error)
            if error >= worst:
                worst, part = error, label
    except _WrongError as wrong:
        disable(name, f"{_FAILED}: {wrong}")
        return KernelCheck(name, False, wrong.error, str(wrong))
    except Exception as error:
        text = f"raised {type(error).__name__}: {(str(error) or 'no message').splitlines()[0]}"
        disable(name, f"{_FAILED}: {text}")
        return KernelCheck(name, False, float("nan"), text)
    return KernelCheck(name, True, worst, f"largest in {part}")


class _WrongError(Exception):
    def __init__(self, text: str, error: float) -> None:
        super().__init__(text)
        self.error = error


def _error(out: Tensor, reference: Tensor) -> float:
    difference = torch.linalg.vector_norm(out.double() - reference.double())
    return float(difference / torch.linalg.vector_norm(reference.double()).clamp_min(1e-300))
