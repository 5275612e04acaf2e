from functools import partial

import pytest
import torch

from kleval.models.decoder import Decoder
from kleval.models.sizes import preset
from kleval.train import nano, recipe, studies
from kleval.train.variants import Variant, vary

RECIPE = recipe.load(tokens=512, tokens_per_batch=128)


@pytest.fixture(autouse=True)
def few_sentences(monkeypatch):
    monkeypatch.setattr(nano, "Stream", partial(nano.Stream, bank_size=300))


def test_a_variant_that_changes_nothing_is_the_layer_itself():
    config = preset("kimi-linear", "nano", vocab_size=64)
    model, varied = Decoder(config), vary(Decoder(config))
    for each in (model, varied):
        each.init_weights(0)
    ids = torch.randint(0, 64, (2, 70), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(varied.hidden(ids), model.hidden(ids), rtol=1e-4, atol=1e-4)
    assert isinstance(varied.model.layers[0].self_attn, Variant)


def test_ratios_are_of_sixteen_layers():
    rungs = {rung.name: rung.change["layer_mixers"] for rung in studies.ablation(RECIPE)}
    counts = {name: rungs[name].count("mla") for name in ("0:1", "1:1", "3:1", "7:1", "15:1")}
    assert counts == {"0:1": 16, "1:1": 8, "3:1": 4, "7:1": 2, "15:1": 1}


@pytest.mark.parametrize("name", ["swish gate", "no short convolution"])
def test_an_ablation_leaves_a_result_beside_the_papers(name, tmp_path):
    (rung,) = studies.ablation(RECIPE, [name])
    row = studies.train_rung(rung, tmp_path)
    assert row["tokens"] >= 256
    assert studies.train_rung(rung, tmp_path) == row
    (tmp_path / "results.jsonl").unlink()
    assert studies.train_rung(rung, tmp_path) == row
    assert row["paper"] == {"swish gate": "9.43 / 5.81", "no short convolution": "9.29 / 5.70"}[name]


def test_a_power_law_is_found_again():
    rows = [{"parameters": n, "tokens": 10 * n, "loss": 3.0 * (60 * n * n / 1e15) ** -0.05} for n in (10**6, 10**7)]
    a, b = studies.fitted(rows)
    assert (a, b) == (pytest.approx(3.0), pytest.approx(0.05))


def test_the_ladder_trains_larger_models_on_more():
    rungs = studies.ladder(recipe.load())
    assert [r.made.tokens for r in rungs[::2]] == [3_000_000, 6_750_000, 12_000_000, 27_000_000]
