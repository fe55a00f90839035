"""Is the final answer the right number? Exact arithmetic on the one answer a completion commits to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from rlpipe.rewards.base import Missing
from rlpipe.types import Task

_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_HASHED = re.compile(r"####([^\n]*)")
_BOXED = re.compile(r"\\boxed\{")

_CURRENCY = "$€£¥₹"
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d+)?|\.\d+)"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)\s*[{_CURRENCY}]?\s*(?P<inner>[-+]?)"
    rf"(?:(?P<whole>{_DIGITS})\s+(?P<part>\d+)/(?P<parts>\d+)|(?P<over>{_DECIMAL})\s*/\s*(?P<under>{_DECIMAL})"
    rf"|(?P<decimal>{_DECIMAL}))(?P<rest>.*)",
    re.DOTALL,
)
# A word, or a compound such as km/h or m^2: what may stand behind a number without changing it.
_WORD = re.compile(r"°?[^\W\d_]+(?:[/·][^\W\d_]+|[²³]|\^[23])?\.?")
_MOST_WORDS = 3
# Words that make another number of the one before them, or offer a second one.
_NO_UNITS = frozenset(
    """
    or and to not nor but plus minus times over by divided than if is maybe either perhaps through versus vs
    x e half halves third thirds quarter quarters hundred hundreds thousand thousands million millions
    billion billions trillion trillions dozen dozens k bn zero one two three four five six seven eight nine
    ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty
    sixty seventy eighty ninety
    """.split()  # noqa: SIM905 - read as a list of words
)


def math_answer(tasks: Sequence[Task], completions: Sequence[str]) -> list[float | Missing]:
    """1.0 where the completion's answer equals the task's as a number, else 0.0.

    Missing where the task has no gold answer that is a number: the data's fault, not the completion's.
    """
    return [_score(task, completion) for task, completion in zip(tasks, completions, strict=True)]


def extract(completion: str) -> str | None:
    """The one answer that the completion commits to, as written; None if there is none or more than one.

    In this order: `<answer>…</answer>`, a line `#### …`, `\\boxed{…}`. A kind of mark that stands more than
    once, or is left open, is a list of guesses or no answer, and no later kind is tried.
    """
    if "<answer>" in completion or "</answer>" in completion:
        once = completion.count("<answer>") == completion.count("</answer>") == 1
        tagged = _TAGGED.findall(completion)
        return tagged[0] if once and tagged else None
    if "####" in completion:
        hashed = _HASHED.findall(completion)
        return hashed[0] if len(hashed) == 1 else None
    boxes = [match.end() for match in _BOXED.finditer(completion)]
    return _braced(completion, boxes[0]) if len(boxes) == 1 else None


def number(text: str) -> Fraction | None:
    """The one number that `text` says, exactly; None if it says none, or something that could be two.

    Understood: signs, thousands commas in groups of three, decimals, fractions `3/4`, mixed numbers `1 1/2`,
    `\\frac{3}{4}`, a currency sign on either side, a percent sign or up to three words of unit behind, a
    final period. A percent sign is a unit: `50%` is 50.
    """
    match = _NUMBER.fullmatch(_plain(text))
    if match is None or (match["sign"] and match["inner"]) or not _is_unit(match["rest"]):
        return None
    try:
        if match["whole"]:
            value = _fraction(match["whole"]) + Fraction(int(match["part"]), int(match["parts"]))
        elif match["over"]:
            value = _fraction(match["over"]) / _fraction(match["under"])
        else:
            value = _fraction(match["decimal"])
    except (ZeroDivisionError, ValueError):  # ValueError: more digits than Python converts
        return None
    return -value if "-" in (match["sign"], match["inner"]) else value


def _score(task: Task, completion: str) -> float | Missing:
    gold = number(task.answer)
    if gold is None:
        return Missing(f"the task's answer {task.answer!r} is no number")
    answer = extract(completion)
    return 1.0 if answer is not None and number(answer) == gold else 0.0


def _fraction(digits: str) -> Fraction:
    return Fraction(digits.replace(",", ""))


def _plain(text: str) -> str:
    """`text` with its LaTeX and typographic forms written plainly."""
    text = text.strip().replace("\u2212", "-").replace("\\$", "$").replace("\\%", "%").replace("\u00a0", " ")
    text = re.sub(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}", r"\1/\2", text)
    text = re.sub(r"\\text\{([^{}]*)\}", r" \1", text)
    return re.sub(r"\\[,!;: ]", "", text).strip().removesuffix(".").strip()


def _is_unit(rest: str) -> bool:
    rest = rest.strip()
    words = (rest[1:] if rest.startswith(("%", *_CURRENCY)) else rest).split()
    if len(words) > _MOST_WORDS or not all(_WORD.fullmatch(word) for word in words):
        return False
    return not any(word in _NO_UNITS for word in re.findall(r"[^\W\d_]+", rest.lower()))


def _braced(text: str, start: int) -> str | None:
    """What stands from `start` to the brace that closes the one opened just before it."""
    depth = 1
    for at in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[start:at]
    return None
