"""Official data files by family: address, accepted hashes, size, licence.

Files are pinned by sha256 wherever a hash is known; where none is, `known` is empty and their readers check what they hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kleval.tasks import assets_code, assets_short


@dataclass(frozen=True, slots=True)
class Asset:
    """One download.

    name: the file under the data directory. known: accepted sha256 -> revision; the first one is what `url` serves;
    empty where no hash of the file is known, and then its readers check what it holds.
    size_bytes: of that one, 0 where it is not known. needed_for: tasks, for people. members: of a zip archive, its members ->
    (file under the data directory, sha256); then these files are what counts, and the archive is not kept.
    """

    name: str
    url: str
    known: Mapping[str, str]
    size_bytes: int
    licence: str
    needed_for: str
    members: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def files(self) -> dict[str, Mapping[str, str]]:
        """File under the data directory -> accepted sha256 -> revision."""
        if not self.members:
            return {self.name: self.known}
        revision = next(iter(self.known.values()))
        return {file: {sha256: revision} for file, sha256 in self.members.values()}


_RULER_REPO = "NVIDIA/RULER/c3f5e3b4f87f97e048793bb510a3a6b19a46bf3a/scripts/data/synthetic/json"
_ESSAYS_REPO = "Chen3776/baseline_ruler/314ff301d5d33184e9b9ba765a0d9833d81495c9/scripts/data/synthetic/json"
_NLTK_REPO = "nltk/nltk_data/550b6625bcef1f2abff2ff770a5a0d272c9c6b2a"
_LCA_HUB = "https://huggingface.co/datasets/JetBrains-Research"
_MRCR_REVISION = "f4c69fae7cf81f7ca26b9fee34b392a50f6b8a1d"
_MRCR_HUB = f"https://huggingface.co/datasets/openai/mrcr/resolve/{_MRCR_REVISION}"
# Needles, part, sha256, bytes (0: not known here).
_MRCR_FILES = (
    (2, 0, "1c297b254bf64a31856b74918cd7db889a214503e0b67daa834e84f20df6aa93", 190_822_058),
    (2, 1, "a5a1dc9ccc945623253d04d33c03d89aee2d676c88955ce368da2ab16a0ce94d", 266_519_980),
    (4, 0, "4d4fa3d11ce064749de3cd039eef1a621e30a81c2c9b3e64f1df37f8afeaf312", 0),
    (4, 1, "8dfdb94a208cf3eee73c4e7ac6ee8a5ccb7236c6934c13c6c5f67c0a9928cdf3", 0),
    (8, 0, "65df601a2e0ae4a3cfb56920a6ef99f26c0de37c6b1018695e8aed684e6a94c1", 0),
    (8, 1, "c80b19573bff1d38e1c157d6a0bdf9cfd1a8ab6372296174c9a7015e164189e3", 0),
)
# Task, sha256, bytes.
_BBH_FILES = (
    ("boolean_expressions", "ea6c754ec005e2d3f2d085d349a740f593b5764f32ea4638ffed4cfc0061b12a", 17_172),
    ("causal_judgement", "6e8bca44dd402008ed41c07a3d0a1d5e7b03db7001a7e002fcdf4c60985ea081", 202_943),
    ("date_understanding", "0148d4ac5fca05b2f82373e5fef7208e15363b9c6079493034d77b3dab496bf5", 61_760),
    ("disambiguation_qa", "cf06df9ebf911b883671cb1b35d3fbd1a1c306b19b9e9a012407e596c85fe8c6", 85_255),
    ("dyck_languages", "3f9badedf15c2be1ce53d94fdf016299bb30ba231ef087ab9f51a7ed6d0bdc25", 43_814),
    ("formal_fallacies", "4c1adb664821157faade1d4153685403afcc02648f3c180a608a18f17f589629", 145_562),
    ("geometric_shapes", "07be68a124420caa2ebc0b2c858ad79fc55c5c8806170e496e1e17ebfb11f31c", 77_242),
    ("hyperbaton", "b6d7f55c75f5d02f2987a4f3123802dfa093872089a56a334144aae8a7264fdc", 44_706),
    ("logical_deduction_five_objects", "d2df31394b903b7f0e085d42a69572a092987856eac076799017d70ef266fa8f", 155_477),
    ("logical_deduction_seven_objects", "2896c7e3482eea318dd37bcc370d24ec3cc91e8374c1784287b5dbd38a529e33", 198_404),
    ("logical_deduction_three_objects", "e590fae72e3a6041fbd23bd8ff6b74baf44ca563f6ba40a041c55e7b867c1681", 112_213),
    ("movie_recommendation", "a8b53a87ee21a865b7248e694f388a9b8f7cf6b839b11d44796a2dd3fc088983", 57_684),
    ("multistep_arithmetic_two", "c9d5a6433c9b78256422a15c78463949c8bec8d85607aa28b52d7234ad4a8595", 18_325),
    ("navigate", "b7944dfd3c81da5c4815bd75b00d6fa3c64140823498e78ed496f4c3d36f7f0d", 55_163),
    ("object_counting", "8acef14dbbdd40d2326ef7755750b6b5fe919fef06276af1bab3f1c297f022ff", 35_890),
    ("penguins_in_a_table", "bb87ee449698eee51215e025a453b1bcb2f5e6589c2063b2c79e68b8f0655228", 74_516),
    ("reasoning_about_colored_objects", "0a8850cf95166020fce7a78244026ceedd7ea839302471512b4f8744e85a6a49", 98_694),
    ("ruin_names", "b6f723aef2bafdd4c7bfc3c7e0329c7e8a8279391a609969c8ed76c9319f5f7f", 53_178),
    (
        "salient_translation_error_detection",
        "becf3eb8dd53c821a555ecd5c1334ecd93eb25f980e63be963c518e7138de5da",
        286_443,
    ),
    ("snarks", "54a0661fe2de06167645a4965e6bcf963c4ba307e76262a7c750998b0e3d0d0e", 42_646),
    ("sports_understanding", "63ca262858f6176864515cd8cf53cdaa40839ebecc155b726d77930855d167bf", 28_617),
    ("temporal_sequences", "92a1189faaa84aacc4c405aaa13f13f48c2992eb884772eedb622505252baef5", 148_176),
    (
        "tracking_shuffled_objects_five_objects",
        "2063a46a4fb484236ed4310523606543a3e1dd4a4dc34eda65d407910ece25a5",
        169_722,
    ),
    (
        "tracking_shuffled_objects_seven_objects",
        "b59fd05b850c37cf57cb514ae1e6975c00b1638ade2291722056b2af3c54084d",
        214_906,
    ),
    (
        "tracking_shuffled_objects_three_objects",
        "546cc7bf10c6a01a6a4c17ae28a4966485f21f29fd5d111f37858ec78e354f6b",
        128_736,
    ),
    ("web_of_lies", "3e60323f8514a107fdb4edf35f8832a9171c5a09c0eaa47823559de905e8ab8b", 52_964),
    ("word_sorting", "2a6132d2c99f00d0d2eb1113ac6b4a918bd969d863c48749210d969713db8d43", 66_300),
)
PUNKT = "nltk_data/tokenizers/punkt_tab/english"

ASSETS: dict[str, tuple[Asset, ...]] = {
    "ruler": (
        # The official script builds this file from 218 live web pages, so its content drifts: hence a copy, by hash.
        Asset(
            "PaulGrahamEssays.json",
            f"https://raw.githubusercontent.com/{_ESSAYS_REPO}/PaulGrahamEssays.json",
            {
                "d9e4663b58000c644994bb677b6c47a6c0e026d1bc2386aade8963ae7bd9e039": "baseline_ruler-314ff30",
                "d4cd6848b412d74df12b2830fc2855c3c4fdb7d94ce2b460bdd1a5e5a0bec81b": "MiguelMouraRamos-RULER",
            },
            3_101_008,
            "Paul Graham; no licence stated",
            "niah_single_2, niah_single_3, niah_multikey_1, niah_multivalue, niah_multiquery",
        ),
        Asset(
            "punkt_tab.zip",
            f"https://raw.githubusercontent.com/{_NLTK_REPO}/packages/tokenizers/punkt_tab.zip",
            {"e57f64187974277726a3417ca6f181ec5403676c717672eef6a748a7b20e0106": "nltk_data-550b662"},
            4_319_076,
            "MIT",
            "the same (sentence splitting)",
            {
                f"punkt_tab/english/{file}": (f"{PUNKT}/{file}", sha256)
                for file, sha256 in (
                    ("abbrev_types.txt", "92a3e070f43d9b4c5534758ca40ad7343b04e7e29bfe0c2eb658a39445a4f779"),
                    ("collocations.tab", "8e2da1225e4dd2cc9dba261ee231ccb134859e21b46006e7f472c5ee269af0cf"),
                    ("ortho_context.tab", "4bbcca25ed3d3f06c02402abf8419b9f033b8adc06e7b482eca4e45f81a5dc4c"),
                    ("sent_starters.txt", "f3f8535483e1dba487241b764945168123bca3209a9645e59acd1225dc76edac"),
                )
            },
        ),
        Asset(
            "squad.json",
            "https://rajpurkar.github.io/SQuAD-explorer/dataset/dev-v2.0.json",
            {"80a5225e94905956a6446d296ca1093975c4d3b3260f1d6c8f68bc2ab77182d8": "SQuAD-dev-v2.0"},
            4_370_528,
            "CC BY-SA 4.0",
            "qa_1",
        ),
        Asset(
            "hotpotqa.json",
            "http://curtis.ml.cmu.edu/datasets/hotpot/hotpot_dev_distractor_v1.json",
            {"4e9ecb5c8d3b719f624d66b60f8d56bf227f03914f5f0753d6fa1b359d7104ea": "HotpotQA-dev-distractor-v1"},
            46_320_117,
            "CC BY-SA 4.0",
            "qa_2",
        ),
        Asset(
            "english_words.json",
            f"https://media.githubusercontent.com/media/{_RULER_REPO}/english_words.json",
            {"affcd6d45fdf3cc843d585c99c97ad615094e760e6c4756b654bab6c73bc2eca": "RULER-c3f5e3b"},
            8_564_991,
            "Apache-2.0",
            "cwe where more than 8,166 distinct words are needed (about 100k tokens)",
        ),
    ),
    "repoqa": (
        Asset(
            "repoqa-2024-06-23.json.gz",
            "https://github.com/evalplus/repoqa_release/releases/download/2024-06-23/repoqa-2024-06-23.json.gz",
            {"c050a2ad90a7df89d9dc1f1c3b3b20683edd20a56293b35fcaae43dec115d681": "repoqa_release-2024-06-23"},
            71_510_991,  # unpacked; what it takes packed is not known here
            "Apache-2.0; the repositories in it keep their own",
            "snf",
        ),
    ),
    # No hash of these two is known: what comes is kept as unrecognised, and every row is checked when it is read.
    "lca": (
        Asset(
            "lca-library-based-code-generation.parquet",
            f"{_LCA_HUB}/lca-library-based-code-generation/resolve/main/data/test-00000-of-00001-518ed46ecbe35ff9.parquet",
            {},
            4_580_000,
            "Apache-2.0",
            "lib (no hash known; rows are checked when read)",
        ),
        Asset(
            "lca-commit-message-generation.parquet",
            f"{_LCA_HUB}/lca-commit-message-generation/resolve/main/commitchronicle-py-long/test-00000-of-00001.parquet",
            {},
            537_000,
            "Apache-2.0",
            "commit (no hash known, address not verified; rows are checked when read)",
        ),
    ),
    "mrcr": tuple(
        Asset(
            f"{needles}needle/{needles}needle_{part}.parquet",
            f"{_MRCR_HUB}/{needles}needle/{needles}needle_{part}.parquet",
            {sha256: "openai-mrcr-f4c69fa"},
            size_bytes,
            "MIT",
            f"{needles}needle",
        )
        for needles, part, sha256, size_bytes in _MRCR_FILES
    ),
    # No hash of it is known: what comes is kept as unrecognised, and every row is checked when it is read.
    "longbench2": (
        Asset(
            "data.json",
            "https://huggingface.co/datasets/THUDM/LongBench-v2/resolve/2b48e494f2c7a2f0af81aae178e05c7e1dde0fe9/data.json",
            {},
            465_000_000,
            "Apache-2.0",
            "mcq (no hash known; rows are checked when read)",
        ),
    ),
    # Banking77 and CLINC are as their authors have them, the files that the hub's loading scripts read. No hash of the
    # other three is known: what comes is kept as unrecognised, and every row is checked when it is read.
    "helmet_icl": (
        *(
            Asset(
                f"banking77/{split}.csv",
                f"https://raw.githubusercontent.com/PolyAI-LDN/task-specific-datasets/master/banking_data/{split}.csv",
                {sha256: "PolyAI-LDN"},
                size_bytes,
                "CC-BY-4.0",
                "banking77",
            )
            for split, sha256, size_bytes in (
                ("train", "b06e26ac675513959a63135f11b94ea7786ed02da65db93a5650d8838cbc664b", 839_073),
                ("test", "d12d6e3bc4c3103966ae786dc435913c0c563dfa328f5a3646d0e62cfeeb474d", 239_961),
            )
        ),
        Asset(
            "clinc150/data_oos_plus.json",
            "https://raw.githubusercontent.com/clinc/oos-eval/master/data/data_oos_plus.json",
            {"bfcca9ae515623541dc1983c94c4ed7cae9d26b42ae47d74b972e51bb6f7a21f": "clinc-oos-eval"},
            2_509_789,
            "CC-BY-3.0",
            "clinic150",
        ),
        *(
            Asset(
                f"trec/{file}",
                f"https://cogcomp.seas.upenn.edu/Data/QA/QC/{file}",
                {},
                size_bytes,
                "none stated",
                "trec_coarse, trec_fine (no hash known; rows are checked when read)",
            )
            for file, size_bytes in (("train_5500.label", 335_858), ("TREC_10.label", 23_354))
        ),
        Asset(
            "nlu/NLU-Data-Home-Domain-Annotated-All.csv",
            "https://raw.githubusercontent.com/xliuhw/NLU-Evaluation-Data/master/AnnotatedData/"
            "NLU-Data-Home-Domain-Annotated-All.csv",
            {},
            5_867_439,
            "CC-BY-4.0",
            "nlu (no hash known; rows are checked when read)",
        ),
    ),
    "short": tuple(Asset(*fields) for fields in assets_short.FILES),
    "code": tuple(Asset(*fields) for fields in assets_code.CODE),
    "livecodebench": tuple(Asset(*fields) for fields in assets_code.LIVECODEBENCH),
    # For lm_eval/…, in the authors' shape.
    "gsm8k": tuple(
        Asset(
            f"{split}.jsonl",
            f"https://raw.githubusercontent.com/openai/grade-school-math/master/grade_school_math/data/{split}.jsonl",
            known,
            size_bytes,
            "MIT",
            needed_for,
        )
        for split, known, size_bytes, needed_for in (
            (
                "test",
                {"3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14": "openai-grade-school-math"},
                749_738,
                "lm_eval/gsm8k and its variants",
            ),
            # No hash of the whole file is known.
            ("train", {}, 0, "the examples of lm_eval/gsm8k (no hash known)"),
        )
    ),
    "bbh": tuple(
        Asset(
            f"{task}.json",
            f"https://raw.githubusercontent.com/suzgunmirac/BIG-Bench-Hard/main/bbh/{task}.json",
            {sha256: "suzgunmirac-BIG-Bench-Hard"},
            size_bytes,
            "MIT",
            f"lm_eval/bbh_…_{task}",
        )
        for task, sha256, size_bytes in _BBH_FILES
    ),
    # The documents are no part of the data set: MLPerf's copy of the pages, 30 of 2,545 missing. docs.tar.gz is to be
    # unpacked where it lies.
    "frames": (
        Asset(
            "test.tsv",
            "https://huggingface.co/datasets/google/frames-benchmark/resolve/"
            "58d9fb6330f3ab1316d1eca12e5e8ef23dcc22ef/test.tsv",
            {"4255093c93b595b5b04c7c8dde290b48ec87d72ca0fb0b760d9dd02740d669ff": "58d9fb6"},
            485_000,
            "Apache-2.0",
            "oracle (questions)",
        ),
        Asset(
            "docs.tar.gz",
            "https://inference.mlcommons-storage.org/frames-benchmark-dataset/doc_html/docs.tar.gz",
            {"f5e6d7c14f93cdd0af49f9f72e2311419af7c9b0634755fb2310058a84e36e80": "MLPerf-e2e-rag"},
            173_138_122,
            "CC BY-SA 4.0 (Wikipedia)",
            "oracle (documents; unpack it there)",
        ),
    ),
}
