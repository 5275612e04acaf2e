"""Decoder shared by the four architectures: embeddings, blocks, final norm, head.

`hidden` runs tokens through the blocks, with or without a cache; with one, on a CPU, in C++ where that is there (`native_decoder`).
`logits` is apart, so that training computes it on answer positions only and prefill on the last one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kleval.models.attention import Step
from kleval.models.cache import HybridCache
from kleval.models.config import ModelConfig
from kleval.models.layers import Block
from kleval.models.modules import RMSNorm
from kleval.models.native_decoder import NativeSteps, NativeWeights, fits, native_hidden, pack
from kleval.models.packed_weights import Packed
from kleval.ops.native.loading import native


class _Embedding(nn.Embedding):
    """nn.Embedding that is not initialised on the meta device: there torch's normal_ imports torch._dynamo, which takes seconds."""

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()


class _Body(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = _Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Decoder(nn.Module):
    """A language model after `config`; parameters as `torch` creates them until `init_weights` or a checkpoint fills them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = _Body(config)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self._native: Packed[NativeWeights | None] | None = None

    def hidden(self, ids: Tensor, cache: HybridCache | None = None, lengths: Tensor | None = None) -> Tensor:
        """ids [B, T] -> [B, T, hidden] after the final norm.

        cache: rows go on where they stopped, and are advanced by lengths [B], the number of real tokens of each row in this
        chunk (default all T); the rest of a row is padding on the right, whose outputs mean nothing. Without a cache rows start
        at position 0 and autograd works; with one, no gradient is kept.
        """
        batch, tokens = ids.shape
        if cache is not None and tokens and ids.device.type == "cpu":
            weights = self._native_weights(cache)
            if weights is not None:
                counts = cache.begin(tokens if lengths is None else lengths)
                x = native_hidden(weights, ids, cache, counts)
                cache.advance(tokens if lengths is None else counts)
                return x
        if cache is not None and tokens == 1 and lengths is None and ids.device.type == "cpu":
            blocks = [block.steps() for block in self.model.layers if isinstance(block, Block)]
            if None not in blocks:
                return self._one_token_each(ids, cache, blocks)
        steps = torch.arange(tokens, device=ids.device)
        valid = None if lengths is None else steps < lengths[:, None]
        if cache is None:
            return self._blocks(ids, None, steps.expand(batch, -1), valid, lengths)
        if tokens == 0:
            return self.model.embed_tokens(ids)
        with torch.no_grad():
            counts = cache.begin(tokens if lengths is None else lengths)
            x = self._blocks(ids, cache, cache.lengths[:, None] + steps, valid, lengths)
            cache.advance(tokens if lengths is None else counts)
        return x

    def native_steps(self, cache: HybridCache) -> NativeSteps | None:
        """Decode steps of the cache in C++; None where the torch form is to be taken."""
        weights = self._native_weights(cache)
        return None if weights is None else NativeSteps(weights, cache)

    def _native_weights(self, cache: HybridCache) -> NativeWeights | None:
        """The weights as the C++ library reads them, up to date; None where the torch form is to be taken."""
        if native() is None or cache.dtype != torch.float32 or cache.lengths.device.type != "cpu":
            return None
        if self._native is None:
            names = [name for name, _ in self.named_parameters()]
            self._native = Packed(
                self, names, lambda: pack(self.model, self.head, self.config) if fits(self, self.config) else None
            )
        return self._native.get()

    @property
    def head(self) -> Tensor:
        """[V, hidden]: the weights that make logits of hidden states."""
        return (self.model.embed_tokens if self.config.tie_word_embeddings else self.lm_head).weight

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., hidden] -> [..., V], float32 (float64 for float64)."""
        logits = F.linear(hidden, self.head)
        return logits if logits.dtype == torch.float64 else logits.float()

    @torch.no_grad()
    def _one_token_each(self, ids: Tensor, cache: HybridCache, blocks: Sequence[tuple[Step, Step] | None]) -> Tensor:
        """`hidden` of one token per row on a CPU, ids [B, 1]."""
        cache.begin(1)
        x = self.model.embed_tokens(ids[:, 0])
        if self.config.embedding_multiplier != 1.0:
            x = x * self.config.embedding_multiplier
        positions = cache.lengths[:, None]
        for block, state in zip(blocks, cache.layers, strict=True):
            assert block is not None
            mixer, mlp = block
            x = mlp(mixer(x, state, positions), state, positions)
        cache.advance(1)
        return self.model.norm(x).unsqueeze(1)

    def _blocks(
        self, ids: Tensor, cache: HybridCache | None, positions: Tensor, valid: Tensor | None, lengths: Tensor | None
    ) -> Tensor:
        x = self.model.embed_tokens(ids) * self.config.embedding_multiplier
        for i, block in enumerate(self.model.layers):
            x = block(x, None if cache is None else cache.layers[i], positions, valid, lengths)
        return self.model.norm(x)

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Random weights, the same for the same seed.

        Normal with variance 1 / inputs; projections back into the residual stream smaller by sqrt(2 layers); decay rates as
        fla-core draws them (A_log = log U(1, 16), dt log-uniform in 1e-3 ... 1e-1).
        """
        generator = torch.Generator().manual_seed(seed)

        def normal(parameter: Tensor, deviation: float) -> None:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * deviation)

        residual = (2 * self.config.num_hidden_layers) ** -0.5
        for name, parameter in self.named_parameters():
            kind = name.split(".")[-1] if name.endswith(("A_log", "dt_bias", "bias")) else name.split(".")[-2]
            if kind.endswith("norm"):
                parameter.fill_(1.0)
            elif kind == "e_score_correction_bias":
                parameter.zero_()
            elif kind == "A_log":
                parameter.copy_(torch.empty(parameter.shape).uniform_(1, 16, generator=generator).log())
            elif kind == "dt_bias":
                span = torch.empty(parameter.shape).uniform_(math.log(1e-3), math.log(1e-1), generator=generator)
                parameter.copy_(span.exp().expm1().log())  # inverse softplus
            elif kind == "embed_tokens":
                normal(parameter, self.config.hidden_size**-0.5)
            elif kind in ("o_proj", "down_proj") or name.endswith("experts.down_proj"):
                normal(parameter, residual * parameter.shape[-1] ** -0.5)
            else:
                normal(parameter, parameter.shape[-1] ** -0.5)
