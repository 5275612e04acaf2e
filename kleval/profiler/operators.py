"""The operators that `kleval profile kernels` times, each alone: operands, calls, what they should give, what they cost on paper.

`chunk` is a whole prompt of T tokens, `recurrent` one decoded token. Operands are drawn once and every operator sees the same q, k, v,
gates: those of general DPLR are KDA's written out (a = beta k, b = exp(g) k, beta v), so both compute the same function and no value
makes one of them slower. Before anything is timed, every operator is checked against its recurrent form in float64 on a short
input, DPLR with an a and b of its own.

FLOPs per head, 2 per multiply-add (arXiv 2510.26692, Eq. 13 and 14, chunks of C = 64 whatever chunk the implementation uses):
    KDA, GDN  6 T d^2 + 3 T C d + T C^2       softmax  2 T^2 d       one recurrent step  6 d^2
    DPLR      8 T d^2 + 7 T C d + T C^2       counted the same way here; the paper gives no formula, only what KDA saves
Bytes: every operand read and every output written once, the state read and written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kleval.ops import dplr, gdn, kda
from kleval.ops.available import fla_version, usable
from kleval.ops.check import TOLERANCES
from kleval.ops.delta_rule import DEFAULT_CHUNK_TOKENS, chunk_delta_rule
from kleval.ops.native.loading import native

Protocol = Literal["chunk", "recurrent"]
OPERATORS: Mapping[Protocol, tuple[str, ...]] = {
    "chunk": ("kda", "gdn", "dplr", "softmax"),
    "recurrent": ("kda", "gdn"),
}
STEPS: Mapping[str, Callable[..., Any]] = {"kda": kda.step_kda, "gdn": gdn.step_gdn}
PAPER_CHUNK_TOKENS = 64
CHECK_TOKENS = 150  # not a multiple of any chunk
CALL_TOKENS = (
    4096  # of one call of the torch forms; longer prompts carry the state, as prefill does, so that memory is bounded
)
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_WIDE = 4  # gates and states are float32 whatever the activations are


@dataclass(frozen=True, slots=True)
class Operands:
    """q, k [1, T, H, D] normalised, v, a, b like them; g [1, T, H, D] and beta [1, T, H] float32."""

    q: Tensor
    k: Tensor
    v: Tensor
    g: Tensor
    beta: Tensor

    @property
    def kda(self) -> tuple[Tensor, ...]:
        return self.q, self.k, self.v, self.g, self.beta

    @property
    def dplr(self) -> tuple[Tensor, ...]:
        """KDA's operands as general DPLR takes them: q, k, v, a, b, g."""
        strength = self.beta.unsqueeze(-1).to(self.v.dtype)
        return self.q, self.k, strength * self.v, strength * self.k, self.g.exp().to(self.v.dtype) * self.k, self.g

    @property
    def gdn(self) -> tuple[Tensor, ...]:
        """One decay per head: that of its first channel."""
        return self.q, self.k, self.v, self.g[..., 0].contiguous(), self.beta


def draw(tokens: int, heads: int, dim: int, device: torch.device, dtype: torch.dtype, seed: int) -> Operands:
    """Gates as a fresh KDA layer has them: rates in 1 ... 16 times steps in 0.001 ... 0.1."""
    generator = torch.Generator(device).manual_seed(seed)

    def normal() -> Tensor:
        return torch.randn(1, tokens, heads, dim, generator=generator, device=device)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=device)

    q, k = (F.normalize(normal(), dim=-1).to(dtype) for _ in range(2))
    rate = 1 + 15 * uniform(heads, 1)
    g = -rate * 10 ** (-3 + 2 * uniform(1, tokens, heads, dim))
    return Operands(q, k, normal().to(dtype), g, uniform(1, tokens, heads))


def prompt_call(name: str, operands: Operands) -> Callable[[], Tensor]:
    """One forward of the whole prompt; returns the outputs of the last piece."""
    if name == "softmax":
        q, k, v = (x.transpose(1, 2) for x in (operands.q, operands.k, operands.v))
        return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True)
    kernel, tensors = _linear(name, operands)
    tokens = operands.q.shape[1]
    piece = call_tokens(operands.q.device, tokens)

    def work() -> Tensor:
        state: Tensor | None = None
        for begin in range(0, tokens, piece):
            o, state = kernel(*[x[:, begin : begin + piece] for x in tensors], initial_state=state)
        return o

    return work


def step_call(name: str, operands: Operands, state: Tensor) -> Callable[[], Tensor]:
    """One decoded token; state [1, H, D, D] is updated in place."""
    _, tensors = _linear(name, operands)
    first = tuple(x[:, :1].contiguous() for x in tensors)
    return lambda: STEPS[name](*first, state)[0]


def call_tokens(device: torch.device, tokens: int) -> int:
    """How many tokens go into one call; on CUDA the operators cut long prompts themselves."""
    return tokens if device.type == "cuda" else min(tokens, CALL_TOKENS)


def _linear(name: str, operands: Operands) -> tuple[Callable[..., Any], tuple[Tensor, ...]]:
    kernels: dict[str, Callable[..., Any]] = {"kda": kda.chunk_kda, "gdn": gdn.chunk_gdn, "dplr": dplr.chunk_dplr}
    if (
        operands.q.device.type == "cpu"
    ):  # DPLR has no C++ form: all of them in torch's, so that their times can be compared
        kernels |= {"kda": chunk_delta_rule, "gdn": _torch_gdn}
    return kernels[name], getattr(operands, name)


def _torch_gdn(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, initial_state: Tensor | None = None) -> Any:
    return chunk_delta_rule(q, k, v, g.unsqueeze(-1), beta, initial_state)


@torch.no_grad()
def check(
    name: str, protocol: Protocol, heads: int, dim: int, device: torch.device, dtype: torch.dtype, seed: int
) -> str | None:
    """None, or one line saying by how much the operator is wrong, or what it raised, on a short input of this shape."""
    try:
        out, expected = _pair(name, protocol, draw(CHECK_TOKENS, heads, dim, device, dtype, seed), seed)
        error = float((out.double() - expected).norm() / expected.norm())
    except Exception as error_raised:
        text = " ".join(str(error_raised).split())[:300]
        return f"the check on {CHECK_TOKENS} tokens raised {type(error_raised).__name__}: {text}"
    tolerance = TOLERANCES[torch.float32 if dtype == torch.float32 else torch.bfloat16]
    if error <= tolerance:
        return None
    return f"off by {error:.1e} from the recurrent form in float64 on {CHECK_TOKENS} tokens, tolerance {tolerance:.0e}"


def _pair(name: str, protocol: Protocol, operands: Operands, seed: int) -> tuple[Tensor, Tensor]:
    """What the operator gives, and what it should give in float64."""
    if name == "softmax":
        q, k, v = (x.transpose(1, 2).double() for x in (operands.q, operands.k, operands.v))
        scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        return prompt_call(name, operands)(), scores.masked_fill(future, -torch.inf).softmax(-1) @ v
    if name == "dplr":
        heads, dim = operands.q.shape[2:]
        free = draw(CHECK_TOKENS, heads, dim, operands.q.device, operands.q.dtype, seed + 1)
        given = (operands.q, operands.k, operands.v, free.q, free.k, operands.g)
        return dplr.chunk_dplr(*given)[0], dplr.recurrent_dplr(*(x.double() for x in given))[0]
    kernel, tensors = _linear(name, operands)
    reference: Callable[..., Any] = gdn.recurrent_gdn if name == "gdn" else kda.recurrent_kda
    expected, _ = reference(*[x.double() for x in tensors])
    if protocol == "chunk":
        return kernel(*tensors)[0], expected
    _, state = reference(*[x[:, :-1].double() for x in tensors])
    return STEPS[name](*[x[:, -1:].contiguous() for x in tensors], state.float())[0], expected[:, -1:]


def flops(name: str, protocol: Protocol, tokens: int, heads: int, dim: int) -> int:
    """Of one call; see the module's docstring."""
    if protocol == "recurrent":
        return heads * 6 * dim * dim
    if name == "softmax":
        return heads * 2 * tokens * tokens * dim
    chunk = PAPER_CHUNK_TOKENS
    states, inside = (8, 7) if name == "dplr" else (6, 3)
    return heads * tokens * (states * dim * dim + inside * chunk * dim + chunk * chunk)


def nbytes(name: str, protocol: Protocol, tokens: int, heads: int, dim: int, dtype: str) -> int:
    """Operands, outputs and states of one call."""
    narrow = {"dplr": 6}.get(name, 4) * dim * DTYPE_BYTES[dtype]
    gates = {"kda": dim + 1, "gdn": 2, "dplr": dim, "softmax": 0}[name] * _WIDE
    states = 0 if name == "softmax" else 2 * dim * dim * _WIDE
    return heads * ((1 if protocol == "recurrent" else tokens) * (narrow + gates) + states)


def operand_bytes(tokens: int, heads: int, dim: int, dtype: str) -> int:
    """Of what `draw` and DPLR's own operands hold while a length is measured, outputs included."""
    return heads * tokens * dim * (8 * DTYPE_BYTES[dtype] + 2 * _WIDE)


def implementation(name: str, protocol: Protocol, device: torch.device, dtype: torch.dtype) -> dict[str, object]:
    """Which code runs and in what chunks, for the point's settings."""
    half = dtype in (torch.bfloat16, torch.float16)
    if name == "softmax":
        return {"implementation": f"torch {torch.__version__} scaled_dot_product_attention"}
    if protocol == "recurrent":
        library = native() if device.type == "cpu" and dtype != torch.float64 else None
        return {"implementation": "triton" if usable("step", device) else str(library or "torch")}
    by_fla = dplr.by_fla(device, dtype) if name == "dplr" else half and usable(name, device)
    if not by_fla:
        return {"implementation": "torch", "chunk_tokens": DEFAULT_CHUNK_TOKENS}
    return {
        "implementation": f"fla-core {fla_version()}",
        "chunk_tokens": dplr.FLA_CHUNK_TOKENS if name == "dplr" else PAPER_CHUNK_TOKENS,
    }
