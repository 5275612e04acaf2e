"""Shape of a decoder, layer by layer: the mixers and MLPs that models are made of, as numbers that their costs are counted from.

A part says what it keeps of a sequence (`rows`: numbers of state by kind), what its weights are (`Weights`) and what it multiplies
beside its matrices (`mix_flops`). Kinds of state: `latent` rows of MLA, `grouped` keys and values, `index` keys of a sparse attention's
indexer, all of which grow with the length; `recurrent` states and `conv` tails, which do not.

Shapes are those of the published modules: KDA and GDN as arXiv 2510.26692 and vLLM's `kimi_k3`, Qwen's GDN as transformers'
`qwen3_5`, MLA as `deepseek_v3`, the indexer as `deepseek_v32` and `glm5_next`. No torch in here.
"""

from __future__ import annotations

from dataclasses import dataclass

DELTA_CHUNK_TOKENS = 64  # of Eq. 13 of arXiv 2510.26692


@dataclass(frozen=True, slots=True)
class Weights:
    """Numbers of a part. split: of matrices that tensor parallelism cuts; whole: of matrices that every rank holds; other: of norms,
    convolutions and biases, in the weights' own dtype; wide: those that stay float32. Every rank holds `other` and `wide`."""

    split: int = 0
    whole: int = 0
    other: int = 0
    wide: int = 0

    @property
    def matrices(self) -> int:
        return self.split + self.whole

    @property
    def total(self) -> int:
        return self.matrices + self.other + self.wide


@dataclass(frozen=True, slots=True)
class Delta:
    """KDA (a decay per channel) or GDN (per_channel False: one per value head).

    full_rank_gate: the output gate is one matrix, not two of rank value_dim. taps: of the short convolutions.
    """

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    taps: int
    per_channel: bool
    full_rank_gate: bool = False
    component = "linear_attention"

    @property
    def conv_channels(self) -> int:
        return 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim

    def weights(self, hidden: int) -> Weights:
        """q, k, v, o, beta, output gate, decay; of low-rank pairs the first is no matrix of heads and held by every rank."""
        inner = self.value_heads * self.value_dim
        split, whole = hidden * (self.conv_channels + inner + self.value_heads), 0
        if self.full_rank_gate:
            split += hidden * inner
        else:
            split, whole = split + self.value_dim * inner, hidden * self.value_dim
        if self.per_channel:
            split += self.key_dim * self.key_heads * self.key_dim
            whole += hidden * self.key_dim
            wide = self.value_heads + self.key_heads * self.key_dim
        else:
            split, wide = split + hidden * self.value_heads, 2 * self.value_heads
        return Weights(split, whole, self.conv_channels * self.taps + self.value_dim, wide)

    def rows(self, ctx: int) -> dict[str, int]:
        return {
            "recurrent": self.value_heads * self.key_dim * self.value_dim,
            "conv": self.conv_channels * (self.taps - 1),
        }

    def prefill_flops(self, ctx: int, start: int) -> dict[str, int]:
        """Eq. 13 per value head: 6 K V for the state, C (2 K + V) and C^2 for what is inside a chunk of C."""
        chunk = DELTA_CHUNK_TOKENS
        each = 6 * self.key_dim * self.value_dim + chunk * (2 * self.key_dim + self.value_dim) + chunk**2
        return {"delta_rule": self.value_heads * (ctx - start) * each}

    def decode_flops(self, ctx: int) -> dict[str, int]:
        """k^T S, the rank-1 update and S^T q."""
        return {"delta_rule": self.value_heads * 6 * self.key_dim * self.value_dim}

    def read_rows(self, ctx: int) -> dict[str, int]:
        """Read and written, whole, at every step."""
        return {kind: 2 * numbers for kind, numbers in self.rows(ctx).items()}


@dataclass(frozen=True, slots=True)
class Index:
    """Indexer of a sparse attention: heads x dim queries against one key per token, of which the best `most` tokens are attended to.

    pool: tokens whose keys are compressed into one before they are scored; their gates are kept beside the keys, and whether a token
    is real, until then (transformers keeps them always: 2 dim + 1 numbers per token; pooled they would be dim numbers per pool).
    """

    heads: int
    dim: int
    most: int
    query_rank: int
    pool: int = 1

    @property
    def row(self) -> int:
        return self.dim if self.pool == 1 else 2 * self.dim + 1

    def weights(self, hidden: int) -> Weights:
        matrices = self.query_rank * self.heads * self.dim + hidden * (self.dim + self.heads)
        if self.pool > 1:
            matrices += hidden * self.dim
        return Weights(whole=matrices, other=2 * self.dim + (self.pool * self.dim if self.pool > 1 else 0))

    def flops(self, pairs: int) -> int:
        """Of scoring: one product per head and pooled key."""
        return 2 * pairs * self.heads * self.dim // self.pool


@dataclass(frozen=True, slots=True)
class Latent:
    """Multi-head latent attention. query_rank: queries come from a latent of their own; gate: a sigmoid gate on what heads put out.

    index: this layer has an indexer. most: so many tokens are attended to at most, by this layer's indexer or an earlier one's.
    """

    heads: int
    nope: int
    rope: int
    value: int
    rank: int
    query_rank: int | None = None
    gate: bool = False
    index: Index | None = None
    most: int | None = None
    component = "mla"

    def weights(self, hidden: int) -> Weights:
        queries = self.heads * (self.nope + self.rope)
        split = self.rank * self.heads * (self.nope + self.value) + self.heads * self.value * hidden
        whole, other = hidden * (self.rank + self.rope), self.rank
        if self.query_rank is None:
            split += hidden * queries
        else:
            split, whole, other = (
                split + self.query_rank * queries,
                whole + hidden * self.query_rank,
                other + self.query_rank,
            )
        return Weights(split + self.gate * hidden * self.heads * self.value, whole, other)

    def rows(self, ctx: int) -> dict[str, int]:
        index = {} if self.index is None else {"index": ctx * self.index.row}
        return {"latent": ctx * (self.rank + self.rope)} | index

    def prefill_flops(self, ctx: int, start: int) -> dict[str, int]:
        """Every token meets itself and those before it, or the best `most` of them, at 2 (nope + rope + value) per head; the matrices
        expand each latent row to keys and values once."""
        pairs = causal_pairs(ctx, start, self.most)
        return self._flops(pairs * 2 * (self.nope + self.rope + self.value), causal_pairs(ctx, start))

    def decode_flops(self, ctx: int) -> dict[str, int]:
        """Absorbed: 2 (rank + rope) per row and head for the score and 2 rank for the sum."""
        rows = ctx + 1 if self.most is None else min(ctx + 1, self.most)
        return self._flops(rows * 2 * (2 * self.rank + self.rope), ctx + 1)

    def _flops(self, per_head: int, scored: int) -> dict[str, int]:
        index = {} if self.index is None else {"index": self.index.flops(scored)}
        return {"attention": self.heads * per_head} | index

    def read_rows(self, ctx: int) -> dict[str, int]:
        """The rows that are attended to, and the one that is written."""
        read = self.rows(ctx if self.most is None else min(ctx, self.most))["latent"] + self.rows(1)["latent"]
        return {"latent": read} | ({} if self.index is None else {"index": self.rows(ctx + 1)["index"]})


@dataclass(frozen=True, slots=True)
class Grouped:
    """Attention whose query heads share keys and values in groups (GQA; one group of each head: MHA).

    window: keys and values of the last window - 1 tokens are kept, as transformers keeps them. gate: a second half of the query
    product gates what heads put out (Qwen). more: further numbers (biases, norms of queries and keys, sinks).
    """

    heads: int
    kv_heads: int
    dim: int
    window: int | None = None
    gate: bool = False
    more: int = 0
    component = "gqa"

    def weights(self, hidden: int) -> Weights:
        return Weights(hidden * self.dim * (self.heads * (2 + self.gate) + 2 * self.kv_heads), other=self.more)

    def rows(self, ctx: int) -> dict[str, int]:
        tokens = ctx if self.window is None else min(ctx, self.window - 1)
        return {"grouped": 2 * tokens * self.kv_heads * self.dim}

    def prefill_flops(self, ctx: int, start: int) -> dict[str, int]:
        return {"attention": 4 * self.dim * self.heads * causal_pairs(ctx, start, self.window)}

    def decode_flops(self, ctx: int) -> dict[str, int]:
        rows = ctx + 1 if self.window is None else min(ctx + 1, self.window)
        return {"attention": 4 * self.dim * self.heads * rows}

    def read_rows(self, ctx: int) -> dict[str, int]:
        return {"grouped": self.rows(ctx)["grouped"] + 2 * self.kv_heads * self.dim}


Mixer = Delta | Latent | Grouped


@dataclass(frozen=True, slots=True)
class Dense:
    """A gated MLP: gate, up and down."""

    inner: int

    def weights(self, hidden: int) -> dict[str, Weights]:
        return {"dense_mlp": Weights(3 * hidden * self.inner)}


@dataclass(frozen=True, slots=True)
class Experts:
    """Routed experts of three matrices each, of which a token takes num_experts_per_token, and one shared MLP of width shared_inner.

    latent: the routed ones work in that many dimensions, projected down before and up after (latent_norm: with a norm between). bias:
    the router has a correction per expert. shared_gate: the shared MLP has a gate of one number. expert_more and router_more: biases
    of each expert and of the router.
    """

    num_experts: int
    num_experts_per_token: int
    inner: int
    shared_inner: int
    bias: bool = True
    latent: int | None = None
    latent_norm: bool = False
    shared_gate: bool = False
    expert_more: int = 0
    router_more: int = 0

    def expert(self, hidden: int) -> int:
        return 3 * (self.latent or hidden) * self.inner

    def weights(self, hidden: int) -> dict[str, Weights]:
        """`experts`: one of them, to be counted as often as it is there or chosen."""
        shared = Weights(3 * hidden * self.shared_inner, self.shared_gate * hidden)
        if self.latent is not None:
            shared = Weights(shared.split, shared.whole + 2 * hidden * self.latent, self.latent_norm * self.latent)
        return {
            "router": Weights(0, self.num_experts * hidden, self.router_more, self.bias * self.num_experts),
            "experts": Weights(self.expert(hidden), other=self.expert_more),
            "shared_experts": shared,
        }


@dataclass(frozen=True, slots=True)
class Layer:
    """residual: weights of connections between layers that are more than a sum (attention residuals, hyper-connections)."""

    mixer: Mixer
    mlp: Dense | Experts
    residual: Weights = Weights()


def causal_pairs(ctx: int, start: int, most: int | None = None) -> int:
    """Pairs of tokens start ... ctx - 1 with themselves and those before, at most `most` of them each."""

    def upto(n: int) -> int:
        if most is None or n <= most:
            return n * (n + 1) // 2
        return most * (most + 1) // 2 + (n - most) * most

    return upto(ctx) - upto(start)
