"""Models to be measured: random weights for all, and only what differs between them held twice.

A profile compares architectures of one shape: embeddings, norms and experts have the same names and shapes in all of them, and a
timing does not depend on their values. So every model after the first takes what fits from those before it and draws the rest:
four models of 48 B parameters need little more memory than one, and can be measured in turn within one run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from kleval.text import size
from kleval.types import UsageError

if TYPE_CHECKING:
    import torch

    from kleval.models.config import ModelConfig
    from kleval.models.decoder import Decoder

FLOAT32 = ("A_log", "dt_bias", "e_score_correction_bias")
WEIGHTS = "random; tensors of equal name and shape are shared between the models of a run"
Shape = tuple[str, tuple[int, ...]]


def shapes(config: ModelConfig) -> list[Shape]:
    """Names and shapes of all parameters, without allocating any."""
    import torch

    from kleval.models.decoder import Decoder

    with torch.device("meta"):
        return [(name, tuple(p.shape)) for name, p in Decoder(config).named_parameters()]


def shared_weight_bytes(configs: Mapping[str, ModelConfig], dtype: str) -> int:
    """Bytes of the weights of all models, what they share counted once."""
    import math

    width = 4 if dtype == "float32" else 2
    distinct = {shape for config in configs.values() for shape in shapes(config)}
    return sum(math.prod(dims) * (4 if name.endswith(FLOAT32) else width) for name, dims in distinct)


def check_memory(
    configs: Mapping[str, ModelConfig], dtype: str, longest: int, budget: int | None, free: int, where: str
) -> None:
    """UsageError when weights, one sequence of the longest prompt and what is decoded after it, or the budget for states cannot fit."""
    weights = shared_weight_bytes(configs, dtype)
    names = ", ".join(configs)
    if weights > free:
        raise UsageError(
            f"{names} in {dtype} need {size(weights)} of weights, {where} has {size(free)} free: choose a smaller size, fewer "
            "models or a smaller --dtype (kleval profile memory answers without building them)"
        )
    name, state = max(
        ((n, c.state_bytes(longest, 1, dtype).total) for n, c in configs.items()), key=lambda pair: pair[1]
    )
    if weights + state > free:
        raise UsageError(
            f"one sequence of {longest} tokens needs {size(state)} of state in {name}, besides {size(weights)} of weights; "
            f"{where} has {size(free)} free: choose a shorter --ctx or fewer --decode-tokens"
        )
    if budget is not None and weights + budget > free:
        raise UsageError(
            f"--memory-budget {size(budget)} and {size(weights)} of weights are more than the {size(free)} free on {where}: "
            f"choose at most {size(free - weights)}"
        )


def build(
    configs: Mapping[str, ModelConfig], device: torch.device, dtype: torch.dtype, seed: int
) -> dict[str, Decoder]:
    """Decoders by name, in eval mode."""
    import torch

    from kleval.models.decoder import Decoder
    from kleval.models.random import random_decoder

    pool: dict[Shape, torch.Tensor] = {}
    models: dict[str, Decoder] = {}
    for name, config in configs.items():
        wanted = shapes(config)
        missing = [shape for shape in wanted if shape not in pool]
        if all(".self_attn." in shape[0] for shape in missing):
            # Mixers only: those of a model without anything else around them.
            thin = replace(config, vocab_size=1, num_experts=0, intermediate_size=1) if missing else None
            source = dict(random_decoder(thin, device, dtype, seed).named_parameters()) if thin else {}
            with torch.device("meta"):
                decoder = Decoder(config)
            tensors = {key: pool[key, dims] if (key, dims) in pool else source[key].data for key, dims in wanted}
            decoder.load_state_dict(tensors, assign=True)
            decoder = decoder.eval().requires_grad_(False)
        else:
            decoder = random_decoder(config, device, dtype, seed)
        pool |= {(key, tuple(p.shape)): p.data for key, p in decoder.named_parameters()}
        models[name] = decoder
    return models
