import dataclasses
import gzip

import pytest
from harness_fakes import (
    ALL,
    TASKS,
    Choice,
    EchoBackend,
    OneCall,
    TwoStep,
    WordTokenizer,
    comparable,
    go,
    loader,
    spec,
)

from kleval.harness import run
from kleval.store import RunStore
from kleval.types import Request, UsageError
from kleval.work.events import UnitDone


@pytest.mark.parametrize(
    ("changes", "diff"),
    [
        ({"seed": 7}, "seed: 42 -> 7"),
        ({"temperature": 0.5}, "temperature: (none) -> 0.5"),
        ({"limit": 6}, "limit: 5 -> 6"),
        ({"ctxs": (16,)}, "ctx: 16,32 -> 16"),
        ({"protocol": "p-2"}, "protocol: (none) -> p-2"),
    ],
)
def test_a_changed_command_is_refused_before_a_model_is_opened(tmp_path, changes, diff):
    go(tmp_path / "run")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def closed(name):
        raise AssertionError("opened")

    with pytest.raises(UsageError) as error:
        run(spec(tmp_path / "run", tasks=ALL, **changes), closed, loader(*TASKS))
    assert diff in str(error.value)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("backend", "diff"),
    [
        (EchoBackend(settings={"dtype": "bfloat16"}), "models.fake@one.dtype: float32 -> bfloat16"),
        (EchoBackend(settings={"dtype": "float32", "weights": {"digest": "x"}}), "weights.digest: (not set) -> x"),
        (EchoBackend(tokenizer=WordTokenizer(digest="f" * 64)), "models.fake@one.tokenizer: ddd"),
        (EchoBackend(tokenizer=WordTokenizer(chat_template_digest="c")), "models.fake@one.chat_template:  -> c"),
        (EchoBackend(model="fake@two"), "models: fake@one -> fake@two"),
    ],
)
def test_another_model_is_refused(tmp_path, backend, diff):
    go(tmp_path / "run")
    with pytest.raises(UsageError) as error:
        go(tmp_path / "run", backend)
    assert diff in str(error.value)


@pytest.mark.parametrize("setting", ["version", "edition", "protocol", "data_digest", "data_revision"])
def test_a_changed_task_is_refused(tmp_path, setting):
    go(tmp_path / "run")
    with pytest.raises(UsageError, match=rf"tasks\.fake/one\.{setting}: .* -> new"):
        go(tmp_path / "run", tasks=(OneCall(**{setting: "new"}), TwoStep(), Choice()))


def test_settings_that_only_change_speed_may_differ(tmp_path):
    go(tmp_path / "run", EchoBackend(settings={"dtype": "float32", "batch": 4}))
    assert go(tmp_path / "run", EchoBackend(settings={"dtype": "float32", "batch": 8}), window_tokens=7).exit_code == 0


def test_an_amended_run_asks_only_for_what_is_new_and_equals_one_that_asked_for_all(tmp_path):
    go(tmp_path / "run", tasks=TASKS[:2], limit=3, ctxs=(16,))
    events = []
    result = go(tmp_path / "run", limit=5, ctxs=(32, 16), repeats=2, amend=True, events=events)
    assert result.status == "complete"
    assert len([event for event in events if isinstance(event, UnitDone)]) == 60 - 6
    assert set(events[1].amended) == {
        "tasks: fake/one,fake/two -> fake/one,fake/two,fake/choice",
        "ctx: 16 -> 16,32",
        "limit: 3 -> 5",
        "repeats: 1 -> 2",
    }
    go(tmp_path / "whole", repeats=2)
    assert comparable(RunStore.open(tmp_path / "run")) == comparable(RunStore.open(tmp_path / "whole"))


class Drifting(OneCall):
    """Makes other samples when more are asked for, under the same ids."""

    def samples(self, tokenizer, ctx, n, seed):
        for sample in super().samples(tokenizer, ctx, n, seed + n):
            yield dataclasses.replace(sample, id=f"{ctx}-{sample.index}")


def test_an_answer_to_another_sample_of_the_same_name_is_not_taken(tmp_path):
    go(tmp_path / "run", tasks=(Drifting(),), limit=3)
    with pytest.raises(UsageError, match="another sample named 16-0"):
        go(tmp_path / "run", tasks=(Drifting(),), limit=4, amend=True)


def test_several_models_are_asked_the_same(tmp_path):
    backends = {"one": EchoBackend(), "two": EchoBackend(model="fake@two")}
    opened = []

    def open_backend(name):
        opened.append(name)
        return backends[name]

    run(spec(tmp_path / "run", models=("one", "two"), temperature=1.0), open_backend, loader(OneCall()))
    store = RunStore.open(tmp_path / "run")
    asked = {
        model: {
            (r.id, r.repeat, r.prompt_hash, r.outcomes[0]["seed"], r.score) for r in store.rows() if r.model == model
        }
        for model in ("fake@one", "fake@two")
    }
    assert asked["fake@one"] == asked["fake@two"]
    assert len(asked["fake@one"]) == 10
    assert store.manifest["comparison"]["same_samples"] is True
    assert store.manifest["caveats"] == []
    assert opened == ["two", "one", "two"]
    assert [b.closed for b in backends.values()] == [1, 2]
    files = list((tmp_path / "run").glob("prompts/*"))
    assert len(files) == 2  # one per length, shared by the models
    prompts = b"".join(gzip.decompress(file.read_bytes()) for file in files)
    assert sorted(prompts.replace(b"w42", b" w42").split()) == sorted(
        word for batch in backends["one"].batches for r in batch for word in r.prompt.encode().split()
    )


def test_what_makes_two_models_incomparable_is_said(tmp_path):
    other = EchoBackend(
        model="fake@two", tokenizer=WordTokenizer("b", "f" * 64), settings={"dtype": "bfloat16", "device": "cuda"}
    )
    backends = {"one": EchoBackend(), "two": other}
    events = []
    run(spec(tmp_path / "run", models=("one", "two")), backends.__getitem__, loader(OneCall()), events.append)
    manifest = RunStore.open(tmp_path / "run").manifest
    assert manifest["comparison"]["same_samples"] is False
    assert events[1].caveats == tuple(manifest["caveats"])
    tokenizers, dtype, device = manifest["caveats"]
    assert "fake@one (fake-words), fake@two (b)" in tokenizers
    assert "float32" in dtype
    assert "cuda" in device


def test_two_names_of_one_model_are_one_model(tmp_path):
    backend = EchoBackend()
    result = run(spec(tmp_path / "run", models=("one", "fake@one", "one")), lambda n: backend, loader(OneCall()))
    assert (result.status, result.counts["finished"]) == ("complete", 10)


def test_a_model_that_does_not_open_is_told_before_anything_is_asked(tmp_path):
    backend = EchoBackend()

    def open_backend(name):
        if name == "two":
            raise UsageError("no model two")
        return backend

    with pytest.raises(UsageError, match="no model two"):
        run(spec(tmp_path / "run", models=("one", "two")), open_backend, loader(OneCall()))
    assert backend.batches == []
    assert not (tmp_path / "run").exists()


class Judged(OneCall):
    needs_judge = True

    def step(self, sample, outcomes):
        if not outcomes:
            return [self.request(sample)]
        if len(outcomes) == 1:
            return [Request("judge", f"is {outcomes[0].text} right?", max_new_tokens=8)]
        return self.score(outcomes[1].text)


def test_judge_requests_go_to_the_judge(tmp_path):
    backends = {"one": EchoBackend(), "judge": EchoBackend(model="judge@x", max_ctx=100)}
    given_spec = spec(tmp_path / "run", judge_model="judge", temperature=0.9)
    assert run(given_spec, backends.__getitem__, loader(Judged())).status == "complete"
    assert {r.kind for batch in backends["one"].batches for r in batch} == {"generate"}
    judged = [r for batch in backends["judge"].batches for r in batch]
    assert {(r.kind, r.temperature) for r in judged} == {("judge", 0.0)}
    assert len(judged) == 10
    assert backends["judge"].closed == 1
    assert RunStore.open(tmp_path / "run").manifest["judge"]["name"] == "judge@x"


def test_a_judge_that_is_needed_and_not_named_is_asked_for_at_once(tmp_path):
    with pytest.raises(UsageError, match="--judge-model"):
        run(spec(tmp_path / "run"), lambda n: pytest.fail("opened"), loader(Judged()))


def test_a_judge_that_was_not_announced_is_asked_for_when_it_comes(tmp_path):
    task = Judged()
    task.needs_judge = False
    events = []
    with pytest.raises(UsageError, match="--judge-model"):
        run(spec(tmp_path / "run"), lambda n: EchoBackend(), loader(task), events.append)
    assert events[-1].result.exit_code == 2


@dataclasses.dataclass
class Prefixed(OneCall):
    id: str = "fake/prefixed"
    without_prefix: str = "fake-in-prompt"


def test_a_model_that_cannot_continue_an_answer_is_told_before_anything_is_asked(tmp_path):
    backend = EchoBackend()
    backend.continues_answers = False
    with pytest.raises(UsageError, match=r"fake/prefixed end with the beginning.*add --protocol fake-in-prompt"):
        go(tmp_path / "run", backend, (Prefixed(),))
    assert not backend.batches
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "value"), [("add_bos", "yes"), ("template_args", {"think": False})])
def test_how_a_model_is_asked_is_a_setting_only_where_it_was_said(tmp_path, name, value):
    go(tmp_path / "plain")
    assert name not in RunStore.open(tmp_path / "plain").manifest["settings"]
    go(tmp_path / "said", **{name: value})
    assert RunStore.open(tmp_path / "said").manifest["settings"][name] == value


class _Merging(WordTokenizer):
    template_deviations = ("merged",)

    def deviations(self, prompt):
        return ("merged",)


def test_what_a_template_renders_otherwise_is_in_the_row_and_in_the_manifest(tmp_path):
    backend = EchoBackend(tokenizer=_Merging())
    run(spec(tmp_path / "run", limit=1, ctxs=(16,)), lambda name: backend, loader(OneCall()))
    store = RunStore.open(tmp_path / "run")
    assert [row.outcomes[0]["notes"] for row in store.rows()] == [["merged"]]
    (model,) = store.manifest["models"].values()
    assert model["tokenizer"]["template_deviations"] == ["merged"]


@pytest.mark.parametrize("sent", ["prompts_sent_as", "messages_sent_as"])
def test_a_template_that_renders_nothing_here_is_not_said_to(tmp_path, sent):
    backend = EchoBackend(tokenizer=_Merging(), settings={sent: "chat messages"})
    run(spec(tmp_path / "run", limit=1, ctxs=(16,)), lambda name: backend, loader(OneCall()))
    (model,) = RunStore.open(tmp_path / "run").manifest["models"].values()
    assert "template_deviations" not in model["tokenizer"]
