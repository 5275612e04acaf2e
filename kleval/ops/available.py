"""Choice between device kernels and torch forms, with the reason where a kernel is not used.

Every operator has a torch form that runs anywhere; a device kernel takes its place where three things hold: the tensors are on a
CUDA device, the packages it needs are there, and it has not been disabled. `check.check_kernels` disables what it finds wrong.
Kernels written here in Triton also count as usable on a CPU under Triton's interpreter (TRITON_INTERPRET=1): their tests.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import os
import re
import warnings

import torch

from kleval.packages import install_line

FLA_MINIMUM = (0, 6, 0)
# Name -> what computes it. Those of fla need fla-core, the others Triton or torch alone.
FLA_KERNELS = ("kda", "gdn")
TRITON_KERNELS = ("step", "mla_decode", "experts_decode", "router")
TORCH_KERNELS = ("experts",)
KERNELS = (*FLA_KERNELS, *TRITON_KERNELS, *TORCH_KERNELS)

_disabled: dict[str, str] = {}


def usable(kernel: str, device: torch.device | str) -> bool:
    """Whether operators call this kernel for tensors on that device. ValueError for a name that is none of KERNELS."""
    return why_not(kernel, device) is None


def why_not(kernel: str, device: torch.device | str) -> str | None:
    """One line, or None for a kernel that is used."""
    if kernel not in KERNELS:
        raise ValueError(f"unknown kernel {kernel!r}: one of {', '.join(KERNELS)}")
    if kernel in _disabled:
        return _disabled[kernel]
    cuda = torch.device(device).type == "cuda"
    if kernel in TRITON_KERNELS:
        return _triton_missing() if cuda or interpreted() else "needs a CUDA device"
    if not cuda:
        return "needs a CUDA device"
    return _fla_missing() if kernel in FLA_KERNELS else _grouped_mm_missing()


def disable(kernel: str, reason: str) -> None:
    """From now on the torch form is used instead."""
    if kernel not in KERNELS:
        raise ValueError(f"unknown kernel {kernel!r}: one of {', '.join(KERNELS)}")
    _disabled[kernel] = reason


def enable(kernel: str) -> None:
    """Undo `disable`."""
    _disabled.pop(kernel, None)


def interpreted() -> bool:
    """Whether Triton kernels run in its interpreter; must have been set before triton was imported."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def kernels_in_use(device: torch.device | str) -> dict[str, str]:
    """Operator -> the library and version that computes it there: for descriptions and rows."""
    versions = {name: f"fla-core {fla_version()}" for name in FLA_KERNELS}
    versions |= dict.fromkeys(TRITON_KERNELS, f"triton {_version('triton')}")
    versions |= {"experts": f"grouped_mm, torch {torch.__version__}"}
    return {name: versions[name] if usable(name, device) else "torch" for name in KERNELS}


def fla_version() -> str | None:
    return _version("fla-core")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _fla_missing() -> str | None:
    version = fla_version()
    reason = None
    if version is None:
        reason = f"fla-core is not installed: {install_line('gpu')}"
    elif _numbers(version) < FLA_MINIMUM:
        minimum = ".".join(map(str, FLA_MINIMUM))
        reason = f"fla-core {version} overflows 32-bit offsets in long sequences: install fla-core>={minimum}"
    elif _triton_missing():
        reason = _triton_missing()
    else:
        try:
            importlib.import_module("fla.ops.kda")
            importlib.import_module("fla.ops.gated_delta_rule")
        except Exception as error:  # whatever it raises on import, the torch form still works
            reason = f"fla-core {version} cannot be imported: {_first_line(error)}"
    if reason:
        warnings.warn(f"KDA and GDN run as plain torch on this device: {reason}", stacklevel=2)
    return reason


@functools.cache
def _triton_missing() -> str | None:
    try:
        importlib.import_module("triton.language")
    except Exception as error:
        return f"triton cannot be imported ({_first_line(error)}): {install_line('gpu')}"
    return None


@functools.cache
def _grouped_mm_missing() -> str | None:
    if not (hasattr(torch.nn.functional, "grouped_mm") or hasattr(torch, "_grouped_mm")):
        return f"torch {torch.__version__} has no grouped_mm"
    if torch.cuda.is_available() and torch.cuda.get_device_capability() < (9, 0):
        return "grouped_mm without waiting for the host needs compute capability 9.0"
    return None


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers: '0.6.0rc1' -> (0, 6, 0)."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
