"""Decode steps of a batch: captured in a CUDA graph, or several in one call of the C++ library.

A step launches hundreds of small kernels whose launches cost more than what they do; a graph replays them without the host. What
changes from step to step lies on the device where the graph finds it: the ids in a fixed buffer, lengths and states updated in
place, cached rows behind a table of addresses. Room for the new token is made on the host before each step, outside the graph.

After every change of the batch, or when the cache has moved what the graph refers to (`cache.epoch`), one step runs as it is, which
also compiles what is new, and the next is captured. Where capturing failed, and on a CPU without the library, every step runs as it is.

With the library (`native_decoder`) greedy steps follow one another inside it: the interpreter, whose code the weights of each step
drive out of the processor's cache, would cost a third of a small model's step.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import NamedTuple

import torch
from torch import Tensor

from kleval.models.cache import HybridCache
from kleval.models.decoder import Decoder
from kleval.models.fused import fusable, fused_hidden
from kleval.ops.available import why_not


class Steps(NamedTuple):
    """Steps behind one another. chosen [n - 1][B]: the most likely token of each row after every step but the last, which went into the
    next; seconds: when it was known (time.perf_counter). logits [B, V]: of the last step, nothing chosen of them."""

    chosen: list[list[int]]
    seconds: list[float]
    logits: Tensor


class Stepper:
    """graph: None means where there is a CUDA device. `.graph` says whether steps are captured, `.why` why not; `.fused`
    whether they go through the kernels of `fused`."""

    def __init__(self, decoder: Decoder, cache: HybridCache, graph: bool | None = None) -> None:
        self.decoder, self.cache = decoder, cache
        device = decoder.model.embed_tokens.weight.device
        self.why = "switched off" if graph is False else why_not_recorded(decoder, device)
        self.graph = not self.why
        self.fused = fusable(decoder)
        self.captures = 0
        self._native = None if self.graph else decoder.native_steps(cache)
        self._recorder = Recorder(device) if self.graph else None
        self._warm: tuple[int, int] | None = None  # batch and epoch of the last step that ran as it is
        self._key: tuple[int, int] | None = None  # of the step that is recorded
        self._ids = self._logits = torch.empty(0)

    def step(self, ids: Tensor) -> Tensor:
        """ids [B], one new token per row -> logits [B, V], float32. They are valid until the next step."""
        if ids.dim() != 1 or len(ids) != len(self.cache.lengths_host):
            rows = len(self.cache.lengths_host)
            raise ValueError(f"ids of shape {tuple(ids.shape)} for {rows} rows: give one id per row")
        return self._step(ids.unsqueeze(1)) if self._native is None else self._native.logits(ids)

    def greedy(self, ids: Tensor, most: int, ends: Collection[int]) -> Steps:
        """ids [B], one new token per row, then what is most likely: `most` steps at most. A step after which some row's most likely
        token is one of `ends`, or some logits are not finite, is the last; so is the first where steps come one by one."""
        return Steps(*self._native.greedy(ids, most, ends)) if self._native else Steps([], [], self.step(ids))

    @property
    def several(self) -> bool:
        """Whether steps follow one another in one call."""
        return self._native is not None

    def given(self, ids: Tensor) -> list[float]:
        """ids [n, B], step after step in one call -> when each was done (time.perf_counter). Only where there are `several`."""
        assert self._native is not None
        return self._native.given(ids)

    @torch.inference_mode()
    def _step(self, ids: Tensor) -> Tensor:
        if self._recorder is None:
            return self._forward(ids)
        self.cache.begin(1)
        key = (len(ids), self.cache.epoch)
        if key != self._key:
            self._forget()
            if key != self._warm:
                logits = self._recorder.warm(lambda: self._forward(ids))
                self._warm = (len(ids), self.cache.epoch)
                return logits
            if not self._record(ids, key):
                return self._forward(ids)
        self._ids.copy_(ids)
        self._recorder.replay()
        self.cache.advance_host(1)
        return self._logits

    def _forward(self, ids: Tensor) -> Tensor:
        if self.fused:
            return self.decoder.logits(fused_hidden(self.decoder, ids[:, 0], self.cache))
        return self.decoder.logits(self.decoder.hidden(ids, self.cache)[:, 0])

    def _record(self, ids: Tensor, key: tuple[int, int]) -> bool:
        """Record a step without running it. Anything that cannot be recorded ends graphs for this stepper, not the run."""
        assert self._recorder is not None
        self._ids = ids.clone()
        try:
            self._logits = self._recorder.record(lambda: self._forward(self._ids))
        except Exception as error:
            text = (str(error) or type(error).__name__).splitlines()[0]
            self.graph, self.why, self._recorder = False, f"capturing failed: {text}", None
            return False
        self._key = key
        self.captures += 1
        return True

    def _forget(self) -> None:
        """Give a recorded step's memory back before the next one is recorded."""
        assert self._recorder is not None
        self._recorder.forget()
        self._key, self._logits = None, torch.empty(0)


def why_not_recorded(decoder: Decoder, device: torch.device) -> str:
    """Why steps of this decoder cannot be replayed there; "" where they can.

    Without its kernel MLA finds where to write on the host, and a replay would write to the same place again.
    """
    if device.type != "cuda":
        return "no CUDA device"
    if "mla" not in decoder.config.layer_mixers:
        return ""
    if decoder.model.embed_tokens.weight.dtype == torch.float64:
        return "float64 MLA layers decode without a kernel"
    reason = why_not("mla_decode", device)
    return f"the MLA decode kernel is not used: {reason}" if reason else ""


class Recorder:
    """A CUDA graph and the stream it is recorded on."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = _recording_stream(device)
        self._graph: torch.cuda.CUDAGraph | None = None

    def warm(self, run: Callable[[], Tensor]) -> Tensor:
        """Run on the recording stream: what libraries set up per stream, and compile, is then there."""
        here = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            result = run()
        here.wait_stream(self._stream)
        result.record_stream(here)
        return result

    def record(self, run: Callable[[], Tensor]) -> Tensor:
        """Capture without running; returns the tensor that each replay fills."""
        graph = torch.cuda.CUDAGraph()
        here = torch.cuda.current_stream(self._device)
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()  # a graph's memory is its own: what steps before it have left cached would be missing
        try:
            with torch.cuda.device(self._device), torch.cuda.graph(graph, stream=self._stream):
                result = run()
        finally:
            torch.cuda.set_stream(here)  # where ending the capture fails too, torch stays on the recording stream
            torch.cuda.synchronize(self._device)
        self._graph = graph
        return result

    def replay(self) -> None:
        assert self._graph is not None
        self._graph.replay()

    def forget(self) -> None:
        self._graph = None


@functools.cache
def _recording_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all: libraries keep a workspace of tens of MiB for every stream they have run on."""
    return torch.cuda.Stream(device)
