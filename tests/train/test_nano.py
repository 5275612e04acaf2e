import dataclasses
import json
import shutil
from functools import partial

import pytest
from safetensors.torch import load_file

from kleval.train import nano
from kleval.types import UsageError


@pytest.fixture
def out(tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(nano.nano_folder() / name, tmp_path / name)
    return tmp_path


@pytest.fixture(autouse=True)
def few_sentences(monkeypatch):
    """30,000 of them, made and encoded anew for each training, are most of its time."""
    monkeypatch.setattr(nano, "Stream", partial(nano.Stream, bank_size=500))


RECIPE = nano.Recipe(tokens=1024, tokens_per_batch=256)


class _Stop(Exception):
    pass


def _stop_at(step):
    def on_progress(progress):
        if progress.step == step:
            raise _Stop

    return on_progress


def test_an_interrupted_training_ends_with_the_same_weights(out):
    whole = nano.train_nano("kimi-linear", out / "whole", RECIPE, report_every=1)
    with pytest.raises(_Stop):
        nano.train_nano(
            "kimi-linear", out / "parts", RECIPE, on_progress=_stop_at(3), checkpoint_seconds=0, report_every=1
        )
    parts = nano.train_nano("kimi-linear", out / "parts", RECIPE)
    a, b = (load_file(folder / "model.safetensors") for folder in (whole, parts))
    assert all(a[name].equal(b[name]) for name in a)
    assert json.loads((parts / "training.json").read_text())["tokens_seen"] == 1024


def test_another_recipe_is_refused(out):
    with pytest.raises(_Stop):
        nano.train_nano("mla", out, RECIPE, on_progress=_stop_at(2), checkpoint_seconds=0, report_every=1)
    with pytest.raises(UsageError, match="another recipe"):
        nano.train_nano("mla", out, dataclasses.replace(RECIPE, seed=1))


def test_a_finished_training_is_left_as_it_is(out):
    folder = nano.train_nano("kimi-linear", out, RECIPE)
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert nano.train_nano("kimi-linear", out, RECIPE, on_progress=_stop_at(1), report_every=1) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match="another recipe"):
        nano.train_nano("kimi-linear", out, dataclasses.replace(RECIPE, seed=1))
