"""The lm-eval protocol against rows made by lm-eval's own generators, and RULER-QA with the answer anywhere."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from kleval.tasks.registry import load_task
from kleval.tasks.ruler.spec import ANY_PLACE, LM_EVAL
from kleval.tokenization import load_tokenizer
from kleval.types import Completion, UsageError

# sha256 over [input, delimiter + gen_prefix, outputs] of the first three rows of lm_eval 0.4.13's tasks/ruler: tokenizer `words`, each
# task by itself, random.seed(0), numpy seed 1234; essays, SQuAD and HotpotQA are the files of the fixtures.
ROWS_SHA256 = {
    "niah_single_1/2048": "a391be77c54962e25a5babd02bb57da0fcdb74b2c72318a24e72626b6126eada",
    "niah_single_1/4096": "a60351cc2e10eb0fc10fa1547032a9fe469044a705daaf1700e76e82256f2772",
    "niah_single_2/2048": "9fd8261c333715258b27395b288163f8670888c653fafc706e88e3e1769aac84",
    "niah_single_2/4096": "c637eb4e4108dc89bf1635bdc85db3d0d8bc0434e9a361e1c6b83cd53f1318d8",
    "niah_single_3/2048": "16dc851abe7cb7e7e05a4544f286ecc02e4f8d8cc649c11e5961aa9ccf271184",
    "niah_single_3/4096": "fc8cee893be897bd4f452f16ec7922e64eec82934a1c29be889738ece2c21a4f",
    "niah_multikey_1/2048": "b3897c9e911ae2dc99db9b697f5768cd1062d9ff3b54118322407ca2f90c141d",
    "niah_multikey_1/4096": "e03f98049a4ce4a9caaa874490bcb184ca33f3d7917009c51028c4cd84996de4",
    "niah_multikey_2/2048": "41cb845dd52e06983a78b21fb604aca82eb2443ad69da1e7dcd2ace2e62ef52b",
    "niah_multikey_2/4096": "bcab745f63c6df5e9fc36a5e85a631b2bea7022d5752c00932d5f373eb76f2e4",
    "niah_multikey_3/2048": "89843c2fe5af47088c131175012f9f64ee0cd4542b6ffadcfc30ae57e06a44b0",
    "niah_multikey_3/4096": "fce04ca8ca7fdae9367a5944e7a22a68bd8f26976ffc2a273374f76484cb6c75",
    "niah_multivalue/2048": "cc90e59537a451cdbb5baf620db7391e64ba717f34161ef17a6b5784f5d620a3",
    "niah_multivalue/4096": "782a0cf2a3b4912f0e8af7c92bf34a7ba18667ecc87b9f34ec738741b6dbf87f",
    "niah_multiquery/2048": "8b84155183ff6815a5b6bde2519fe5296d42a52b07295bad1682568175c02c4a",
    "niah_multiquery/4096": "147a9f7ac50550d56b5d319b5529e988c4ac4e082622f5574cd420de6ac9be6e",
    "vt/2048": "450428f4f186dac3aaa8e628f83238e3828417c6529f70138bd4a9ed9986a925",
    "vt/4096": "5c2129f07ab6d23fa86aff545b67b11af81bc7ad4ca3de9612a66530e3a70e01",
    "cwe/2048": "6d572c55974a86a4995b73119893ed6e07f4b0d61bf295c8cf800fc7f7ed36a2",
    "cwe/4096": "757e3bab3eaaa2893068604a92213273a8036b4579020c89e14f82806de68397",
    "fwe/2048": "0e40f76b8509125c3b23b7dc119cd84eed59fccc56d992a303b2295ede1aa829",
    "fwe/4096": "ed216d6756096bc95b7b974dcd8d8629f315f77ca7b4905561368228c66fff59",
    "qa_1/2048": "ddf6f9219a6ba08d5253a27c81927f781d77383cfc03e272d56045f4f95a5edb",
    "qa_1/4096": "ae8dccce97a55139343d991d01b90ff212170caab20e8e5cf71e51885cecba55",
    "qa_2/2048": "6df3869ca28cf66f17c8437e65f21f67361dc3be09c18dbbe6d012f3881dea81",
    "qa_2/4096": "f225d79fb76bd2b6ba2053b3bb6dc11df97d48328db9307f76942f512fd76c26",
}
WITHOUT_FILES = ("niah_single_1", "niah_multikey_2", "niah_multikey_3", "vt", "cwe", "fwe")


def digest(name: str, ctx: int, data_dir: Path | None) -> str:
    task = load_task(f"ruler/{name}", "official", LM_EVAL, data_dir)
    made = [[s.prompt, s.answer_prefix, list(s.references)] for s in task.samples(load_tokenizer("words"), ctx, 3, 42)]
    return hashlib.sha256(json.dumps(made).encode()).hexdigest()


@pytest.mark.parametrize("cell", [cell for cell in ROWS_SHA256 if cell.startswith(WITHOUT_FILES)])
def test_rows_equal_lm_evals(cell: str) -> None:
    name, ctx = cell.split("/")
    assert digest(name, int(ctx), None) == ROWS_SHA256[cell]


@pytest.mark.parametrize("cell", [cell for cell in ROWS_SHA256 if not cell.startswith(WITHOUT_FILES)])
def test_rows_from_files_equal_lm_evals(fixtures_dir: Path, cell: str) -> None:
    name, ctx = cell.split("/")
    assert digest(name, int(ctx), fixtures_dir / "ruler/assets") == ROWS_SHA256[cell]


@pytest.mark.parametrize(
    ("name", "ctx"),
    # At 512 tokens the demonstrations of vt and cwe leave no room.
    [(name, ctx) for name in WITHOUT_FILES for ctx in (512, 2048, 4096) if ctx > 512 or name not in ("vt", "cwe")],
)
def test_ctx_is_never_exceeded(name: str, ctx: int) -> None:
    tokenizer = load_tokenizer("words")
    for sample in load_task(f"ruler/{name}", "official", LM_EVAL).samples(tokenizer, ctx, 2, 42):
        rendered = tokenizer.count(tokenizer.render(sample.prompt, sample.answer_prefix))
        assert rendered == sample.prompt_tokens
        assert 1 <= sample.max_new_tokens <= ctx - rendered


def test_each_of_several_references_counts_for_its_part(fixtures_dir: Path) -> None:
    assets = fixtures_dir / "ruler/assets"
    values = {}
    for protocol in (None, LM_EVAL):
        task = load_task("ruler/qa_1", "official", protocol, assets)
        samples = task.samples(load_tokenizer("words"), 2048, 20, 42)
        sample = next(s for s in samples if len(set(s.references)) > 1)
        shortest = min(sample.references, key=len)
        score = task.step(sample, [Completion(shortest, 1, 1)])
        values[protocol] = score.metrics["string_match_part"]  # type: ignore[union-attr]
    assert values[None] == 1.0
    assert 0 < values[LM_EVAL] < 1


def test_the_answer_of_a_question_lies_anywhere(fixtures_dir: Path) -> None:
    assets, tokenizer = fixtures_dir / "ruler/assets", load_tokenizer("words")
    depths = {}
    for protocol in (None, ANY_PLACE):
        made = load_task("ruler/qa_1", "official", protocol, assets).samples(tokenizer, 4096, 12, 42)
        depths[protocol] = [(s.meta["size"], tuple(s.meta["depth_percent"])) for s in made]
    by_size: dict[int, set[tuple[float, ...]]] = {}
    for size, places in depths[None]:
        by_size.setdefault(size, set()).add(places)
    assert all(len(places) == 1 for places in by_size.values())
    assert len({places for _, places in depths[ANY_PLACE]}) > 6
    assert [size for size, _ in depths[ANY_PLACE]] == [size for size, _ in depths[None]]


def test_protocols_belong_to_the_official_edition() -> None:
    with pytest.raises(UsageError, match="builtin"):
        load_task("ruler/vt", "builtin", LM_EVAL)
    with pytest.raises(UsageError, match="no protocol"):
        load_task("ruler/vt", "official", ANY_PLACE)
