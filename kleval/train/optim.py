"""Muon for matrices, AdamW for everything else, as one optimiser state that can be saved and restored.

Muon (Jordan et al. 2024): momentum, then the update is orthogonalised by five Newton-Schulz steps, so that every direction
of a weight matrix moves equally fast. Matrices of one shape are stacked and orthogonalised together: at nano size the cost
is the number of calls, not the arithmetic. Embeddings, vectors, convolution taps and gates' scalars take AdamW.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

_NS_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalise(update: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly (singular values in about [0.7, 1.2]). update: [N, rows, cols]."""
    a, b, c = _NS_COEFFICIENTS
    x = update.float()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon takes it: projections of the blocks; not embeddings, heads, taps, norms or decay rates."""
    return parameter.ndim == 2 and "embed_tokens" not in name and "lm_head" not in name


class MuonAdamW:
    """learning_rate(fraction) scales both groups; betas (0.9, 0.95), no weight decay, momentum 0.95 (Nesterov)."""

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], muon_lr: float, adam_lr: float) -> None:
        self.muon_lr, self.adam_lr = muon_lr, adam_lr
        self.matrices: dict[tuple[int, ...], list[tuple[str, nn.Parameter]]] = defaultdict(list)
        self.vectors: list[tuple[str, nn.Parameter]] = []
        for name, parameter in named:
            if is_matrix(name, parameter):
                self.matrices[tuple(parameter.shape)].append((name, parameter))
            else:
                self.vectors.append((name, parameter))
        self.momentum = {n: torch.zeros_like(p) for group in self.matrices.values() for n, p in group}
        self.first = {n: torch.zeros_like(p) for n, p in self.vectors}
        self.second = {n: torch.zeros_like(p) for n, p in self.vectors}
        self.steps = 0

    @torch.no_grad()
    def step(self, scale: float) -> None:
        """One update from the gradients present; scale multiplies both learning rates."""
        self.steps += 1
        for (rows, cols), group in self.matrices.items():
            grads = torch.stack([p.grad if p.grad is not None else torch.zeros_like(p) for _, p in group])
            buffers = torch.stack([self.momentum[n] for n, _ in group])
            buffers.lerp_(grads, 0.05)
            updates = orthogonalise(grads.lerp(buffers, 0.95))
            lr = self.muon_lr * scale * math.sqrt(max(1.0, rows / cols))
            for i, (name, parameter) in enumerate(group):
                self.momentum[name].copy_(buffers[i])
                parameter.add_(updates[i], alpha=-lr)
        correction1 = 1 - 0.9**self.steps
        correction2 = 1 - 0.95**self.steps
        for name, parameter in self.vectors:
            if parameter.grad is None:
                continue
            m = self.first[name].lerp_(parameter.grad, 0.1)
            v = self.second[name].lerp_(parameter.grad.square(), 0.05)
            denominator = (v / correction2).sqrt_().add_(1e-8)
            parameter.addcdiv_(m, denominator, value=-self.adam_lr * scale / correction1)

    def zero_grad(self) -> None:
        for group in self.matrices.values():
            for _, parameter in group:
                parameter.grad = None
        for _, parameter in self.vectors:
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Everything a resumed run needs, as tensors for one safetensors file."""
        state = {f"momentum.{n}": t for n, t in self.momentum.items()}
        state |= {f"first.{n}": t for n, t in self.first.items()}
        state |= {f"second.{n}": t for n, t in self.second.items()}
        state["steps"] = torch.tensor([self.steps])
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        for prefix, target in (("momentum", self.momentum), ("first", self.first), ("second", self.second)):
            for name, tensor in target.items():
                tensor.copy_(state[f"{prefix}.{name}"])
        self.steps = int(state["steps"].item())
