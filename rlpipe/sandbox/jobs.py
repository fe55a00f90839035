"""A program and its tests, and what came of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CallTests:
    """Tests that call functions of the program.

    Attributes:
        sources: the program, in the ways that a completion may be meant; the first one that compiles is run.
        tests: sources, run in order; where they define `check`, that is called with the first of `functions`.
        functions: names that are the program's, even where Python knows them too. Without any, every name that
            the tests use and do not define is the program's.
        preamble: what the dataset itself defines for the program, and the tests may use.
        setup: what the dataset defines for the tests alone.
    """

    sources: tuple[str, ...]
    tests: tuple[str, ...]
    functions: tuple[str, ...] = ()
    preamble: str = ""
    setup: str = ""


@dataclass(frozen=True)
class OutputTests:
    """Tests of a whole program: `cases` are pairs of standard input and the standard output it must give."""

    source: str
    cases: tuple[tuple[str, str], ...]


Job = CallTests | OutputTests


@dataclass(frozen=True)
class Verdict:
    """What came of a program.

    Attributes:
        passed: None where it is the data's or the machine's fault that nobody knows.
        reason: why it did not pass, or why nobody knows; empty on a pass. What a program said of itself is quoted.
        isolation: the level under which it ran.
        calls: how many calls, or tests of a whole program, it answered.
    """

    passed: bool | None
    reason: str
    isolation: str
    calls: int
