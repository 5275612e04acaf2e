"""The command line is an interface: a command or option that comes, goes or is renamed shows up here."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from kleval.cli.main import cli

FROZEN = {
    "run": "--config --model --suite --tasks --ctx --limit --edition --protocol --haystack --metric --seed --temperature"
    " --repeats --max-new-tokens --reasoning --judge-model --judge-backend --judge-base-url --backend --base-url --api --api-key-env"
    " --served-name --request-field --without-field --hardware --concurrency --request-timeout --timeout"
    " --engine-arg --tp --max-model-len --trust-remote-code --tokenizer --add-bos --template-arg --device --devices --executor"
    " --ray-address --gpus-per-model --dtype --kernels --batch --memory-budget --share-prefixes"
    " --allow-code-execution --data-dir --offline --sample-cache --workers --max-errors"
    " --price-per-mtok --judge-price-per-mtok --max-cost --max-requests --verify --name --tag --out --shard --amend"
    " --json --dry-run --quiet",
    "plan": "--model --suite --tasks --ctx --limit --repeats --edition --protocol --hardware --measured --price --tp --batch"
    " --dtype --weights --kv --tokenizer --data-dir --json",
    "profile": "--model --ctx --batch --memory-budget --time-budget --prefill --chunk-tokens --decode-tokens --repeats"
    " --device --devices --executor --ray-address --gpus-per-model --dtype --kernels --backend --base-url --concurrency --reuse"
    " --rate --steady --slo --best-rate --requests --tasks --engine-log --edition --protocol --data-dir --tokenizer --api --api-key-env"
    " --served-name --hardware --request-timeout --engine-arg --tp --max-model-len --trust-remote-code --seed --verify --name --tag"
    " --out --append --format --json --dry-run --quiet",
    "profile memory": "--model --ctx --batch --memory-budget --dtype --weights --kv --tp --ep --format --json",
    "profile kernels": "--ctx --heads --head-dim --repeats --time-budget --device --dtype --seed --name --tag --out --format --json"
    " --dry-run --quiet",
    "verify": "--model --backend --base-url --reference --reference-backend --reference-base-url --ctx --write-model --laws"
    " --time-budget --alpha --seed --api --api-key-env --served-name --request-field --without-field --concurrency"
    " --request-timeout --tokenizer --add-bos --template-arg --device --dtype --kernels --batch --memory-budget --engine-arg"
    " --tp --max-model-len --trust-remote-code --offline --name --tag --out --json --dry-run --quiet",
    "merge": "directories --out --json --quiet",
    "compact": "directories --json --quiet",
    "score": "directory --tasks --metric --allow-code-execution --json --quiet",
    "generate": "task --edition --protocol --ctx --tokenizer --model --add-bos --template-arg --limit --seed --data-dir"
    " --sample-cache --workers --out",
    "demo": "--limit --out",
    "data fetch": "family --data-dir --offline --json --dry-run --quiet",
    "data verify": "family --data-dir --json",
    "data ls": "family --data-dir --json",
    "ls models": "model --json",
    "ls tasks": "task --card --paper --edition --protocol --data-dir --json",
    "ls suites": "--json",
    "ls backends": "--json",
    "ls runs": "root --json",
    "show": "directories --all-metrics",
    "status": "directories --json",
    "report": "directories --out --figures --trend --add-figure",
    "view": "directories --port",
    "leaderboard": "directories --out --format --append",
    "compare": "a b --model --effect --flips --explain --format",
    "gate": "directories --against --fail-on --model --format",
    "scorecard": "directories --claims --format",
    "export": "directories --format --out --dataset",
    "new task": "name --out",
    "new backend": "name --out",
    "new metric": "name --out",
    "new figure": "name --out",
    "path lm-eval": "",
    "doctor": "--data-dir --json",
    "train nano": "--model --out --tokens --steps --seed --device --threads --dry-run",
    "train synthetic": "--task --model --preset --length --lr --steps --out --device --threads --dry-run",
    "train ablation": "--variant --steps --out --device --threads --dry-run",
    "train ladder": "--tokens --out --device --threads --dry-run",
    "completion": "shell",
}

# Variables whose meaning is one command's own, so that KLEVAL_OUT or KLEVAL_MODEL set for `run` does not reach them.
OWN_VARIABLES = {
    **{
        ("profile", f"--{name}"): f"KLEVAL_PROFILE_{name.upper().replace('-', '_')}"
        for name in (
            *("model", "ctx", "batch", "repeats", "seed", "out", "append", "backend"),
            *("concurrency", "reuse", "rate", "steady", "slo", "best-rate", "requests", "tasks", "engine-log"),
        )
    },
    **{
        ("profile kernels", f"--{name}"): f"KLEVAL_PROFILE_KERNELS_{name.upper().replace('-', '_')}"
        for name in ("ctx", "repeats", "time-budget", "out")
    },
    ("profile", "--base-url"): "KLEVAL_PROFILE_BASE_URL",
    ("profile kernels", "--seed"): "KLEVAL_PROFILE_SEED",
    ("profile memory", "--model"): "KLEVAL_PROFILE_MODEL",
    ("profile memory", "--ctx"): "KLEVAL_PROFILE_CTX",
    **{
        ("profile memory", f"--{name}"): f"KLEVAL_PROFILE_MEMORY_{name.upper()}"
        for name in ("batch", "dtype", "weights", "kv", "tp", "ep")
    },
    **{
        ("plan", f"--{name}"): f"KLEVAL_PLAN_{name.upper()}"
        for name in ("model", "limit", "hardware", "tp", "dtype", "weights", "kv")
    },
    ("generate", "--out"): "KLEVAL_GENERATE_OUT",
    ("generate", "--workers"): "KLEVAL_GENERATE_WORKERS",
    **{
        ("verify", f"--{name}"): f"KLEVAL_VERIFY_{name.upper().replace('-', '_')}"
        for name in ("model", "ctx", "time-budget", "seed", "concurrency", "out")
    },
    ("score", "--tasks"): "KLEVAL_SCORE_TASKS",
    ("score", "--metric"): "KLEVAL_SCORE_METRIC",
    ("report", "--out"): "KLEVAL_REPORT_OUT",
    ("report", "--figures"): "KLEVAL_REPORT_FIGURES",
    ("report", "--trend"): "KLEVAL_REPORT_TREND",
    ("report", "--add-figure"): "KLEVAL_REPORT_ADD_FIGURE",
    **{(f"new {kind}", "--out"): "KLEVAL_NEW_OUT" for kind in ("task", "backend", "metric", "figure")},
    ("leaderboard", "--out"): "KLEVAL_LEADERBOARD_OUT",
    ("leaderboard", "--append"): "KLEVAL_LEADERBOARD_APPEND",
    ("compare", "--model"): "KLEVAL_COMPARE_MODEL",
    ("gate", "--model"): "KLEVAL_GATE_MODEL",
    ("demo", "--out"): "KLEVAL_DEMO_OUT",
    ("merge", "--out"): "KLEVAL_MERGE_OUT",
    ("export", "--out"): "KLEVAL_EXPORT_OUT",
    ("export", "--format"): "KLEVAL_EXPORT_FORMAT",
    ("train nano", "--model"): "KLEVAL_TRAIN_MODEL",
    ("train nano", "--out"): "KLEVAL_TRAIN_OUT",
    ("train nano", "--tokens"): "KLEVAL_TRAIN_TOKENS",
    ("train nano", "--seed"): "KLEVAL_TRAIN_SEED",
    ("train synthetic", "--model"): "KLEVAL_TRAIN_SYNTHETIC_MODEL",
    **{(f"train {name}", "--out"): "KLEVAL_TRAIN_OUT" for name in ("synthetic", "ablation", "ladder")},
}


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    group = isinstance(command, click.Group)
    if not group or command.invoke_without_command:
        yield " ".join(path), command
    if not group:
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from commands(found, (*path, name))


def spelled(parameter: click.Parameter) -> str:
    """An option's long name, an argument's name."""
    return str(parameter.name) if isinstance(parameter, click.Argument) else max(parameter.opts, key=len)


def test_commands_and_options_are_as_frozen() -> None:
    assert {name: [spelled(p) for p in command.params] for name, command in commands(cli)} == {
        name: names.split() for name, names in FROZEN.items()
    }


@pytest.mark.parametrize("name", list(FROZEN))
def test_every_option_has_its_variable(name: str) -> None:
    for parameter in dict(commands(cli))[name].params:
        if isinstance(parameter, click.Option):
            option = spelled(parameter)
            usual = "KLEVAL_" + option.removeprefix("--").replace("-", "_").upper()
            assert parameter.envvar == OWN_VARIABLES.get((name, option), usual)


@pytest.mark.parametrize("name", list(FROZEN))
def test_every_option_is_explained(name: str) -> None:
    for parameter in dict(commands(cli))[name].params:
        assert not isinstance(parameter, click.Option) or parameter.help
