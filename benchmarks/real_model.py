"""SmolLM2-135M-Instruct through llama.cpp, llama-cpp-python, transformers and vLLM: scores, costs, and how far they agree.

    python benchmarks/real_model.py [--only llama.cpp,hf,vllm,...] [--parts long,chat,short,choice,lm-eval,profile]
        [--ctx 1k,2k,4k,8k] [--limit 2] [--minutes 30] [--port 8111] [--home .venv-real] [--vllm .venv-vllm] [--out runs/real]
        [--tables | --publish reports/smollm2-135m]

`make real` makes the environments (real_engines.py says what is in them) and runs this. Every engine answers the same samples
greedily, part by part and length by length, each in a run directory of its own (OUT/ENGINE/PART-CTX) and within a time limit; one that
was stopped goes on when the same command is given again. What cannot run is told with its reason. transformers and vLLM get a copy
of the file's weights in float32, saved once. --tables only prints (real_tables.py) what is there.

Parts: long is RULER, MRCR, LongBench v2 and HELMET-ICL (at the model's limit RULER alone); chat is RULER at the chat endpoint; short
is the short suite; choice some of its questions by log-probabilities; lm-eval is kleval's RULER under lm-eval's protocol and then
lm-eval's own, both at the server; profile is cost.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from common import ONE_THREAD, length
from real_engines import CONTEXT, COPY, ENGINES, FILE, QUIET, Engine, serving, stop
from real_tables import directories, partings, print_tables, run_names

ROOT = Path(__file__).resolve().parent.parent
LONG, RULER = "ruler,mrcr,longbench2,helmet_icl", "ruler"
# Of lm-eval's RULER, the tasks that need no download; its ruler_fwe fills the length and leaves none for an answer at 1k.
OFFLINE = ("niah_single_1", "niah_multikey_2", "niah_multikey_3", "ruler_vt", "ruler_cwe", "ruler_fwe")
SHORTEST_FWE = 2048
# Multiple choice by log-probabilities, without worked examples.
CHOICE = "lm_eval/arc_challenge,lm_eval/hellaswag,short/mmlu_redux"
REPEATS = "5"  # of a profile
PARTS = ("profile", "long", "chat", "short", "choice", "lm-eval")


def commands(engine: Engine, part: str, given: argparse.Namespace) -> Iterator[tuple[str, list[str] | str]]:
    """Names of run directories with what is run for each, or why the engine has no such part."""
    if part == "profile":
        measured = [ctx for ctx in given.ctx.split(",") if length(ctx) < CONTEXT]
        command = ["profile", *engine.asked_by(given), "--ctx", ",".join(measured), "--repeats", REPEATS]
        yield part, kleval(engine, part, command, given) if engine.counts else "its streams count no tokens"
        return
    if part in ("short", "choice"):
        tasks = ["--suite", "short"] if part == "short" else ["--tasks", CHOICE, "--ctx", "4k"]
        command = ["run", *asked(engine, given), *tasks, "--limit", limits(given)[0]]
        yield part, kleval(engine, part, command, given)
        return
    for ctx, limit in zip(given.ctx.split(","), limits(given), strict=True):
        name = f"{part}-{ctx}"
        command = ["run", *asked(engine, given), "--ctx", ctx, "--limit", limit]
        if part == "long":
            tasks = RULER if length(ctx) >= CONTEXT else given.tasks
            yield name, kleval(engine, name, [*command, "--tasks", tasks], given)
        elif engine.server is None:
            yield name, "it has no endpoint"
        elif part == "chat":
            chat = ["--api", "chat", "--protocol", "nvidia-c3f5e3b-prefix-in-prompt", "--tasks", RULER]
            yield name, kleval(engine, name, [*command, *chat], given)
        elif part == "lm-eval":
            theirs = [task for task in OFFLINE if task != "ruler_fwe" or length(ctx) >= SHORTEST_FWE]
            tasks = ",".join(f"ruler/{task.removeprefix('ruler_')}" for task in theirs)
            ours = ["--edition", "official", "--protocol", "lm-eval-0.4.13", "--tasks", tasks]
            yield name, kleval(engine, name, [*command, *ours], given)
            for task in theirs:
                yield f"{name} {task}", lm_eval(engine, task, ctx, limit, given)


def limits(given: argparse.Namespace) -> list[str]:
    """Samples per task, one for each length: the last holds for the rest."""
    told, wanted = given.limit.split(","), len(given.ctx.split(","))
    return [*told, *[told[-1]] * wanted][:wanted]


def asked(engine: Engine, given: argparse.Namespace) -> list[str]:
    if engine.server is None:
        return engine.asked_by(given)
    return [*engine.asked_by(given), "--tokenizer", f"hf:{given.home / COPY}", "--concurrency", str(engine.together)]


def kleval(engine: Engine, name: str, command: Sequence[str], given: argparse.Namespace) -> list[str]:
    """A larger --limit goes on where a smaller one ended."""
    amend = ["--amend"] if command[0] == "run" else []
    where = ["--name", title(engine.name, name), "--out", str(given.out / engine.name / name)]
    return [engine.python(given), str(ROOT / "cli.py"), *command, *amend, *where]


def title(engine: str, run: str) -> str:
    """What pages call a run: engines of the same weights answer under the same model's name."""
    return f"{engine} {run.replace('-', ' ')}"


def lm_eval(engine: Engine, task: str, ctx: str, limit: str, given: argparse.Namespace) -> list[str] | str:
    """lm-eval's own command at the server, with token ids and the chat template, as kleval asks a model that has one; each task
    alone, as its samples depend on what was drawn before them."""
    where = given.out / engine.name / "lm-eval-own" / ctx / limit / task
    if any(where.glob("*/samples_*.jsonl")):
        return "it is there"
    url, copy = f"http://127.0.0.1:{given.port + (engine.server or 0)}/v1/completions", given.home / COPY
    served = f"model={engine.model(given)},base_url={url},tokenizer={copy},num_concurrent=1,max_length={CONTEXT}"
    what = ["--tasks", task, "--metadata", f'{{"max_seq_lengths":[{length(ctx)}]}}', "--limit", limit]
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "local-completions", "--model_args", served, *what]
    return [*command, "--apply_chat_template", "--log_samples", "--output_path", str(where)]


def run_part(command: Sequence[str], minutes: float) -> str:
    """How it ended, in words: interrupted at the time limit kleval has saved what it did."""
    run = subprocess.Popen(command, env=os.environ | ONE_THREAD | QUIET, start_new_session=True)
    try:
        code = run.wait(60 * minutes)
    except subprocess.TimeoutExpired:
        stop(run, signal.SIGINT)
        return f"stopped after {minutes:g} minutes; the same command continues"
    except BaseException:
        stop(run, signal.SIGINT)
        raise
    return {0: "done", 3: "done, with failures"}.get(code, f"exit code {code}, as said above")


def save_copy(home: Path) -> None:
    """The file's weights in float32 and its tokenizer, as transformers writes them; without the mark of their quantisation. Engines
    that load it have a name of their own for it."""
    for name in (engine.name for engine in ENGINES.values() if engine.by_folder and engine.name != "hf"):
        link = home / f"SmolLM2-135M-{name}"
        if not link.is_symlink():
            link.symlink_to(COPY)
    if (home / COPY / "config.json").is_file():
        return
    sys.path.append(str(home / "gguf"))
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(home, gguf_file=FILE, dtype=torch.float32)
    for owner, name in ((model.config, "quantization_config"), (model, "hf_quantizer")):
        if hasattr(owner, name):
            delattr(owner, name)
    model.is_quantized = False
    unfinished = home / f"{COPY}.unfinished"
    model.save_pretrained(unfinished)
    AutoTokenizer.from_pretrained(home, gguf_file=FILE).save_pretrained(unfinished)
    shutil.rmtree(home / COPY, ignore_errors=True)
    unfinished.replace(home / COPY)


def publish(out: Path, folder: Path, parts: Sequence[str]) -> None:
    """Rows, settings and CSV of every run, lm-eval's samples and one page of the parts; the rest is made again from those."""
    for record in sorted(out.glob("*/*/run.json")):
        kept = folder / record.parent.relative_to(out)
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(record.parent, kept, ignore=shutil.ignore_patterns("prompts", "tmp", "report.html", ".lock"))
        settings = json.loads((kept / "run.json").read_text("utf-8").replace(str(Path.home()), "~"))
        settings["title"] = settings.get("title") or title(kept.parent.name, kept.name)
        (kept / "run.json").write_text(json.dumps(settings, indent=2, ensure_ascii=False), encoding="utf-8")
    for samples in out.glob("*/lm-eval-own/**/samples_*.jsonl"):
        kept = folder / samples.relative_to(out).parents[1] / "samples.jsonl"
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(samples, kept)
    owners: dict[str, str] = {}
    runs = []
    for engine, run in ((e, run) for e in ENGINES for part in parts for run in directories(folder / e, part)):
        models = json.loads((run / "run.json").read_text("utf-8"))["settings"]["models"]
        if all(owners.setdefault(model, engine) == engine for model in models):
            runs.append(str(run))
        else:
            print(f"left out of the page, as another engine's model has its name: {run}")
    subprocess.run([sys.executable, ROOT / "cli.py", "report", *runs, "--out", folder / "report.html"], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(ENGINES), help="engines, comma-separated")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--tasks", default=LONG, help="of the part long")
    parser.add_argument("--ctx", default="1k,2k,4k,8k")
    parser.add_argument("--limit", default="2", help="samples per task; several, by commas, are of the lengths in turn")
    parser.add_argument("--minutes", type=float, default=30, help="time limit of a part at a length")
    parser.add_argument("--threads", type=int, default=1, help="of a server; more than are free makes it slower by far")
    parser.add_argument("--port", type=int, default=8111, help="of the first server; the second has the next")
    parser.add_argument("--home", type=Path, default=Path(".venv-real"))
    parser.add_argument("--vllm", type=Path, default=Path(".venv-vllm"))
    parser.add_argument("--out", type=Path, default=Path("runs/real"))
    parser.add_argument(
        "--publish",
        type=Path,
        metavar="DIR",
        help="only put rows, CSV and a page of all into DIR, and print the tables",
    )
    parser.add_argument("--tables", action="store_true", help="only print the tables of what is there")
    parser.add_argument(
        "--partings", action="store_true", help="and how near the two tokens were where an answer parts from hf's"
    )
    given = parser.parse_args()
    # Children of a command in the background would ignore the first; the second ends like it, with nothing left running.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    parts, only = given.parts.split(","), given.only.split(",")
    for kind, named, there in (("engine", only, list(ENGINES)), ("part", parts, list(PARTS))):
        for name in named:
            if name not in there:
                raise SystemExit(f"no {kind} {name}: {', '.join(there)}")
    if given.publish:
        publish(given.out, given.publish, parts)
    elif not given.tables:
        if not (given.home / FILE).is_file():
            raise SystemExit(f"{given.home / FILE} is not there: make real")
        save_copy(given.home)
        for line in run_all([ENGINES[name] for name in only], parts, given):
            print(line, flush=True)
    runs = run_names(given.out, parts)
    apart = [line for run in runs for line in partings(given.home / COPY, given.out, run)] if given.partings else []
    print_tables(given.out, parts, apart, given.home / COPY)


def run_all(engines: Sequence[Engine], parts: Sequence[str], given: argparse.Namespace) -> Iterator[str]:
    """A line per engine and run: how it ended, or why there is none."""
    for engine in engines:
        if missing := engine.missing(given):
            yield f"{engine.name}: skipped: {missing}"
            continue
        try:
            with serving(engine, given) as check:
                for name, command in (each for part in parts for each in commands(engine, part, given)):
                    ended = f"skipped: {command}" if isinstance(command, str) else run_part(command, given.minutes)
                    yield f"{engine.name} {name}: {ended}"
                    check()
        except SystemExit as error:
            yield f"{engine.name}: skipped: {error}"


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("stopped; the same command continues") from None
