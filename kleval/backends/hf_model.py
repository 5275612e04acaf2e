"""A transformers causal LM as kleval needs it: chunks in, last logits and the cache out, tried out before it is trusted.

Models keep their state in different ways (keys and values, windows, convolution tails, recurrent states, or several of them), and
whether a cache can be carried from chunk to chunk, copied, or hold rows with padding depends on a model's own code. So a model is
tried with a few random tokens when it is opened, against one whole pass: what gives other logits is not used. Attention masks and
positions are always passed; padding is on the left and lies in the first chunk alone.

Short trials do not show what a model does with long texts alone: rotary frequencies that transformers picks by the length of a call
(LongRoPE of Phi-3 and Phi-4, dynamic NTK). Such a model is asked one text at a time, all of a prompt in one call, and where its
answer crosses the length at which LongRoPE changes them, the whole text is run anew, as transformers' `generate` does for Phi-3.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor

from kleval.backends.hf_rope import counts_padding, rope_by_length
from kleval.backends.hf_state import state_bytes

# What a forward takes and returns its state as: newer releases of transformers, older ones, Mamba in older ones.
_CACHES = ("cache", "past_key_values", "cache_params")
_TRIED_TOKENS = (48, 24, 24, 12, 12)  # of the texts that a model is tried with; rounding adds up over long ones
# Of the largest logit; a wrong mask or a lost state is off by far more, another order of the same sums by far less.
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6, torch.bfloat16: 0.08, torch.float16: 0.02}
# Differences against those that rounding is found to make: in half precision typical ones, plus some steps of the dtype (for padding
# one of bfloat16); else the largest, or this much where a few tokens show no rounding at all.
_ROUNDING_RATIO, _ROUNDING_FLOOR = 3.0, 0.004
_HALF_FLOOR = {torch.bfloat16: 0.025, torch.float16: 0.01}
_EXACT_FLOOR = {torch.float32: 1e-4, torch.float64: 1e-6}
_CUTS = (5 / 12, 1 / 5, 4 / 5)  # where a trial's text is cut in two
# What models raise where their caches or masks do not bear what is tried.
_MODELS_OWN = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError)


@dataclass(slots=True)
class Rows:
    """A batch under way. cache: the model's own; None before the first token. mask [B, T so far], 0 where a row is padded. ids: the
    tokens so far [B, T], where they may have to be run anew."""

    mask: Tensor
    cache: Any = None
    ids: Tensor | None = None

    @property
    def n(self) -> int:
        return len(self.mask)

    def copy(self) -> Rows:
        return Rows(self.mask.clone(), copy.deepcopy(self.cache), self.ids)

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; a row may be named more than once."""
        index = torch.tensor(rows, device=self.mask.device)
        self.mask = self.mask[index]
        self.ids = None if self.ids is None else self.ids[index]
        if self.cache is not None:
            self.cache.reorder_cache(index)


@dataclass(frozen=True, slots=True)
class _Trial:
    """Two random rows ids [2, T] and the last logits of each [1, V] by one whole pass; the second's without its first `padding`."""

    ids: Tensor
    padding: int
    whole: list[Tensor]
    without_padding: Tensor


@dataclass(slots=True)
class HFModel:
    """chunked: prompts may go in pieces. batched: rows may go together, and leave; padded: those of different length too.
    copied: caches may be forked. by_length: the kind of RoPE scaling whose frequencies depend on the length of a call, "" for none;
    changes_at: the length behind which LongRoPE has others.

    bytes_fixed, bytes_per_token: of one row's state, as found by trying.
    """

    model: Any
    device: torch.device
    vocab_size: int
    chunked: bool = False
    batched: bool = False
    padded: bool = False
    copied: bool = False
    by_length: str = ""
    changes_at: int = 0
    bytes_fixed: int = 0
    bytes_per_token: int = 0
    _takes: frozenset[str] = field(default_factory=frozenset)
    _cache: str = _CACHES[0]
    _rounding: float | None = None
    _trials: list[_Trial] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._takes = frozenset(inspect.signature(self.model.forward).parameters)

    @property
    def dtype(self) -> torch.dtype:
        return next(p.dtype for p in self.model.parameters() if p.is_floating_point())

    @torch.inference_mode()
    def forward(self, ids: Tensor, mask: Tensor, rows: Rows, keep: int) -> Tensor:
        """Feed ids [B, T], mask 0 where a token is padding. Returns the logits of the last `keep` positions [B, keep, V]."""
        if self.by_length:
            ids, mask = self._whole_where_needed(ids, mask, rows)
        rows.mask = torch.cat([rows.mask, mask], 1)
        given: dict[str, Any] = {"attention_mask": rows.mask, "use_cache": True}
        if rows.cache is not None:
            given[self._cache] = rows.cache
        if "position_ids" in self._takes:
            given["position_ids"] = (rows.mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        if "logits_to_keep" in self._takes:
            given["logits_to_keep"] = keep
        out = self.model(input_ids=ids, **given)
        rows.cache = _cache_in(out)
        return out.logits[:, -keep:]

    def _whole_where_needed(self, ids: Tensor, mask: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        """What is fed in place of ids: all tokens so far with them where LongRoPE's frequencies change here."""
        before = 0 if rows.ids is None else rows.ids.shape[1]
        rows.ids = ids if rows.ids is None else torch.cat([rows.ids, ids], 1)
        if before <= self.changes_at < rows.ids.shape[1] and before:
            ids, mask = rows.ids, torch.cat([rows.mask, mask], 1)
            rows.mask, rows.cache = rows.mask[:, :0], None
        if rows.cache is None and not self.changes_at:
            # Dynamic frequencies stay those of the longest text so far, also for others: a short one takes them back.
            one = ids[:, :1]
            self.model(input_ids=one, attention_mask=torch.ones_like(one), use_cache=False)
        return ids, mask

    def fresh(self, n: int) -> Rows:
        return Rows(torch.ones(n, 0, dtype=torch.int64, device=self.device))

    def find_out(self, longest: int | None = None) -> str:
        """Set chunked, batched, padded, copied and the state's size. Returns what is wrong when the model has no cache that goes on.
        longest: the most tokens that it is asked with, None where that is not known."""
        config = getattr(self.model, "config", None)
        kind, steady = rope_by_length(config)
        if kind and (longest is None or longest > steady):
            self.by_length, self.changes_at = kind, 0 if "dynamic" in kind else steady
        try:
            first = self._trial(0)
        except _MODELS_OWN as error:
            return f"it raises {type(error).__name__} when it is given token ids"
        if not all(bool(logits.isfinite().all()) for logits in first.whole):
            return f"its logits are not finite in {str(self.dtype).removeprefix('torch.')}"
        if self._state(first.ids[:1]).cache is None:
            return f"it returns no {' or '.join(_CACHES)}"
        if not any(self._goes_on_as(name) for name in self._names()):
            return "a step from its cache gives other logits than the whole text"
        self._measure(first.ids)
        if self.by_length:
            self._trials.clear()
            return ""
        cuts = _CUTS if self.dtype in _EXACT_FLOOR else _CUTS[:1]
        self.chunked = self._holds(
            lambda t: (torch.cat([self._in_chunks(t.ids[:1], 0, at) for at in cuts]), t.whole[:1] * len(cuts))
        )
        self.batched = self._holds(lambda t: (self._leaving(t.ids), t.whole[1:]))
        bears = self.batched and not counts_padding(config)  # short trials do not show it either
        self.padded = bears and self._holds(
            lambda t: (self._in_chunks(t.ids, t.padding), [t.whole[0], t.without_padding]), strict=True
        )
        self.copied = (
            self.batched and self.chunked and self._holds(lambda t: (self._forked(t.ids[:1]), t.whole[:1] * 3))
        )
        self._trials.clear()
        return ""

    def _names(self) -> Sequence[str]:
        """What the cache may be handed over as: as the forward names it; all that are known where it names none of them."""
        return [name for name in _CACHES if name in self._takes][:1] or _CACHES

    def _goes_on_as(self, name: str) -> bool:
        """Whether a step from the cache is that of the whole text when the cache is handed over by this name."""
        self._cache = name
        return self._holds(lambda t: (self._continued(t.ids), t.whole[:1]))

    def _trial(self, at: int) -> _Trial:
        """Made when first asked for."""
        for n in _TRIED_TOKENS[len(self._trials) : at + 1]:
            generator = torch.Generator().manual_seed(len(self._trials))
            ids = torch.randint(self.vocab_size, (2, n), generator=generator).to(self.device)
            padding = n // 6
            whole = [self._whole(ids[i : i + 1]) for i in range(2)]
            self._trials.append(_Trial(ids, padding, whole, self._whole(ids[1:, padding:])))
        return self._trials[at]

    def _holds(self, compare: Callable[[_Trial], tuple[Tensor, Sequence[Tensor]]], strict: bool = False) -> bool:
        """Whether what is found is what was expected.

        The first comparison, a step against the whole text, is taken for what rounding gives. In single and double precision no
        text may differ by much more: a chunk that a model computes otherwise (MiniMax) can be a thousandth off and no rounding.
        In half precision rounding alone may tip a router or feed through a recurrence, in some texts and not in others, while
        what is wrong shows in all of them: there the typical difference counts, against that of rounding. strict: with hardly any
        room besides. Padding that a model masks in part (Mamba) gives little differences, and doing without padding costs little.
        """
        floor = _EXACT_FLOOR.get(self.dtype)
        apart: list[float] = []
        for at in range(len(_TRIED_TOKENS)):
            try:
                found, expected = compare(self._trial(at))
            except _MODELS_OWN:
                return False
            apart.append(max(_apart(row[None], want) for row, want in zip(found, expected, strict=True)))
        most = _TOLERANCE.get(self.dtype, 0.05)
        if not (min(apart) if floor is None else max(apart)) <= most:
            return False
        if self._rounding is None:
            self._rounding = median(apart) if floor is None else max(apart)
        if floor is not None:
            return max(apart) <= max(_ROUNDING_RATIO * self._rounding, floor)
        room = _ROUNDING_FLOOR if strict else _HALF_FLOOR.get(self.dtype, 0.025)
        return median(apart) <= _ROUNDING_RATIO * self._rounding + room

    def _whole(self, ids: Tensor) -> Tensor:
        return self.forward(ids, torch.ones_like(ids), self.fresh(len(ids)), 1)

    def _state(self, ids: Tensor) -> Rows:
        rows = self.fresh(len(ids))
        self.forward(ids, torch.ones_like(ids), rows, 1)
        return rows

    def _continued(self, ids: Tensor) -> Tensor:
        return self.forward(ids[:1, -1:], torch.ones_like(ids[:1, -1:]), self._state(ids[:1, :-1]), 1)

    def _in_chunks(self, ids: Tensor, padding: int, at: float = _CUTS[0]) -> Tensor:
        """In two chunks and a last token, the last row with its first tokens padded. at: where the text is cut, a share of it."""
        mask = torch.ones_like(ids)
        if padding:
            mask[-1, :padding] = 0
        rows = self.fresh(len(ids))
        split = _split(ids, at) if self.chunked or not padding else len(ids[0]) - 1
        self.forward(ids[:, :split], mask[:, :split], rows, 1)
        if split < len(ids[0]) - 1:
            self.forward(ids[:, split:-1], mask[:, split:-1], rows, 1)
        return self.forward(ids[:, -1:], mask[:, -1:], rows, 1)

    def _leaving(self, ids: Tensor) -> Tensor:
        """Of two rows, the second goes on alone."""
        rows = self._state(ids[:, :-1])
        rows.select([1])
        return self.forward(ids[1:, -1:], torch.ones_like(ids[1:, -1:]), rows, 1)

    def _forked(self, ids: Tensor) -> Tensor:
        """What was copied from, after a copy went on elsewhere; and another copy, that became two rows."""
        rows = self._state(ids[:, : _split(ids)])
        other, twice = rows.copy(), rows.copy()
        self.forward(ids[:, :5], torch.ones_like(ids[:, :5]), other, 1)
        twice.select([0, 0])
        rest = ids[:, _split(ids) :]
        ones = torch.ones_like(rest)
        found = self.forward(rest, ones, rows, 1)
        return torch.cat([found, self.forward(rest.expand(2, -1), ones.expand(2, -1), twice, 1)])

    def _measure(self, ids: Tensor) -> None:
        """Two lengths give what a row's state has whatever its length, and what it gains by token."""
        n = ids.shape[1]
        few, many = (sum(state_bytes(self._state(ids[:1, :m]).cache).values()) for m in (n // 2, n))
        self.bytes_per_token = max(0, (many - few) // (n - n // 2))
        self.bytes_fixed = max(0, many - self.bytes_per_token * n)


def _cache_in(out: Any) -> Any:
    """Read from what an answer holds: releases that renamed the state answer for its old names too, with a warning."""
    held = dict(out.items()) if isinstance(out, Mapping) else vars(out)
    return next((held[name] for name in _CACHES if held.get(name) is not None), None)


def _apart(found: Tensor, expected: Tensor) -> float:
    """The largest difference of logits, of the largest logit."""
    return float((found.float() - expected.float()).abs().max()) / max(float(expected.abs().max()), 1e-6)


def _split(ids: Tensor, at: float = _CUTS[0]) -> int:
    """Where a trial's text is cut."""
    return int(ids.shape[1] * at)
