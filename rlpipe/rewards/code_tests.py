"""Is the program right? Model-written Python against the tests of its row, in a sandbox (docs/sandbox.md)."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from rlpipe.rewards.base import Missing
from rlpipe.sandbox import Batch, CallTests, Job, Limits, OutputTests, isolation, judge_all
from rlpipe.types import Task

_Count = Annotated[int, Field(ge=1)]
_Positive = Annotated[float, Field(gt=0)]

_LOG = logging.getLogger(__name__)
_FENCE = re.compile(r"^[ \t]*```([^\n`]*)\n?", re.MULTILINE)
_PYTHON = ("", "python", "python3", "py")
_DEFINED = re.compile(r"^(?:async[ \t]+)?def[ \t]+(\w+)", re.MULTILINE)


def code_tests(
    tasks: Sequence[Task],
    completions: Sequence[str],
    *,
    workers: _Count | None = None,
    cpu_s: _Count = 5,
    wall_s: _Positive = 20.0,
    memory_mb: _Count = 512,
    unsafe: bool = False,
) -> list[float | Missing]:
    """1.0 where the program passes every test of its row, else 0.0.

    A row has `test` and `entry_point`, or `test_list`, or `stdin` and `stdout`. Missing where the row has no tests
    that can be run, or where the machine could not run them; never for what the program does.

    Args:
        workers: programs at a time; two a core where not given, since half of a program's time is waiting.
        cpu_s, wall_s, memory_mb: of each program, in seconds and megabytes.
        unsafe: run programs also where they cannot be isolated. They can then do what you can.
    Raises: SandboxError where programs cannot be isolated, unless `unsafe`.
    """
    rows = [job(task, completion) for task, completion in zip(tasks, completions, strict=True)]
    runnable = [row for row in rows if not isinstance(row, Missing)]
    limits = Limits(cpu_s=cpu_s, wall_s=wall_s, memory_mb=memory_mb)
    judged = iter(judge(runnable, limits, workers=workers, unsafe=unsafe).verdicts)
    scores: list[float | Missing] = []
    for row in rows:
        if isinstance(row, Missing):
            scores.append(row)
            continue
        verdict = next(judged)
        scores.append(Missing(verdict.reason) if verdict.passed is None else float(verdict.passed))
    return scores


def judge(jobs: Sequence[Job], limits: Limits, *, workers: int | None = None, unsafe: bool = False) -> Batch:
    """Verdicts with their reasons, the isolation of each, and how long all of them took; the log says so too.

    Raises: SandboxError where programs cannot be isolated, unless `unsafe`.
    """
    kept = isolation(unsafe=unsafe)
    batch = judge_all(jobs, kept, limits, workers=workers or 2 * len(os.sched_getaffinity(0)))
    # Below full isolation every batch says so, where nobody asked for a log as well.
    level = logging.INFO if kept.level == "bubblewrap" else logging.WARNING
    said = f"{len(jobs)} programs, {batch.programs_per_s:.1f} a second, isolation {kept.level}"
    _LOG.log(level, "code_tests: %s", f"{said}: {kept.why}" if kept.why else said)
    return batch


def job(task: Task, completion: str) -> Job | Missing:
    """The program of a completion, with the tests of its row; Missing where the row has none."""
    columns = task.columns
    if columns.get("test") is not None:
        return _check(task.prompt, columns, completion)
    if columns.get("test_list") is not None:
        return _asserts(columns, completion)
    if columns.get("stdout") is not None:
        return _outputs(columns, completion)
    return Missing("the row has no tests: neither test with entry_point, nor test_list, nor stdin and stdout")


def program(completion: str, names: Sequence[str]) -> str:
    """The code in a completion: the last fenced block of Python that defines one of `names`, or else the last one.

    A completion without a fence is code itself. One whose first fence can only be a closing one began inside of a
    block, which the prompt opened.
    """
    pieces = _FENCE.split(completion)  # text, language, text, language, text ...
    texts, languages = pieces[0::2], [language.strip().lower() for language in pieces[1::2]]
    if not languages:
        return completion
    if languages[0] == "" and len(languages) % 2 == 1:
        blocks = texts[0::2]
    else:
        blocks = [text for text, language in zip(texts[1::2], languages[0::2], strict=True) if language in _PYTHON]
    defining = [block for block in blocks if set(_DEFINED.findall(block)) & set(names)]
    return (defining or blocks or [completion])[-1]


def _check(prompt: str, columns: Mapping[str, Any], completion: str) -> Job | Missing:
    """HumanEval: `test` defines `check(candidate)`, the prompt is code that the completion goes on with or repeats."""
    test, entry = columns["test"], columns.get("entry_point")
    if not isinstance(test, str) or not isinstance(entry, str) or not entry.isidentifier():
        return Missing("the row's test is no text, or its entry_point no name of a function")
    code = program(completion, [entry])
    given = program(prompt, [entry])
    preamble = given if entry in _DEFINED.findall(given) else ""
    whole = entry in _DEFINED.findall(code)
    sources = (f"{preamble}\n{code}", code) if whole else (preamble + code,)
    return CallTests(sources=sources, tests=(test,), functions=(entry,), preamble=preamble)


def _asserts(columns: Mapping[str, Any], completion: str) -> Job | Missing:
    """MBPP: `test_list` is assertions that call the program's functions by name; the prompt is prose."""
    tests, imports = columns["test_list"], columns.get("test_imports") or []
    setup = columns.get("test_setup_code") or ""
    if not _texts(tests) or not tests or not _texts(imports) or not isinstance(setup, str):
        return Missing("the row's test_list is no list of texts, or empty, or its setup no text")
    # A function may have the name of a built-in one, and only the dataset may say so: `sum` is in MBPP.
    reference = columns.get("code")
    functions = _DEFINED.findall(reference) if isinstance(reference, str) else []
    code = program(completion, re.findall(r"\w+", " ".join(tests)))
    return CallTests(
        sources=(code,), tests=tuple(tests), functions=tuple(functions), setup="\n".join([*imports, setup])
    )


def _outputs(columns: Mapping[str, Any], completion: str) -> Job | Missing:
    """Programs that read standard input; both columns are a text, or lists of as many texts."""
    given, expected = columns.get("stdin"), columns["stdout"]
    given = "" if given is None else given
    given = [given] if isinstance(given, str) else given
    expected = [expected] if isinstance(expected, str) else expected
    if not _texts(given) or not _texts(expected) or not expected or len(given) != len(expected):
        return Missing("the row's stdin and stdout are no texts or lists of as many texts each")
    return OutputTests(program(completion, []), tuple(zip(given, expected, strict=True)))


def _texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(text, str) for text in value)
