"""A transformers model as an engine of `serving`.

Rows of a batch have different lengths only where the model was found to bear padding, and then no more of it than one chunk holds;
below a shared part they have the same length. A shared part is run by itself, and its cache copied for what goes on from it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kleval.backends.batching import free_bytes
from kleval.backends.hf_model import HFModel, Rows
from kleval.backends.hf_state import state_bytes
from kleval.backends.native_parts import Part
from kleval.models.stepper import Steps

_WORKING_FLOATS = 64  # per token of a chunk and channel of the widest layer: an estimate of the activations
# Of a chunk's scores in one layer, for a row: attention without a fused kernel (gpt-oss, Gemma 2) holds them all, three times over.
_EAGER_BYTES = 1 << 30
_LEAST_CHUNK = 16
_LOGITS = 128  # positions whose logits are made double at a time


@dataclass(frozen=True, slots=True)
class HFEngine:
    """kleval.backends.serving.Engine of an HFModel; a state is its Rows. chunk: tokens of a prefill. budget: bytes, None: of what
    is free."""

    adapter: HFModel
    chunk: int
    budget: int | None

    @property
    def device(self) -> torch.device:
        return self.adapter.device

    def forked(self, state: Rows | None, group: Sequence[tuple[int, Part]]) -> Rows:
        if state is None:
            return self.adapter.fresh(len(group))
        rows = state.copy()
        rows.select([row for row, _ in group])
        return rows

    def prefill(self, state: Rows, parts: Sequence[Part]) -> list[Tensor | None]:
        """Padded on the left."""
        width = max(part.tokens for part in parts)
        if not width:
            return [None] * len(parts)
        ids = torch.zeros(len(parts), width, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, part in enumerate(parts):
            ids[row, width - part.tokens :] = torch.tensor(part.jobs[0].inputs[part.begin : part.end])
            mask[row, width - part.tokens :] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        # Where on the padded line each row's first wanted position lies.
        wanted = [part.first - part.begin + width - part.tokens for part in parts]
        logits = torch.empty(0)
        chunk = self._chunk(max(part.end for part in parts))
        for at in range(0, width, chunk):
            end = min(at + chunk, width)
            begin = min(max(at, min(wanted)), end - 1)
            logits = self.adapter.forward(ids[:, at:end], mask[:, at:end], state, end - begin)
            for row, part in enumerate(parts):
                offset = part.begin - (width - part.tokens)  # a position of the line plus this is one of the inputs
                for start in range(max(begin, wanted[row]), end, _LOGITS):
                    stop = min(start + _LOGITS, end)
                    part.score(logits[row, start - begin : stop - begin], start + offset)
        return list(logits[:, -1].clone())

    def stepper(self, state: Rows) -> Callable[[Tensor, int, Collection[int]], Steps]:
        def step(ids: Tensor, most: int, ends: Collection[int]) -> Steps:
            return Steps([], [], self.adapter.forward(ids[:, None], torch.ones_like(ids[:, None]), state, 1)[:, -1])

        return step

    def keep(self, state: Rows, rows: Sequence[int]) -> None:
        state.select(rows)

    def weigh(self, state: Rows) -> dict[str, int]:
        return state_bytes(state.cache)

    def alike(self, parts: Sequence[Part], fresh: bool) -> int:
        if parts[0].branches:
            return 1
        longest = parts[0].tokens
        slack = min(self._chunk(longest), longest) - 1 if self.adapter.padded and fresh else 0
        return next((i for i, part in enumerate(parts) if longest - part.tokens > slack), len(parts))

    def state_bytes(self, part: Part) -> int:
        return self.adapter.bytes_fixed + self.adapter.bytes_per_token * part.total_tokens

    def working_bytes(self, part: Part) -> int:
        config = self.adapter.model.config.get_text_config()
        inner = getattr(config, "intermediate_size", None) or 0
        inner = max(inner) if isinstance(inner, list | tuple) else inner  # of each layer (Gemma 3n)
        wide = max(int(config.hidden_size), int(inner) // 4)
        chunk = min(self._chunk(part.end), part.tokens or 1)
        logits = min(chunk, max(1, part.end - max(part.first, part.begin)))
        working = chunk * wide * _WORKING_FLOATS + chunk * 4 * min(part.total_tokens, 4096)
        working += 3 * self._scores_bytes(part.end) * chunk
        return working + (logits + 3) * self.adapter.vocab_size * 4

    def _chunk(self, tokens: int) -> int:
        """Tokens that are run at once up to a position: fewer where attention holds its scores."""
        scores = self._scores_bytes(tokens)
        if not scores or not self.adapter.chunked:
            return self.chunk
        return max(min(self.chunk, _EAGER_BYTES // scores), _LEAST_CHUNK)

    def _scores_bytes(self, tokens: int) -> int:
        """Of the scores that a layer holds of a token which attends to so many; 0 where a kernel holds none."""
        config = self.adapter.model.config
        if getattr(config, "_attn_implementation", None) != "eager":
            return 0
        heads = getattr(config.get_text_config(), "num_attention_heads", None) or 1
        return int(heads) * tokens * self.adapter.dtype.itemsize

    def left(self, live: int) -> int:
        return free_bytes(self.device) if self.budget is None else self.budget - live
