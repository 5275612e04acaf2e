"""config.json of other families than the decoder's own, as a shape whose costs are known (`models.published.Shape`).

Fields are read as transformers 5.24 (`configuration_*.py`, `modeling_*.py` of each family) or, for Kimi K3, vLLM 0.32
(`kimi_linear.py`, `models/kimi_k3`) read them; where several say the same they must agree. A model type that is not in FAMILIES and a
field that none of them knows are refused by name: what they change is not known. Vision towers and layers that predict further tokens
are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kleval.models.checkpoint.config_json import MAX_NUMBER, MAX_PARAMETERS, ForeignArchitecture, read_json
from kleval.models.published import Shape
from kleval.models.shape import Delta, Dense, Experts, Grouped, Index, Latent, Layer, Mixer, Weights
from kleval.types import UsageError

LINEAR = "linear_attention"
_KINDS = {
    "full_attention": "full",
    "indexed_attention": "full",
    "deepseek_sparse_attention": "full",
    "sliding_attention": "sliding",
    LINEAR: "linear",
}
# What changes neither what is kept nor what is multiplied, beside every name that ends in _token_id, _version or _placeholder or
# begins with _.
_HARMLESS = {
    *("architectures", "auto_map", "model_type", "dtype", "torch_dtype", "hidden_act", "hidden_activation", "rms_norm_eps"),
    *("initializer_range", "use_cache", "pretraining_tp", "attention_dropout", "ep_size", "return_dict", "problem_type"),
    *("output_attentions", "output_hidden_states", "output_router_logits", "chunk_size_feed_forward", "is_encoder_decoder"),
    *("id2label", "label2id", "tokenizer_class", "rope_parameters", "rope_scaling", "rope_theta", "rope_interleave", "mla_use_nope"),
    *("partial_rotary_factor", "mrope_section", "router_aux_loss_coef", "aux_loss_alpha", "seq_aux", "routed_scaling_factor"),
    *("n_group", "topk_group", "num_expert_group", "use_grouped_topk", "norm_topk_prob", "moe_renormalize", "scoring_func"),
    *("topk_method", "moe_router_activation_func", "moe_router_dtype", "activation_situ_beta", "activation_situ_linear_beta"),
    *("swiglu_limit", "swiglu_alpha", "hc_eps", "hc_sinkhorn_iters", "index_kpool_always_select_tail", "indexer_rope_interleave"),
    *("index_kpool_compress", "index_share_for_mtp_iteration", "initial_context_length", "max_window_layers"),
    *("qk_head_dim", "experts_per_token", "ignore_index", "image_placeholder", "language_model_only", "base_model_tp_plan"),
    *("mtp_use_dedicated_embeddings", "model_max_length", "mhc", "linear_lower_bound", "image_start_token", "quantization"),
}  # fmt: skip
_NOT_COUNTED = ("vision_config", "num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers")


def read_shape(file: Path) -> Shape:
    """The shape that a config.json describes. ForeignArchitecture for a family that is not known, UsageError for what contradicts
    itself, is no number or is not understood; both begin with the file's name."""
    values = read_json(file)
    text = values.get("text_config")
    inner = text if isinstance(text, dict) else values
    kinds = [v.get("model_type") for v in (values, inner)]
    family = next((kind for kind in kinds if isinstance(kind, str) and kind in FAMILIES), None)
    if family is None:
        what = kinds[0] or values.get("architectures") or "none"
        raise ForeignArchitecture(
            f"{file}: model_type is {what!r}, whose costs kleval does not know: it knows {', '.join(sorted(FAMILIES))}"
        )
    try:
        fields = _Fields(values, inner)
        shape = _shape(fields, family)
        fields.refuse_unread()
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from None
    if shape.parameters() > MAX_PARAMETERS:
        raise UsageError(f"{file} describes {shape.parameters()} parameters: one of its numbers must be wrong")
    return shape


class _Fields:
    """Fields of a config.json, of its text model where it has several; keeps which were read."""

    def __init__(self, outer: Mapping[str, Any], inner: Mapping[str, Any]) -> None:
        linear = inner.get("linear_attn_config") or {}
        if not isinstance(linear, dict):
            raise UsageError("linear_attn_config is not an object")
        self.values = {k: v for k, v in inner.items() if k != "linear_attn_config"}
        self.values |= {f"linear_attn_config.{k}": v for k, v in linear.items()}
        if outer is not inner:
            for name, value in outer.items():
                if name == "text_config" or _harmless(name):
                    continue
                if self.values.get(name, value) != value and value is not None:
                    raise UsageError(f"{name} is {value!r}, but text_config.{name} is {self.values[name]!r}")
                self.values.setdefault(name, value)
        self.read: set[str] = set()

    def given(self, *names: str) -> Any:
        """The value under the first of the names that is there, None when none is; all must agree."""
        self.read |= set(names)
        found = {name: self.values[name] for name in names if self.values.get(name) is not None}
        if len({repr(value) for value in found.values()}) > 1:
            raise UsageError("fields contradict each other: " + ", ".join(f"{n} is {v!r}" for n, v in found.items()))
        return next(iter(found.values()), None)

    def number(self, *names: str, default: int | None = None, least: int = 1) -> int:
        value = self.given(*names)
        if value is None:
            if default is None:
                raise UsageError(f"{' or '.join(names)} is missing")
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_NUMBER:
            raise UsageError(f"{names[0]} is {value!r}: expected a whole number from {least} to {MAX_NUMBER}")
        return value

    def maybe(self, *names: str) -> int | None:
        """A number that may be missing or null."""
        return None if self.given(*names) is None else self.number(*names)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.given(name)
        if value is not None and not isinstance(value, bool):
            raise UsageError(f"{name} is {value!r}: expected true or false")
        return default if value is None else value

    def only(self, name: str, *meant: Any) -> None:
        """UsageError unless a field is missing or one of these."""
        value = self.given(name)
        if value is not None and value not in meant:
            raise UsageError(f"{name} is {value!r}: kleval counts {' or '.join(map(repr, meant))} only")

    def refuse_unread(self) -> None:
        for name, value in self.values.items():
            known = name in self.read or name in _NOT_COUNTED or name == "quantization_config" or _harmless(name)
            if not known and value not in (None, False, [], {}):
                raise UsageError(
                    f"{name} is unknown: kleval cannot tell whether it changes the costs; take it out if it does not"
                )


def _harmless(name: str) -> bool:
    return name in _HARMLESS or name.startswith("_") or name.endswith(("_token_id", "_version", "_placeholder"))


Make = Callable[[_Fields], Mixer]


def _shape(f: _Fields, family: str) -> Shape:
    layers, hidden = f.number("num_hidden_layers"), f.number("hidden_size")
    make, mlps, pattern = FAMILIES[family]
    kinds = _pattern(f, layers, pattern)
    mixers = make(f, kinds)
    residual, last = _residual(f, hidden)
    stack = tuple(Layer(mixer, mlp, residual) for mixer, mlp in zip(mixers, mlps(f, layers), strict=True))
    tied = f.flag("tie_word_embeddings")
    how = f.values.get("quantization_config")
    return Shape(
        family,
        f.number("vocab_size"),
        hidden,
        tied,
        stack,
        f.maybe("max_position_embeddings"),
        last,
        None if not how else str(how.get("quant_method", "unknown") if isinstance(how, dict) else how),
        tuple(name for name in _NOT_COUNTED if f.values.get(name)),
    )


def _pattern(f: _Fields, layers: int, default: str) -> list[str]:
    """`full`, `sliding` or `linear` per layer: of layer_types, of Kimi's two lists (counted from 1) or of the family's own rule."""
    types, interval = f.given("layer_types"), f.maybe("full_attention_interval")
    found: list[list[str]] = []
    if types is not None:
        if not isinstance(types, list) or len(types) != layers or any(t not in _KINDS for t in types):
            raise UsageError(f"layer_types is no list of {layers} times {', '.join(_KINDS)}")
        found.append([_KINDS[t] for t in types])
    kda, full = (f.given(f"linear_attn_config.{n}") for n in ("kda_layers", "full_attn_layers"))
    if (default == "kimi" and (kda or full)) or (types is None and (default == "kimi" or (kda and full))):
        found.append(_lists(kda, full, layers))
    elif kda and types is not None:  # GLM-5.3-Flash counts from 0, Kimi from 1
        named = [i for i, kind in enumerate(found[0]) if kind == "linear"]
        if kda not in (named, [i + 1 for i in named]):
            raise UsageError("linear_attn_config.kda_layers and layer_types contradict each other")
    if interval is not None or (default == "quarter" and not found):
        found.append(["full" if (i + 1) % (interval or 4) == 0 else "linear" for i in range(layers)])
    if any(other != found[0] for other in found[1:]):
        raise UsageError("layer_types contradicts linear_attn_config or full_attention_interval")
    if found:
        return found[0]
    if default == "alternating":
        return ["full" if i % 2 else "sliding" for i in range(layers)]
    return ["full"] * layers


def _lists(kda: Any, full: Any, layers: int) -> list[str]:
    lists = [kda or [], full or []]
    if not all(isinstance(found, list) for found in lists) or sorted(lists[0] + lists[1]) != list(range(1, layers + 1)):
        raise UsageError(
            f"linear_attn_config.kda_layers and full_attn_layers do not name each of {layers} layers once, counted from 1"
        )
    return ["linear" if i in lists[0] else "full" for i in range(1, layers + 1)]


def _residual(f: _Fields, hidden: int) -> tuple[Weights, int]:
    """Of a layer, and after the last: Kimi K3's attention residuals (a norm and a vector before either sublayer and at the end),
    GLM-5.3-Flash's hyper-connections (one mixing matrix per sublayer over all streams)."""
    if f.maybe("attn_res_block_size"):
        return Weights(other=4 * hidden), 2 * hidden
    if streams := f.maybe("hc_mult"):
        mix = (2 + streams) * streams
        return Weights(whole=2 * mix * streams * hidden, wide=2 * (mix + 3)), 0
    return Weights(), 0


def _kda(f: _Fields) -> Delta:
    heads = f.number("linear_num_heads", "linear_attn_config.num_heads")
    dim = f.number("linear_head_dim", "linear_attn_config.head_dim")
    taps = f.number("linear_conv_kernel_dim", "linear_attn_config.short_conv_kernel_size")
    f.given("linear_attn_config.gate_lower_bound"), f.given("linear_attn_config.safe_gate")
    return Delta(heads, heads, dim, dim, taps, True, f.flag("linear_attn_config.use_full_rank_gate"))


def _gdn(f: _Fields) -> Delta:
    f.only("mamba_ssm_dtype", "float32")
    return Delta(
        f.number("linear_num_key_heads"),
        f.number("linear_num_value_heads"),
        f.number("linear_key_head_dim"),
        f.number("linear_value_head_dim"),
        f.number("linear_conv_kernel_dim"),
        False,
        True,
    )


def _latent(f: _Fields, kinds: Sequence[str]) -> list[Mixer]:
    """MLA, with an indexer where the config has one, and KDA."""
    heads, query_rank = f.number("num_attention_heads"), f.maybe("q_lora_rank")
    f.only("attention_bias", False)
    f.only("num_key_value_heads", heads)
    f.given("head_dim")
    nope, rope = (f.number(name, least=0) for name in ("qk_nope_head_dim", "qk_rope_head_dim"))
    value, rank, gate = f.number("v_head_dim"), f.number("kv_lora_rank"), f.flag("mla_use_output_gate")
    most, index = f.maybe("index_topk"), None
    if most is not None:
        if query_rank is None:
            raise UsageError("index_topk is there but q_lora_rank, which the indexer's queries come from, is not")
        sizes = (f.number("index_n_heads"), f.number("index_head_dim"))
        index = Index(*sizes, most, query_rank, f.number("index_kpool", default=1))
    runs = _indexers(f, len(kinds))
    linear = _kda(f) if "linear" in kinds else None
    found: list[Mixer] = []
    for kind, run in zip(kinds, runs, strict=True):
        latent = Latent(heads, nope, rope, value, rank, query_rank, gate, index if run else None, most)
        found.append(linear if kind == "linear" and linear is not None else latent)
    return found


def _indexers(f: _Fields, layers: int) -> list[bool]:
    """Which layers run an indexer of their own."""
    types, frequency, offset = f.given("indexer_types"), f.maybe("index_topk_freq"), f.given("index_skip_topk_offset")
    if types is not None:
        if not isinstance(types, list) or len(types) != layers or set(types) - {"full", "shared"}:
            raise UsageError(f"indexer_types is no list of {layers} times full or shared")
        return [t == "full" for t in types]
    f.only("index_topk_pattern")
    first = 2 if offset is None else f.number("index_skip_topk_offset", least=0)
    return [max(i - first + 1, 0) % (frequency or 1) == 0 for i in range(layers)]


def _grouped(norms: bool = False, biases: str = "", gate: bool = False, sinks: bool = False) -> Any:
    """GQA. norms: of queries and keys; biases: `qkv` or `qkvo` always, `asked` as attention_bias says."""

    def make(f: _Fields, kinds: Sequence[str]) -> list[Mixer]:
        heads = f.number("num_attention_heads")
        groups = f.number("num_key_value_heads", default=heads)
        if heads % groups:
            raise UsageError(f"num_key_value_heads {groups} does not divide num_attention_heads {heads}")
        hidden = f.number("hidden_size")
        dim = f.number("head_dim", default=hidden // heads)
        asked = f.flag("attention_bias", default=biases == "qkvo")
        more = 2 * dim if norms else 0
        if asked or biases == "qkv":
            more += (heads + 2 * groups) * dim + (0 if biases == "qkv" else hidden)
        f.only("mlp_bias", False)
        if gate:
            f.only("attn_output_gate", True)
        window = None if f.given("sliding_window") is None else f.number("sliding_window", least=2)
        if f.given("use_sliding_window") is False:
            window = None
        if "sliding" in kinds and window is None:
            raise UsageError("layer_types has sliding_attention, but sliding_window is missing")
        every = window is not None and f.given("layer_types") is None and "sliding" not in kinds
        if every and f.given("use_sliding_window"):
            raise UsageError("use_sliding_window is true without layer_types, which says where")
        linear = _gdn(f) if "linear" in kinds else None
        more += heads if sinks else 0

        def one(kind: str) -> Mixer:
            if kind == "linear" and linear is not None:
                return linear
            return Grouped(heads, groups, dim, window if every or kind == "sliding" else None, gate, more)

        return [one(kind) for kind in kinds]

    return make


def _dense(f: _Fields, layers: int) -> list[Dense | Experts]:
    return [Dense(f.number("intermediate_size"))] * layers


def _shared_moe(f: _Fields, layers: int) -> list[Dense | Experts]:
    """DeepSeek's, Kimi's and GLM's: the first layers dense, then routed and shared experts; a router with a correction per expert."""
    types, first = f.given("mlp_layer_types"), f.given("first_k_dense_replace")
    f.only("moe_layer_freq", 1)
    if types is None and first is None:
        raise UsageError("neither first_k_dense_replace nor mlp_layer_types says which layers have experts")
    if types is not None:
        count = types.count("dense") if isinstance(types, list) else -1
        if types != ["dense"] * count + ["sparse"] * (layers - count):
            raise UsageError(f"mlp_layer_types is not {layers} times dense or sparse with the dense ones first")
        if first is not None and min(f.number("first_k_dense_replace", least=0), layers) != count:
            raise UsageError(f"first_k_dense_replace is {first}, but mlp_layer_types begins with {count} dense layers")
    else:
        count = min(f.number("first_k_dense_replace", least=0), layers)
    inner, latent = f.number("moe_intermediate_size"), f.maybe("routed_expert_hidden_size")
    shared = inner * f.number("num_shared_experts", "n_shared_experts", default=0, least=0)
    number = f.number("num_experts", "n_routed_experts", "num_local_experts")
    experts = Experts(*_top(f, number), inner, shared, True, latent, f.flag("latent_moe_use_norm"))
    return [Dense(f.number("intermediate_size"))] * count + [experts] * (layers - count)


def _top(f: _Fields, number: int) -> tuple[int, int]:
    top = f.number("num_experts_per_tok", "num_experts_per_token")
    if top > number:
        raise UsageError(f"num_experts_per_token {top} is more than the {number} experts")
    return number, top


def _qwen_moe(f: _Fields, layers: int) -> list[Dense | Experts]:
    f.only("decoder_sparse_step", 1)
    f.only("mlp_only_layers", [])
    f.given("intermediate_size")
    shared = f.number("shared_expert_intermediate_size", default=0, least=0)
    inner, number = f.number("moe_intermediate_size"), f.number("num_experts", "num_local_experts")
    return [Experts(*_top(f, number), inner, shared, False, shared_gate=shared > 0)] * layers


def _gpt_oss(f: _Fields, layers: int) -> list[Dense | Experts]:
    number, inner, hidden = (
        f.number("num_local_experts", "num_experts"),
        f.number("intermediate_size"),
        f.number("hidden_size"),
    )
    top = _top(f, number)
    return [Experts(*top, inner, 0, False, expert_more=2 * inner + hidden, router_more=number)] * layers


# model type -> mixers, MLPs, and which layers are what where the config does not say
FAMILIES: dict[str, tuple[Any, Any, str]] = {
    **dict.fromkeys(("kimi_k3", "kimi_linear"), (_latent, _shared_moe, "kimi")),
    **dict.fromkeys(("deepseek_v3", "kimi_k2", "deepseek_v32", "glm_moe_dsa"), (_latent, _shared_moe, "full")),
    **dict.fromkeys(("glm5_next", "glm5_next_text"), (_latent, _shared_moe, "quarter")),
    **dict.fromkeys(("qwen3_5", "qwen3_5_text"), (_grouped(norms=True, gate=True), _dense, "quarter")),
    **dict.fromkeys(
        ("qwen3_5_moe", "qwen3_5_moe_text", "qwen3_next"), (_grouped(norms=True, gate=True), _qwen_moe, "quarter")
    ),
    **dict.fromkeys(("llama", "mistral"), (_grouped(), _dense, "full")),
    "qwen2": (_grouped(biases="qkv"), _dense, "full"),
    "qwen3": (_grouped(norms=True), _dense, "full"),
    "qwen3_moe": (_grouped(norms=True), _qwen_moe, "full"),
    "gpt_oss": (_grouped(biases="qkvo", sinks=True), _gpt_oss, "alternating"),
}
