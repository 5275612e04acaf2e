"""Costs of a model in closed form, from its shape alone: parameters, bytes of state and weights, operations and bytes moved.

Components have one set of names in all of them. `linear_attention`: the projections of KDA or GDN layers; `mla` and `gqa`: those of
attention layers; `dense_mlp`, `router`, `experts`, `shared_experts` (with the projections of latent experts), `embedding`, `lm_head`,
`norms`; `index`: a sparse attention's indexer; `residual`: connections between layers that are more than a sum. Operations also have
`delta_rule` (what KDA and GDN do with their projections) and `attention` (what attention does with its own).

FLOPs are 2 per multiply-add, of matrix products and of what takes their place; norms, activations, gates and the short convolutions
(0.1 % at the published shape) are not counted. They are the operations that the model asks for, not those of an implementation: a
causal square counts half, a latent row is expanded to keys and values once however prefill is chunked, so that the operations of
consecutive pieces of a prompt add up to those of the whole (but for a row of logits each).

Sources: shapes of arXiv 2510.26692 and the published config.json; the delta rule as its Eq. 13 counts it, in chunks of 64. Its Eq. 14,
2 T^2 d per head, has keys as wide as values: MLA's are 192 and 128 wide, which is 320 T^2 and not 256 T^2 (`paper_attention_flops`).
What a layer is made of is in `shape`, formats of numbers in `number_formats`. No torch in here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from kleval.models.number_formats import cache_bytes, dtype_bytes, matrix_bytes, wide_bytes
from kleval.models.shape import DELTA_CHUNK_TOKENS, Delta, Experts, Grouped, Latent, Layer, Weights
from kleval.types import UsageError

_COMPONENTS = (
    "linear_attention",
    "mla",
    "gqa",
    "index",
    "dense_mlp",
    "router",
    "experts",
    "shared_experts",
    "residual",
)
_LATE = ("gqa", "index", "residual")  # named where a model has them


@dataclass(frozen=True, slots=True)
class StateBytes:
    """Latent rows of MLA layers; recurrent states and convolution tails of KDA and GDN layers; grouped keys and values; keys of an
    indexer."""

    latent: int
    recurrent: int
    conv: int
    grouped: int = 0
    index: int = 0

    @property
    def total(self) -> int:
        return self.growing + self.recurrent + self.conv

    @property
    def growing(self) -> int:
        """What grows with the length."""
        return self.latent + self.grouped + self.index


@dataclass(frozen=True, slots=True)
class Split:
    """Tensor parallelism over tp ranks and experts over ep groups of them: max(tp, ep) devices.

    A model is cut over tp ranks; where ep is more, max / tp copies of everything but the experts serve sequences of their own. Routed
    experts are cut over all devices, whole ones over ep and each of them over the rest.
    """

    tp: int = 1
    ep: int = 1

    @property
    def devices(self) -> int:
        return max(self.tp, self.ep)

    @property
    def copies(self) -> int:
        return self.devices // self.tp


ONE = Split()


class Costs(ABC):
    """Costs of a model as methods of its configuration (`kleval.models.config.ModelConfig`, `kleval.models.published.Shape`)."""

    __slots__ = ()

    vocab_size: int
    hidden_size: int
    tie_word_embeddings: bool

    @abstractmethod
    def layers(self) -> Counter[Layer]:
        """The kinds of layers and how many there are of each."""

    @property
    def num_hidden_layers(self) -> int:
        return self.layers().total()

    @abstractmethod
    def full_attention(self) -> Costs:
        """The same shape with its attention in every layer."""

    @property
    def final_residual(self) -> int:
        """Numbers of `residual` after the last layer."""
        return 0

    def parameters(self) -> int:
        return sum(self.parameters_by_component().values())

    def active_parameters(self) -> int:
        """Those that one token passes through, embedding lookup not counted."""
        return sum(self.active_parameters_by_component().values())

    def active_parameters_by_component(self) -> dict[str, int]:
        return self.parameters_by_component(active=True)

    def prefill_flops(self, ctx: int, start: int = 0) -> int:
        """Of tokens start ... ctx - 1, given those before, and one row of logits."""
        return sum(self.prefill_flops_by_component(ctx, start).values())

    def decode_flops(self, ctx: int, batch: int = 1) -> int:
        """Of one step with ctx tokens behind it."""
        return sum(self.decode_flops_by_component(ctx, batch).values())

    def decode_bytes(self, ctx: int, batch: int = 1, dtype: str = "bfloat16") -> int:
        """Read and written by one step with ctx tokens behind it, at least."""
        return sum(self.decode_bytes_by_component(ctx, batch, dtype).values())

    def parameters_by_component(self, active: bool = False) -> dict[str, int]:
        """Numbers by component; they sum to all parameters.

        active: those that one token passes through: its experts alone, and of embeddings and head only the head, since a lookup
        multiplies nothing.
        """
        h, table, tied = self.hidden_size, self.vocab_size * self.hidden_size, self.tie_word_embeddings
        parts = self._numbers(lambda weights: weights.total, active)
        parts["residual"] += self.final_residual
        ends = {"embedding": table if tied or not active else 0, "lm_head": 0 if tied else table}
        return ends | _shown(parts) | {"norms": (2 * self.num_hidden_layers + 1) * h}

    def weight_bytes(self, dtype: str = "bfloat16", form: str | None = None, split: Split = ONE) -> int:
        """Bytes on one device of all parameters: matrices of the layers in a format of `number_formats`, None for dtype, the rest in
        dtype, but decay rates (A_log, dt_bias) and the router's bias, which stay float32. UsageError where tp or ep do not divide."""
        form = dtype if form is None else form
        check_split(self, split)
        h, size, wide = self.hidden_size, dtype_bytes(dtype), wide_bytes(dtype)
        tables = self.vocab_size * h * (1 if self.tie_word_embeddings else 2)
        total = -(-tables // split.tp) * size + ((2 * self.num_hidden_layers + 1) * h + self.final_residual) * size
        for layer, count in self.layers().items():
            for name, weights in _parts(layer, h):
                if name == "experts" and isinstance(layer.mlp, Experts):
                    numbers = weights.matrices * layer.mlp.num_experts // split.devices
                    each = matrix_bytes(numbers, form, dtype, routed=True)
                    each += weights.other * layer.mlp.num_experts // split.ep * size
                else:
                    plain = dtype if name == "router" else form
                    numbers = weights.split // split.tp + _repeated(layer, name, h, split)
                    each = matrix_bytes(numbers, plain, dtype)
                    each += matrix_bytes(weights.whole, plain, dtype) + weights.other * size + weights.wide * wide
                total += count * each
        return total

    def state_bytes(
        self, ctx: int, batch: int = 1, dtype: str = "bfloat16", form: str | None = None, split: Split = ONE
    ) -> StateBytes:
        """State on one device of `batch` sequences of ctx tokens each. dtype: of rows that grow and of convolution tails; form: another
        format of the rows; recurrent states are float32.

        Per token and MLA layer kv_lora_rank + qk_rope_head_dim numbers; per KDA layer H D^2 recurrent ones and 3 H D (width - 1) of
        the convolutions, whatever ctx is. Latent rows and an indexer's keys are held whole by every rank of a split; grouped keys and
        values are cut by head, down to one, recurrent states and convolution tails by head.
        """
        _not_negative(ctx, batch)
        check_split(self, split)
        form = dtype if form is None else form
        found: Counter[str] = Counter()
        for layer, count in self.layers().items():
            mixer = layer.mixer
            for kind, numbers in mixer.rows(ctx).items():
                if isinstance(mixer, Grouped):
                    numbers = numbers // mixer.kv_heads * max(1, mixer.kv_heads // split.tp)
                elif isinstance(mixer, Delta):
                    numbers //= split.tp
                found[kind] += count * numbers
        sequences = -(-batch // split.copies)
        recurrent, conv = found.pop("recurrent", 0) * wide_bytes(dtype), found.pop("conv", 0) * dtype_bytes(dtype)
        rows = {kind: sequences * cache_bytes(numbers, form) for kind, numbers in found.items()}
        return StateBytes(
            rows.get("latent", 0),
            sequences * recurrent,
            sequences * conv,
            rows.get("grouped", 0),
            rows.get("index", 0),
        )

    def prefill_flops_by_component(self, ctx: int, start: int = 0) -> dict[str, int]:
        """FLOPs by component of tokens start ... ctx - 1 given those before them, and of one row of logits.

        With n new tokens: 2 n per number of every matrix (experts: top-k of them), MLA's kv_b among them, whose products expand the
        new rows. `attention`: every token meets itself and all before it, n (start + ctx + 1) / 2 pairs at
        2 (nope + rope + v) per head of MLA. `delta_rule`: Eq. 13.
        """
        _not_negative(ctx, start)
        if start > ctx:
            raise ValueError(f"start {start} is behind ctx {ctx}")
        new = ctx - start
        return self._flops(new, 1 if new else 0, lambda layer: layer.mixer.prefill_flops(ctx, start))

    def decode_flops_by_component(self, ctx: int, batch: int = 1) -> dict[str, int]:
        """FLOPs by component of one step of `batch` sequences with ctx tokens behind them, absorbed MLA.

        Matrices as in prefill: kv_b's numbers are multiplied once per token here too, with queries and with weighted rows.
        `attention`: ctx + 1 rows at 2 (rank + rope) for the score and 2 rank for the sum, per head of MLA. `delta_rule`: k^T S, the
        rank-1 update and S^T q, 6 D^2 per head.
        """
        _not_negative(ctx, batch)
        return self._flops(
            batch, batch, lambda layer: {n: batch * each for n, each in layer.mixer.decode_flops(ctx).items()}
        )

    def decode_bytes_by_component(self, ctx: int, batch: int = 1, dtype: str = "bfloat16") -> dict[str, int]:
        """Bytes that one step of `batch` sequences with ctx tokens behind them must read and write, by what they are.

        Weights are read once: everything but the experts, the expected number of distinct experts (`distinct_experts`), and of an
        untied embedding the tokens' rows. Rows that are attended to are read and one per sequence is written; recurrent states and
        convolution tails are read and written.
        """
        _not_negative(ctx, batch)
        size, resident, read = dtype_bytes(dtype), self.weight_bytes(dtype), 0.0
        rows: Counter[str] = Counter()
        for layer, count in self.layers().items():
            for kind, numbers in layer.mixer.read_rows(ctx).items():
                rows[kind] += batch * count * numbers * (wide_bytes(dtype) if kind == "recurrent" else size)
            if isinstance(mlp := layer.mlp, Experts):
                expert = mlp.expert(self.hidden_size) + mlp.expert_more
                resident -= count * mlp.num_experts * expert * size
                read += count * distinct_experts(mlp, batch) * expert
        if not self.tie_word_embeddings:
            resident -= (self.vocab_size - min(batch, self.vocab_size)) * self.hidden_size * size
        moved = {"weights": resident if batch else 0, "experts": round(read) * size}
        return moved | dict.fromkeys(("latent", "recurrent", "conv"), 0) | dict(rows)

    def _numbers(self, of: Callable[[Weights], int], active: bool) -> Counter[str]:
        """Numbers of layers by component; active: of a token's experts alone."""
        found = Counter(dict.fromkeys(_COMPONENTS, 0))
        for layer, count in self.layers().items():
            for name, weights in _parts(layer, self.hidden_size):
                times = 1
                if name == "experts" and isinstance(layer.mlp, Experts):
                    times = layer.mlp.num_experts_per_token if active else layer.mlp.num_experts
                found[name] += count * times * of(weights)
        return found

    def _flops(self, tokens: int, rows: int, mixing: Callable[[Layer], dict[str, int]]) -> dict[str, int]:
        """2 per number and token of every matrix, of the head per row of logits, and what mixers do beside."""
        found = Counter(
            {n: 2 * tokens * numbers for n, numbers in self._numbers(lambda w: w.matrices, active=True).items()}
        )
        mixed = Counter(dict.fromkeys(("delta_rule", "attention"), 0))
        for layer, count in self.layers().items():
            for name, each in mixing(layer).items():
                (found if name == "index" else mixed)[name] += count * each
        return _shown(found) | {"lm_head": 2 * rows * self.vocab_size * self.hidden_size} | dict(mixed)


class Routed(Protocol):
    """What has routed experts."""

    @property
    def num_experts(self) -> int: ...

    @property
    def num_experts_per_token(self) -> int: ...


def distinct_experts(config: Routed, tokens: int) -> float:
    """Expected number of experts of a layer that any of so many tokens chooses, each choosing k of E uniformly: E (1 - (1 - k/E)^n)."""
    if not config.num_experts:
        return 0.0
    return config.num_experts * (1 - (1 - config.num_experts_per_token / config.num_experts) ** tokens)


def check_split(config: Costs, split: Split) -> None:
    """UsageError where a model cannot be cut so."""
    tp, ep = split.tp, split.ep
    if min(tp, ep) < 1:
        raise UsageError(f"--tp {tp} --ep {ep}: both are at least 1")
    if split.devices % tp or split.devices % ep:
        raise UsageError(f"--tp {tp} --ep {ep}: one must be a multiple of the other")
    if split == ONE:
        return
    for layer in config.layers():
        mixer, mlp = layer.mixer, layer.mlp
        heads = mixer.key_heads if isinstance(mixer, Delta) else mixer.heads
        if heads % tp:
            raise UsageError(f"--tp {tp} does not divide the {heads} heads of its {mixer.component} layers")
        if isinstance(mixer, Grouped) and mixer.kv_heads % tp and tp % mixer.kv_heads:
            raise UsageError(
                f"--tp {tp} neither divides its {mixer.kv_heads} key-value heads nor is a multiple of them"
            )
        if not isinstance(mlp, Experts):
            if mlp.inner % tp:
                raise UsageError(f"--tp {tp} does not divide the width {mlp.inner} of its dense MLP")
        elif mlp.num_experts % ep or mlp.inner % (split.devices // ep) or mlp.shared_inner % tp:
            raise UsageError(
                f"--tp {tp} --ep {ep} does not divide its {mlp.num_experts} experts of width {mlp.inner} and the shared width "
                f"{mlp.shared_inner}"
            )
    if ep > 1 and not any(isinstance(layer.mlp, Experts) for layer in config.layers()):
        raise UsageError(f"--ep {ep}: this model has no experts")


def paper_delta_rule_flops(tokens: int, head_dim: int, chunk: int = DELTA_CHUNK_TOKENS) -> int:
    """arXiv 2510.26692 Eq. 13, one head of KDA: 6 T d^2 + 3 T C d + T C^2. GDN's matrix products are the same."""
    return tokens * (6 * head_dim**2 + 3 * chunk * head_dim + chunk**2)


def paper_attention_flops(tokens: int, head_dim: int) -> int:
    """arXiv 2510.26692 Eq. 14, one head of causal attention with keys and values of one width: 2 T^2 d."""
    return 2 * tokens**2 * head_dim


def paper_mixer_flops(config: Costs, ctx: int) -> int:
    """All heads and layers by Eq. 13 and 14, projections not counted: what the paper compares."""
    total = 0
    for layer, count in config.layers().items():
        mixer = layer.mixer
        if isinstance(mixer, Delta):
            total += count * sum(mixer.prefill_flops(ctx, 0).values())
        else:
            value = mixer.value if isinstance(mixer, Latent) else mixer.dim
            total += count * mixer.heads * paper_attention_flops(ctx, value)
    return total


def _parts(layer: Layer, hidden: int) -> list[tuple[str, Weights]]:
    """Weights of a layer by component, its two norms not among them."""
    mixer = layer.mixer
    index = [("index", mixer.index.weights(hidden))] if isinstance(mixer, Latent) and mixer.index else []
    return [
        (mixer.component, mixer.weights(hidden)),
        *index,
        *layer.mlp.weights(hidden).items(),
        ("residual", layer.residual),
    ]


def _repeated(layer: Layer, name: str, hidden: int, split: Split) -> int:
    """Numbers of key and value matrices that a rank holds beyond its share, where there are more ranks than key-value heads."""
    mixer = layer.mixer
    if not isinstance(mixer, Grouped) or name != mixer.component or mixer.kv_heads >= split.tp:
        return 0
    return 2 * hidden * mixer.dim - 2 * hidden * mixer.dim * mixer.kv_heads // split.tp


def _shown(parts: Counter[str]) -> dict[str, int]:
    return {name: parts[name] for name in _COMPONENTS if parts[name] or name not in _LATE}


def _not_negative(*values: int) -> None:
    if min(values) < 0:
        raise ValueError(f"lengths and batches are not negative: {values}")
