"""KDA and GDN in C++: forward and backward are the recurrence and its autograd in float64, at any size and gate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kleval.ops import gdn, kda
from kleval.ops.native import delta, loading

pytestmark = pytest.mark.skipif(loading.native() is None, reason=f"no native library: {loading.why_not()}")
RULES: dict[str, Callable[..., Any]] = {"kda": kda.recurrent_kda, "gdn": gdn.recurrent_gdn}
GATES = ("none", "slow", "usual", "fast", "cliffs")
laws = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("rule", RULES)
@given(
    seed=st.integers(0, 10**6),
    batch=st.integers(1, 2),
    tokens=st.sampled_from([1, 2, 15, 16, 17, 33, 40]),
    heads=st.integers(1, 3),
    key=st.sampled_from([1, 3, 8, 16, 24, 40]),
    value=st.sampled_from([1, 5, 8, 24, 72]),
    gates=st.sampled_from(GATES),
)
@laws
def test_outputs_and_gradients_are_those_of_the_recurrence(
    operands: Callable[..., Any],
    rule: str,
    seed: int,
    batch: int,
    tokens: int,
    heads: int,
    key: int,
    value: int,
    gates: str,
) -> None:
    inputs = [x.requires_grad_() for x in operands(seed, batch, tokens, heads, key, value, rule == "kda", gates)]
    generator = torch.Generator().manual_seed(seed)
    o, final = RULES[rule](*inputs)
    wanted = [torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in (o, final)]
    expected = [o, final, *torch.autograd.grad([o, final], inputs, wanted)]
    o, final = delta.delta_rule(*inputs)
    for ours, theirs in zip([o, final, *torch.autograd.grad([o, final], inputs, wanted)], expected, strict=True):
        close(ours, theirs)
    o, final = delta.delta_rule(*(x.detach() for x in inputs))
    close(o, expected[0].detach())
    close(final, expected[1].detach())


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("gates", GATES)
def test_float32_is_close_to_float64_forward_and_backward(operands: Callable[..., Any], rule: str, gates: str) -> None:
    inputs = operands(3, 2, 200, 2, 32, 32, rule == "kda", gates)
    results = []
    for form, dtype in ((RULES[rule], torch.float64), (delta.delta_rule, torch.float32)):
        typed = [x.to(dtype).requires_grad_() for x in inputs]
        o, final = form(*typed)
        gradients = torch.autograd.grad(o.sin().sum() + final.sin().sum(), typed)
        results.append([o.detach(), final.detach(), *gradients])
    for exact, ours in zip(*results, strict=True):
        assert float((ours.double() - exact).norm() / exact.norm()) < 2e-6


@pytest.mark.parametrize("rule", RULES)
def test_operands_are_read_where_they_lie(operands: Callable[..., Any], rule: str) -> None:
    """Slices, transposed memory and broadcast rows as decoders hand them on; a state that stays as it is."""
    q, k, v, g, beta, state = operands(4, 2, 21, 2, 8, 8, rule == "kda", "usual")
    before = state.clone()
    expected = RULES[rule](q, k, v, g, beta, state)
    packed = torch.stack([q, k, v], 2)
    strided = [packed[:, :, 0], packed[:, :, 1].transpose(1, 2).contiguous().transpose(1, 2), packed[:, :, 2]]
    strided[2] = strided[2].transpose(2, 3).contiguous().transpose(2, 3)
    ours = delta.delta_rule(*strided, g.transpose(0, 1).contiguous().transpose(0, 1), beta, state)
    for a, b in zip(ours, expected, strict=True):
        close(a, b)
    assert torch.equal(state, before)


@pytest.mark.parametrize("rule", RULES)
def test_steps_are_the_recurrence(operands: Callable[..., Any], rule: str) -> None:
    q, k, v, g, beta, state = operands(9, 2, 5, 3, 8, 8, rule == "kda", "usual")
    expected, final = RULES[rule](q, k, v, g, beta, state)
    single = [x.float() for x in (q, k, v, g, beta)]
    ours = state.float()
    step = kda.step_kda if rule == "kda" else gdn.step_gdn
    outputs = [step(*(x[:, t : t + 1] for x in single), ours)[0] for t in range(5)]
    torch.testing.assert_close(torch.cat(outputs, 1).double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.double(), final, rtol=1e-5, atol=1e-6)


def test_no_tokens_leave_the_state(operands: Callable[..., Any]) -> None:
    *inputs, state = operands(5, 2, 4, 2, 8, 8, True, "usual")
    o, final = delta.delta_rule(*(x[:, :0] for x in inputs), state)
    assert o.shape == (2, 0, 2, 8)
    assert torch.equal(final, state)


def test_threads_change_no_bit(operands: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = operands(6, 2, 40, 3, 16, 16, True, "usual")
    alone = delta.delta_rule(*inputs)
    monkeypatch.setattr(delta, "_SHARED_WORK", 0)
    torch.set_num_threads(2)
    try:
        together = delta.delta_rule(*inputs)
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_nan_stays_nan(operands: Callable[..., Any]) -> None:
    """A broken weight must not come out as a plausible answer."""
    q, k, v, g, beta, state = (x.float() for x in operands(7, 1, 8, 1, 8, 8, True, "usual"))
    g[0, 3, 0, 2] = float("nan")
    o, final = delta.delta_rule(q, k, v, g, beta, state)
    assert o[0, :3].isfinite().all()
    assert o[0, 3:].isnan().all()
    assert final.isnan().any()


def test_operators_call_it_in_float32_and_torch_in_float64(
    operands: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = operands(8, 1, 20, 2, 8, 8, True, "usual")
    calls: list[torch.dtype] = []
    forward = delta._forward
    monkeypatch.setattr(delta, "_forward", lambda xs, *rest: (calls.append(xs[0].dtype), forward(xs, *rest))[1])
    single = [x.float() for x in inputs]
    kda.chunk_kda(*single)
    gdn.chunk_gdn(*single[:3], single[3][..., 0].contiguous(), *single[4:])
    kda.step_kda(*(x[:, :1] for x in single[:5]), single[5])
    kda.chunk_kda(*inputs)
    monkeypatch.setenv(loading.VARIABLE, "off")
    kda.chunk_kda(*single)
    assert calls == [torch.float32] * 3
