"""Speeds in closed form: exact where they were measured, between and beyond them as told, and a range by shares."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kleval.models.costs import Costs, Split
from kleval.models.registry import costs_of
from kleval.profiler.hardware import HARDWARE, of_device, parse_hardware
from kleval.profiler.memory import Formats
from kleval.profiler.speeds import ASSUMED_SHARES, AtRates, Measured, at_shares, moved_bytes, of_others
from kleval.types import UsageError

_, NANO = costs_of("kimi-linear")
_, LARGE = costs_of("kimi-linear@48b-a3b")
PROMPTS, STEPS = {4096: 0.5, 16384: 4.0}, {(4096, 1): 0.002, (4096, 9): 0.010, (16384, 1): 0.003}
MEASURED = Measured("kimi-linear@nano", NANO, "float32", PROMPTS, STEPS, ())


def test_what_was_measured_is_given_back() -> None:
    assert [MEASURED.prefill(ctx) for ctx in PROMPTS] == pytest.approx(list(PROMPTS.values()))
    assert [MEASURED.step(ctx, batch) for ctx, batch in STEPS] == pytest.approx(list(STEPS.values()))


def test_a_step_between_two_batches_lies_between_them_and_a_prompt_between_two_lengths() -> None:
    assert MEASURED.step(4096, 5) == pytest.approx(0.006)
    assert 0.5 < MEASURED.prefill(8192) < 4.0
    assert MEASURED.most_batch(5000) == 9
    assert MEASURED.most_batch(1 << 20) == 1


def rows_of(config: Costs, seconds: Callable[[int, int], float], largest: dict[int, int]) -> Measured:
    """A profile at batch 1 and at the largest, as a default one is, of a machine whose steps take that."""
    steps = {(ctx, batch): seconds(ctx, batch) for ctx in largest for batch in (1, largest[ctx])}
    return Measured("", config, "bfloat16", PROMPTS, steps, ())


# The largest batches beside the weights on an H200.
@pytest.mark.parametrize(
    ("model", "largest"),
    [
        ("kimi-linear@48b-a3b", {4096: 489, 16384: 213, 65536: 65, 131072: 34}),
        ("mla@48b-a3b", {4096: 297, 16384: 74, 65536: 18, 131072: 9}),
        ("mla@nano", {4096: 32, 16384: 7, 65536: 1}),
    ],
)
def test_an_ideal_machine_s_steps_follow_from_batch_1_and_the_largest(model: str, largest: dict[int, int]) -> None:
    _, config = costs_of(model)

    def seconds(ctx: int, batch: int) -> float:
        return max(config.decode_bytes(ctx, batch) / 1.92e12, config.decode_flops(ctx, batch) / 396e12)

    measured = rows_of(config, seconds, largest)
    for ctx in (2000, 4096, 8192, 16384, 32768, 65536, 98304, 131072, 1 << 20):
        for batch in (1, 2, 8, 32, 64, 128):
            told = min(batch, measured.most_batch(ctx))
            assert measured.step(ctx, told) == pytest.approx(seconds(ctx, told)), (ctx, told)


@pytest.mark.parametrize("config", [LARGE, NANO])
def test_what_a_step_takes_whatever_it_moves_or_for_each_sequence_is_found_again(config: Costs) -> None:
    def moving(ctx: int, batch: int) -> float:
        return config.decode_bytes(ctx, batch) / 1.92e12

    for more in (
        lambda ctx, batch: 0.004 + moving(ctx, batch),
        lambda ctx, batch: 0.002 * batch + moving(ctx, batch),
        lambda ctx, batch: 0.002 * batch,
    ):
        measured = rows_of(config, more, {4096: 489, 65536: 65})
        for ctx, batch in ((4096, 2), (4096, 64), (65536, 2), (65536, 32)):
            assert measured.step(ctx, batch) == pytest.approx(more(ctx, batch)), (ctx, batch)


def test_where_bytes_grow_with_the_batch_alone_so_does_the_time() -> None:
    for first, last in ((0.002, 0.0021), (0.002, 0.010), (0.002, 0.030), (0.002, 0.001)):
        measured = Measured("", NANO, "float32", PROMPTS, {(4096, 1): first, (4096, 9): last}, ())
        for batch in range(1, 10):
            assert measured.step(4096, batch) == pytest.approx(first + (last - first) * (batch - 1) / 8)


@pytest.mark.parametrize("config", [LARGE, NANO])
def test_a_prompt_shorter_than_any_measured_reads_the_weights_too(config: Costs) -> None:
    ideal = AtRates(config, Formats(), Split(), 396e12, 1.92e12)
    steps = {(ctx, 1): ideal.step(ctx, 1) for ctx in (4096, 65536)}
    measured = Measured("", config, "bfloat16", {ctx: ideal.prefill(ctx) for ctx in (4096, 65536)}, steps, ())
    for ctx in (1, 100, 1000, 3000, 4096, 65536):
        assert measured.prefill(ctx) == pytest.approx(ideal.prefill(ctx), rel=0.01), ctx


def test_a_prompt_takes_no_more_than_a_longer_one_that_was_measured() -> None:
    slow = Measured("", LARGE, "bfloat16", {4096: 0.06}, {(4096, 1): 1.0}, ())
    assert slow.prefill(100) == pytest.approx(0.06)


def test_beyond_the_batches_of_a_length_the_nearest_rate_holds() -> None:
    more = NANO.decode_bytes(16384, 9, "float32") / NANO.decode_bytes(16384, 1, "float32")
    assert MEASURED.step(16384, 9) == pytest.approx(0.003 * more)


def test_beyond_the_lengths_the_nearest_rate_holds() -> None:
    flops = NANO.prefill_flops(65536) / NANO.prefill_flops(16384)
    assert MEASURED.prefill(65536) == pytest.approx(4.0 * flops)


def test_a_datasheet_gives_a_range_whose_ends_are_the_shares() -> None:
    fast, slow = at_shares(LARGE, Formats(), Split(), HARDWARE["h200"])
    for ctx in (4096, 1 << 20):
        assert slow.prefill(ctx) / fast.prefill(ctx) == pytest.approx(ASSUMED_SHARES[0] / ASSUMED_SHARES[1])
        assert slow.step(ctx, 4) / fast.step(ctx, 4) == pytest.approx(ASSUMED_SHARES[0] / ASSUMED_SHARES[1])
    assert fast.prefill(1 << 20) == pytest.approx(LARGE.prefill_flops(1 << 20) / (0.6 * 989e12))


def test_rates_of_others_are_their_highest_and_lowest() -> None:
    fast, slow = of_others(LARGE, Formats(), Split(), [MEASURED])
    reached = [NANO.prefill_flops(ctx) / seconds for ctx, seconds in PROMPTS.items()]
    assert (fast.flops_per_second, slow.flops_per_second) == (max(reached), min(reached))
    assert isinstance(fast, AtRates)


def test_a_device_of_two_moves_half_of_the_weights_and_all_of_the_latent_rows() -> None:
    one, two = (moved_bytes(LARGE, 1 << 20, 1, Formats(), Split(n)) for n in (1, 2))
    latent = LARGE.decode_bytes_by_component(1 << 20, 1)["latent"]
    assert one == pytest.approx(LARGE.decode_bytes(1 << 20, 1))
    assert two == pytest.approx((one - latent) / 2 + latent)


def test_lighter_formats_move_less() -> None:
    assert moved_bytes(LARGE, 1 << 20, 1, Formats(weights="fp8", kv="fp8"), Split()) < 0.7 * moved_bytes(
        LARGE, 1 << 20, 1, Formats(), Split()
    )


@pytest.mark.parametrize(
    ("text", "devices", "name"), [("8xH200", 8, "h200"), ("4 x A100-80GB", 4, "a100-80gb"), ("b200", 1, "b200")]
)
def test_hardware_is_read(text: str, devices: int, name: str) -> None:
    found = parse_hardware(text)
    assert (found.devices, found.name) == (devices, name)


@pytest.mark.parametrize("text", ["0xh200", "8xfoo", "cpu", "", "x"])
def test_what_is_no_hardware_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="8xh200"):
        parse_hardware(text)


def test_a_driver_s_name_is_recognised() -> None:
    assert of_device("NVIDIA H200") == "h200"
    assert of_device("NVIDIA A100-SXM4-80GB") == "a100-80gb"
    assert of_device("NVIDIA GeForce RTX 4090") == "rtx-4090"
    assert of_device("NVIDIA H100 80GB HBM3") == "h100"


@pytest.mark.parametrize(
    "reported",
    ["Some GPU", "NVIDIA GH200 480GB", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA H100 NVL", "H100 MIG 1g.10gb"],
)
def test_a_kin_of_a_known_device_is_not_taken_for_it(reported: str) -> None:
    assert of_device(reported) == ""


def test_rows_of_two_profiles_of_a_model_are_joined() -> None:
    more = Measured("kimi-linear@nano", NANO, "float32", {1024: 0.1, 4096: 0.6}, {(1024, 1): 0.001}, ("more",))
    both = MEASURED.joined(more)
    assert both.prompts == {**PROMPTS, 1024: 0.1, 4096: 0.6}
    assert set(both.steps) == {*STEPS, (1024, 1)}
