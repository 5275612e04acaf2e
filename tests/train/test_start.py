import pytest
import torch

from kleval.models.decoder import Decoder
from kleval.models.sizes import preset
from kleval.train.start import structured_start


def _started(architecture, seed=0):
    config = preset(architecture, "nano", vocab_size=256, eos_token_id=0)
    model = Decoder(config)
    model.init_weights(seed)
    structured_start(model, config, seed)
    return model


@pytest.mark.parametrize("architecture", ["kimi-linear", "kimi-linear-rope", "gdn-h", "mla"])
def test_before_any_training_a_repeated_token_recalls_what_followed_it(architecture):
    model = _started(architecture)
    generator = torch.Generator().manual_seed(1)
    rows = torch.stack([torch.randperm(256, generator=generator)[:60] for _ in range(16)])
    asked = rows[:, 20:23]  # what was at 20, 21, 22 comes again; 23 followed
    with torch.no_grad():
        logits = model.logits(model.hidden(torch.cat([rows, asked], 1))[:, -1])
    rank = (logits > logits.gather(1, rows[:, 23:24])).sum(1).float()
    assert rank.median() < 16  # chance: 128


def test_the_start_depends_on_the_seed_alone():
    a, b, other = (dict(_started("kimi-linear", seed).named_parameters()) for seed in (3, 3, 4))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["model.embed_tokens.weight"], other["model.embed_tokens.weight"])
