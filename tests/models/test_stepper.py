"""Decode steps: the same logits recorded or not, whatever happens to the batch and the cache in between."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kleval.models import stepper as stepper_module
from kleval.models.cache import HybridCache
from kleval.models.decoder import Decoder
from kleval.models.stepper import Stepper, why_not_recorded

ARCHITECTURES = ["kimi-linear", "kimi-linear-rope", "gdn-h", "mla"]
PROMPTS = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [2, 7, 1, 8, 2, 8, 1], [1, 1, 2, 3, 5, 8, 13]])


class Replay:
    """What a CUDA graph does, without one: recording runs nothing that lasts, replaying runs what was recorded."""

    def __init__(self, cache: HybridCache, fails: bool = False) -> None:
        self.cache, self.fails = cache, fails
        self.log: list[str] = []
        self._run: Callable[[], Tensor] | None = None
        self._result = torch.empty(0)

    def warm(self, run: Callable[[], Tensor]) -> Tensor:
        self.log.append("warm")
        return run()

    def record(self, run: Callable[[], Tensor]) -> Tensor:
        self.log.append("record")
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        before = self.cache.snapshot()
        self._result = run().clone()
        self.cache.restore(before)
        self.cache._latents.epoch -= 1  # nothing moved: the snapshot is this fake's own
        self._run = run
        self._result.fill_(torch.nan)
        self.cache.begin(1)
        return self._result

    def replay(self) -> None:
        assert self._run is not None
        self.log.append("replay")
        self._result.copy_(self._run())

    def forget(self) -> None:
        self._run = None


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Stepper, Replay]]:
    """make(decoder, cache, fails=False) -> a Stepper that believes in graphs, and what it recorded."""

    def make(decoder: Decoder, cache: HybridCache, fails: bool = False) -> tuple[Stepper, Replay]:
        stepper, replay = Stepper(decoder, cache), Replay(cache, fails)
        stepper.graph, stepper.why, stepper._recorder = True, "", replay  # type: ignore[assignment]
        monkeypatch.setattr(cache, "advance_host", lambda tokens: None)  # the fake's replay advances both parts
        return stepper, replay

    return make


def prefilled(decoder: Decoder, ids: Tensor) -> HybridCache:
    cache = HybridCache(decoder.config, len(ids), dtype=torch.float64)
    decoder.hidden(ids, cache)
    return cache


@pytest.mark.parametrize("moe", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_steps_are_one_forward_pass(tiny_decoder: Callable[..., Decoder], architecture: str, moe: bool) -> None:
    decoder = tiny_decoder(architecture, moe)
    expected = decoder.logits(decoder.hidden(PROMPTS))
    stepper = Stepper(decoder, prefilled(decoder, PROMPTS[:, :2]))
    for t in range(2, PROMPTS.shape[1]):
        torch.testing.assert_close(stepper.step(PROMPTS[:, t]), expected[:, t], rtol=1e-9, atol=1e-10)


def test_a_cpu_steps_as_it_is_and_says_so(tiny_decoder: Callable[..., Decoder]) -> None:
    decoder = tiny_decoder("kimi-linear")
    for wanted, why in ((None, "no CUDA device"), (True, "no CUDA device"), (False, "switched off")):
        stepper = Stepper(decoder, prefilled(decoder, PROMPTS), graph=wanted)
        stepper.step(PROMPTS[:, 0])
        assert (stepper.graph, stepper.captures, stepper.why) == (False, 0, why)


def test_without_its_kernel_an_mla_step_is_never_recorded(
    tiny_decoder: Callable[..., Decoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it writes is then decided on the host: a replay would overwrite the first step's row."""
    cuda, decoder = torch.device("cuda"), tiny_decoder("kimi-linear").float()
    monkeypatch.setattr(stepper_module, "why_not", lambda name, device: None)
    assert why_not_recorded(decoder, cuda) == ""
    assert "float64" in why_not_recorded(tiny_decoder("kimi-linear").double(), cuda)
    monkeypatch.setattr(stepper_module, "why_not", lambda name, device: f"{name} failed its check")
    assert "mla_decode failed its check" in why_not_recorded(decoder, cuda)


@pytest.mark.parametrize("shape", [(2,), (3, 1), ()])
def test_one_id_per_row(tiny_decoder: Callable[..., Decoder], shape: tuple[int, ...]) -> None:
    decoder = tiny_decoder("kimi-linear")
    stepper = Stepper(decoder, prefilled(decoder, PROMPTS))
    with pytest.raises(ValueError, match="one id per row"):
        stepper.step(torch.zeros(shape, dtype=torch.int64))
    assert stepper.cache.lengths_host == [7, 7, 7]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_step_as_it_is_then_recorded_and_replayed(
    tiny_decoder: Callable[..., Decoder], recorded: Callable[..., tuple[Stepper, Replay]], architecture: str
) -> None:
    decoder = tiny_decoder(architecture)
    plain = Stepper(decoder, prefilled(decoder, PROMPTS))
    stepper, replay = recorded(decoder, prefilled(decoder, PROMPTS))
    ids = PROMPTS[:, 0]
    for _ in range(5):
        logits = stepper.step(ids).clone()
        torch.testing.assert_close(logits, plain.step(ids))
        ids = logits.argmax(-1)
    assert replay.log == ["warm", "record", "replay", "replay", "replay", "replay"]
    assert stepper.captures == 1
    assert stepper.cache.lengths_host == plain.cache.lengths_host == [12, 12, 12]


def test_a_smaller_batch_is_recorded_anew(
    tiny_decoder: Callable[..., Decoder], recorded: Callable[..., tuple[Stepper, Replay]]
) -> None:
    decoder = tiny_decoder("kimi-linear", moe=True)
    plain = Stepper(decoder, prefilled(decoder, PROMPTS))
    stepper, replay = recorded(decoder, prefilled(decoder, PROMPTS))
    for stage in ([0, 1, 2], [2, 0], [1]):
        if len(stage) < 3:
            plain.cache.keep(stage)
            stepper.cache.keep(stage)
        ids = PROMPTS[: len(stage), 1]
        for _ in range(3):
            torch.testing.assert_close(stepper.step(ids), plain.step(ids))
    assert replay.log == ["warm", "record", "replay", "replay"] * 3


def test_what_cannot_be_recorded_runs_as_it_is_and_is_said(
    tiny_decoder: Callable[..., Decoder], recorded: Callable[..., tuple[Stepper, Replay]]
) -> None:
    decoder = tiny_decoder("kimi-linear")
    plain = Stepper(decoder, prefilled(decoder, PROMPTS))
    stepper, replay = recorded(decoder, prefilled(decoder, PROMPTS), fails=True)
    for _ in range(4):
        torch.testing.assert_close(stepper.step(PROMPTS[:, 2]), plain.step(PROMPTS[:, 2]))
    assert replay.log == ["warm", "record"]
    assert not stepper.graph
    assert stepper.why == "capturing failed: operation not permitted when stream is capturing"


def test_room_is_made_before_a_recorded_step(
    tiny_decoder: Callable[..., Decoder], recorded: Callable[..., tuple[Stepper, Replay]]
) -> None:
    """A row crosses the end of its room while steps are replayed."""
    decoder = tiny_decoder("mla")
    ids = torch.arange(253).remainder(50).expand(2, -1)
    plain = Stepper(decoder, prefilled(decoder, ids))
    stepper, _ = recorded(decoder, prefilled(decoder, ids))
    for t in range(6):
        torch.testing.assert_close(stepper.step(ids[:, t]), plain.step(ids[:, t]))
    assert stepper.cache.lengths_host == [259, 259]
