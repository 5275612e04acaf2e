"""The tasks `mrcr_v2/2needle`, `mrcr_v2/4needle` and `mrcr_v2/8needle`: one call each, the transcript as the user's message.

score: MRCR's, under its protocol `google-v2`, here with random strings as long as Google's.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kleval.tasks.likelihood import without
from kleval.tasks.mrcr import grading, transcripts
from kleval.tasks.mrcr.task import GOOGLE, MrcrTask, filled_up
from kleval.tasks.plain_editions import MadeToSize
from kleval.tasks.sized import SizedTask, digest_of
from kleval.types import Prompt, Sample, UsageError


class MrcrV2Task(MrcrTask):
    version = "1"
    own_protocols = (GOOGLE,)
    official_budget = "none"

    def __init__(self, n_needles: int, edition: str, protocol: str | None, data_dir: Path | None) -> None:
        if edition != "builtin":
            raise UsageError(
                f"mrcr_v2/{n_needles}needle is made by kleval and has no {edition} edition, Google's own files are not read:"
                " leave --edition out"
            )
        values = {"n_needles": n_needles, "longest": grading.LONGEST_CHARS, "hash": transcripts.HASH_CHARS}
        SizedTask.__init__(self, f"mrcr_v2/{n_needles}needle", edition, protocol, (GOOGLE,), values)
        self._open = partial(_builtin, self.id, self.version, n_needles)
        self.also_reads = ""

    def question_alone(self, sample: Sample) -> Prompt:
        """The last turn; the two examples stay."""
        return without(sample.prompt, transcripts.AROUND, "{turns}", demonstrated=True)

    def _facts(self) -> Mapping[str, Any]:
        return {}

    def _template(self) -> str:
        return transcripts.question("{hash}", 0, ("{format}", "{topic}", "{style}"))


def _builtin(task_id: str, task_version: str, n_needles: int) -> MadeToSize:
    """Filled up to ctx as MRCR's conversations are."""
    version = transcripts.TRANSCRIPTS_VERSION
    made = filled_up(task_id, task_version, n_needles, lambda rng, chars: transcripts.transcript(rng, n_needles, chars))
    made.revision = f"kleval {version}"
    made.digest = digest_of(made.digest, version, transcripts.FORMATS, transcripts.STYLES)
    return made


needles_2, needles_4, needles_8 = (partial(MrcrV2Task, n) for n in (2, 4, 8))
