"""Costs of a model in closed form, from its configuration alone: parameters, bytes of state and weights, operations and bytes moved.

Components have one set of names in all of them. `linear_attention`: the projections of KDA or GDN layers; `mla`: those of MLA layers;
`dense_mlp`, `router`, `experts`, `shared_experts`, `embedding`, `lm_head`, `norms`. Operations also have `delta_rule` (what KDA and
GDN do with their projections) and `attention` (what MLA does with its own).

FLOPs are 2 per multiply-add, of matrix products and of what takes their place; norms, activations, gates and the short convolutions
(0.1 % at the published shape) are not counted. They are the operations that the model asks for, not those of an implementation: a
causal square counts half, a latent row is expanded to keys and values once however prefill is chunked, so that the operations of
consecutive pieces of a prompt add up to those of the whole (but for a row of logits each).

Sources: shapes of arXiv 2510.26692 and the published config.json; the delta rule as its Eq. 13 counts it, in chunks of 64. Its Eq. 14,
2 T^2 d per head, has keys as wide as values: MLA's are 192 and 128 wide, which is 320 T^2 and not 256 T^2 (`paper_attention_flops`).
No torch in here.
"""

from __future__ import annotations

from dataclasses import dataclass

from kleval.types import UsageError

PAPER_CHUNK_TOKENS = 64
_DTYPE_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class StateBytes:
    """Latent rows of MLA layers; recurrent states and convolution tails of KDA and GDN layers."""

    latent: int
    recurrent: int
    conv: int

    @property
    def total(self) -> int:
        return self.latent + self.recurrent + self.conv


class Costs:
    """Costs of a model as methods of its configuration (`kleval.models.config.ModelConfig`), whose fields they read."""

    __slots__ = ()

    vocab_size: int
    hidden_size: int
    layer_mixers: tuple[str, ...]
    kda_num_heads: int
    kda_head_dim: int
    num_attention_heads: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    kv_lora_rank: int
    intermediate_size: int
    short_conv_kernel_size: int
    num_experts: int
    num_experts_per_token: int
    num_shared_experts: int
    moe_intermediate_size: int
    first_k_dense_replace: int
    tie_word_embeddings: bool

    @property
    def num_hidden_layers(self) -> int:
        return len(self.layer_mixers)

    def is_moe(self, layer: int) -> bool:
        return self.num_experts > 0 and layer >= self.first_k_dense_replace

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
        h, table = self.hidden_size, self.vocab_size * self.hidden_size
        tied, sparse = self.tie_word_embeddings, _sparse_layers(self)
        full = self.layer_mixers.count("mla")
        routed = self.num_experts_per_token if active else self.num_experts
        return {
            "embedding": table if tied or not active else 0,
            "lm_head": 0 if tied else table,
            "linear_attention": _linear_matrices(self) + _linear_others(self),
            "mla": full * (_mla_matrices(self) + self.kv_lora_rank),
            "dense_mlp": (self.num_hidden_layers - sparse) * _mlp(self, self.intermediate_size),
            "router": sparse * self.num_experts * (h + 1),
            "experts": sparse * routed * _mlp(self, self.moe_intermediate_size),
            "shared_experts": sparse * self.num_shared_experts * _mlp(self, self.moe_intermediate_size),
            "norms": (2 * self.num_hidden_layers + 1) * h,
        }

    def weight_bytes(self, dtype: str = "bfloat16") -> int:
        """All parameters in dtype, but decay rates (A_log, dt_bias) and the router's bias, which stay float32."""
        wide = _decay_parameters(self) + _sparse_layers(self) * self.num_experts
        return (sum(self.parameters_by_component().values()) - wide) * dtype_bytes(dtype) + wide * wide_bytes(dtype)

    def state_bytes(self, ctx: int, batch: int = 1, dtype: str = "bfloat16") -> StateBytes:
        """State of `batch` sequences of ctx tokens each. dtype: of latent rows and convolution tails; recurrent states are float32.

        Per token and MLA layer kv_lora_rank + qk_rope_head_dim numbers; per KDA or GDN layer H D^2 recurrent ones and
        3 H D (width - 1) of the convolutions, whatever ctx is.
        """
        _not_negative(ctx, batch)
        width, linear = self.kv_lora_rank + self.qk_rope_head_dim, _linear_layers(self)
        heads, dim, taps = self.kda_num_heads, self.kda_head_dim, self.short_conv_kernel_size - 1
        return StateBytes(
            latent=batch * ctx * self.layer_mixers.count("mla") * width * dtype_bytes(dtype),
            recurrent=batch * linear * heads * dim**2 * wide_bytes(dtype),
            conv=batch * linear * 3 * heads * dim * taps * dtype_bytes(dtype),
        )

    def prefill_flops_by_component(self, ctx: int, start: int = 0) -> dict[str, int]:
        """FLOPs by component of tokens start ... ctx - 1 given those before them, and of one row of logits.

        With n new tokens: 2 n per number of every matrix (experts: top-k of them), MLA's kv_b among them, whose products expand the
        new rows. `attention`: every token meets itself and all before it, n (start + ctx + 1) / 2 pairs at
        2 (nope + rope + v) per head. `delta_rule`: Eq. 13.
        """
        _not_negative(ctx, start)
        if start > ctx:
            raise ValueError(f"start {start} is behind ctx {ctx}")
        new = ctx - start
        pairs = new * (start + ctx + 1) // 2
        per_pair = 2 * (self.qk_nope_head_dim + self.qk_rope_head_dim + self.v_head_dim)
        rule = paper_delta_rule_flops(new, self.kda_head_dim)
        return _matrix_flops(self, new, rows=1 if new else 0) | {
            "delta_rule": _linear_layers(self) * self.kda_num_heads * rule,
            "attention": self.layer_mixers.count("mla") * self.num_attention_heads * pairs * per_pair,
        }

    def decode_flops_by_component(self, ctx: int, batch: int = 1) -> dict[str, int]:
        """FLOPs by component of one step of `batch` sequences with ctx tokens behind them, absorbed MLA.

        Matrices as in prefill: kv_b's numbers are multiplied once per token here too, with queries and with weighted rows.
        `attention`: ctx + 1 rows at 2 (rank + rope) for the score and 2 rank for the sum, per head. `delta_rule`: k^T S, the rank-1
        update and S^T q, 6 D^2 per head.
        """
        _not_negative(ctx, batch)
        per_row = 2 * (2 * self.kv_lora_rank + self.qk_rope_head_dim)
        return _matrix_flops(self, batch, rows=batch) | {
            "delta_rule": batch * _linear_layers(self) * self.kda_num_heads * 6 * self.kda_head_dim**2,
            "attention": batch * self.layer_mixers.count("mla") * self.num_attention_heads * (ctx + 1) * per_row,
        }

    def decode_bytes_by_component(self, ctx: int, batch: int = 1, dtype: str = "bfloat16") -> dict[str, int]:
        """Bytes that one step of `batch` sequences with ctx tokens behind them must read and write, by what they are.

        Weights are read once: everything but the experts, the expected number of distinct experts (`distinct_experts`), and of an
        untied embedding the tokens' rows. Latent rows are read and one per sequence is written; recurrent states and convolution
        tails are read and written.
        """
        _not_negative(ctx, batch)
        size, state = dtype_bytes(dtype), self.state_bytes(ctx, batch, dtype)
        expert, sparse = _mlp(self, self.moe_intermediate_size), _sparse_layers(self)
        resident = self.weight_bytes(dtype) - sparse * self.num_experts * expert * size
        if not self.tie_word_embeddings:
            resident -= (self.vocab_size - min(batch, self.vocab_size)) * self.hidden_size * size
        return {
            "weights": resident if batch else 0,
            "experts": round(sparse * distinct_experts(self, batch) * expert) * size,
            "latent": state.latent + self.state_bytes(1, batch, dtype).latent,
            "recurrent": 2 * state.recurrent,
            "conv": 2 * state.conv,
        }


def dtype_bytes(dtype: str) -> int:
    """Bytes of one number. UsageError for a dtype that models do not have."""
    if dtype not in _DTYPE_BYTES:
        raise UsageError(f"unknown dtype {dtype!r}: choose one of {', '.join(_DTYPE_BYTES)}")
    return _DTYPE_BYTES[dtype]


def wide_bytes(dtype: str) -> int:
    """Bytes of one number where a model of that dtype keeps float32 (float64 for float64)."""
    return max(4, dtype_bytes(dtype))


def distinct_experts(config: Costs, tokens: int) -> float:
    """Expected number of experts of a layer that any of so many tokens chooses, each choosing k of E uniformly: E (1 - (1 - k/E)^n)."""
    if not config.num_experts:
        return 0.0
    return config.num_experts * (1 - (1 - config.num_experts_per_token / config.num_experts) ** tokens)


def paper_delta_rule_flops(tokens: int, head_dim: int, chunk: int = PAPER_CHUNK_TOKENS) -> int:
    """arXiv 2510.26692 Eq. 13, one head of KDA: 6 T d^2 + 3 T C d + T C^2. GDN's matrix products are the same."""
    return tokens * (6 * head_dim**2 + 3 * chunk * head_dim + chunk**2)


def paper_attention_flops(tokens: int, head_dim: int) -> int:
    """arXiv 2510.26692 Eq. 14, one head of causal attention with keys and values of one width: 2 T^2 d."""
    return 2 * tokens**2 * head_dim


def paper_mixer_flops(config: Costs, ctx: int) -> int:
    """All heads and layers by Eq. 13 and 14, projections not counted: what the paper compares."""
    rule = config.kda_num_heads * paper_delta_rule_flops(ctx, config.kda_head_dim)
    attention = config.num_attention_heads * paper_attention_flops(ctx, config.v_head_dim)
    return _linear_layers(config) * rule + config.layer_mixers.count("mla") * attention


def _matrix_flops(config: Costs, tokens: int, rows: int) -> dict[str, int]:
    """2 per number and token of every matrix; of the head per row of logits."""
    h, sparse = config.hidden_size, _sparse_layers(config)
    expert = _mlp(config, config.moe_intermediate_size)
    numbers = {
        "linear_attention": _linear_matrices(config),
        "mla": config.layer_mixers.count("mla") * _mla_matrices(config),
        "dense_mlp": (config.num_hidden_layers - sparse) * _mlp(config, config.intermediate_size),
        "router": sparse * config.num_experts * h,
        "experts": sparse * config.num_experts_per_token * expert,
        "shared_experts": sparse * config.num_shared_experts * expert,
    }
    return {name: 2 * tokens * count for name, count in numbers.items()} | {"lm_head": 2 * rows * config.vocab_size * h}


def _linear_layers(config: Costs) -> int:
    return config.num_hidden_layers - config.layer_mixers.count("mla")


def _sparse_layers(config: Costs) -> int:
    return sum(map(config.is_moe, range(config.num_hidden_layers)))


def _mlp(config: Costs, inner: int) -> int:
    """Gate, up and down."""
    return 3 * config.hidden_size * inner


def _mla_matrices(config: Costs) -> int:
    """q, kv_a, kv_b and o of one layer; the norm of the latent is apart."""
    h, heads, rank, rope = config.hidden_size, config.num_attention_heads, config.kv_lora_rank, config.qk_rope_head_dim
    nope, value = config.qk_nope_head_dim, config.v_head_dim
    return h * heads * (nope + rope) + h * (rank + rope) + rank * heads * (nope + value) + heads * value * h


def _linear_matrices(config: Costs) -> int:
    """q, k, v, o, beta, the low-rank output gate, and the decay: of low rank in KDA, a number per head in GDN; all layers."""
    h, heads, dim = config.hidden_size, config.kda_num_heads, config.kda_head_dim
    inner = heads * dim
    low_rank = h * dim + dim * inner
    shared = 4 * h * inner + h * heads + low_rank
    return config.layer_mixers.count("kda") * (shared + low_rank) + config.layer_mixers.count("gdn") * (
        shared + h * heads
    )


def _linear_others(config: Costs) -> int:
    """Convolutions, decay rates, the norm over a head; all layers."""
    inner = config.kda_num_heads * config.kda_head_dim
    each = 3 * inner * config.short_conv_kernel_size + config.kda_head_dim
    return _linear_layers(config) * each + _decay_parameters(config)


def _decay_parameters(config: Costs) -> int:
    """A_log per head, dt_bias per channel (KDA) or per head (GDN); all layers."""
    heads, dim = config.kda_num_heads, config.kda_head_dim
    return config.layer_mixers.count("kda") * heads * (1 + dim) + config.layer_mixers.count("gdn") * heads * 2


def _not_negative(*values: int) -> None:
    if min(values) < 0:
        raise ValueError(f"lengths and batches are not negative: {values}")
