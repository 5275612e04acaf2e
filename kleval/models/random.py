"""Random weights at any size, drawn where they are needed: parameters are made on the device and filled in place, in their dtype.

What such a model costs is what a trained one costs, provided that its numbers stay finite and its router spreads tokens over the
experts as a trained router does, which balances its load through the correction bias. Here the balance is in the weights, and the
bias is 0:

- A router's rows are orthonormal (unit norm where there are more experts than channels), so no expert differs from another in how
  long its row is or in what it shares with others. Inputs are RMS-normalised: logits have variance 1, scores are sigmoid(N(0, 1)).
- Exchangeable rows give equal shares as long as inputs point everywhere alike, so the residual stream is kept mostly the tokens'
  own: embeddings enter with variance 1, every layer adds 1 / (2 layers) of its output's variance.
- What would push all tokens the same way is removed. SiLU gives the values of KDA and GDN a positive mean, the same for all tokens,
  which the state accumulates and the norm behind it amplifies: convolution taps have norm 1, so that the mean is the same in every
  channel, and the rows of o_proj sum to 0 over each head, which takes it out. SwiGLU and MLA's values have mean 0 as they are.

The rest is normal with variance 1 / inputs; decay rates as fla-core draws them (fla/layers/kda.py: A = U(1, 16), dt log-uniform in
1e-3 ... 1e-1). Each tensor has its own generator, seeded by `seed` and its name: the same seed gives the same weights on the same
device and dtype, and models that share tensors share their values. The measured spread over experts is in docs/models.md.
"""

from __future__ import annotations

import hashlib
import math
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from kleval.models.config import ModelConfig
from kleval.models.decoder import Decoder

FLOAT32 = ("A_log", "dt_bias", "e_score_correction_bias")


def random_decoder(
    config: ModelConfig, device: torch.device | str = "cpu", dtype: torch.dtype | None = None, seed: int = 0
) -> Decoder:
    """A decoder in eval mode, without gradients. dtype None: bfloat16 on CUDA, float32 elsewhere.

    Decay rates and the router's bias are float32 (float64 for float64) whatever dtype is.
    """
    device = torch.device(device)
    dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    wide = torch.promote_types(dtype, torch.float32)
    with torch.device("meta"):
        decoder = Decoder(config)

    def draw(name: str, parameter: Tensor) -> tuple[str, Tensor]:
        filled = torch.empty(parameter.shape, dtype=wide if name.endswith(FLOAT32) else dtype, device=device)
        _fill(filled, name, config, _generator(device, seed, name))
        return name, filled

    # On a CPU one thread draws one tensor. On a GPU, where a draw is a kernel launch, there is nothing to share.
    with ThreadPoolExecutor(torch.get_num_threads() if device.type == "cpu" else 1) as pool:
        tensors = dict(pool.map(draw, *zip(*decoder.named_parameters(), strict=True)))
    decoder.load_state_dict(tensors, assign=True)
    return decoder.eval().requires_grad_(False)


def _generator(device: torch.device, seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:6], "big"))


@torch.no_grad()
def _fill(parameter: Tensor, name: str, config: ModelConfig, generator: torch.Generator) -> None:
    parts = name.removesuffix(".weight").split(".")
    kind = parts[-1]
    if kind.endswith("norm"):
        parameter.fill_(1.0)
    elif kind == "e_score_correction_bias":
        parameter.zero_()
    elif kind == "A_log":
        parameter.uniform_(1, 16, generator=generator).log_()
    elif kind == "dt_bias":
        # The inverse of softplus, log(expm1(dt)).
        parameter.uniform_(math.log(1e-3), math.log(1e-1), generator=generator).exp_().expm1_().log_()
    elif kind == "embed_tokens":
        parameter.normal_(0.0, 1 / config.embedding_multiplier, generator=generator)
    elif kind.endswith("conv1d"):
        taps = _wide_normal(parameter, generator)
        parameter.copy_(taps / taps.norm(dim=-1, keepdim=True))
    elif kind == "gate":
        parameter.copy_(_router_rows(_wide_normal(parameter, generator)))
    elif kind in ("o_proj", "down_proj"):
        parameter.normal_(0.0, (2 * config.num_hidden_layers * parameter.shape[-1]) ** -0.5, generator=generator)
        if kind == "o_proj":
            mla = config.layer_mixers[int(parts[2])] == "mla"
            heads = parameter.unflatten(-1, (-1, config.v_head_dim if mla else config.kda_head_dim))
            heads -= heads.mean(-1, keepdim=True, dtype=torch.promote_types(parameter.dtype, torch.float32))
    else:
        parameter.normal_(0.0, parameter.shape[-1] ** -0.5, generator=generator)


def _wide_normal(parameter: Tensor, generator: torch.Generator) -> Tensor:
    wide = torch.promote_types(parameter.dtype, torch.float32)
    return torch.empty(parameter.shape, dtype=wide, device=parameter.device).normal_(generator=generator)


def _router_rows(rows: Tensor) -> Tensor:
    """[E, h] -> orthonormal rows; of unit norm alone where E > h."""
    experts, hidden = rows.shape
    if experts > hidden:
        return rows / rows.norm(dim=-1, keepdim=True)
    q: Tensor = torch.linalg.qr(rows.T)[0]
    return q.T
