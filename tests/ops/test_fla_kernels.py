"""How fla-core is called and when it is not: what needs no GPU to be known."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from kleval.ops import available, fla_kernels
from kleval.ops.delta_rule import recurrent_delta_rule
from kleval.ops.gdn import recurrent_gdn
from kleval.ops.kda import recurrent_kda

CUDA = torch.device("cuda")


@pytest.fixture
def fresh() -> Iterator[None]:
    """What is installed is looked up once per process: here again."""
    caches = (available._fla_missing, available._triton_missing)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def fla_file(path: str) -> Path:
    """A source file of the installed fla-core, which is not imported for it."""
    found = importlib.util.find_spec("fla")
    if found is None or not found.submodule_search_locations:
        pytest.skip("fla-core is not installed: pip install -e '.[gpu]'")
    return Path(next(iter(found.submodule_search_locations))) / path


@pytest.mark.parametrize(
    ("path", "name"),
    [("ops/kda/chunk.py", "chunk_kda"), ("ops/gated_delta_rule/chunk.py", "chunk_gated_delta_rule")],
)
def test_the_installed_version_takes_what_is_passed_and_defaults_to_the_rest(path: str, name: str) -> None:
    """State K first, gates ready-made and unbounded, scale K^-0.5: all by default."""
    tree = ast.parse(fla_file(path).read_text(encoding="utf-8"))
    (function,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    arguments = [a.arg for a in function.args.args]
    assert arguments[:5] == ["q", "k", "v", "g", "beta"]
    defaults = dict(
        zip(reversed(arguments), (ast.literal_eval(d) for d in reversed(function.args.defaults)), strict=False)
    )
    wanted = {"scale": None, "initial_state": None, "output_final_state": False, "state_v_first": False}
    wanted |= {"use_qk_l2norm_in_kernel": False, "use_beta_sigmoid_in_kernel": False}
    if name == "chunk_kda":
        wanted |= {"safe_gate": False, "use_gate_in_kernel": False}
    assert {key: defaults.get(key, "missing") for key in wanted} == wanted


@pytest.mark.parametrize("per_channel", [True, False])
def test_our_recurrence_is_theirs(operands: Callable[..., Any], per_channel: bool) -> None:
    """fla's own torch reference, scale and state layout included."""
    pytest.importorskip("einops")
    folder = "kda" if per_channel else "gated_delta_rule"
    spec = importlib.util.spec_from_file_location(f"fla_naive_{folder}", fla_file(f"ops/{folder}/naive.py"))
    assert spec is not None
    assert spec.loader is not None
    naive = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(naive)
    q, k, v, g, beta, state = operands(7, 2, 13, 3, 8, 8, per_channel, "usual", torch.float32)
    ours, final = (recurrent_kda if per_channel else recurrent_gdn)(q, k, v, g, beta, state)
    theirs = naive.naive_recurrent_kda if per_channel else naive.naive_recurrent_gated_delta_rule
    options = {"initial_state": state, "output_final_state": True}
    o, last = theirs(q, k, v, g, beta, **options) if per_channel else theirs(q, k, v, beta, g, **options)
    torch.testing.assert_close(ours, o.float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(final, last.float(), rtol=1e-4, atol=1e-5)


def torch_kernel(calls: list[tuple[int, ...]]) -> Callable[..., Any]:
    """Something with fla's signature that notes the shape of each call."""

    def kernel(q: Any, k: Any, v: Any, g: Any, beta: Any, initial_state: Any, output_final_state: bool) -> Any:
        assert output_final_state
        assert initial_state.dtype == g.dtype == beta.dtype == torch.float32
        assert q.dtype == k.dtype == v.dtype
        calls.append(tuple(q.shape[:2]))
        return recurrent_delta_rule(q, k, v, g, beta, initial_state)

    return kernel


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
@pytest.mark.parametrize("with_state", [True, False])
def test_pieces_and_row_groups_do_not_change_the_result(
    operands: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, batch: int, with_state: bool
) -> None:
    q, k, v, g, beta, state = operands(8, batch, 150, 2, 4, 4, True, "usual", torch.float32)
    calls: list[tuple[int, ...]] = []
    expected, final = recurrent_delta_rule(q, k, v, g, beta, state if with_state else None)
    monkeypatch.setattr(fla_kernels, "CALL_TOKENS", 128)
    o, last = fla_kernels._in_pieces(torch_kernel(calls), q, k, v, g, beta, state if with_state else None)
    torch.testing.assert_close(o, expected)
    torch.testing.assert_close(last, final)
    assert all(rows & (rows - 1) == 0 for rows, _ in calls)
    assert all(rows * tokens <= max(128, 64 * rows) for rows, tokens in calls)
    assert sum(rows * tokens for rows, tokens in calls) == batch * 150


def test_a_short_prompt_is_one_call(operands: Callable[..., Any]) -> None:
    calls: list[tuple[int, ...]] = []
    fla_kernels._in_pieces(torch_kernel(calls), *operands(9, 4, 70, 2, 4, 4, True, "usual", torch.float32))
    assert calls == [(4, 70)]


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(("version", "text"), [("0.5.2", "overflows"), (None, "not installed")])
def test_an_old_or_missing_fla_is_not_used_and_one_line_says_why(
    monkeypatch: pytest.MonkeyPatch, version: str | None, text: str
) -> None:
    monkeypatch.setattr(available, "_version", lambda package: version)
    with pytest.warns(UserWarning, match=text) as caught:
        reasons = [available.why_not(name, CUDA) for name in ("kda", "gdn")]
    assert None not in reasons
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
    assert "install" in str(available.why_not("kda", CUDA))


def test_versions_are_compared_as_numbers() -> None:
    assert [available._numbers(v) for v in ("0.6.0", "0.10.1rc2", "1.0+cu13", "x")] == [
        (0, 6, 0),
        (0, 10, 1),
        (1, 0),
        (),
    ]
    assert available._numbers("0.10.0") > available.FLA_MINIMUM > available._numbers("0.5.9")


def test_a_disabled_kernel_is_not_used_until_enabled() -> None:
    available.disable("kda", "a reason")
    try:
        assert available.why_not("kda", CUDA) == "a reason"
        assert not available.usable("kda", CUDA)
    finally:
        available.enable("kda")
    with pytest.raises(ValueError, match="unknown kernel"):
        available.usable("softmax", CUDA)


DECODE = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None
import torch
torch.set_num_threads(1)
import kleval.backends.native, kleval.ops.check, kleval.ops.fla_kernels, kleval.ops.grouped
from kleval.backends.native import open_native
from kleval.backends.spec import BackendSpec
from kleval.types import Request
backend = open_native(BackendSpec(model="kimi-linear@nano", device="cpu"))
((_, outcome),) = backend.run([Request("generate", "The sky is", max_new_tokens=4)])
assert outcome.output_tokens == 4, outcome
assert set(backend.describe()["kernels"].values()) == {{"torch"}}
checks = kleval.ops.check.check_kernels("cpu")
assert not any(check.passed or check.available for check in checks), checks
used = [name for name in ("fla", "triton") if sys.modules.get(name) is not None]
print("imported:", used)
"""


@pytest.mark.slow
@pytest.mark.parametrize("blocked", [(), ("fla",), ("fla", "triton")])
def test_a_cpu_needs_neither_fla_nor_triton_and_is_not_disturbed_by_them(blocked: tuple[str, ...]) -> None:
    script = DECODE.format(blocked=blocked)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "'fla'" not in done.stdout
