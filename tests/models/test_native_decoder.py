"""The decoder in C++ is the decoder in float64: any architecture, chunks, batch of any lengths, forks and threads."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch

from kleval.models import decoder as decoders
from kleval.models import native_decoder
from kleval.models.cache import HybridCache
from kleval.models.config import ARCHITECTURES
from kleval.models.decoder import Decoder
from kleval.ops.native import loading

pytestmark = pytest.mark.skipif(loading.native() is None, reason=f"no native library: {loading.why_not()}")
Make = Callable[..., Decoder]
VARIANTS = [*((a, False) for a in ARCHITECTURES), *((a, True) for a in ARCHITECTURES)]


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, 50, shape, generator=torch.Generator().manual_seed(0))


def single(decoder: Decoder) -> Decoder:
    return copy.deepcopy(decoder).float().requires_grad_(False)


def in_chunks(decoder: Decoder, ids: torch.Tensor, chunks: list[int], cache: HybridCache) -> torch.Tensor:
    return torch.cat([decoder.hidden(part, cache) for part in ids.split(chunks, 1)], 1)


def close(ours: torch.Tensor, exact: torch.Tensor) -> None:
    assert ours.dtype == torch.float32
    assert float((ours - exact).norm() / exact.norm()) < 5e-6


@pytest.mark.parametrize("chunks", [[1, 1, 1, 30, 1], [64, 1, 65, 3], [170]])
@pytest.mark.parametrize(("architecture", "moe"), VARIANTS)
def test_chunks_and_steps_are_the_whole_in_float64(
    tiny_decoder: Make, architecture: str, moe: bool, chunks: list[int]
) -> None:
    exact, ids = tiny_decoder(architecture, moe), tokens(2, sum(chunks))
    close(in_chunks(single(exact), ids, chunks, HybridCache(exact.config, 2)), exact.hidden(ids))


@pytest.mark.parametrize("architecture", ["kimi-linear-rope", "gdn-h"])
def test_rows_of_different_lengths_are_each_alone(tiny_decoder: Make, architecture: str) -> None:
    exact = tiny_decoder(architecture, True)
    decoder, cache = single(exact), HybridCache(exact.config, 3)
    prompts = [tokens(1, n + 2) for n in (70, 5, 33)]
    padded = torch.cat([torch.nn.functional.pad(p[:, :-2], (0, 70 - p.shape[1] + 2)) for p in prompts])
    hidden = decoder.hidden(padded, cache, torch.tensor([70, 5, 33]))
    more = [decoder.hidden(torch.cat([p[:, [i]] for p in prompts]), cache) for i in (-2, -1)]
    decoder.hidden(padded[:, :4], cache, torch.tensor([0, 4, 0]))
    assert cache.lengths_host == [72, 11, 35]
    for row, prompt in enumerate(prompts):
        count = prompt.shape[1] - 2
        ours = torch.cat([hidden[row, :count], more[0][row], more[1][row]])
        close(ours[None], exact.hidden(prompt))


def test_forks_go_on_by_themselves(tiny_decoder: Make) -> None:
    """Over segments that are shared, cut and begun anew."""
    exact = tiny_decoder("kimi-linear")
    decoder, ids, other = single(exact), tokens(1, 700), tokens(1, 700).flip(1)
    cache = HybridCache(exact.config, 1, capacity=300)
    decoder.hidden(ids[:, :290], cache)
    fork = cache.fork([0, 0])
    both = torch.cat([torch.cat([ids[:, :290], x[:, 290:]], 1) for x in (ids, other)])
    ours = in_chunks(decoder, both[:, 290:], [1, 4, 200, 1, 204], fork)
    close(ours, exact.hidden(both)[:, 290:])
    close(in_chunks(decoder, ids[:, 290:], [410], cache), exact.hidden(ids)[:, 290:])


def test_threads_change_nothing_but_rounding(tiny_decoder: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    exact, ids = tiny_decoder("kimi-linear", True), tokens(1, 400)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        ours = in_chunks(single(exact), ids, [399, 1], HybridCache(exact.config, 1))
    finally:
        torch.set_num_threads(threads)
    close(ours, exact.hidden(ids))


def test_a_long_cache_is_shared_among_threads(tiny_decoder: Make) -> None:
    exact = tiny_decoder("mla")
    caches = [HybridCache(exact.config, 1, dtype=dtype) for dtype in (torch.float64, torch.float32)]
    caches[0].fill(9000)
    caches[1].fill(9000)
    for theirs, ours in zip(caches[0].layers, caches[1].layers, strict=True):
        for a, b in zip(theirs.rows()[0], ours.rows()[0], strict=True):  # type: ignore[union-attr]
            b.copy_(a)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        ours = single(exact).hidden(tokens(1, 1), caches[1])
    finally:
        torch.set_num_threads(threads)
    close(ours, exact.hidden(tokens(1, 1), caches[0]))


def test_changed_weights_are_seen(tiny_decoder: Make) -> None:
    exact, ids = copy.deepcopy(tiny_decoder("kimi-linear", True)), tokens(1, 8)
    decoder = single(exact)
    before = decoder.hidden(ids, HybridCache(exact.config, 1))
    with torch.no_grad():
        for p in (*decoder.parameters(), *exact.parameters()):
            p.mul_(1.5)
    after = decoder.hidden(ids, HybridCache(exact.config, 1))
    close(after, exact.hidden(ids))
    assert float((after - before).abs().max()) > 1e-3


def test_a_token_that_is_none_is_refused(tiny_decoder: Make) -> None:
    decoder = single(tiny_decoder("kimi-linear"))
    for wrong in (50, -1):
        with pytest.raises(IndexError):
            decoder.hidden(torch.tensor([[3, wrong]]), HybridCache(decoder.config, 1))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", ["kimi-linear", "mla"])
def test_prepared_steps_follow_a_cache_that_grows_forks_and_loses_rows(
    tiny_decoder: Make, architecture: str, tied: bool
) -> None:
    exact, ids = tiny_decoder(architecture, True, tie_word_embeddings=tied), tokens(3, 262)
    decoder = single(exact)
    cache = HybridCache(decoder.config, 3)
    decoder.hidden(ids[:, :250], cache)
    steps = decoder.native_steps(cache)
    assert steps is not None
    made = [steps.logits(ids[:, i]) for i in range(250, 258)]
    other = cache.fork([2])
    cache.keep([2, 0])
    made += [torch.cat([steps.logits(ids[[2, 0], i])[[1, 1, 0]]]) for i in range(258, 262)]
    forked = decoder.native_steps(other)
    assert forked is not None
    made.append(forked.logits(ids[[2], 258]).expand(3, -1))
    assert cache.lengths.tolist() == cache.lengths_host == [262, 262]
    want = exact.logits(exact.hidden(ids))
    close(torch.stack(made[:8], 1), want[:, 250:258])
    close(torch.stack(made[8:12], 1)[[0, 2]], want[[0, 2], 258:])
    close(made[12][2], want[2, 258])


def test_a_generation_does_not_see_what_is_written_to_the_weights_and_the_next_one_does(tiny_decoder: Make) -> None:
    exact = tiny_decoder("kimi-linear", True)
    decoder, ids = single(exact), tokens(1, 3)
    under_way = decoder.native_steps(HybridCache(decoder.config, 1))
    assert under_way is not None
    made = [under_way.logits(ids[:, 0])]
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(1.5)
    made += [under_way.logits(ids[:, i]) for i in (1, 2)]
    close(torch.stack(made, 1), exact.logits(exact.hidden(ids)))
    after = decoder.native_steps(HybridCache(decoder.config, 1))
    assert after is not None
    changed = copy.deepcopy(decoder).double()
    close(after.logits(ids[:, 0]), changed.logits(changed.hidden(ids[:, :1]))[:, 0])


@pytest.mark.parametrize("vocabulary", [50, 64, 77])
@pytest.mark.parametrize("architecture", ["kimi-linear", "gdn-h"])
def test_greedy_steps_in_one_call_are_those_of_many(tiny_decoder: Make, architecture: str, vocabulary: int) -> None:
    decoder, ids = single(tiny_decoder(architecture, True, vocab_size=vocabulary)), tokens(3, 20)
    caches = [HybridCache(decoder.config, 3) for _ in range(2)]
    for cache in caches:
        decoder.hidden(ids, cache)
    one_by_one, at_once = (decoder.native_steps(cache) for cache in caches)
    assert one_by_one is not None
    assert at_once is not None
    logits, expected = one_by_one.logits(ids[:, -1]), []
    for _ in range(8):
        expected.append(logits.argmax(-1))
        logits = one_by_one.logits(expected[-1])
    chosen, seconds, last = at_once.greedy(ids[:, -1], 9, ())
    assert chosen == torch.stack(expected).tolist()
    assert seconds == sorted(seconds)
    assert len(seconds) == 8
    assert torch.equal(last, logits)
    assert caches[0].lengths_host == caches[1].lengths_host == caches[1].lengths.tolist() == [29, 29, 29]


def test_a_token_that_ends_an_answer_ends_the_steps(tiny_decoder: Make) -> None:
    decoder, ids = single(tiny_decoder("kimi-linear", True)), tokens(2, 1)[:, 0]
    whole = decoder.native_steps(HybridCache(decoder.config, 2))
    assert whole is not None
    chosen, _, _ = whole.greedy(ids, 12, ())
    for end in {token for row in chosen for token in row}:
        first = next(at for at, row in enumerate(chosen) if end in row)
        cache = HybridCache(decoder.config, 2)
        steps = decoder.native_steps(cache)
        assert steps is not None
        some, seconds, logits = steps.greedy(ids, 12, (end, 1000))
        assert (some, len(seconds), logits.argmax(-1).tolist()) == (chosen[:first], first, chosen[first])
        assert cache.lengths_host == [first + 1] * 2


def test_logits_that_are_not_finite_end_the_steps(tiny_decoder: Make) -> None:
    decoder = single(tiny_decoder("kimi-linear", True))
    ids = tokens(2, 1)[:, 0]
    for wrong in (float("nan"), float("inf")):
        broken = copy.deepcopy(decoder)
        broken.model.embed_tokens.weight.data[ids[1]] = wrong  # type: ignore[union-attr,operator]
        steps = broken.native_steps(HybridCache(decoder.config, 2))
        assert steps is not None
        chosen, _, logits = steps.greedy(ids, 5, ())
        assert chosen == []
        assert logits.isfinite().all(-1).tolist() == [True, False]


def test_given_steps_are_taken_whatever_the_logits_say(tiny_decoder: Make) -> None:
    exact, ids = tiny_decoder("kimi-linear", True), tokens(2, 7)
    decoder = single(exact)
    cache = HybridCache(decoder.config, 2)
    steps = decoder.native_steps(cache)
    assert steps is not None
    assert len(steps.given(ids[:, :6].T)) == 6
    close(steps.logits(ids[:, 6]), exact.logits(exact.hidden(ids))[:, 6])
    for wrong in (50, -1):
        with pytest.raises(IndexError):
            steps.given(torch.tensor([[3, 1], [2, wrong]]))
    assert cache.lengths_host == [7, 7]


def test_logits_are_shared_among_threads(tiny_decoder: Make) -> None:
    decoder = single(tiny_decoder("kimi-linear", False, vocab_size=70_000))
    caches = [HybridCache(decoder.config, 2) for _ in range(2)]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        made = [decoder.native_steps(caches[0]).logits(tokens(2))]  # type: ignore[union-attr]
    finally:
        torch.set_num_threads(before)
    close(made[0], decoder.logits(decoder.hidden(tokens(2)[:, None], caches[1])[:, 0]).double())


def test_broken_weights_give_no_plausible_answer(tiny_decoder: Make) -> None:
    decoder = single(tiny_decoder("kimi-linear", True))
    with torch.no_grad():
        decoder.model.layers[1].block_sparse_moe.gate.weight[0, 0] = float("nan")  # type: ignore[union-attr,index]
    assert decoder.hidden(tokens(1, 3), HybridCache(decoder.config, 1)).isnan().any()


@pytest.mark.parametrize("torch_form", ["off", "large", "bfloat16 cache", "bfloat16", "gradients", "no cache"])
def test_what_does_not_fit_takes_the_torch_form(
    tiny_decoder: Make, monkeypatch: pytest.MonkeyPatch, torch_form: str
) -> None:
    decoder, calls = single(tiny_decoder("kimi-linear", True)), list[int]()
    run = decoders.native_hidden
    monkeypatch.setattr(decoders, "native_hidden", lambda *args: (calls.append(1), run(*args))[1])
    decoder.hidden(tokens(1, 3), HybridCache(decoder.config, 1))
    assert calls == [1]
    dtype = torch.bfloat16 if torch_form.startswith("bfloat16") else torch.float32
    if torch_form == "off":
        monkeypatch.setenv(loading.VARIABLE, "off")
    elif torch_form == "large":
        monkeypatch.setattr(native_decoder, "MOST_BYTES", 0)
        decoder = single(decoder)
    elif torch_form == "bfloat16":
        decoder = decoder.bfloat16()
    elif torch_form == "gradients":
        decoder.requires_grad_(True)
    decoder.hidden(tokens(1, 3), None if torch_form == "no cache" else HybridCache(decoder.config, 1, dtype=dtype))
    assert calls == [1]
