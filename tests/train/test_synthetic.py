import json
from functools import partial

import numpy as np
import pytest
import torch

from kleval.ops.gdn import recurrent_gdn
from kleval.train import loop, synthetic
from kleval.train.loop import IGNORED
from kleval.train.synthetic_data import ELEMENTS, STACKS, TASKS, zoology_mqar
from kleval.train.variants import decay_rule
from kleval.types import UsageError


def test_zoologys_mqar_equals_the_official_output(fixtures_dir):
    cases = json.loads((fixtures_dir / "golden/mqar.json").read_text())["cases"]
    for case in cases:
        ids, labels = zoology_mqar(**case["arguments"])
        assert np.array_equal(ids, case["expected"]["inputs"])
        assert np.array_equal(labels, case["expected"]["labels"])
    assert len(cases) == 4


@pytest.mark.parametrize("task", TASKS)
def test_ids_are_of_the_vocabulary_and_the_length_is_kept(task):
    make, vocab = TASKS[task]
    ids, labels = make(np.random.default_rng(0), 3, 128)
    assert 0 <= ids.min() <= ids.max() < vocab
    assert 125 <= ids.shape[1] <= 128
    assert labels.shape == ids.shape
    assert (labels != IGNORED).any(1).all()


def test_a_palindrome_is_asked_for_from_its_separator_on():
    ids, labels = TASKS["palindrome"][0](np.random.default_rng(0), 2, 16)
    assert np.array_equal(labels[:, 8:], ids[:, 7::-1])
    assert (labels[:, :8] == IGNORED).all()


def test_every_value_of_mqar_is_that_of_its_key():
    ids, labels = TASKS["mqar"][0](np.random.default_rng(0), 2, 31)
    for row, answers in zip(ids, labels, strict=True):
        known = dict(zip(row[0:20:2], row[1:20:2], strict=True))
        assert [known[k] for k in row[21:]] == answers[21:].tolist()


def test_a_pop_gives_what_was_pushed_last():
    ids, labels = TASKS["stack"][0](np.random.default_rng(0), 1, 3000)
    held = {}
    pops = 0
    for at in range(0, ids.shape[1], 3):
        op, stack, element = ids[0, at : at + 3]
        if op == STACKS + ELEMENTS:
            held.setdefault(stack, []).append(element)
            assert labels[0, at + 1] == IGNORED
        else:
            assert labels[0, at + 1] == element == held[stack].pop()
            pops += 1
    assert pops > 400


def test_decay_alone_is_its_recurrence():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 150, 2, 8, dtype=torch.float64) for _ in range(3))
    g, beta = -torch.rand(2, 150, 2, dtype=torch.float64), torch.rand(2, 150, 2, dtype=torch.float64)
    state, outputs = torch.zeros(2, 2, 8, 8, dtype=torch.float64), []
    for t in range(150):
        state = g[:, t, :, None, None].exp() * state + torch.einsum(
            "bhk,bhv->bhkv", k[:, t], beta[:, t, :, None] * v[:, t]
        )
        outputs.append(torch.einsum("bhk,bhkv->bhv", q[:, t], state) * 8**-0.5)
    o, last = decay_rule(q, k, v, g, beta)
    torch.testing.assert_close(o, torch.stack(outputs, 1))
    torch.testing.assert_close(last, state)
    assert not torch.allclose(o, recurrent_gdn(q, k, v, g, beta)[0])


@pytest.mark.parametrize("model", synthetic.MODELS)
def test_a_training_of_a_few_steps_leaves_a_result(model, tmp_path):
    setting = synthetic.Setting("mqar", model, 64, 1e-3, steps=2, rows=2, hidden=32, head_dim=16)
    result = synthetic.train_synthetic(setting, tmp_path)
    assert result == synthetic.read_results(tmp_path)[0]
    assert result["steps"] == 2
    assert synthetic.train_synthetic(setting, tmp_path) == result


@pytest.mark.parametrize("left", ["", '{"task": "mqar", "mod'])
def test_a_result_whose_line_was_lost_or_cut_is_made_from_the_training(left, tmp_path):
    setting = synthetic.Setting("mqar", "gdn", 64, 1e-3, steps=2, rows=2, hidden=32, head_dim=16)
    result = synthetic.train_synthetic(setting, tmp_path)
    (tmp_path / "results.jsonl").write_text(left)
    assert synthetic.train_synthetic(setting, tmp_path) == result
    assert synthetic.read_results(tmp_path) == [result]


def test_a_peak_is_that_of_all_sessions_and_a_running_mean_begins_at_its_first_batch(tmp_path, monkeypatch):
    """Right throughout for 30 steps and wrong for 30 more, killed and continued between: what is reported at step 20 is 1.0."""
    setting = synthetic.Setting("mqar", "gdn", 64, 1e-3, steps=60, rows=1, hidden=16, head_dim=16)
    saw, train = loop.Progress.saw, loop.train

    def killed(at: loop.Progress) -> None:
        if at.step == 40:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop.Progress, "saw", lambda self, kind, right: saw(self, kind, float(self.step < 30)))
    monkeypatch.setattr(loop, "train", partial(train, checkpoint_seconds=0.0))
    monkeypatch.setattr(synthetic, "_SOLVED", 2.0)
    with pytest.raises(KeyboardInterrupt):
        synthetic.train_synthetic(setting, tmp_path, on_progress=killed)
    result = synthetic.train_synthetic(setting, tmp_path)
    assert (result["peak"], result["steps_taken"]) == (1.0, 60)
    made = json.loads((tmp_path / setting.name / "training.json").read_text())
    assert 0.2 < made["final_training_accuracy"]["mqar"] < 0.6


def test_lengths_that_ask_for_nothing_are_refused():
    with pytest.raises(UsageError, match="length 1: "):
        synthetic.settings("quick", ["palindrome"], ["kda"], lengths=[1])


def test_presets_are_those_of_the_paper_and_of_minutes():
    paper = synthetic.settings("paper", ["mqar"], ["kda"])
    assert {(s.length, s.lr) for s in paper} == {
        (n, lr) for n in (256, 512, 1024, 2048) for lr in (5e-5, 1e-4, 5e-4, 1e-3)
    }
    assert {(s.steps, s.hidden, s.head_dim) for s in paper} == {(20_000, 256, 128)}
    assert {s.length for s in synthetic.settings("quick", ["stack"], ["mla"])} == {64, 128, 256}
