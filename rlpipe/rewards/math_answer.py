"""Is the final answer the right one? Exact arithmetic on the one answer a completion commits to, or, where the
gold answer is an expression, symbolic equality.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from rlpipe.rewards.base import Missing
from rlpipe.rewards.symbolic import Undecided, answers, equal, expression, readable, unwrapped
from rlpipe.types import Task

_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_HASHED = re.compile(r"####([^\n]*)")
_BOXED = re.compile(r"\\boxed\{")
_ANSWER_IS = re.compile(r"\banswer\s+is\b\s*:?", re.IGNORECASE)
_ANSWER_LINE = re.compile(r"[\s*_>#-]*(?:final\s+)?(?:answer|A)[\s*_]*:[\s*_]*", re.IGNORECASE)

_CURRENCY = "$€£¥₹"
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d+)?|\.\d+)"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)\s*[{_CURRENCY}]?\s*(?P<inner>[-+]?)"
    rf"(?:(?P<whole>{_DIGITS})\s+(?P<part>\d+)/(?P<parts>\d+)|(?P<over>{_DECIMAL})\s*/\s*(?P<under>{_DECIMAL})"
    rf"|(?P<decimal>{_DECIMAL}))(?P<rest>.*)",
    re.DOTALL,
)
_SCIENTIFIC = re.compile(
    rf"([-+]?{_DECIMAL})\s*(?:\\times|×)\s*10\s*\^\s*(?:\{{\s*([-+]?\d{{1,2}})\s*\}}|([-+]?\d{{1,2}}))"
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
    """1.0 where the completion's answer equals the task's, else 0.0.

    Where the task's is a number, the completion's must be one, exactly: an expression that would have to be worked
    out first, such as `2+3`, leaves undone what was asked, and an approximation is another number. Where it is an
    expression, symbolic equality decides.

    The task's answer may be a whole solution, with one of the marks that `extract` knows. Missing where it is
    neither a number nor an expression: the data's fault, not the completion's.
    """
    return [_score(task, completion) for task, completion in zip(tasks, completions, strict=True)]


def extract(completion: str) -> str | None:
    """The one answer that the completion commits to, as written; None if there is none or more than one.

    In this order: `<answer>…</answer>`, a line `#### …`, `\\boxed{…}`, and last, behind any `</think>`, the last
    line with `A: …`, `Answer: …` or `the answer is …`. A kind of mark that stands more than once (of the last kind:
    in its line), or is left open, is a list of guesses or no answer, and no later kind is tried.
    """
    if any(mark in completion for mark in ("<answer>", "</answer>", "####", "\\boxed{")):
        return _marked(completion)
    for line in reversed(completion.rpartition("</think>")[2].splitlines()):
        said = _ANSWER_IS.split(line)
        if len(said) > 1:
            return said[1].strip(" *_") if len(said) == 2 else None
        if start := _ANSWER_LINE.match(line):
            return line[start.end() :].strip(" *_")
    return None


def _marked(text: str) -> str | None:
    """The answer by the first kind of mark that `text` has."""
    if "<answer>" in text or "</answer>" in text:
        once = text.count("<answer>") == text.count("</answer>") == 1
        tagged = _TAGGED.findall(text)
        return tagged[0] if once and tagged else None
    if "####" in text:
        hashed = _HASHED.findall(text)
        return hashed[0] if len(hashed) == 1 else None
    boxes = [match.end() for match in _BOXED.finditer(text)]
    return _braced(text, boxes[0]) if len(boxes) == 1 else None


def number(text: str) -> Fraction | None:
    """The one number that `text` says, exactly; None if it says none, or something that could be two.

    Understood: signs, thousands commas in groups of three, decimals, fractions `3/4`, mixed numbers `1 1/2`,
    `\\frac{3}{4}`, `5 \\times 10^3`, a name in front as in `x = 5`, a currency sign on either side, a percent sign
    or up to three words of unit behind, a final period, `$…$` and `**…**` around. A percent sign is a unit: `50%` is
    50.
    """
    text = _plain(text)
    if scientific := _SCIENTIFIC.fullmatch(text):
        digits, braced, bare = scientific.groups()
        return Fraction(digits.replace(",", "")) * Fraction(10) ** int(braced or bare)
    match = _NUMBER.fullmatch(text)
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
    gold = _marked(task.answer)
    gold = task.answer if gold is None else gold
    value, answer = number(gold), extract(completion)
    if value is not None:
        return 1.0 if answer is not None and number(answer) == value else 0.0
    try:
        return _compared(gold, answer)
    except Undecided as undecided:
        return Missing(str(undecided))


def _compared(gold: str, answer: str | None) -> float | Missing:
    """The score where the gold answer is no number."""
    wanted = expression(gold)
    if wanted is None or not readable(wanted):
        return Missing(f"the task's answer {gold!r} is no number, and no expression that can be compared")
    given = None if answer is None else expression(answer)
    return 1.0 if given is not None and answers(given, wanted) and equal(wanted, given) else 0.0


def _fraction(digits: str) -> Fraction:
    return Fraction(digits.replace(",", ""))


def _plain(text: str) -> str:
    """`text` with its LaTeX and typographic forms written plainly."""
    text = unwrapped(text).replace("\u2212", "-").replace("\\$", "$").replace("\\%", "%").replace("\u00a0", " ")
    text = re.sub(r"^[a-zA-Z]\s*=", "", text.replace("{,}", ","))
    # A space before, so that 3\frac{1}{2} is three and a half.
    text = re.sub(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}", r" \1/\2", text)
    text = re.sub(r"\\[dt]?frac\s*(\d)\s*(\d)", r" \1/\2", text)
    text = re.sub(r"\\(?:text|mathrm|mbox)\s*\{([^{}]*)\}", r" \1", text)
    text = re.sub(r"\^\s*(?:\\circ|\{\s*\\circ\s*\})", "", text)
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
