"""How well the embedded judge criticises, revises and compares by principles, on prompts that it did not learn from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from rlpipe.dataio.chat import decode, prompt_ids
from rlpipe.rewards.constitutional.lessons import Lesson
from rlpipe.stages.bench import Bench
from rlpipe.stages.by_principles import generating
from rlpipe.stages.judging import in_process
from rlpipe.stats import wilson
from rlpipe.types import Request

_MOST = 1200  # lessons asked: their share right is known to two or three points then


def exam(work: Bench, taught: Sequence[Lesson]) -> dict[str, float]:
    """By kind of lesson: the share of replies that are the program's, word for word, with its interval.

    Apart from it the share where the response does break the principle: most do not, and "Nothing is wrong." is easily
    learned.
    """
    asked = taught[:_MOST]
    if not asked:
        return {}
    judge = in_process(work)
    requests = [Request(prompt_ids(judge.tokenizer, one.question), (0, 0, at, 0)) for at, one in enumerate(asked)]
    right: dict[str, list[bool]] = defaultdict(list)
    for one, completion in zip(asked, generating(work, judge)(requests), strict=True):
        hit = decode(judge.tokenizer, completion.ids) == one.reply
        right[one.kind].append(hit)
        if one.is_fault:
            right[f"{one.kind}_of_faults"].append(hit)
    found: dict[str, float] = {}
    for kind, hits in sorted(right.items()):
        low, high = wilson(sum(hits), len(hits))
        found |= {f"{kind}_right": sum(hits) / len(hits), f"{kind}_right_ci_low": low, f"{kind}_right_ci_high": high}
    return found
