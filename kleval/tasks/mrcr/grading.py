"""The two metrics of MRCR, both difflib's similarity of the answer with the text that was asked for.

difflib's autojunk stays on and the order of its arguments as each source has it: both change the ratio of prose longer
than 200 characters (0.38 with autojunk off where the official value is 0.16). Other implementations of the same ratio
are not equivalent.
"""

from __future__ import annotations

from difflib import SequenceMatcher

GOOGLE_HASH_CHARS = 12
LONGEST_CHARS = 20_000


def openai_grade(response: str, answer: str, prefix: str) -> float:
    """In [0, 1]. 0 unless the response begins with the prefix, to the character; a leading blank is enough for 0.

    Source: data card of openai/mrcr. Deviation: of a response longer than LONGEST_CHARS, and than twice the answer, only that
    much is matched, so that the time is bounded; its whole length counts.
    """
    if not response.startswith(prefix):
        return 0.0
    found, wanted = response.removeprefix(prefix), answer.removeprefix(prefix)
    return _ratio(found[: _limit(wanted)], wanted, len(found) + len(wanted))


def google_grade(prediction: str, target: str, hash_chars: int = GOOGLE_HASH_CHARS) -> float:
    """In [0, 1]. What follows the last occurrence of the target's hash, wherever that is; white space around texts aside. 0
    where the target is shorter than a hash.

    Source: mrcr_v2_metric of eval_hub. Deviation: as for openai_grade.
    """
    prediction, target = prediction.strip(), target.strip()
    mark, wanted = target[:hash_chars], target[hash_chars:].strip()
    if len(mark) < hash_chars:
        return 0.0
    at = prediction.rfind(mark)
    if at < 0:
        return 0.0
    found = prediction[at + len(mark) :].strip()
    return _ratio(wanted, found[: _limit(wanted)], len(found) + len(wanted))


def _limit(wanted: str) -> int:
    return max(LONGEST_CHARS, 2 * len(wanted))


def _ratio(first: str, second: str, total_chars: int) -> float:
    matched = sum(block.size for block in SequenceMatcher(None, first, second).get_matching_blocks())
    return 2.0 * matched / total_chars if total_chars else 1.0
