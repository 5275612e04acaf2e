"""Model object of the user's as a backend: a transformers causal LM, kleval's Decoder, or any torch module.

A module is `forward(ids) -> logits`, ids [B, T] and logits [B, T, V], or with a cache `forward(ids, cache) -> (logits, cache)`,
where cache is None before the first token and anything the module likes afterwards (tensors, however they are nested). It is asked
through the loop of the other backends in this process: what transformers' models are called with is made of it here (`Plain`), and
`hf_model` tries out what its cache allows before it is trusted. Without a cache every new token runs its whole text through the model
again; that is said with the results.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from kleval.backends.devices import device_name
from kleval.backends.hf import HFBackend
from kleval.backends.hf_model import HFModel
from kleval.backends.native import NativeBackend
from kleval.backends.spec import BackendSpec
from kleval.models.decoder import Decoder
from kleval.tokenization.given import given_tokenizer
from kleval.tokenization.growth import PROBE
from kleval.types import Tokenizer, UsageError

NO_CACHE = (
    "has no cache: every token of an answer runs the whole text through the model again, so an answer of N tokens costs as much as "
    "N prompts; forward(ids, cache) -> (logits, cache) would make it one"
)
LONGEST = ("max_position_embeddings", "n_positions", "max_seq_len", "max_seq_length", "block_size", "context_length")
WIDTHS = ("hidden_size", "d_model", "n_embd", "dim", "n_embed")
_MOST_VALUES = 1 << 16  # of a tensor that its digest is over


def is_model(given: object) -> bool:
    """Whether it is a model to be asked in this process, and no backend."""
    return isinstance(given, torch.nn.Module) or (
        callable(given) and not isinstance(given, type) and not hasattr(given, "run")
    )


def open_given(
    model: Any,
    tokenizer: object = None,
    name: str | None = None,
    *,
    max_ctx: int | None = None,
    batch: int | None = None,
    memory_budget: int | None = None,
    share_prefixes: bool = True,
    request_timeout: float = 600.0,
) -> HFBackend | NativeBackend:
    """A backend for a model object, where it is and in the dtype it has; close puts it back into the mode (training or not) it was in.

    tokenizer: as `kleval.tokenization.given.given_tokenizer` takes it. name: in rows and figures; the class's unless given. max_ctx:
    the longest prompt and answer; what its config says unless given. UsageError for what is no such model, a tokenizer that does not
    go with it, and a cache that gives other logits than the whole text.
    """
    called = name or name_of(model)
    if tokenizer is None:
        raise UsageError(f"{called} is a model without a tokenizer: give one, kleval.evaluate(model, tokenizer, ...)")
    reads = given_tokenizer(tokenizer, called)
    if isinstance(model, Decoder):
        ends = [i for i in (getattr(reads, "eos_id", None),) if i is not None]
        return NativeBackend(
            model, reads, called, weights_digest(model), batch, memory_budget,  # type: ignore[arg-type]
            share_prefixes=share_prefixes, ends=ends, request_timeout=request_timeout,
        )  # fmt: skip
    spec = BackendSpec(
        model=called,
        backend="given",
        batch=batch,
        memory_budget=memory_budget,
        share_prefixes=share_prefixes,
        request_timeout=request_timeout,
    )
    training = [module for module in _modules(model) if module.training]
    for module in _modules(model)[:1]:
        module.eval()
    try:
        return _opened(model, reads, called, max_ctx, spec, training)
    except BaseException:
        _train(training)
        raise


def _opened(
    model: Any, reads: Tokenizer, called: str, max_ctx: int | None, spec: BackendSpec, training: Sequence[Any]
) -> GivenBackend:
    device = next((tensor.device for tensor in _tensors(model)), torch.device("cpu"))
    if any(base.__name__ == "PreTrainedModel" for base in type(model).__mro__):
        asked, cached = model, True
        vocab_size = int(model.config.get_text_config().vocab_size)
    else:
        logits, cached = _first(model, called, device)
        vocab_size = logits.shape[-1]
        width = _of_config(model, WIDTHS) or max((t.shape[0] for t in _tensors(model) if t.ndim == 1), default=64)
        asked = Plain(model, cached, vocab_size, width)
    adapter = HFModel(asked, device, vocab_size)
    longest = max_ctx or _of_config(model, LONGEST)
    if wrong := adapter.find_out(longest):
        raise UsageError(f"{called} cannot be asked token by token: {wrong}{'' if asked is model else _MEND}")
    if not cached:  # a part of a text costs as much as all of it
        adapter.chunked = adapter.copied = False
    known = max(reads.encode(PROBE), default=0)
    if known >= vocab_size:
        raise UsageError(
            f"{called} knows token ids below {vocab_size:,}, its tokenizer {reads.name} gives {known:,}: they do not belong together"
        )
    return GivenBackend(adapter, reads, called, spec, longest, _ends(model, reads), cached, training)


_MEND = "; forward(ids, cache) takes the cache that the call before gave, with the tokens that follow"


class GivenBackend(HFBackend):
    """kleval.types.Timed on a model object. cached: whether it has a cache. training: its modules that were in training mode."""

    name = "given"

    def __init__(
        self,
        adapter: HFModel,
        tokenizer: Tokenizer,
        model: str,
        spec: BackendSpec,
        max_ctx: int | None,
        ends: frozenset[int],
        cached: bool,
        training: Sequence[Any],
    ) -> None:
        digest = weights_digest(adapter.model.module if isinstance(adapter.model, Plain) else adapter.model)
        super().__init__(adapter, tokenizer, model, digest, ends, spec, torch.__version__)  # type: ignore[arg-type]
        self.max_ctx = max_ctx
        self._cached, self._training = cached, training

    def describe(self) -> dict[str, Any]:
        told = super().describe()
        model = self._adapter.model
        module = model.module if isinstance(model, Plain) else model
        own = {
            "device": device_name(self._adapter.device),
            "architecture": type(module).__name__,
            "code_sha256": _code_digest(module),
            "cache": "the model's" if self._cached else "none",
        }
        left_out = ("transformers", "dtype_settled", "revision", "trust_remote_code")
        caveat = {} if self._cached else {"caveat": f"{self.model} {NO_CACHE}."}
        return {k: v for k, v in told.items() if k not in left_out} | own | caveat

    def describe_timed(self) -> dict[str, Any]:
        told = super().describe_timed() | {"backend": "given", "software": "torch"}
        if not self._cached:
            told["caveat"] = self.describe()["caveat"]
        return told | {"environment": {"software": f"torch {torch.__version__}"}}

    def close(self) -> None:
        super().close()
        _train(self._training)


@dataclass(frozen=True, slots=True)
class Plain:
    """A module as transformers' models are called. cached: whether it takes and gives a cache. width: of its layers, which the
    memory of a batch is estimated from."""

    module: Any
    cached: bool
    vocab_size: int
    width: int

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        use_cache: bool = True,
        past_key_values: Any = None,
        logits_to_keep: int = 1,
    ) -> SimpleNamespace:
        if self.cached:
            if not bool(attention_mask.all()):
                raise ValueError("padding is not for a module's own cache")
            logits, state = _pair(self.module(input_ids, None if past_key_values is None else past_key_values.state))
            return SimpleNamespace(logits=logits[:, -logits_to_keep:], past_key_values=State(state))
        texts = (past_key_values or Texts.empty(input_ids)).more(input_ids, attention_mask[:, -input_ids.shape[1] :])
        return SimpleNamespace(logits=texts.logits(self.module, logits_to_keep), past_key_values=texts)

    def __call__(self, **given: Any) -> SimpleNamespace:
        return self.forward(**given)

    def parameters(self) -> Sequence[Tensor]:
        found = [tensor for tensor in _tensors(self.module) if tensor.is_floating_point()]
        return found or [torch.zeros(1)]

    @property
    def config(self) -> Any:
        text = SimpleNamespace(hidden_size=self.width, intermediate_size=4 * self.width, vocab_size=self.vocab_size)
        return SimpleNamespace(get_text_config=lambda: text)


@dataclass(slots=True)
class State:
    """A module's own cache. Rows are picked along the first dimension of every tensor in it, or as its own `reorder_cache` does."""

    state: Any

    @property
    def tensors(self) -> list[Tensor]:
        found: list[Tensor] = []
        _mapped(self.state, lambda tensor: found.append(tensor) or tensor)  # type: ignore[func-returns-value]
        return found

    def reorder_cache(self, index: Tensor) -> None:
        if hasattr(self.state, "reorder_cache"):
            self.state = self.state.reorder_cache(index) or self.state
        else:
            self.state = _mapped(self.state, lambda tensor: tensor.index_select(0, index) if tensor.ndim else tensor)


@dataclass(slots=True)
class Texts:
    """All tokens so far of each row, for a module without a cache. Rows of different length are filled up on the right, which a
    causal model does not see."""

    rows: list[Tensor]

    @classmethod
    def empty(cls, ids: Tensor) -> Texts:
        return cls([ids[i, :0] for i in range(len(ids))])

    @property
    def tensors(self) -> list[Tensor]:
        return self.rows

    def more(self, ids: Tensor, mask: Tensor) -> Texts:
        rows = zip(self.rows, ids, mask, strict=True)
        return Texts([torch.cat([row, new[seen.bool()]]) for row, new, seen in rows])

    def logits(self, module: Any, keep: int) -> Tensor:
        """The last `keep` positions of each row [B, keep, V]; nothing stands where a row is shorter."""
        ids = torch.nn.utils.rnn.pad_sequence(self.rows, batch_first=True)
        logits, _ = _pair(module(ids))
        found = logits.new_zeros(len(ids), keep, logits.shape[-1])
        for i, row in enumerate(self.rows):
            n = min(keep, len(row))
            found[i, keep - n :] = logits[i, len(row) - n : len(row)]
        return found

    def reorder_cache(self, index: Tensor) -> None:
        self.rows = [self.rows[i] for i in index.tolist()]


def weights_digest(model: Any) -> str:
    """sha256 (hex) over names, shapes and values of all tensors; of large ones over every n-th value, and over the sum of all."""
    h = hashlib.sha256()
    for name, tensor in _state(model):
        flat = tensor.detach().reshape(-1)
        some = flat[:: max(1, -(-len(flat) // _MOST_VALUES))]
        h.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        h.update(some.double().cpu().numpy().tobytes() + str(float(flat.double().sum()) if len(flat) else 0).encode())
    return h.hexdigest()


@torch.inference_mode()
def _first(model: Any, called: str, device: torch.device) -> tuple[Tensor, bool]:
    """Logits of a few tokens, and whether the module gives a cache with them. UsageError for anything else."""
    ids = torch.zeros(1, 4, dtype=torch.int64, device=device)
    needed = [
        p for p in _parameters(model) if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    try:
        logits, state = _pair(model(ids, None) if len(needed) > 1 else model(ids))
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise UsageError(f"{called}: forward(ids [1, 4]) raises {type(error).__name__}: {said}") from error
    if not isinstance(logits, Tensor) or logits.ndim != 3 or tuple(logits.shape[:2]) != (1, 4):
        got = f"{tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise UsageError(
            f"{called}: forward(ids [1, 4]) gives {got}: logits of every position are needed, [1, 4, vocabulary]"
        )
    return logits, state is not None


def _pair(given: Any) -> tuple[Any, Any]:
    """Logits and cache of what a module returned: a tensor, a pair, or an object with `logits`."""
    if isinstance(given, tuple | list):
        return (given[0], given[1]) if len(given) > 1 else (given[0], None)
    if isinstance(given, Mapping):
        return given.get("logits"), given.get("cache")
    return getattr(given, "logits", given), None


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same with every tensor in it changed, however they are nested."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: _mapped(one, change) for key, one in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_mapped(one, change) for one in value))
    if isinstance(value, list | tuple):
        return type(value)(_mapped(one, change) for one in value)
    if isinstance(value, torch.nn.Module) or not hasattr(value, "__dict__") or callable(value):
        return value
    made = copy.copy(value)
    for name, one in vars(value).items():
        setattr(made, name, _mapped(one, change))
    return made


def _parameters(model: Any) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(getattr(model, "forward", model)).parameters.values())
    except (TypeError, ValueError):
        return []


def _modules(model: Any) -> list[torch.nn.Module]:
    """The model and what is in it, where it is a module."""
    return list(model.modules()) if isinstance(model, torch.nn.Module) else []


def _train(training: Sequence[torch.nn.Module]) -> None:
    for module in training:
        module.training = True


def _state(model: Any) -> list[tuple[str, Tensor]]:
    return list(model.state_dict().items()) if isinstance(model, torch.nn.Module) else []


def _tensors(model: Any) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()] if isinstance(model, torch.nn.Module) else []


def _of_config(model: Any, names: Sequence[str]) -> int | None:
    """The first of the names that the model's config, or the model, has as a number."""
    places = (getattr(model, "config", None), model)
    found = (getattr(place, name, None) for place in places for name in names)
    return next((one for one in found if isinstance(one, int) and not isinstance(one, bool) and one > 0), None)


def name_of(model: Any) -> str:
    """What a model object is called: its config's name, else its class's."""
    named = getattr(getattr(model, "config", None), "_name_or_path", None)
    own = getattr(model, "__name__", None) or type(model).__name__
    return Path(named).name if isinstance(named, str) and named else str(own)


def _ends(model: Any, reads: Tokenizer) -> frozenset[int]:
    """Tokens that end an answer: the tokenizer's, and those of the model's generation settings."""
    told = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return frozenset(
        i for i in [getattr(reads, "eos_id", None), *(told if isinstance(told, list) else [told])] if i is not None
    )


def _code_digest(module: Any) -> str:
    """Of the class's source; empty where there is none to read."""
    try:
        return hashlib.sha256(inspect.getsource(type(module)).encode()).hexdigest()
    except (OSError, TypeError):
        return ""
