import torch
from torch import nn

from kleval.train.optim import MuonAdamW, orthogonalise


def test_orthogonalised_updates_move_all_directions_alike():
    torch.manual_seed(0)
    for shape in ((3, 16, 48), (2, 48, 16)):
        singular = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
        assert singular.min() > 0.6
        assert singular.max() < 1.3


def _quadratic(steps, saved=None):
    torch.manual_seed(0)
    layer = nn.Linear(8, 8)
    optimiser = MuonAdamW(layer.named_parameters(), muon_lr=0.02, adam_lr=0.01)
    data = torch.randn(64, 8)
    for step in range(steps):
        if saved is not None and step == saved:
            state = {k: v.clone() for k, v in optimiser.state().items()}
            optimiser = MuonAdamW(layer.named_parameters(), muon_lr=0.02, adam_lr=0.01)
            optimiser.load_state(state)
        loss = (layer(data) - data).square().mean()
        loss.backward()
        optimiser.step(1.0)
        optimiser.zero_grad()
    return loss.item(), layer.weight.detach().clone()


def test_it_learns():
    assert _quadratic(150)[0] < 0.05 * _quadratic(1)[0]


def test_saved_and_restored_state_changes_nothing():
    assert torch.equal(_quadratic(20)[1], _quadratic(20, saved=11)[1])
