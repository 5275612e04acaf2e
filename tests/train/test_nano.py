import dataclasses
import json
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from kleval.models.config import ARCHITECTURES
from kleval.models.decoder import Decoder
from kleval.models.registry import load, resolve
from kleval.train import loop, nano, recipe
from kleval.types import UsageError


@pytest.fixture(autouse=True)
def few_sentences(monkeypatch):
    """30,000 of them, made and encoded anew for each training, are most of its time."""
    monkeypatch.setattr(nano, "Stream", partial(nano.Stream, bank_size=300))


RECIPE = recipe.load(tokens=1024, tokens_per_batch=256)


class _Stop(Exception):
    pass


def _stop_at(step):
    def on_progress(progress):
        if progress.step == step:
            raise _Stop

    return on_progress


def _stopped(architecture, out, made=RECIPE, step=3):
    with pytest.raises(_Stop):
        nano.train_nano(architecture, out, made, on_progress=_stop_at(step), checkpoint_seconds=0, report_every=1)


def test_an_interrupted_training_ends_with_the_same_weights_and_log(tmp_path):
    whole = nano.train_nano("kimi-linear", tmp_path / "whole", RECIPE, report_every=1)
    _stopped("kimi-linear", tmp_path / "parts")
    parts = nano.train_nano("kimi-linear", tmp_path / "parts", RECIPE, report_every=1)
    a, b = (load_file(folder / "model.safetensors") for folder in (whole, parts))
    assert all(a[name].equal(b[name]) for name in a)
    assert json.loads((parts / "training.json").read_text())["tokens_seen"] == 1024
    steps = [[json.loads(line)["step"] for line in (f / "log.jsonl").read_text().splitlines()] for f in (whole, parts)]
    assert steps == [[1, 2, 3]] * 2


def test_another_recipe_is_refused_and_what_differs_is_said(tmp_path):
    _stopped("mla", tmp_path)
    with pytest.raises(UsageError, match=r"muon_lr 0.02 -> 0.01, seed 0 -> 1|seed 0 -> 1, muon_lr 0.02 -> 0.01"):
        nano.train_nano("mla", tmp_path, dataclasses.replace(RECIPE, seed=1, muon_lr=0.01))


def test_a_finished_training_is_left_as_it_is_and_can_be_used(tmp_path):
    folder = nano.train_nano("gdn-h", tmp_path, RECIPE)
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert nano.train_nano("gdn-h", tmp_path, RECIPE, on_progress=_stop_at(1), report_every=1) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    model, tokenizer = load(resolve(str(folder)))
    assert (model.config.architecture, tokenizer.vocab_size) == ("gdn-h", 1536)
    with pytest.raises(UsageError, match="seed 0 -> 1"):
        nano.train_nano("gdn-h", tmp_path, dataclasses.replace(RECIPE, seed=1))


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    _stopped("kimi-linear", tmp_path, step=2)
    kept = (tmp_path / "kimi-linear" / loop.CHECKPOINT).read_bytes()
    monkeypatch.setattr(Decoder, "logits", lambda self, hidden: hidden.new_full((len(hidden), 1536), torch.nan))
    with pytest.raises(UsageError, match=r"loss is nan at step 2 .*last good checkpoint"):
        nano.train_nano("kimi-linear", tmp_path, RECIPE, checkpoint_seconds=0)
    assert (tmp_path / "kimi-linear" / loop.CHECKPOINT).read_bytes() == kept


def test_the_four_have_the_same_number_of_parameters_to_a_hundredth():
    sizes = [sum(p.numel() for p in Decoder(recipe.load().config(a, 1536, 1535)).parameters()) for a in ARCHITECTURES]
    assert max(sizes) / min(sizes) < 1.01


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_shipped_weights_are_of_the_package_s_recipe(architecture):
    made, folder = recipe.load(), resolve(architecture).path
    said = json.loads((folder / "training.json").read_text())
    assert recipe.differences(said, made.settings(architecture=architecture)) == ""
    assert json.loads((folder / "config.json").read_text()) == made.config(architecture, 1536, 1535).to_dict()
    assert said["tokens_seen"] >= said["tokens"] == made.tokens


def test_the_schedule_ends_at_nothing_and_the_curriculum_at_its_longest():
    made = recipe.load()
    assert made.learning_scale(10**6, made.tokens) == 0
    assert made.learning_scale(100, made.tokens // 2) == 1
    assert (made.length_at(0), made.length_at(made.tokens)) == (128, 2048)
