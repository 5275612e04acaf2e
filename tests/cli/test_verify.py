"""`kleval verify` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kleval.cli.main import call
from kleval.verify.model import write_model


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("verify") / "small", max_ctx=512)


def verified(small: Path, out: Path, *more: str) -> int:
    few = ("--ctx", "128", "--laws", "text,long", "--kernels", "torch", "--dtype", "float32")
    return call(["verify", "--model", str(small), *few, "--out", str(out), "--json", "-q", *more])


def test_verdicts_are_on_stdout_and_in_the_directory(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verified(small, tmp_path / "out") == 0
    done = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {law["law"]: law["verdict"] for law in done["laws"]} == {"text": "holds", "long": "holds"}
    assert json.loads((tmp_path / "out" / "run.json").read_text())["verify"][str(small)]["verdict"] == "holds"
    assert "Laws of the engine" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--laws", "causalty"), "there is no law 'causalty'"),
        (("--model", "a,b"), "one engine, not 2"),
        (("--reference-backend", "hf"), "name it with --reference"),
        (("--time-budget", "soon"), "is not a time"),
        (("--ctx", "8"), "too short"),
        (("--alpha", "2"), "a probability"),
        (("--reference", "kimi-linear"), "another vocabulary"),
    ],
)
def test_bad_input_is_one_line(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], said: str
) -> None:
    assert verified(small, tmp_path / "out", *more) == 2
    assert said in capsys.readouterr().err


def test_a_verdict_is_kept_with_what_comes_after_it(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kleval.backends.spec import BackendSpec
    from kleval.cli.verify_first import verdicts

    monkeypatch.setattr("kleval.cli.verify_first.SECONDS", 0.01)
    found = verdicts([BackendSpec(model=str(small), dtype="float32")], tmp_path / "out")
    assert found[str(small)]["verdict"] == "undecided"
    assert (tmp_path / "out-verify" / "run.json").is_file()


def test_the_small_model_is_written(tmp_path: Path) -> None:
    assert call(["verify", "--write-model", str(tmp_path / "small")]) == 0
    assert (tmp_path / "small" / "model.safetensors").is_file()


def test_stopping_the_verification_before_a_run_stops_the_run(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kleval.backends.spec import BackendSpec
    from kleval.cli.verify_first import verdicts
    from kleval.work import Result

    monkeypatch.setattr("kleval.verify.verify", lambda spec: Result("interrupted", 130, spec.out))
    with pytest.raises(KeyboardInterrupt):
        verdicts([BackendSpec(model=str(small))], tmp_path / "run")
