"""An engine that behaves as vLLM 0.32 does, without one: it checks what is added, counts what is cached, and can break or die."""

from __future__ import annotations

import dataclasses
import queue
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

VOCAB, EOS, LIMIT, BLOCK = 257, 256, 64, 16


class VLLMError(Exception):
    pass


class VLLMClientError(VLLMError):
    pass


class VLLMValidationError(VLLMClientError):
    pass


class EngineDeadError(VLLMError):
    pass


@dataclasses.dataclass
class SamplingParams:
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    max_tokens: int = 16
    prompt_logprobs: int | None = None
    logprobs: int | None = None
    logprob_token_ids: list[int] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    detokenize: bool = True
    output_kind: str = "cumulative"


@dataclasses.dataclass
class EngineArgs:
    model: str = ""
    max_num_batched_tokens: int | None = None
    enforce_eager: bool = False
    kv_cache_dtype: str = "auto"
    gpu_memory_utilization: float = 0.92
    hf_overrides: dict[str, Any] | None = None
    _internal: int = 0


def following(ids: list[int]) -> int:
    """The fake model: the next byte is the last one plus one; z is followed by the end."""
    return EOS if ids[-1] == ord("z") else (ids[-1] + 1) % EOS


class FakeCore:
    """The client of an engine in a process of its own."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.resources = SimpleNamespace(engine_dead=False)
        self.outputs_queue: queue.Queue[Any] = queue.Queue()

    def shutdown(self) -> None:
        self.engine.closed = True


class FakeEngine:
    """LLMEngine: requests are checked one by one as they are added; each step gives every running request one token."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        limit = arguments.get("max_model_len", LIMIT)
        self.vllm_config = SimpleNamespace(
            model_config=SimpleNamespace(
                dtype="torch.float32",
                max_model_len=limit,
                quantization=None,
                enforce_eager=arguments.get("enforce_eager", False),
                get_vocab_size=lambda: VOCAB,
            ),
            cache_config=SimpleNamespace(
                enable_prefix_caching=arguments["enable_prefix_caching"],
                block_size=BLOCK,
                cache_dtype="auto",
                kv_cache_memory_bytes=None,
            ),
            parallel_config=SimpleNamespace(tensor_parallel_size=1, pipeline_parallel_size=1),
            scheduler_config=SimpleNamespace(enable_chunked_prefill=True, max_num_batched_tokens=64, max_num_seqs=2),
            compilation_config=SimpleNamespace(mode=0, static_forward_context={}),
            attention_config=SimpleNamespace(backend=None),
        )
        self.arguments, self.limit = arguments, limit
        self.added: list[tuple[list[int], SamplingParams]] = []
        self.aborted: list[str] = []
        self.poison: int | None = None
        self.dead = False
        self.closed = False
        self.engine_core = FakeCore(self)
        self.running: dict[str, tuple[list[int], SamplingParams, list[int]]] = {}
        self.seen: set[tuple[int, ...]] = set()
        self.unwritten: set[tuple[int, ...]] = set()

    def add_request(self, number: str, prompt: dict[str, Any], params: SamplingParams) -> None:
        ids = prompt["prompt_token_ids"]
        if self.dead:
            raise EngineDeadError("EngineCore encountered an issue.")
        if not ids:
            raise VLLMValidationError("The decoder prompt cannot be empty")
        if len(ids) >= self.limit:
            raise VLLMValidationError(
                f"The decoder prompt (length {len(ids)}) is longer than the maximum model length of {self.limit}."
            )
        if max(ids) >= VOCAB:
            raise VLLMValidationError(f"Token id {max(ids)} is out of vocabulary")
        self.added.append((ids, params))
        self.running[number] = (ids, params, [])

    def step(self) -> list[Any]:
        if self.dead:
            raise EngineDeadError("EngineCore encountered an issue.")
        batch = list(self.running.items())[:2]
        if any(self.poison in ids for _, (ids, _, _) in batch):
            self.unwritten |= {tuple(ids[:BLOCK]) for _, (ids, _, _) in batch if len(ids) > BLOCK}
            raise RuntimeError("Unexpected head dim size, 32")
        if self.unwritten & {tuple(ids[:BLOCK]) for _, (ids, _, _) in batch}:
            raise AssertionError("a block is reused that was never computed")
        outputs = []
        for number, (ids, params, new) in batch:
            new.append(following(ids + new))
            reason = "length" if len(new) >= min(params.max_tokens, self.limit - len(ids)) else None
            if new[-1] in (params.stop_token_ids or ()):
                reason = "stop"
            if reason:
                del self.running[number]
            elif params.output_kind == "final":
                continue
            cached = sum(tuple(ids[:end]) in self.seen for end in range(BLOCK, len(ids), BLOCK)) * BLOCK
            if reason:
                self.seen |= {tuple(ids[:end]) for end in range(BLOCK, len(ids), BLOCK)}
            answer = SimpleNamespace(
                token_ids=new[-1:] if params.output_kind == "delta" else list(new),
                finish_reason=reason,
                logprobs=[{i: logprob_at([*ids, i], len(ids)) for i in (*params.logprob_token_ids, new[0])}]
                if params.logprob_token_ids
                else None,
            )
            logprobs = [None, *({i: logprob_at(ids, at)} for at, i in enumerate(ids) if at)]
            outputs.append(
                SimpleNamespace(
                    request_id=number,
                    outputs=[answer],
                    finished=reason is not None,
                    prompt_logprobs=logprobs if params.prompt_logprobs is not None else None,
                    num_cached_tokens=cached if params.prompt_logprobs is None else 0,
                )
            )
        return outputs

    def reset_prefix_cache(self) -> bool:
        self.seen.clear()
        self.unwritten.clear()
        return not self.running

    def abort_request(self, numbers: list[str]) -> None:
        self.aborted += numbers
        for number in numbers:
            self.running.pop(number, None)


def logprob_at(ids: list[int], at: int) -> Any:
    expected = following(ids[:at]) == ids[at]
    return SimpleNamespace(logprob=-0.25 if expected else -3.0 - at, rank=1 if expected else 7)


def install(monkeypatch: pytest.MonkeyPatch, engine_arguments: dict[str, Any]) -> None:
    """Make `import vllm` find the fake; what vllm.LLM is called with is put into engine_arguments."""

    class LLM:
        def __init__(self, **arguments: Any) -> None:
            engine_arguments.update(arguments)
            if arguments.get("kv_cache_dtype") == "fp3":
                raise ValueError("Value error, fp3 is not\n a cache dtype")
            self.llm_engine = FakeEngine(arguments)

    def module(name: str, **attributes: Any) -> None:
        made = ModuleType(name)
        vars(made).update(attributes)
        monkeypatch.setitem(sys.modules, name, made)

    module("vllm", LLM=LLM, SamplingParams=SamplingParams, __version__="0.32.0", __path__=[])
    module("vllm.inputs", tokens_input=lambda ids: {"type": "token", "prompt_token_ids": ids})
    module("vllm.sampling_params", RequestOutputKind=SimpleNamespace(FINAL_ONLY="final", DELTA="delta"))
    module("vllm.platforms", current_platform=SimpleNamespace(device_type="cpu"))
    module("vllm.engine", __path__=[])
    module("vllm.engine.arg_utils", EngineArgs=EngineArgs)
