"""The whole decoder in C++ on a CPU: prompts and decode steps of a batch in one call (`ops/native/decoder.cpp`).

Float32 weights without gradients and a float32 cache; every architecture and size whose second, packed copy of the weights stays below
MOST_BYTES. What does not fit, and what a library is missing for, takes the torch form: the same function up to rounding. States are
advanced where they lie, cached rows are read and written where the cache keeps them.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from kleval.models.attention import LATENT_EPS, LatentAttention
from kleval.models.cache import HybridCache, LatentState, RecurrentState
from kleval.models.config import ModelConfig
from kleval.models.layers import MLP, Block, SparseMoE
from kleval.models.linear_attention import LinearAttention
from kleval.ops.native.loading import native
from kleval.ops.native.product import Matrix, packed, panel

MOST_BYTES = 1 << 30
MOST_ABSORBED = 24  # new tokens of a sequence for which its attention stays in latent space
TOGETHER = 64  # new tokens up to which sequences go together: beyond, products are wide enough with one
_MIXERS = {"mla": 0, "kda": 1, "gdn": 2}


def _structure(name: str, fields: str) -> type[ctypes.Structure]:
    """Words are integers, `*word` is a pointer, `[word` a matrix, `.word` a double."""
    kinds: dict[str, Any] = {"*": ctypes.c_void_p, "[": Matrix, ".": ctypes.c_double}
    typed = [(f.lstrip("*[."), kinds.get(f[0], ctypes.c_int64)) for f in fields.split()]
    return type(name, (ctypes.Structure,), {"_fields_": typed})


_Layer = _structure(
    "Layer",
    "mixer *norm *mlp_norm [inputs [output [forget [gate *taps *bias *rate *head_norm *latent_norm *kv_b *to_latent *from_latent"
    " [gate_up [down [router *router_bias *experts_gate_up *experts_down",
)
_Model = _structure(
    "Model",
    "*layers *embeddings *norm *frequencies count hidden vocabulary heads dim taps attention_heads nope rope value rank"
    " experts top_k expert_inner .eps .latent_eps .multiplier .scaling .bound [head",
)
_Segment = _structure("Segment", "*rows count layer_stride")
_Sequence = _structure("Sequence", "begin count position *recurrent *conv *segments segment_count")
_Run = _structure(
    "Run", "*model *sequences *ids *hidden *logits *lengths sequence_count tokens absorbed_tokens threads"
)
_Steps = _structure("Steps", "most *inputs *ends end_count *chosen *seconds done")


@dataclass(frozen=True, slots=True)
class NativeWeights:
    """A decoder's weights as the library reads them. kept: what their addresses point to."""

    model: ctypes.Structure
    kept: tuple[Any, ...]
    absorbed_tokens: int


def fits(model: nn.Module, config: ModelConfig) -> bool:
    """Whether such weights are run in C++, if there is a library."""
    kinds = {(p.dtype, p.device.type) for p in model.parameters()}
    return kinds == {(torch.float32, "cpu")} and config.parameters() * 4 <= MOST_BYTES


class _Packer:
    """Tensors whose addresses go into structures, kept alive together."""

    def __init__(self, panel: int) -> None:
        self.panel, self.kept = panel, list[Any]()

    def keep(self, x: Tensor) -> int:
        """The address of a copy: a generation under way does not see what is written to a parameter."""
        self.kept.append(x.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format))
        return self.kept[-1].data_ptr()

    def panels(self, x: Tensor) -> Tensor:
        return packed(x, self.panel)

    def matrix(self, x: Tensor) -> Matrix:
        return Matrix(self.keep(self.panels(x)), *x.shape)


def pack(model: nn.Module, head: Tensor, config: ModelConfig) -> NativeWeights:
    """The weights of a decoder: its `model` (embeddings, layers, norm) and head [vocabulary, hidden]."""
    library = native()
    assert library is not None
    packer = _Packer(panel())
    layers = (_Layer * config.num_hidden_layers)(*(_layer(packer, block) for block in model.layers))  # type: ignore[union-attr]
    packer.kept.append(layers)
    frequencies = None
    if not config.mla_use_nope:
        half = config.qk_rope_head_dim // 2
        frequencies = packer.keep(config.rope_theta ** (-torch.arange(half, dtype=torch.float32) / half))
    expanded = config.kv_lora_rank * (config.qk_nope_head_dim + config.v_head_dim)
    more = 2 * config.kv_lora_rank - config.qk_nope_head_dim - config.v_head_dim
    whole = _Model(
        ctypes.addressof(layers),
        packer.keep(model.embed_tokens.weight),  # type: ignore[union-attr,arg-type]
        packer.keep(model.norm.weight),  # type: ignore[union-attr,arg-type]
        frequencies,
        config.num_hidden_layers,
        config.hidden_size,
        config.vocab_size,
        config.kda_num_heads,
        config.kda_head_dim,
        config.short_conv_kernel_size,
        config.num_attention_heads,
        config.qk_nope_head_dim,
        config.qk_rope_head_dim,
        config.v_head_dim,
        config.kv_lora_rank,
        config.num_experts,
        config.num_experts_per_token,
        config.moe_intermediate_size,
        config.rms_norm_eps,
        LATENT_EPS,
        config.embedding_multiplier,
        config.routed_scaling_factor,
        config.kda_gate_lower_bound or 0.0,
        packer.matrix(head),
    )
    return NativeWeights(whole, tuple(packer.kept), min(MOST_ABSORBED, expanded // more if more > 0 else MOST_ABSORBED))


def _layer(packer: _Packer, block: Block) -> ctypes.Structure:
    mixer = block.self_attn
    layer = _Layer(
        norm=packer.keep(block.input_layernorm.weight), mlp_norm=packer.keep(block.post_attention_layernorm.weight)
    )
    layer.output = packer.matrix(mixer.o_proj.weight)  # type: ignore[union-attr,arg-type]
    if isinstance(mixer, LatentAttention):
        layer.mixer = _MIXERS["mla"]
        layer.inputs = packer.matrix(torch.cat([mixer.q_proj.weight, mixer.kv_a_proj_with_mqa.weight]))
        layer.latent_norm = packer.keep(mixer.kv_a_layernorm.weight)
        kv_b = mixer.kv_b_proj.weight.view(mixer.heads, -1, mixer.rank)  # [H, nope + v, rank]
        layer.kv_b = packer.keep(kv_b)
        layer.to_latent = packer.keep(packer.panels(kv_b[:, : mixer.nope].transpose(1, 2)))
        layer.from_latent = packer.keep(packer.panels(kv_b[:, mixer.nope :]))
    else:
        assert isinstance(mixer, LinearAttention)
        layer.mixer = _MIXERS["gdn" if mixer.per_head else "kda"]
        inputs = mixer.inputs()
        assert inputs is not None
        layer.inputs = packer.matrix(inputs.weight)
        if not mixer.per_head:
            layer.forget = packer.matrix(mixer.f_b_proj.weight)
        if not mixer.full_rank_gate:
            layer.gate = packer.matrix(mixer.g_b_proj.weight)
        layer.taps = packer.keep(inputs.taps.squeeze(1).t())
        layer.bias, layer.rate = packer.keep(inputs.bias), packer.keep(inputs.rate)
        layer.head_norm = packer.keep(mixer.o_norm.weight)
    if block.sparse:
        moe: SparseMoE = block.block_sparse_moe
        layer.router = packer.matrix(moe.gate.weight)
        layer.router_bias = packer.keep(moe.gate.e_score_correction_bias)
        layer.experts_gate_up = packer.keep(packer.panels(moe.experts.gate_up_proj))
        layer.experts_down = packer.keep(packer.panels(moe.experts.down_proj))
        if moe.shared_experts is not None:
            _dense(packer, layer, moe.shared_experts)
    else:
        _dense(packer, layer, block.mlp)
    return layer


def _dense(packer: _Packer, layer: Any, mlp: MLP) -> None:
    layer.gate_up = packer.matrix(torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]))
    layer.down = packer.matrix(mlp.down_proj.weight)


def native_hidden(weights: NativeWeights, ids: Tensor, cache: HybridCache, counts: Sequence[int]) -> Tensor:
    """`Decoder.hidden` between the cache's `begin` and `advance`: ids [B, T], of which counts [B] are real -> [B, T, hidden]."""
    batch, tokens = ids.shape
    width = weights.model.hidden
    hidden = torch.empty(batch, tokens, width)
    ids = ids.to(torch.int64).contiguous()
    ids_at, hidden_at, lengths = ids.data_ptr(), hidden.data_ptr(), cache.lengths_host
    states = _settled(cache)
    full = min(counts) == tokens
    groups = [range(batch)] if full and tokens <= TOGETHER else [range(row, row + 1) for row in range(batch)]
    for group in groups:
        n = counts[group[0]]
        sequences, kept = _sequences(cache, states, group, n)
        for sequence, row in zip(sequences, group, strict=True):
            sequence.position = lengths[row]
        if n:
            first, count = group[0] * tokens, len(group)
            run = _Run(
                ids=ids_at + first * 8, hidden=hidden_at + first * width * 4, sequence_count=count, tokens=count * n
            )
            _run(weights, run, sequences)
        del kept
    return hidden


class NativeSteps:
    """Decode steps of a cache: one new token per row -> logits. What a step reads is prepared once, and again when the cache has moved.

    The weights are those of the beginning: a generation under way does not see what is written to them.
    """

    __slots__ = ("_cache", "_kept", "_layout", "_run", "_sequences", "_states", "_weights")

    def __init__(self, weights: NativeWeights, cache: HybridCache) -> None:
        self._weights, self._cache = weights, cache
        self._layout: tuple[int, int] | None = None

    def logits(self, ids: Tensor) -> Tensor:
        """ids int64 [B] -> float32 [B, V]; the cache is advanced by one token per row."""
        return self.greedy(ids, 1, ())[2]

    def greedy(self, ids: Tensor, most: int, ends: Collection[int]) -> tuple[list[list[int]], list[float], Tensor]:
        """ids int64 [B], then what is most likely after each step: the tokens [n - 1][B] chosen after all n steps but the last, when
        (time.perf_counter), and the last one's logits [B, V].

        n is `most`, or ends with the first step after which the most likely token of some row is one of `ends`, or its logits are
        not finite. The cache is advanced by n tokens per row.
        """
        until, chosen = (ctypes.c_int64 * len(ends))(*ends), torch.empty(most, len(ids), dtype=torch.int64)
        steps = _Steps(
            most=most, ends=ctypes.addressof(until), end_count=len(ends), chosen=chosen.data_ptr() if most > 1 else None
        )
        done, logits = self._go(ids, steps)
        return chosen[: len(done) - 1].tolist(), done[:-1], logits

    def given(self, ids: Tensor) -> list[float]:
        """ids int64 [n, B], whatever the logits say -> when each step was done; the cache is advanced by n tokens per row."""
        ids = ids.to(torch.int64).contiguous()
        return self._go(ids[0], _Steps(most=len(ids), inputs=ids.data_ptr()))[0]

    def _go(self, ids: Tensor, steps: Any) -> tuple[list[float], Tensor]:
        cache = self._cache
        cache.begin(steps.most)
        if cache.layout != self._layout or any(
            state.recurrent is not recurrent or state.conv is not conv for state, recurrent, conv in self._states
        ):
            self._prepare()
        ids = ids.to(torch.int64).contiguous()
        logits, seconds = torch.empty(len(ids), self._weights.model.head.outputs), (ctypes.c_double * steps.most)()
        self._run.ids, self._run.logits, steps.seconds = ids.data_ptr(), logits.data_ptr(), ctypes.addressof(seconds)
        called = time.perf_counter()
        _run(self._weights, self._run, self._sequences, steps)
        cache.advance_host(steps.done)
        return [called + passed for passed in seconds[: steps.done]], logits

    def _prepare(self) -> None:
        cache = self._cache
        states, lengths = _settled(cache), cache.lengths
        batch = len(lengths)
        self._sequences, self._kept = _sequences(cache, states, range(batch), 1)
        self._run = _Run(lengths=lengths.data_ptr(), sequence_count=batch, tokens=batch)
        self._states = [(state, state.recurrent, state.conv) for state in states]
        self._layout = cache.layout


def _sequences(
    cache: HybridCache, states: Sequence[RecurrentState], rows: Sequence[int], tokens: int
) -> tuple[Any, Any]:
    """What the library reads of some rows with so many new tokens each, behind one another; and what has to be kept with it."""
    latent = next((state for state in cache.layers if isinstance(state, LatentState)), None)
    kept, sequences = [], (_Sequence * len(rows))()
    for place, row in enumerate(rows):
        recurrent = (ctypes.c_void_p * len(states))(*(_row(state.recurrent, row) for state in states))
        conv = (ctypes.c_void_p * len(states))(*(_row(state.conv, row) for state in states))
        segments = _segments(latent, row)
        addresses = [ctypes.addressof(array) for array in (recurrent, conv, segments)]
        sequences[place] = _Sequence(place * tokens, tokens, 0, *addresses, len(segments))
        kept += [recurrent, conv, segments]
    return sequences, kept


def _run(weights: NativeWeights, run: Any, sequences: Any, steps: Any = None) -> None:
    library = native()
    assert library is not None
    run.model, run.sequences = ctypes.addressof(weights.model), ctypes.addressof(sequences)
    run.absorbed_tokens, run.threads = weights.absorbed_tokens, torch.get_num_threads()
    if steps is None:
        failed = library.code.kleval_decoder_run(ctypes.byref(run))
    else:
        failed = library.code.kleval_decoder_steps(ctypes.byref(run), ctypes.byref(steps))
    if failed == 3:
        raise IndexError("a token id outside of the vocabulary")
    if failed:
        raise MemoryError("decoder: out of memory") if failed == 1 else RuntimeError("decoder failed")


def _settled(cache: HybridCache) -> list[RecurrentState]:
    """The recurrent states, as the library wants them."""
    states = [state for state in cache.layers if isinstance(state, RecurrentState)]
    for state in states:
        _settle(state)
    return states


def _settle(state: RecurrentState) -> None:
    """States as the library wants them: [B, H, D, D], and [B, 3 H D, width - 1] with time outside in memory."""
    if not state.recurrent.is_contiguous():
        state.recurrent = state.recurrent.contiguous()
    _, channels, taps = state.conv.shape
    if state.conv.stride() != (channels * taps, 1, channels):
        state.conv = state.conv.transpose(1, 2).contiguous().transpose(1, 2)


def _row(x: Tensor, row: int) -> int:
    return x.data_ptr() + row * x.stride(0) * 4


def _segments(latent: LatentState | None, row: int) -> Any:
    if latent is None:
        return (_Segment * 0)()
    of_row = latent.latents.rows[row]
    return (_Segment * len(of_row.segments))(
        *(
            _Segment(segment.layers[0].data_ptr(), end - first, (segment.end - segment.first) * latent.latents.width)
            for segment, (first, end) in zip(of_row.segments, pairwise(of_row.edges()), strict=True)
        )
    )
